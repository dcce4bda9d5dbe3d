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
import signal
from collections import Counter
from enum import StrEnum
from pathlib import Path

from aiohttp import web

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.schema import Case, read_jsonl
from clinical_r1.simulator.config import Failures, SimulatorConfig
from clinical_r1.simulator.outside import AnswerKey
from clinical_r1.simulator.protocol import BadRequestError, Request, error_body, read_request, reply_body
from clinical_r1.simulator.responder import Responder


class Fault(StrEnum):
    """What can be made to go wrong."""

    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    HANG = "hang"
    MALFORMED = "malformed"
    TRUNCATED = "truncated"


def draw_fault(failures: Failures, seed: int, request: bytes, attempt: int) -> Fault | None:
    """The fault of one attempt, or None. `attempt` is what the client states in `x-stainless-retry-count`."""
    digest = hashlib.blake2b(request, digest_size=8, person=b"sim-fault", salt=attempt.to_bytes(4, "big"))
    digest.update(seed.to_bytes(8, "big", signed=True))
    draw = int.from_bytes(digest.digest(), "big") / 2**64
    for fault in Fault:
        draw -= getattr(failures, fault.value)
        if draw < 0:
            return fault
    return None


def spoil(content: str, fault: Fault) -> str:
    """A reply as a faulty model would leave it: without its end (truncated) or with its quotes lost (malformed)."""
    if fault is Fault.TRUNCATED:
        return content[: max(1, len(content) // 2)]
    return content.replace('"', "", 3) if '"' in content else content[: len(content) // 3]


JSON = "application/json"
_ACCEPTED = {"schema": ("text", "json_object", "json_schema"), "object": ("text", "json_object"), "refused": ("text",)}


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
        """POST /v1/chat/completions."""
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.counts["requests"] += 1
        try:
            return await self._chat(http)
        except BadRequestError as error:
            self.counts["bad_request"] += 1
            return web.Response(status=400, body=error_body(str(error), "invalid_request_error"), content_type=JSON)
        finally:
            self.in_flight -= 1

    async def _chat(self, http: web.Request) -> web.Response:
        raw = await http.read()
        request = read_request(raw)
        if request.response_format not in _ACCEPTED[self.config.json_mode]:
            raise BadRequestError(f"response_format of type {request.response_format!r} is not supported by this model")
        attempt = http.headers.get("x-stainless-retry-count", "0")
        fault = draw_fault(
            self.config.failures, self.config.seed, request.fingerprint, int(attempt) if attempt.isdigit() else 0
        )
        if self.config.latency_ms:
            await asyncio.sleep(self.config.latency_ms / 1000)
        if fault is not None:
            self.counts[f"fault_{fault}"] += 1
            if fault is Fault.HANG:
                await asyncio.sleep(24 * 3600)
            if fault in (Fault.RATE_LIMITED, Fault.SERVER_ERROR):
                return self._error(fault)
        response = self._answer(request, fault)
        self.counts["replies"] += 1
        self.counts[f"task_{request.task or 'none'}"] += 1
        self.served.append(http.headers.get("Idempotency-Key", ""))
        return response

    def _answer(self, request: Request, fault: Fault | None) -> web.Response:
        content, finish = self.responder.reply(request), "stop"
        if fault is not None:
            content, finish = spoil(content, fault), "length" if fault is Fault.TRUNCATED else "stop"
        identity = hashlib.blake2b(request.fingerprint, digest_size=8).hexdigest()
        return web.Response(body=reply_body(request, self.config.model, content, finish, identity), content_type=JSON)

    def _error(self, fault: Fault) -> web.Response:
        if fault is Fault.SERVER_ERROR:
            return web.Response(status=500, body=error_body("injected", "server_error"), content_type=JSON)
        seconds = self.config.failures.retry_after
        headers = {"Retry-After": str(-int(-seconds // 1)), "retry-after-ms": str(int(1000 * seconds))}
        body = error_body("injected", "rate_limit_error", "rate_limit_exceeded")
        return web.Response(status=429, body=body, content_type=JSON, headers=headers)

    async def models(self, http: web.Request) -> web.Response:
        """GET /v1/models."""
        row = {"id": self.config.model, "object": "model", "created": 0, "owned_by": "simulator"}
        return web.json_response({"object": "list", "data": [row]})

    async def stats(self, http: web.Request) -> web.Response:
        """GET /sim/stats."""
        counts = {"in_flight": self.in_flight, "most_in_flight": self.most_in_flight, **self.counts}
        return web.json_response(counts)

    async def served_keys(self, http: web.Request) -> web.Response:
        """GET /sim/served?since=N."""
        return web.json_response(self.served[int(http.query.get("since", 0)) :])


def routes(endpoint: Endpoint) -> list[web.RouteDef]:
    """The routes of one endpoint."""
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
    site = web.TCPSite(runner, host, port, backlog=4096)
    try:
        await site.start()
    except OSError as error:
        raise UserError(
            f"simulator: cannot listen on {host}:{port} ({error.strerror}); choose another --port"
        ) from None
    address = runner.addresses[0]
    base_url = f"http://{host}:{address[1]}/v1"
    if ready_file is not None:
        write_text(ready_file, json.dumps({"base_url": base_url, "port": address[1], "pid": os.getpid()}) + "\n")
    print(f"simulated endpoint (not a language model) at {base_url}", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await runner.cleanup()


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m clinical_r1.simulator.server", description=__doc__.split("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--ready-file", type=Path, help="JSON with base_url, written when the server listens")
    parser.add_argument("--key", type=Path, action="append", default=[], help="cases.jsonl whose references it may use")
    parser.add_argument("--parent", type=int, help="process id to follow: end when it ends")
    for name, field in SimulatorConfig.model_fields.items():
        if name not in ("failures", "json_mode"):
            kind = {"seed": int, "model": str}.get(name, float)
            parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=field.default)
    parser.add_argument("--json-mode", choices=("schema", "object", "refused"), default="schema")
    for name, field in Failures.model_fields.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=field.default)
    return parser.parse_args(argv)


def configuration(arguments: argparse.Namespace) -> SimulatorConfig:
    """The configuration that the arguments describe; raises UserError where a value is out of range."""
    from pydantic import ValidationError

    from clinical_r1.schema import first_problem

    given = vars(arguments)
    try:
        failures = Failures(**{name: given[name] for name in Failures.model_fields})
        rest = {name: given[name] for name in SimulatorConfig.model_fields if name != "failures"}
        return SimulatorConfig(failures=failures, **rest)
    except ValidationError as error:
        raise UserError(f"simulator: {first_problem(error)}") from None


async def _follow(parent: int) -> None:
    """Return when the parent process is gone, so that a killed run leaves no server behind."""
    while os.getppid() == parent or _alive(parent):
        await asyncio.sleep(1.0)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


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
