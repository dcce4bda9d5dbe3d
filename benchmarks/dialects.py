"""Does every answer mean the same, in whatever dialect its thought is marked, whichever way it comes?

    python -m benchmarks.dialects [--cases ../shared/cases]

Each answer is written in every dialect and read by evaluation: from a fake endpoint, through our own gateway in front
of a fake engine (unary and streamed), and from the CPU engine (its real server and scheduler, a decoder that replays
tokens) behind the gateway. Verdict, outcome, thought and response have to be the same, reasoning tokens within 1%.
The judge's handed replies are read as verdicts, plain and behind a thought in every dialect. The last line is one JSON
object; `wrong` must be 0.
"""

import argparse
import asyncio
import copy
import json
import re
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from aiohttp import web

from clinical_r1.evaluation.answer import answer_by_endpoint
from clinical_r1.evaluation.config import EvaluationConfig
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.reply import parse_reply, read_reply
from clinical_r1.reasoning import Outcome
from clinical_r1.schema import Case, Prediction
from clinical_r1.verifier.judgement import Judgement
from clinical_r1.verifier.rule import RuleVerifier
from clinical_r1.verifier.verifier import Judged

SHARED = Path(__file__).parents[1] / "../shared/cases"
FORMS = {
    "think": "<think>\n{t}\n</think>\n\n{a}",
    "tags": "<Thinking>\n{t}\n</Thinking>\n\n{a}",
    "brackets": "[THINK]{t}[/THINK]\n{a}",
    "opened": "{t}\n</think>\n\n{a}",
    "headings": "## Thinking\n\n{t}\n\n## Final Response\n\n{a}",
    "headings_zh": "## 思考过程\n\n{t}\n\n## 最终回答\n\n{a}",
    "phrases": "Here is my thought process:\n{t}\n\nHere is my response:\n{a}",
    "channels": "<|channel|>analysis<|message|>{t}<|end|><|start|>assistant<|channel|>final<|message|>{a}",
    "channels_bare": "analysis{t}assistantfinal{a}",
    "gemma": "<unused94>thought\n{t}<unused95>{a}",
}
EN = (
    "She has cough and fever for {n} days; temperature <39 °C. It might be asthma, or tuberculosis; crackles at the "
    "base decide.\n\n- {{CURB-65}}: low\n- **Not** asthma: no wheeze. "
)
ZH = "患者咳嗽、发热{n}天，体温<39℃。可能是哮喘或肺结核？右下肺湿啰音提示肺部感染。\n\n综上考虑。"
BESIDE = ("field", "hidden")
WAYS = ("endpoint", "gateway", "stream", "engine")
END = "<|im_end|>"


class Answer(NamedTuple):
    """What a model thinks and says, and of what."""

    case: Case
    thought: str
    response: str


def answers(cases: Path) -> list[Answer]:
    """The handed answers that have a thought and a response, and our own: right and wrong ones in two languages."""
    said = [(EN, "Pneumonia"), (EN, "Asthma"), (ZH, "肺炎"), (ZH, "支气管哮喘")]
    said.append((EN, "**Pneumonia**\n\n## Plan\n- antibiotics"))
    handed = cases / "evaluation" / "endpoint_answers.jsonl"
    for line in handed.read_text(encoding="utf-8").splitlines() if handed.is_file() else ():
        right = json.loads(line)["right"]
        if isinstance(right, dict) and "response" in right:
            said.append((right.get("thinking", "She coughs; asthma or pneumonia? Crackles. "), right["response"]))
    made = []
    for number, (thought, response) in enumerate(said):
        asked = {"language": "en", "question": f"Case {number}: cough and fever. Diagnosis?", "reference": "Pneumonia"}
        if thought is ZH:
            asked = {"language": "zh", "question": f"病例{number}：咳嗽、发热。最可能的诊断？", "reference": "肺炎"}
        # Of so many tokens that the line ends beside a tag, which are part of a thought's tokens, are within 1%.
        long = " ".join(thought.format(n=n) for n in range(1 + 3000 // len(thought))).strip()
        made.append(Answer(Case.model_validate({"id": f"k{number}", **asked}), long, response))
    return made


class World:
    """Servers on an event loop of their own, and what they say."""

    def __init__(self, said: list[Answer], tokenizer: Any) -> None:
        self.said, self.tokenizer = said, tokenizer
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(300)

    def tokens(self, text: str) -> int:
        return len(self.tokenizer.encode(text, add_special_tokens=False))

    def answer_to(self, text: str) -> Answer:
        """The answer to the question in a prompt; the first one to a probe's."""
        return next((one for one in self.said if one.case.question in text), self.said[0])

    async def listen(self, app: web.Application) -> str:
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    def endpoint(self, form: str) -> web.Application:

        async def chat(request: web.Request) -> web.StreamResponse:
            body = await request.json()
            message, usage = self.message(form, self.answer_to(body["messages"][-1]["content"]))
            head = {"id": "x", "model": "m", "created": 1}
            if not body.get("stream"):
                choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
                return web.json_response({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
            out = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await out.prepare(request)
            deltas = [{name: piece} for name, text in message.items() for piece in re.findall(r"(?s).{1,7}", text)]
            for delta in [*deltas, None]:
                choice = {"index": 0, "delta": delta or {}, "finish_reason": None if delta else "stop"}
                event = {**head, "object": "chat.completion.chunk", "choices": [choice]}
                await out.write(f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode())
            await out.write(b"data: [DONE]\n\n")
            return out

        async def models(request: web.Request) -> web.Response:  # also what /health answers
            return web.json_response({"data": [{"id": "m", "max_model_len": 32768}]})

        app = web.Application()
        app.router.add_post("/v1/chat/completions", chat)
        app.add_routes([web.get(path, models) for path in ("/v1/models", "/health")])
        return app

    def message(self, form: str, one: Answer) -> tuple[dict[str, str], dict[str, Any]]:
        """(message, usage); usage states reasoning tokens as engines with a parser do."""
        thought, message = self.tokens(one.thought), {"content": one.response}
        total = thought + self.tokens(one.response)
        if form == "field":
            message = {"reasoning_content": one.thought, **message}
        elif form in FORMS:
            message = {"content": FORMS[form].format(t=one.thought, a=one.response)}
            encode = plain_tokenizer(self.tokenizer, form).encode
            total = len(encode(message["content"], add_special_tokens=False))
        counted = {"reasoning_tokens": thought}
        return message, {"prompt_tokens": 9, "completion_tokens": total + 1, "completion_tokens_details": counted}

    def engine(self, form: str) -> web.Application:
        """Our CPU engine with a decoder that replays the answer's tokens."""
        from serving.engine.answer import Served
        from serving.engine.api import build_app
        from serving.engine.scheduler import Scheduler

        template = plain_tokenizer(self.tokenizer, form)
        end = template.convert_tokens_to_ids(END)

        class Replay:
            window = 32768

            @staticmethod
            def generate(prompts: Any, params: Any, on_token: Any, seeds: Any) -> None:
                for row, prompt in enumerate(prompts):
                    one = self.answer_to(template.decode(prompt))
                    text = FORMS[form].format(t=one.thought, a=one.response)
                    for token in [*template.encode(text, add_special_tokens=False), end]:
                        if on_token(row, token):
                            break

        scheduler = Scheduler(Replay(), [end], template.pad_token_id)
        return build_app(Served("m", template.backend_tokenizer, template, 32768, scheduler))

    async def gateway(self, upstream: str, tokenizer: Path) -> Any:
        """Our gateway in front; it finds the dialect out by itself."""
        from serving.gateway.app import build_gateway
        from serving.gateway.config import GatewayConfig
        from serving.gateway.server import Listener

        settings = {"port": 0, "auth": "none", "audit_file": "", "upstream": upstream, "tokenizer": tokenizer}
        listener = Listener(build_gateway(GatewayConfig.model_validate(settings)))
        await listener.start()
        return listener


def plain_tokenizer(trained: Any, form: str) -> Any:
    """The tokenizer as the model of a form has it: think tags are tokens where it thinks in them, and a template that
    opens the thought where the form says so."""
    tokenizer = copy.deepcopy(trained)
    if form not in ("think", "opened"):
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        state["added_tokens"] = [one for one in state["added_tokens"] if "think" not in one["content"]]
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast

        template = tokenizer.chat_template
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(json.dumps(state)), eos_token=END, pad_token="<|endoftext|>"
        )
        tokenizer.chat_template = template
    if form == "opened":
        tokenizer.chat_template = tokenizer.chat_template.replace("assistant\n'", "assistant\n<think>\n'")
    return tokenizer


async def streamed(base: str, question: str) -> tuple[str, str]:
    """(thought, response) of a stream, as a client joins it."""
    parts = {"reasoning_content": "", "content": ""}
    body = {"model": "m", "messages": [{"role": "user", "content": question}], "stream": True}
    async with aiohttp.ClientSession() as session, session.post(f"{base}/v1/chat/completions", json=body) as reply:
        async for line in reply.content:
            if line.startswith(b"data: {"):
                for choice in json.loads(line[6:]).get("choices", ()):
                    for name in parts:
                        parts[name] += choice["delta"].get(name) or ""
    return parts["reasoning_content"], parts["content"]


class Score:
    """What was compared, and what was wrong."""

    def __init__(self, world: World) -> None:
        self.world, self.judge = world, RuleVerifier()
        self.compared = 0
        self.wrong: list[str] = []

    def see(self, place: str, right: bool) -> None:
        self.compared += 1
        if not right:
            self.wrong.append(place)

    def predictions(self, place: str, rows: list[Prediction], hidden: bool) -> None:
        """Rows of an evaluation against what was said."""
        for one, row in zip(self.world.said, rows, strict=True):
            tokens = self.world.tokens(one.thought)
            same = (row.thinking, row.response) == ("" if hidden else one.thought, one.response)
            verdicts = {self.judge.judge_sync(Judgement.of(one.case, r)).label for r in (row.response, one.response)}
            counted = abs(row.reasoning_tokens - tokens) <= 0.01 * tokens
            right = row.outcome is Outcome.OK and same and len(verdicts) == 1 and counted
            self.see(f"{place} {one.case.id}: {row.outcome}, {row.reasoning_tokens} of {tokens} tokens", right)


def evaluated(base: str, said: list[Answer], name: str) -> list[Prediction]:
    entry = EndpointConfig(name=name, base_url=f"{base}/v1", model="m", trusted=True)
    with tempfile.TemporaryDirectory() as state:
        return answer_by_endpoint(EvaluationConfig(), entry, [one.case for one in said], Path(state)).rows


@contextmanager
def behind(world: World, upstream: str, tokenizer: Any, folder: Path) -> Iterator[str]:
    """The address of a gateway in front of an engine."""
    path = folder / "tokenizer.json"
    tokenizer.backend_tokenizer.save(str(path))
    listener = world.call(world.gateway(upstream, path))
    try:
        yield f"http://127.0.0.1:{listener.port}"
    finally:
        world.call(listener.stop())


def judge_replies(score: Score, cases: Path) -> None:
    """Each handed reply of a judge, alone and behind a thought with a draft in it, in every dialect."""
    path = cases / "endpoint" / "judge_replies.jsonl"
    if not path.is_file():
        print(f"skipped: {path.name} is not in ../shared/cases beside the repository")
        return
    thought = 'If it matched I would say {"verdict":"correct"}. The set {a, b does not fit.'
    for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        right = re.findall(r"\w+", row["right"])
        for name, form in {"as it is": "{a}", **({} if "</think" in row["reply"] else FORMS)}.items():
            content = form.replace("{t}", thought).replace("{a}", row["reply"])
            body = {"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}
            parsed = parse_reply(read_reply(json.dumps(body).encode()).text, Judged)
            said = parsed.verdict if parsed else "invalid"
            score.see(f"judge {row['name']} {name}: {said}", said in right)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dialects", description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=Path, default=SHARED)
    given = parser.parse_args()
    from clinical_r1.training.base import train_tokenizer

    said = answers(given.cases)
    trained = train_tokenizer([text for one in said for text in (one.thought, one.response)] * 3, 700)
    world = World(said, trained)
    score = Score(world)
    for form in (*FORMS, *BESIDE):
        fake = world.call(world.listen(world.endpoint(form)))
        score.predictions(f"endpoint {form}", evaluated(fake, said, form), form == "hidden")
        if form == "hidden":  # engines behind our gateway hide nothing
            continue
        with tempfile.TemporaryDirectory() as folder:
            with behind(world, fake, plain_tokenizer(trained, form), Path(folder)) as gate:
                score.predictions(f"gateway {form}", evaluated(gate, said, form), False)
                for one in said:
                    got = world.call(streamed(gate, one.case.question))
                    score.see(f"stream {form} {one.case.id}", got == (one.thought, one.response))
            if form in FORMS:
                engine = world.call(world.listen(world.engine(form)))
                with behind(world, engine, plain_tokenizer(trained, form), Path(folder)) as gate:
                    score.predictions(f"engine {form}", evaluated(gate, said, form), False)
    judge_replies(score, given.cases)
    for place in score.wrong[:20]:
        print(f"wrong: {place}")
    counts = {"wrong": len(score.wrong), "compared": score.compared, "answers": len(said)}
    print(json.dumps({**counts, "dialects": len(FORMS) + len(BESIDE), "ways": list(WAYS)}))
    return 1 if score.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
