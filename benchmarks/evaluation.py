"""How fast is the runner? Tokens per second against HF generate, and cases per second through an endpoint.

    python -m benchmarks.evaluation                 # a tiny random model, 256 cases; 3,500 cases at 200 ms
    python -m benchmarks.evaluation --cases 16 --endpoint-cases 64

The last line is one JSON object: vs_single (over one-at-a-time HF generate), vs_batched (over HF generate in fixed
batches), endpoint_ideal_ratio (ideal seconds / measured seconds).
"""

import argparse
import asyncio
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from aiohttp import web

from clinical_r1.evaluation.answer import LocalAnswerer, answer_by_endpoint
from clinical_r1.evaluation.config import EvaluationConfig
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.schema import Case, write_jsonl


def make_cases(count: int) -> list[Case]:
    """Invented cases of different lengths."""
    words = ["fever", "cough", "dyspnea", "fatigue", "nausea", "headache", "rash", "vomiting", "dizziness"]
    return [
        Case(
            language="en",
            question=f"Case {index}: a {20 + index % 60}-year-old with {', '.join(words[: 2 + index % 7])}. Diagnosis?",
            reference="Pneumonia",
        )
        for index in range(count)
    ]


def local(count: int, new_tokens: int, batch: int, folder: Path) -> dict[str, float]:
    """Tokens per second of the three ways on one tiny model."""
    import torch

    from clinical_r1.generation.chat import prompt_ids
    from clinical_r1.training.base import TinyModelConfig, make_base_model

    cases = make_cases(count)
    write_jsonl(folder / "cases.jsonl", cases)
    make_base_model(TinyModelConfig(vocab_size=800, window=512), [folder / "cases.jsonl"], folder / "model")
    config = EvaluationConfig(max_new_tokens=new_tokens, batch_rows=count)
    answerer = LocalAnswerer(config, folder / "model")
    model, tokenizer = answerer.decoder.model, answerer.tokenizer
    jobs = [(case, 0) for case in cases]
    answerer.answer(jobs[:2])
    start = time.perf_counter()
    ours = sum(tokens for _, _, tokens in answerer.answer(jobs)) / (time.perf_counter() - start)

    def hf(chunk: list[Case]) -> int:
        prompts = [prompt_ids(tokenizer, case.prompt) for case in chunk]
        longest = max(map(len, prompts))
        ids = torch.tensor([[tokenizer.pad_token_id] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        settings = {"max_new_tokens": new_tokens, "do_sample": False, "pad_token_id": tokenizer.pad_token_id}
        output = model.generate(ids, attention_mask=mask, eos_token_id=tokenizer.eos_token_id, **settings)
        ends = (output[:, longest:] == tokenizer.eos_token_id).long()
        return int((ends.cumsum(1) - ends == 0).sum())

    def rate(chunks: list[list[Case]]) -> float:
        start = time.perf_counter()
        return sum(hf(chunk) for chunk in chunks) / (time.perf_counter() - start)

    single = rate([[case] for case in cases[: max(4, count // 16)]])
    batched = rate([cases[i : i + batch] for i in range(0, count, batch)])
    return {"tokens_per_s": ours, "vs_single": ours / single, "vs_batched": ours / batched}


async def _serve(latency: float) -> None:
    """Answer with a fixed text after a while; prints its base URL, ends with its parent's pipe."""
    reply = {"content": "<think>\nfever\n</think>\n\nPneumonia", "role": "assistant"}
    choice = {"index": 0, "finish_reason": "stop", "message": reply}
    usage = {"prompt_tokens": 20, "completion_tokens": 12, "total_tokens": 32}
    body = {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
    content = json.dumps(body).encode()

    async def chat(request: web.BaseRequest) -> web.Response:
        if request.method != "POST":  # the list of models
            raise web.HTTPNotFound
        await request.read()
        await asyncio.sleep(latency)
        return web.Response(body=content, content_type="application/json")

    runner = web.ServerRunner(web.Server(chat, access_log=None))  # type: ignore[arg-type]
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def endpoint(count: int, in_flight: int, latency: float, folder: Path) -> dict[str, float]:
    """Ideal over measured seconds of `count` cases; the endpoint is a process of its own."""
    command = [sys.executable, "-m", "benchmarks.evaluation", "--serve", "--latency-ms", str(1000 * latency)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None and server.stdin is not None
    try:
        url = server.stdout.readline().strip()
        target = EndpointConfig(name="bench", base_url=url, model="m", trusted=True, max_concurrency=in_flight)
        answer_by_endpoint(EvaluationConfig(), target, make_cases(2), folder / "warm-up")
        start, cpu = time.perf_counter(), time.process_time()
        rows, failed, *_ = answer_by_endpoint(EvaluationConfig(), target, make_cases(count), folder / "state")
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    finally:
        server.stdin.close()
        server.wait(10)
    ideal = math.ceil(count / in_flight) * latency
    return {
        "endpoint_seconds": seconds,
        "endpoint_ideal_ratio": ideal / seconds,
        "endpoint_cpu_ms_per_case": 1000 * cpu / count,
        "failed": failed,
        "answered": len(rows),
    }


def main() -> None:
    """Run both; print one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=256)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32, help="rows of HF generate's fixed batches")
    parser.add_argument("--endpoint-cases", type=int, default=3500)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--latency-ms", type=float, default=200)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvloop.run(_serve(options.latency_ms / 1000))
        return
    with tempfile.TemporaryDirectory() as name:
        result = endpoint(options.endpoint_cases, options.in_flight, options.latency_ms / 1000, Path(name))
        result |= local(options.cases, options.new_tokens, options.batch, Path(name))
    print(json.dumps({key: round(value, 3) for key, value in result.items()}))


if __name__ == "__main__":
    main()
