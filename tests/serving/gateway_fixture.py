"""A running gateway in front of a scripted engine, and a client that reads it as clients do."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
from scripted_engine import ScriptedEngine

from serving.gateway.app import build_gateway
from serving.gateway.config import GatewayConfig
from serving.gateway.server import Listener

PATIENCE = 120.0
"""Seconds after which a test says that something never came; no check depends on how much sooner it does."""
ASK: dict[str, Any] = {"model": "engine-model", "messages": [{"role": "user", "content": "Fever for three days?"}]}


async def until(holds: Callable[[], object], what: str = "what was waited for") -> None:
    """Wait until it holds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while not holds():
        assert loop.time() < deadline, f"{what} never came"
        await asyncio.sleep(0.01)


class TooLateError(AssertionError):
    """A limit passed before there was anything for it to cut: nothing is shown by that, the machine was slow."""


async def given_time(check: Callable[[float], Awaitable[None]], seconds: float) -> None:
    """Run the check of a limit of so many seconds; with twice as many as long as it ends in a TooLateError."""
    while True:
        try:
            return await check(seconds)
        except TooLateError:
            if seconds > PATIENCE:
                raise
            seconds *= 2


async def talk(port: int, data: bytes, answers: int = 1) -> bytes:
    """Send bytes as they are; what comes back until the server closes, or until so many whole answers came and nothing
    more for a moment."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    out = b""
    with contextlib.suppress(TimeoutError, ConnectionError):
        while part := await asyncio.wait_for(reader.read(65536), 0.1 if whole_answers(out) >= answers else PATIENCE):
            out += part
    writer.close()
    return out


def whole_answers(data: bytes) -> int:
    """How many answers with a Content-Length these bytes begin with."""
    found = 0
    while True:
        head, end, data = data.partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        if not end or not length or len(data) < int(length[1]):
            return found
        data = data[int(length[1]) :]
        found += 1


class Running:
    """Gateway, engine and client together."""

    def __init__(self, engine: ScriptedEngine, listener: Listener, session: aiohttp.ClientSession) -> None:
        self.engine, self.listener, self.session = engine, listener, session
        self.base = f"http://127.0.0.1:{listener.port}"

    async def unary(self, **more: Any) -> tuple[int, dict[str, Any]]:
        async with self.session.post(f"{self.base}/v1/chat/completions", json={**ASK, **more}) as response:
            return response.status, await response.json()

    async def stream(self, **more: Any) -> list[dict[str, Any]]:
        body = {**ASK, "stream": True, **more}
        async with self.session.post(f"{self.base}/v1/chat/completions", json=body) as response:
            if response.status == 504:
                raise TooLateError(await response.text())
            assert response.status == 200, await response.text()
            text = (await response.read()).decode()
        events = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
        return [json.loads(event) for event in events if event != "[DONE]"]

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        async with self.session.get(self.base + path, headers=headers) as response:
            return response.status, await response.text()

    async def sample(self, name: str, **labels: str) -> float:
        """Sum of the samples of a metric whose labels match."""
        return self.now(name, **labels)

    async def reaches(self, value: float, name: str, **labels: str) -> None:
        """Wait until a metric has this value."""
        await until(lambda: self.now(name, **labels) == value, f"{name} {value}")

    def now(self, name: str, **labels: str) -> float:
        """`sample` without an await."""
        registry = self.listener.gateway.metrics.registry
        return sum(
            sample.value
            for family in registry.collect()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def settled(self) -> None:
        """Wait until nothing is in flight."""
        await until(lambda: not self.listener.gateway.in_flight, "the end of a request")


def joined(chunks: list[dict[str, Any]], index: int = 0) -> tuple[str, str, str | None]:
    """(thinking, answer, finish reason) of a stream."""
    thinking, answer, reason = "", "", None
    for chunk in chunks:
        for choice in chunk.get("choices", []):
            if choice["index"] == index:
                thinking += choice["delta"].get("reasoning_content") or ""
                answer += choice["delta"].get("content") or ""
                reason = choice["finish_reason"] or reason
    return thinking, answer, reason


@contextlib.asynccontextmanager
async def running(engine: ScriptedEngine | None = None, **settings: Any) -> AsyncIterator[Running]:
    """Start both; settings are those of GatewayConfig."""
    engine = engine or ScriptedEngine()
    await engine.server.start_server()
    base = {"auth": "none", "audit_file": "", "port": 0, "upstream": engine.url}
    listener = Listener(build_gateway(GatewayConfig.model_validate({**base, **settings})))
    await listener.start()
    if engine.up:  # a loaded machine may miss the first probe of a living engine
        await until(lambda: listener.gateway.upstream.ready, "the engine")
    try:
        async with aiohttp.ClientSession() as session:
            yield Running(engine, listener, session)
    finally:
        await listener.stop()
        await engine.server.close()
