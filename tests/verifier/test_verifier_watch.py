"""A judge that does not judge ends the run with a sentence that shows the shape of its replies and no word of them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import yaml
from aiohttp import web

import clinical_r1
from clinical_r1.errors import UserError
from clinical_r1.llm.client import LLMClient
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.reply import shape
from clinical_r1.schema import VerdictLabel
from clinical_r1.verifier.config import tell_of_rules_alone
from clinical_r1.verifier.judgement import Judgement
from clinical_r1.verifier.verifier import PLAIN_ROOM, THINKING_ROOM, JudgeWatch, VerifierConfig, build_verifier

SECRET = "Mrs Hathaway with her lacunar infarct 腔隙性脑梗死"
Judge = Callable[..., Awaitable[tuple[EndpointConfig, list[dict]]]]


@pytest.fixture
async def judge() -> AsyncIterator[Judge]:
    """`entry, asked = await judge(reply)`: an endpoint whose reply is (text, finish_reason) of the request's body."""
    runners = []

    async def run(reply: Callable[[dict], tuple[str, str]]) -> tuple[EndpointConfig, list[dict]]:
        asked: list[dict] = []

        async def chat(request: web.Request) -> web.Response:
            asked.append(await request.json())
            text, finish = reply(asked[-1])
            message = {"role": "assistant", "content": text}
            return web.json_response({"model": "m", "choices": [{"message": message, "finish_reason": finish}]})

        app = web.Application()
        app.add_routes([web.post("/v1/chat/completions", chat)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        runners.append(runner)
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        return EndpointConfig(name="grader", base_url=url, model="m", max_resamples=0), asked

    yield run
    for runner in runners:
        await runner.cleanup()


def item(number: int) -> Judgement:
    return Judgement(f"case {number}", "gout", "It may be gout or so.", "en")


async def test_a_judge_without_verdicts_ends_the_run(judge: Judge) -> None:
    entry, asked = await judge(lambda body: (f"<think> {SECRET}", "stop"))
    async with LLMClient(entry) as client:
        verifier = build_verifier(VerifierConfig(kind="llm"), client)
        for number in range(49):
            assert (await verifier.judge(item(number))).label is VerdictLabel.INVALID
        with pytest.raises(UserError) as error:
            await verifier.judge(item(49))
    said = str(error.value)
    assert "judge grader: no verdict in 50 of its last 50 judgements (unparseable 50; most allowed: 20%)" in said
    assert "<think> 6 words 6 Chinese characters" in said
    assert not any(word in said for word in ("Hathaway", "lacunar", "infarct", "梗死"))
    assert len(asked) == 50


async def test_a_share_below_the_limit_ends_nothing(judge: Judge) -> None:
    counted: list[int] = []

    def reply(body: dict) -> tuple[str, str]:
        counted.append(1)
        return ("well" if len(counted) % 5 == 0 else '{"verdict": "correct"}', "stop")

    entry, _ = await judge(reply)
    async with LLMClient(entry) as client:
        verifier = build_verifier(VerifierConfig(kind="llm"), client)
        labels = [(await verifier.judge(item(number))).label for number in range(120)]
    assert labels.count(VerdictLabel.INVALID) == 24


async def test_a_judge_that_thinks_gets_room(judge: Judge) -> None:
    """It is cut off once, asked again with room, and from then on has it."""

    def reply(body: dict) -> tuple[str, str]:
        if body["max_tokens"] < THINKING_ROOM:
            return "<think> so much to say", "length"
        return '<think> all said </think> {"verdict": "incorrect"}', "stop"

    entry, asked = await judge(reply)
    async with LLMClient(entry) as client:
        verifier = build_verifier(VerifierConfig(kind="llm"), client)
        assert [(await verifier.judge(item(n))).label for n in range(3)] == [VerdictLabel.INCORRECT] * 3
        own = build_verifier(VerifierConfig(kind="llm", max_tokens=64), client)
        assert (await own.judge(item(9))).reason == "truncated"
    assert [body["max_tokens"] for body in asked] == [PLAIN_ROOM, *[THINKING_ROOM] * 3, 64]


def test_three_shapes_at_most_and_only_of_a_full_window() -> None:
    watch = JudgeWatch("j", limit=0.5, window=4)
    for number in range(3):
        watch.gave_none("unparseable", f"shape {number}")
    watch.gave_verdict()
    with pytest.raises(UserError, match=r"shape 1 \| shape 2 \| shape 3"):
        watch.gave_none("unparseable", "shape 3")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty"),
        ("The patient has gout.", "4 words"),
        ('Sure! {"verdict": "probably not"}', '1 word {"verdict":"2 words"}'),
        ('```json\n{"grade": 3}\n```', '``` json {"1 word": 1 word} ```'),
        ("<think>\n腔隙性脑梗死\n</think>\n正确", "<think> 6 Chinese characters </think> 正确"),
    ],
)
def test_a_shape_shows_structure_alone(text: str, expected: str) -> None:
    assert shape(text) == expected


def test_a_long_shape_is_shortened_in_the_middle() -> None:
    assert " ... " in shape("{a} " * 200)
    assert len(shape("{a} " * 200, cut=True)) < 150


def test_a_run_on_rules_alone_is_told_what_that_means(capsys: pytest.CaptureFixture[str]) -> None:
    tell_of_rules_alone(VerifierConfig(kind="ensemble"), "nothing")
    assert capsys.readouterr().err == ""
    tell_of_rules_alone(VerifierConfig(kind="rule"), "an undecided answer earns nothing")
    told = capsys.readouterr().err
    assert "judged by rules alone" in told
    assert "leave the rest undecided; an undecided answer earns nothing" in told


def test_no_shipped_configuration_runs_on_rules_alone() -> None:
    """But the demo's independent judge, and the arm of the audit that is the rules."""
    folder = Path(clinical_r1.__file__).parent
    found = []
    for path in sorted(folder.glob("**/configs/**/*.yaml")):
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        kinds = dict(_verifiers(settings))
        if path.name.startswith("ppo-"):
            assert kinds["judge.verifier"] != "rule"
        found += [(path.name, place) for place, kind in kinds.items() if kind == "rule"]
    assert found == [("demo.yaml", "evaluation.independent_judge.verifier"), ("audit-verifier.yaml", found[-1][1])]


def _verifiers(settings: object, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(settings, dict):
        for key, value in settings.items():
            where = f"{place}.{key}".lstrip(".")
            if key == "verifier" and isinstance(value, dict):
                yield where, value.get("kind", "rule")
            yield from _verifiers(value, where)
