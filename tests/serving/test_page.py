"""The chat page in a real browser."""

import asyncio
import os
from pathlib import Path

import pytest
from browser import CHROMIUM, browser
from gateway_fixture import running
from scripted_engine import Script

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")

THINKING = "Fever, cough and rusty sputum. Hmm, bronchitis would not give crackles in one place; lobar pneumonia would."
ENGLISH = f"<think>\n{THINKING}\n</think>\n\nLobar pneumonia.\n\n**Final diagnosis:** Lobar pneumonia"
CHINESE = (
    "<think>\n发热、咳嗽、铁锈色痰。嗯，支气管炎不会有局限的湿啰音。\n</think>\n\n大叶性肺炎。\n\n最终诊断：大叶性肺炎"
)
DONE = "['done', 'cut', 'failed'].includes([...document.querySelectorAll('.n-state')].at(-1)?.dataset.state)"


async def ask(page, text: str) -> None:
    await page.js(f"document.getElementById('question').value = {text!r}; document.getElementById('send').click()")


async def test_thinking_and_answer_apart_with_numbers_in_both_languages(tmp_path: Path) -> None:
    pictures = Path(os.environ.get("PAGE_PICTURES", tmp_path))
    async with running(chat_page=True, model_name="clinical-r1-demo", model_version="demo-1") as r, browser() as page:
        await page.open(r.base + "/")
        await page.until("document.body?.dataset.ready === 'yes'")
        await page.js("document.querySelector('[data-language=en]').click()")
        assert "Not a medical device" in await page.js("document.getElementById('use').textContent")
        r.engine.script = Script(texts=[ENGLISH], chunk=2, held=(seen := asyncio.Event()))
        await page.js("document.getElementById('example').click()")
        await page.js("document.getElementById('send').click()")
        await page.until("document.querySelector('.n-state')?.dataset.state === 'isThinking'")
        await page.picture(pictures / "thinking.png")
        seen.set()
        await page.until(DONE)
        assert await page.js("document.querySelector('.thought').textContent") == THINKING
        assert await page.js("document.querySelector('.said').textContent") == ENGLISH.split("</think>\n\n")[1]
        assert await page.js("document.querySelector('.concluded').textContent") == "Lobar pneumonia"
        assert r.engine.bodies[-1]["messages"][-1]["content"].endswith("Final diagnosis: ...")
        assert await page.js("document.querySelector('.n-tokens').textContent") == str(len(THINKING) + 2)
        assert (await page.js("document.querySelector('.n-first').textContent")).endswith(" s")
        await page.picture(pictures / "english.png")

        await page.js("document.querySelector('[data-language=zh]').click()")
        assert "不是医疗器械" in await page.js("document.getElementById('use').textContent")
        r.engine.script = Script(texts=[CHINESE], chunk=2)
        await ask(page, "发热三天，最可能的诊断是什么？")
        await page.until(f"document.querySelectorAll('article').length === 2 && {DONE}")
        assert (
            await page.js("[...document.querySelectorAll('.said')].at(-1).textContent")
            == CHINESE.split("</think>\n\n")[1]
        )
        assert await page.js("[...document.querySelectorAll('.concluded')].at(-1).textContent") == "大叶性肺炎"
        assert r.engine.bodies[-1]["messages"][-1]["content"].endswith("最终诊断：……")
        await page.picture(pictures / "chinese.png")
        assert page.problems == []


async def test_failures_and_an_answer_without_thought() -> None:
    async with running(chat_page=True) as r, browser(420, 800) as page:
        await page.open(r.base + "/")
        await page.until("document.body?.dataset.ready === 'yes'")
        await page.js("document.querySelector('[data-language=en]').click()")
        r.engine.script = Script(texts=["Flu <img src=x onerror=alert(1)>"])
        await ask(page, "q")
        await page.until(DONE)
        assert await page.js("document.querySelector('.said').textContent") == "Flu <img src=x onerror=alert(1)>"
        assert await page.js("document.querySelectorAll('article img').length") == 0
        assert await page.js("document.querySelector('.conclusion').hidden")
        assert "without thinking" in await page.js("document.querySelector('.thought').textContent")
        r.engine.script = Script(die_after=3)
        await ask(page, "q")
        await page.until(f"document.querySelectorAll('article').length === 2 && {DONE}")
        shown = await page.js("[...document.querySelectorAll('.failed')].at(-1).textContent")
        assert shown == "the engine's answer cannot be understood" or "failed" in shown
        await page.js("document.querySelector('[data-language=zh]').click()")
        await ask(page, "q")
        await page.until(f"document.querySelectorAll('article').length === 3 && {DONE}")
        assert "模型服务在作答时出错" in await page.js("[...document.querySelectorAll('.failed')].at(-1).textContent")
        # Nothing is wider than a phone's screen.
        assert await page.js("document.documentElement.scrollWidth <= innerWidth")
