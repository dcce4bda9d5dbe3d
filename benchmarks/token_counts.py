"""Are the gateway's token counts exact against a real vLLM? `python -m benchmarks.token_counts --model DIR`.

vLLM on the CPU serves the model; a recorder between it and the gateway keeps every raw answer with its token ids, which
the gateway does not get where it must retokenise. The truth is counted here from the recorded ids alone. Half of the
answers are streamed. DIR is a model folder whose tags are single tokens; questions are a few made-up lines in
English and Chinese. The last line is one JSON object.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from benchmarks.gateway_load.parties import VLLM, environment_python, free_port, running, say, wait_for
from clinical_r1.errors import UserError
from clinical_r1.folders import check_model_folder
from clinical_r1.reasoning import count_reasoning_tokens
from serving.gateway.app import build_gateway
from serving.gateway.config import GatewayConfig
from serving.gateway.counting import TokenizerCounter
from serving.gateway.server import Listener

QUESTIONS = (
    "A 45-year-old woman has fever and cough with rusty sputum; crackles over one lung. What is the diagnosis?",
    "A 62-year-old man has crushing chest pain and sweating for two hours. What is the diagnosis?",
    "A 30-year-old woman has palpitations, weight loss and tremor. What is the diagnosis?",
    "患者男，55岁，胸痛放射至左臂，大汗两小时。最可能的诊断是什么？",
    "患者女，28岁，尿频、尿急、尿痛三天，伴发热。最可能的诊断是什么？",
    "患者男，40岁，上腹痛，进食后加重，黑便两天。最可能的诊断是什么？",
)


class Recorder:
    """Passes requests to the engine, keeps what came back, and hides token ids where it is told to."""

    def __init__(self, upstream: str) -> None:
        self.upstream, self.hide_ids = upstream, False
        self.answers: list[list[int]] = []
        self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300))
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_route("*", "/{path:.*}", self.other)
        self.server = TestServer(app)

    async def other(self, request: web.Request) -> web.Response:
        """Health, models, tokenize: as they are."""
        passed = {"data": await request.read(), "headers": {"Content-Type": request.content_type}}
        async with self.session.request(request.method, self.upstream + request.path, **passed) as response:
            return web.Response(body=await response.read(), status=response.status, content_type=response.content_type)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Record the ids of one answer."""
        body = await request.json()
        body["return_token_ids"] = True
        async with self.session.post(self.upstream + "/v1/chat/completions", json=body) as response:
            if not body.get("stream"):
                answer = await response.json()
                self.answers.append(answer["choices"][0]["token_ids"])
                if self.hide_ids:
                    del answer["choices"][0]["token_ids"]
                return web.json_response(answer)
            out = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await out.prepare(request)
            ids: list[int] = []
            self.answers.append(ids)  # filled below: the client may be done before we are
            async for line in response.content:
                if line.startswith(b"data: {"):
                    chunk = json.loads(line[6:])
                    for choice in chunk["choices"]:
                        ids += choice.get("token_ids") or []
                        if self.hide_ids:
                            choice.pop("token_ids", None)
                    if self.hide_ids:
                        line = b"data: " + json.dumps(chunk).encode() + b"\n"
                await out.write(line)
            return out


async def ask(url: str, number: int, tokens: int, temperature: float) -> int | None:
    """One answer through the gateway; its reasoning tokens."""
    stream = bool(number % 2)
    body: dict[str, Any] = {
        "model": "bench",
        "messages": [{"role": "user", "content": QUESTIONS[number // 2 % len(QUESTIONS)]}],
        "max_tokens": tokens if number % 10 else 12,  # some thoughts are cut
        "seed": number,
        "temperature": temperature,
        "stream": stream,
    }
    if stream:
        body["stream_options"] = {"include_usage": True}
    async with aiohttp.ClientSession() as session, session.post(url + "/v1/chat/completions", json=body) as response:
        if response.status != 200:
            raise RuntimeError(f"the gateway answered {response.status}: {await response.text()}")
        if not stream:
            usage = (await response.json())["usage"]
        else:
            events = [line[6:] for line in (await response.text()).split("\n") if line.startswith("data: {")]
            usage = next(event["usage"] for event in map(json.loads, events) if event.get("usage"))
    return usage.get("completion_tokens_details", {}).get("reasoning_tokens")


async def compare(engine: str, model: Path, answers: int, tokens: int, temperature: float) -> dict[str, Any]:
    """Both methods, one answer after the other, so that recorded and reported answers pair up."""
    tokenizer = model / "tokenizer.json"
    tags = TokenizerCounter(tokenizer).tag_ids()
    if tags is None:
        raise UserError(f"{tokenizer}: <think> and </think> are not single tokens; give a model of this platform")
    recorder = Recorder(engine)
    out: dict[str, Any] = {}
    async with recorder.session, recorder.server as server:
        for method in ("token_ids", "retokenized"):
            recorder.hide_ids = method == "retokenized"
            config = GatewayConfig(
                port=0, auth="none", upstream=str(server.make_url("")).rstrip("/"), audit_file="", model_name="bench",
                tokenizer=tokenizer if recorder.hide_ids else None, token_ids=not recorder.hide_ids,
            )  # fmt: skip
            listener = Listener(build_gateway(config))
            await listener.start()
            gaps, truths = [], []
            for number in range(answers):
                reported = await ask(f"http://127.0.0.1:{listener.port}", number, tokens, temperature)
                truths.append(count_reasoning_tokens(recorder.answers[-1], *tags))
                gaps.append(abs((-1 if reported is None else reported) - truths[-1]))
                if gaps[-1]:
                    told = f"reported {reported}, true {truths[-1]} of {len(recorder.answers[-1])}"
                    say(f"  {method} {number} ({'stream' if number % 2 else 'unary'}): {told}")
            samples = [one for family in listener.gateway.metrics.registry.collect() for one in family.samples]
            outcomes: Counter[str] = Counter()
            for sample in samples:
                if sample.name == "clinical_r1_answers_total" and sample.value:
                    outcomes[sample.labels["outcome"]] += int(sample.value)
            await listener.stop()
            out[method] = {
                "answers": answers,
                "temperature": temperature,
                "exact": sum(gap == 0 for gap in gaps),
                "within_two": sum(gap <= 2 for gap in gaps),
                "most_off": max(gaps),
                "mean_reasoning_tokens": round(sum(truths) / len(truths), 1),
                "outcomes": dict(outcomes),
            }
            say(f"{method}: {out[method]}")
    return out


def main() -> int:
    """Start vLLM, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("runs/latest/model"), help="model folder")
    parser.add_argument("--answers", type=int, default=200, help="answers for each method")
    parser.add_argument("--tokens", type=int, default=256, help="longest answer")
    parser.add_argument("--temperature", type=float, default=0.7, help="higher ones make a tiny model misspell")
    given = parser.parse_args()
    try:
        model = check_model_folder(given.model).path
    except UserError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    port = free_port()
    command = [str(environment_python("bench-vllm", VLLM)), "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(model), "--dtype", "float32", "--enforce-eager", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--served-model-name", "engine", "--max-num-seqs", "8"]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1"}
    log = subprocess.DEVNULL if not os.environ.get("BENCH_VERBOSE") else None
    url = f"http://127.0.0.1:{port}"
    with running(command, env=environment, stdout=log, stderr=log) as engine:
        say("starting vLLM on the CPU")
        wait_for(url + "/health", engine, 1800)
        result = asyncio.run(compare(url, model, given.answers, given.tokens, given.temperature))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
