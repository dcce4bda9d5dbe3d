"""A simulated endpoint on loopback within the test's own event loop: real HTTP, no further process."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from llm_server import Running, Start

from clinical_r1.simulator.beside import Failures, SimulatorConfig
from clinical_r1.simulator.responder import AnswerKey
from clinical_r1.simulator.server import Endpoint, routes


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """`await start(latency_ms=5)` runs the simulated endpoint; `await start(f)` answers POSTs by `f`."""
    runners = []

    async def run(handler: Callable[[web.Request], Awaitable[web.Response]] | None = None, **knobs: Any) -> Running:
        app, endpoint = web.Application(), None
        if handler is None:
            failures = Failures(**{name: knobs.pop(name) for name in list(knobs) if name in Failures.model_fields})
            endpoint = Endpoint(SimulatorConfig(failures=failures, **knobs), AnswerKey.of(()))
            app.add_routes(routes(endpoint))
        else:
            app.router.add_post("/v1/chat/completions", handler)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        runners.append(runner)
        return Running(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", endpoint)

    yield run
    for runner in runners:
        await runner.cleanup()
