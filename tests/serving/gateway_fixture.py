"""A running gateway in front of a scripted engine, and a client that reads it as clients do."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from scripted_engine import ScriptedEngine

from serving.gateway.app import build_gateway
from serving.gateway.config import GatewayConfig
from serving.gateway.server import Listener

ASK: dict[str, Any] = {"model": "engine-model", "messages": [{"role": "user", "content": "Fever for three days?"}]}


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
            assert response.status == 200, await response.text()
            text = (await response.read()).decode()
        events = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
        return [json.loads(event) for event in events if event != "[DONE]"]

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        async with self.session.get(self.base + path, headers=headers) as response:
            return response.status, await response.text()

    async def sample(self, name: str, **labels: str) -> float:
        """Sum of the samples of a metric whose labels match."""
        registry = self.listener.gateway.metrics.registry
        return sum(
            sample.value
            for family in registry.collect()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def settled(self) -> None:
        """Wait until nothing is in flight."""
        for _ in range(400):
            if not self.listener.gateway.in_flight:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("a request did not end")


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
    for _ in range(250):  # a loaded machine may miss the first probe of a living engine
        if listener.gateway.upstream.ready or not engine.up or "upstream" in settings:
            break
        await asyncio.sleep(0.02)
    try:
        async with aiohttp.ClientSession() as session:
            yield Running(engine, listener, session)
    finally:
        await listener.stop()
        await engine.server.close()
