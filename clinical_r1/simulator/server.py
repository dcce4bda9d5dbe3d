"""The simulated endpoint: a real HTTP server on loopback that speaks the OpenAI chat protocol. Not a language model.

    python -m clinical_r1.simulator.server --port 0 --ready-file ready.json --latency-ms 200 --rate-limited 0.05

Routes: POST /v1/chat/completions, GET /v1/models, GET /sim/stats (counters), GET /sim/served (keys of the completed
calls, from their Idempotency-Key headers, in order). Replies and faults are functions of the request and the seed.
"""

import argparse
import asyncio
import hashlib
import json
import os
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.schema import Case, first_problem, read_jsonl
from clinical_r1.simulator.beside import Failures, SimulatorConfig
from clinical_r1.simulator.responder import BLOCKS, AnswerKey, Request, Responder

FAULTS = ("rate_limited", "server_error", "hang", "malformed", "truncated")
"""What can be made to go wrong."""
_TASK = re.compile(r"^\s*#\s*(?:Task|任务)\s*[:：]\s*([a-z_]+)")
_ACCEPTED = {"schema": ("text", "json_object", "json_schema"), "object": ("text", "json_object"), "refused": ("text",)}


class BadRequestError(Exception):
    """The client sent what the protocol does not allow; the message goes back with HTTP 400."""


def read_request(raw: bytes) -> Request:
    """Take a request apart; raises BadRequestError.

    The system message of a prompt begins with `# Task: <name>` (in Chinese `# 任务：<name>`); the user message carries
    blocks, each tag on its own line.
    """
    try:
        body: dict[str, Any] = json.loads(raw)
        messages = [(str(m["role"]), _text(m["content"])) for m in body["messages"]]
        seed = int(body.get("seed") or 0) if float(body.get("temperature", 1.0)) > 0 else 0
        form = str((body.get("response_format") or {}).get("type", "text"))
        str(body["model"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadRequestError("the body needs a model and messages with role and content") from None
    if not messages:
        raise BadRequestError("messages is empty")
    if body.get("stream"):
        raise BadRequestError("this endpoint does not stream")
    task = next((found[1] for role, text in messages if role == "system" and (found := _TASK.match(text))), "")
    last = next((text for role, text in reversed(messages) if role == "user"), "")
    blocks = dict.fromkeys(BLOCKS, "")
    for name in BLOCKS:  # from the first opening tag to the last closing one of its name
        start, end = last.find(f"<{name}>"), last.rfind(f"</{name}>")
        if 0 <= start < end:
            blocks[name] = last[start + len(name) + 2 : end].strip()
    everything = "\x1e".join(f"{role}\x1f{text}" for role, text in messages)
    # Chinese: at least a seventh of the characters are (three bytes each in UTF-8).
    chinese = (len(last.encode("utf-8", "replace")) - len(last)) // 2 > len(last) / 7
    fingerprint = f"{everything}\x1e{seed}".encode("utf-8", "replace")
    return Request(task, "zh" if chinese else "en", blocks, last, fingerprint, form, len(everything))


def _text(content: object) -> str:
    if isinstance(content, list):
        return "".join(str(part["text"]) for part in content if part.get("type") == "text")
    if not isinstance(content, str):
        raise TypeError
    return content


def draw_fault(failures: Failures, seed: int, request: bytes, attempt: int) -> str:
    """The fault of one attempt, or "". `attempt` is what the client states in `x-stainless-retry-count`."""
    digest = hashlib.blake2b(request, digest_size=8, person=b"sim-fault", salt=attempt.to_bytes(4, "big"))
    digest.update(seed.to_bytes(8, "big", signed=True))
    draw = int.from_bytes(digest.digest(), "big") / 2**64
    for fault in FAULTS:
        draw -= getattr(failures, fault)
        if draw < 0:
            return fault
    return ""


def _error(status: int, message: str, kind: str, code: str | None = None, **headers: str) -> web.Response:
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return web.json_response(body, status=status, headers=headers)


class Endpoint:
    """Handlers and counters of one server."""

    def __init__(self, config: SimulatorConfig, key: AnswerKey) -> None:
        self.config = config
        self.responder = Responder(config, key)
        self.counts: Counter[str] = Counter()
        self.in_flight = 0
        self.most_in_flight = 0
        self.served: list[str] = []

    async def chat(self, http: web.Request) -> web.Response:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.counts["requests"] += 1
        try:
            return await self._chat(http)
        except BadRequestError as error:
            self.counts["bad_request"] += 1
            return _error(400, str(error), "invalid_request_error")
        finally:
            self.in_flight -= 1

    async def _chat(self, http: web.Request) -> web.Response:
        config, request = self.config, read_request(await http.read())
        if request.response_format not in _ACCEPTED[config.json_mode]:
            raise BadRequestError(f"response_format of type {request.response_format!r} is not supported by this model")
        attempt = http.headers.get("x-stainless-retry-count", "0")
        fault = draw_fault(config.failures, config.seed, request.fingerprint, int(attempt) if attempt.isdigit() else 0)
        if config.latency_ms:
            await asyncio.sleep(config.latency_ms / 1000)
        if fault:
            self.counts[f"fault_{fault}"] += 1
        if fault == "hang":
            await asyncio.sleep(24 * 3600)
        if fault == "server_error":
            return _error(500, "injected", "server_error")
        if fault == "rate_limited":
            seconds = config.failures.retry_after
            headers = {"Retry-After": str(-int(-seconds // 1)), "retry-after-ms": str(int(1000 * seconds))}
            return _error(429, "injected", "rate_limit_error", "rate_limit_exceeded", **headers)
        response = self._answer(request, fault)
        self.counts["replies"] += 1
        self.counts[f"task_{request.task or 'none'}"] += 1
        self.served.append(http.headers.get("Idempotency-Key", ""))
        return response

    def _answer(self, request: Request, fault: str) -> web.Response:
        content = self.responder.reply(request)
        if fault == "truncated":  # as a faulty model would leave it: without its end, or with its quotes lost
            content = content[: max(1, len(content) // 2)]
        elif fault == "malformed":
            content = content.replace('"', "", 3) if '"' in content else content[: len(content) // 3]
        message, finish = {"role": "assistant", "content": content}, "length" if fault == "truncated" else "stop"
        prompt, completion = (max(1, size // 4) for size in (request.prompt_characters, len(content)))
        body = {
            "id": f"chatcmpl-{hashlib.blake2b(request.fingerprint, digest_size=8).hexdigest()}",
            "object": "chat.completion",
            "created": 0,
            "model": self.config.model,
            "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
        }
        raw = json.dumps(body, ensure_ascii=False).encode()
        return web.Response(body=raw, content_type="application/json")

    async def models(self, http: web.Request) -> web.Response:
        row = {"id": self.config.model, "object": "model", "created": 0, "owned_by": "simulator"}
        return web.json_response({"object": "list", "data": [row]})

    async def stats(self, http: web.Request) -> web.Response:
        counts = {"in_flight": self.in_flight, "most_in_flight": self.most_in_flight, **self.counts}
        return web.json_response(counts)

    async def served_keys(self, http: web.Request) -> web.Response:
        """GET /sim/served?since=N."""
        return web.json_response(self.served[int(http.query.get("since", 0)) :])


def routes(endpoint: Endpoint) -> list[web.RouteDef]:
    return [
        web.post("/v1/chat/completions", endpoint.chat),
        web.get("/v1/models", endpoint.models),
        web.get("/sim/stats", endpoint.stats),
        web.get("/sim/served", endpoint.served_keys),
    ]


async def serve(config: SimulatorConfig, key: AnswerKey, host: str, port: int, ready_file: Path | None) -> None:
    """Run until SIGTERM or SIGINT; writes {"base_url", "port", "pid"} to `ready_file` once it listens."""
    app = web.Application(client_max_size=16 << 20)
    app.add_routes(routes(Endpoint(config, key)))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=4096).start()
    except OSError as error:
        why = f"cannot listen on {host}:{port} ({error.strerror})"
        raise UserError(f"simulator: {why}; choose another --port") from None
    port = runner.addresses[0][1]
    base_url = f"http://{host}:{port}/v1"
    if ready_file is not None:
        write_text(ready_file, json.dumps({"base_url": base_url, "port": port, "pid": os.getpid()}) + "\n")
    print(f"simulated endpoint (not a language model) at {base_url}", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await runner.cleanup()


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m clinical_r1.simulator.server", description=__doc__.split("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--ready-file", type=Path, help="JSON with base_url, written when the server listens")
    parser.add_argument("--key", type=Path, action="append", default=[], help="cases.jsonl whose references it may use")
    parser.add_argument("--parent", type=int, help="process id to follow: end when it ends")
    parser.add_argument("--json-mode", choices=tuple(_ACCEPTED), default="schema")
    for name, field in (SimulatorConfig.model_fields | Failures.model_fields).items():
        if name not in ("failures", "json_mode"):
            kind = {"seed": int, "model": str}.get(name, float)
            parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=field.default)
    return parser.parse_args(argv)


def configuration(arguments: argparse.Namespace) -> SimulatorConfig:
    """The configuration that the arguments describe; raises UserError where a value is out of range."""
    given = vars(arguments)
    try:
        failures = Failures(**{name: given[name] for name in Failures.model_fields})
        rest = {name: given[name] for name in SimulatorConfig.model_fields if name != "failures"}
        return SimulatorConfig(failures=failures, **rest)
    except ValidationError as error:
        raise UserError(f"simulator: {first_problem(error)}") from None


async def _follow(parent: int) -> None:
    """Return when the parent process is gone, so that a killed run leaves no server behind."""
    alive = True
    while os.getppid() == parent or alive:
        await asyncio.sleep(1.0)
        try:
            os.kill(parent, 0)
        except OSError as error:
            alive = isinstance(error, PermissionError)


async def _run(arguments: argparse.Namespace) -> None:
    key = AnswerKey.of(case for path in arguments.key for case in read_jsonl(path, Case))
    tasks = [
        asyncio.create_task(serve(configuration(arguments), key, arguments.host, arguments.port, arguments.ready_file))
    ]
    if arguments.parent:
        tasks.append(asyncio.create_task(_follow(arguments.parent)))
    done, running = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in running:
        task.cancel()
    for task in done:
        task.result()


def main(argv: list[str] | None = None) -> int:
    """Entry point; 2 for wrong input."""
    try:
        asyncio.run(_run(parse_arguments(argv)))
    except UserError as error:
        print(error)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
