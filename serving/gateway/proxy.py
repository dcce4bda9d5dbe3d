"""POST /v1/chat/completions, the client's side: who asks, may they, what exactly; then it is forwarded."""

import asyncio
import time

from aiohttp import web

from serving.gateway.errors import RejectionError
from serving.gateway.exchange import Exchange
from serving.gateway.forward import forward
from serving.gateway.request import parse
from serving.gateway.state import GATEWAY, REQUEST_ID


async def chat(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions."""
    arrived = time.perf_counter()
    gateway = request.app[GATEWAY]
    key_id = gateway.identify(request)
    gateway.admit(key_id)
    gateway.in_flight += 1
    gateway.in_flight_of[key_id] += 1
    task = asyncio.current_task()
    assert task
    gateway.tasks.add(task)
    try:
        body = await read_body(request, gateway.config.limits.body_bytes, gateway.config.timeouts.body)
        engine = gateway.upstream
        config = gateway.config
        asked = parse(body, config.limits, engine.names, engine.context, config.tools, gateway.budgets)
        if not gateway.upstream.ready:
            raise RejectionError(503, "engine_unreachable", "the engine is not ready", retry_after=5)
        exchange = Exchange(
            request[REQUEST_ID],
            key_id,
            asked,
            arrived,
            gateway.metrics,
            gateway.audit,
            gateway.sampler,
            gateway.upstream.thinks,
            gateway.budgets.by_engine,
        )
        exchange.trace = gateway.tracing.begin(request.headers, exchange)
        return await forward(request, gateway, exchange)
    finally:
        gateway.in_flight -= 1
        gateway.in_flight_of[key_id] -= 1
        gateway.tasks.discard(task)


async def read_body(request: web.Request, limit: int, timeout: float) -> bytes:
    """The body, refused by its announced length before it is read, and cut off when it grows beyond the limit."""
    too_large = RejectionError(413, "body_too_large", f"the body may have at most {limit} bytes")
    if (request.content_length or 0) > limit:
        raise too_large
    if request.content_type != "application/json":
        raise RejectionError(415, "bad_media_type", "send Content-Type: application/json")
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise RejectionError(415, "bad_media_type", "send the body without Content-Encoding")
    if request.content.is_eof():  # it came along with the headers
        body = request.content.read_nowait()
        if len(body) > limit:
            raise too_large
        return body
    chunks, size = [], 0
    try:
        async with asyncio.timeout(timeout):
            async for chunk in request.content.iter_any():
                size += len(chunk)
                if size > limit:
                    raise too_large
                chunks.append(chunk)
    except TimeoutError:
        raise RejectionError(408, "body_timeout", "the body did not arrive in time") from None
    return b"".join(chunks)
