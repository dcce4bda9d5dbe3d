"""The engine's side of one request: send it, watch the clock, translate failures, close the books."""

import asyncio
import time

import aiohttp
import orjson
from aiohttp import web

from serving.gateway.errors import RejectionError
from serving.gateway.exchange import Exchange
from serving.gateway.request import Asked
from serving.gateway.rewrite import BadAnswerError, unary
from serving.gateway.sse import EventTooLongError
from serving.gateway.state import Gateway
from serving.gateway.stream import STARTED, ClientGoneError, stream


def engine_body(asked: Asked, gateway: Gateway) -> bytes:
    """What the engine is sent: the checked request and what the gateway itself wants to know."""
    body = {**gateway.decoding, **asked.forward}  # drawn as it was evaluated, unless the client asks otherwise
    body["model"] = gateway.upstream.engine_model
    if gateway.upstream.thinks.token_ids:
        body["return_token_ids"] = True
    dialect = gateway.upstream.thinks.dialect
    if gateway.config.thinking.tags_are_special or (dialect is not None and dialect.special):
        body["skip_special_tokens"] = False
    if asked.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return orjson.dumps(body)


async def forward(request: web.Request, gateway: Gateway, exchange: Exchange) -> web.StreamResponse:
    """Send it to the engine; whatever happens, the books are closed."""
    problem: RejectionError
    written = False
    try:
        limits = gateway.config.timeouts
        first = limits.first_byte if exchange.asked.stream else limits.total
        async with asyncio.timeout(min(first, limits.total)) as timer:
            async with await _post(gateway, exchange) as upstream:
                _check_status(upstream.status, gateway)
                if exchange.asked.stream:
                    return await stream(request, gateway, exchange, upstream, timer)
                response = await _whole(gateway, exchange, upstream)
                written = True
                return response
    except TimeoutError:
        if STARTED in request and request[STARTED].blocked:
            exchange.aborted_by = "client"  # it does not read what it asked for
            raise ConnectionResetError from None
        _blame(exchange, gateway, "timeout", "timeout")
        problem = RejectionError(504, "engine_timeout", "the engine did not answer in time")
    except aiohttp.ClientConnectorError:
        _blame(exchange, gateway, "engine", "connect")
        problem = RejectionError(502, "engine_unreachable", "the engine cannot be reached", retry_after=2)
    except aiohttp.ClientError:
        _blame(exchange, gateway, "engine", "died")
        problem = RejectionError(502, "engine_failed", "the engine failed while it answered")
    except (BadAnswerError, EventTooLongError):
        _blame(exchange, gateway, "engine", "bad_answer")
        problem = RejectionError(502, "engine_failed", "the engine's answer cannot be understood")
    except RejectionError:
        exchange.aborted_by = "engine"
        raise
    except asyncio.CancelledError:
        exchange.aborted_by = "shutdown" if gateway.closed else "client"
        if gateway.closed and STARTED in request:
            await request[STARTED].tell(RejectionError(503, "draining", "this replica is shutting down"))
        raise
    except ClientGoneError:
        exchange.aborted_by = "client"
        raise ConnectionResetError from None
    finally:
        if written:
            # The handler goes on to write the answer without a pause: the books can wait until that is done.
            asyncio.get_running_loop().call_soon(exchange.close)
        else:
            exchange.close()
    if STARTED not in request:
        raise problem
    return await request[STARTED].tell(problem)


def _blame(exchange: Exchange, gateway: Gateway, by: str, kind: str) -> None:
    exchange.aborted_by = by
    gateway.metrics.upstream_failed(kind)


async def _post(gateway: Gateway, exchange: Exchange) -> aiohttp.ClientResponse:
    """Send the request; once more if a kept connection turned out to be closed before anything came back."""
    body = engine_body(exchange.asked, gateway)
    headers = {"Content-Type": "application/json", "X-Request-Id": exchange.request_id}
    try:
        return await gateway.upstream.ask("POST", "/v1/chat/completions", data=body, headers=headers)
    except aiohttp.ServerDisconnectedError:
        return await gateway.upstream.ask("POST", "/v1/chat/completions", data=body, headers=headers)


def _check_status(status: int, gateway: Gateway) -> None:
    """Translate the engine's refusals; its own words may repeat the input and are dropped."""
    if status == 200:
        return
    kind = "http_429" if status in (429, 503) else "http_4xx" if status < 500 else "http_5xx"
    if 300 <= status < 400:  # following it would take the prompt to wherever it points
        kind = "redirect"
    gateway.metrics.upstream_failed(kind)
    if kind == "http_429":
        raise RejectionError(429, "engine_busy", "the engine is busy; try again later", retry_after=2)
    if status in (400, 413, 422):
        message = "the engine refused the request; prompt and max_tokens together may exceed the model's context"
        raise RejectionError(400, "engine_refused", message)
    raise RejectionError(502, "engine_failed", "the engine failed")


async def _whole(gateway: Gateway, exchange: Exchange, upstream: aiohttp.ClientResponse) -> web.Response:
    limit = gateway.config.limits.answer_bytes
    parts, size = [], 0
    async for chunk in upstream.content.iter_any():
        size += len(chunk)
        if size > limit:
            raise BadAnswerError
        parts.append(chunk)
    body, exchange.usage, absurd = unary(b"".join(parts), exchange.answers, time.perf_counter())
    if absurd:
        gateway.metrics.upstream_failed("absurd_usage")
    exchange.status = 200
    return web.Response(body=body, content_type="application/json")
