"""The gateway's routes (an allow-list: everything else is 404), its headers, its errors, its health and metrics."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from prometheus_client.exposition import choose_encoder

from clinical_r1 import __version__, asking
from clinical_r1.atomic import read_table
from clinical_r1.baseline import read_baseline
from clinical_r1.errors import UserError
from clinical_r1.reasoning import CONCLUSION_LABELS
from serving.gateway.audit import AuditLog, Sampler
from serving.gateway.config import INTENDED_USE, GatewayConfig
from serving.gateway.errors import RejectionError
from serving.gateway.exchange import Exchange, new_request_id
from serving.gateway.forward import forward
from serving.gateway.keys import KeyRing
from serving.gateway.request import DROPPED, NEUTRAL, ChatRequest, parse
from serving.gateway.state import GATEWAY, REQUEST_ID, Gateway
from serving.gateway.tracing import Tracing
from serving.gateway.upstream import Upstream
from serving.metrics import GatewayMetrics

log = logging.getLogger("clinical_r1.gateway")
PAGE = Path(__file__).parent / "page"
PAGE_FILES = {
    "/": ("index.html", "text/html"),
    "/chat.js": ("chat.js", "text/javascript"),
    "/chat.css": ("chat.css", "text/css"),
}
KEYS_POLL_SECONDS = 5.0
SAMPLES_POLL_SECONDS = 10.0
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_gateway(config: GatewayConfig) -> Gateway:
    """Check what the configuration names. Raises UserError."""
    if config.auth == "keys" and config.keys_file is None:
        raise UserError("keys_file: is not set; name the file of hashed API keys, or say `auth: none` on a laptop")
    metrics = GatewayMetrics(config.model_version, gateway_version=__version__)
    decoding: dict[str, Any] = {}
    budget = None if config.thinking.budget == "auto" else config.thinking.budget
    if config.baseline:
        baseline = read_baseline(config.baseline)
        if config.thinking.budget == "auto":
            budget = baseline.thinking_budget
        metrics.set_baseline(baseline, budget)
        if baseline.decoding:
            decoding = baseline.decoding.fields()
            del decoding["max_tokens"]  # the limits say
    metrics.set_budget(budget)
    return Gateway(
        decoding=decoding,
        budget=budget,
        config=config,
        metrics=metrics,
        upstream=Upstream(config, metrics),
        keys=KeyRing(config.keys_file) if config.auth == "keys" and config.keys_file else None,
        audit=AuditLog(config.audit_file, metrics),
        sampler=Sampler(config.sampling, metrics),
        tracing=Tracing.exporting() if config.tracing else Tracing(),
    )


def build_app(gateway: Gateway) -> web.Application:
    """The aiohttp application; it opens and closes what the gateway needs."""
    app = web.Application(middlewares=[guard])
    app[GATEWAY] = gateway
    app.add_routes(
        [
            web.post("/v1/chat/completions", chat),
            web.get("/v1/models", models, allow_head=False),
            web.get("/health", ready),  # vLLM's name, for clients and probes that know that one
            web.get("/healthz/live", live),
            web.get("/healthz/ready", ready),
            web.get("/metrics", metrics, allow_head=False),
            web.get("/metrics/engine", engine_metrics, allow_head=False),
            web.get("/openapi.json", openapi, allow_head=False),
        ]
    )
    if gateway.config.chat_page:
        app.add_routes([web.get(path, page, allow_head=False) for path in PAGE_FILES])
        app.add_routes([web.get("/page/info", page_info, allow_head=False)])
    app.on_response_prepare.append(add_headers)
    app.cleanup_ctx.append(lifespan)
    return app


async def lifespan(app: web.Application) -> AsyncIterator[None]:
    """The pool to the engine and the key file's watcher live as long as the app."""
    gateway = app[GATEWAY]
    await gateway.upstream.start()
    watchers = [asyncio.create_task(watch_keys(gateway)), asyncio.create_task(flush_samples(gateway))]
    yield
    for watcher in watchers:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
    await gateway.upstream.stop()
    await asyncio.to_thread(gateway.sampler.close)
    await asyncio.to_thread(gateway.audit.close)
    await asyncio.to_thread(gateway.tracing.close)


async def watch_keys(gateway: Gateway) -> None:
    """Take over rotated keys."""
    while gateway.keys:
        await asyncio.sleep(KEYS_POLL_SECONDS)
        changed = await asyncio.to_thread(gateway.keys.reload_if_changed)
        if changed is not None:
            gateway.metrics.keys_reloads.labels("ok" if changed else "failed").inc()


async def flush_samples(gateway: Gateway) -> None:
    """Quiet hours must not keep samples back."""
    while gateway.config.sampling.rate:
        await asyncio.sleep(min(SAMPLES_POLL_SECONDS, gateway.config.sampling.seconds))
        gateway.sampler.flush_if_due()


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error leaves in OpenAI's shape, counted, without a word of the input."""
    request[REQUEST_ID] = new_request_id()
    gateway = request.app[GATEWAY]
    try:
        return await handler(request)
    except RejectionError as problem:
        rejection = problem
    except web.HTTPException as problem:
        rejection = {
            404: RejectionError(404, "not_found", "no such route"),
            405: RejectionError(405, "method_not_allowed", "this route does not take this method"),
            413: RejectionError(413, "body_too_large", "the body is too large"),
        }.get(problem.status, RejectionError(400, "bad_http", "the request is not valid HTTP"))
        if isinstance(problem, web.HTTPMethodNotAllowed):
            rejection.allow = ", ".join(sorted(problem.allowed_methods))
    except ConnectionResetError:
        raise
    except Exception as problem:
        # The type and the place, never the message: it may hold text of the request.
        where = problem.__traceback__
        while where and where.tb_next:
            where = where.tb_next
        place = f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}" if where else "?"
        log.error("internal error %s at %s, request %s", type(problem).__name__, place, request[REQUEST_ID])
        rejection = RejectionError(500, "internal", "internal error; tell the operator the request id")
    gateway.metrics.rejections.labels(rejection.reason).inc()
    response = rejection.response()
    if not request.content.is_eof():
        response.force_close()  # what is left of a refused body is not read
    return response


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """On every response."""
    response.headers["X-Intended-Use"] = INTENDED_USE
    response.headers["X-Request-Id"] = request.get(REQUEST_ID, "")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["Server"] = "clinical-r1"


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


async def models(request: web.Request) -> web.Response:
    """GET /v1/models: what is served here, not what else the engine may list."""
    gateway = request.app[GATEWAY]
    gateway.identify(request)
    if not gateway.upstream.names:
        raise RejectionError(503, "engine_unreachable", "the engine is not ready", retry_after=5)
    name = gateway.config.model_name or gateway.upstream.engine_model
    card = {"id": name, "object": "model", "created": 0, "owned_by": "clinical-r1"}
    return web.json_response({"object": "list", "data": [card]})


async def live(request: web.Request) -> web.Response:
    """The process answers."""
    return web.json_response({"status": "live"})


async def ready(request: web.Request) -> web.Response:
    """The engine answers, and we are not shutting down."""
    gateway = request.app[GATEWAY]
    if gateway.draining:
        return web.json_response({"status": "draining"}, status=503)
    if not gateway.upstream.ready:
        return web.json_response({"status": "engine not ready"}, status=503)
    return web.json_response({"status": "ready"})


async def metrics(request: web.Request) -> web.Response:
    """Prometheus text, or OpenMetrics with exemplars for those who accept it."""
    _ = request.app[GATEWAY].audit.failing  # brings its gauge up to date
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    body = encode(request.app[GATEWAY].metrics.registry)
    return web.Response(body=body, headers={"Content-Type": content_type})


async def engine_metrics(request: web.Request) -> web.Response:
    """The engine's own metrics; the engine listens on loopback only."""
    upstream = request.app[GATEWAY].upstream
    try:
        timeout = aiohttp.ClientTimeout(total=5.0)
        async with await upstream.ask("GET", "/metrics", timeout=timeout) as response:
            if response.status != 200:
                raise RejectionError(502, "engine_failed", "the engine has no metrics")
            body = await response.read()
            kind = response.headers.get("Content-Type", "text/plain; version=0.0.4")
    except (aiohttp.ClientError, TimeoutError):
        raise RejectionError(502, "engine_unreachable", "the engine cannot be reached") from None
    return web.Response(body=body, headers={"Content-Type": kind})


async def openapi(request: web.Request) -> web.Response:
    """The API's own description, OpenAPI 3.1: openapi.yaml, with the models that check requests."""
    found: dict[str, Any] = read_table(Path(__file__).with_name("openapi.yaml"))
    del found["x-refused"]  # its anchor has served
    schema = ChatRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    properties = schema["properties"]
    properties["messages"]["maxItems"] = request.app[GATEWAY].config.limits.messages
    properties |= {name: {"description": "Accepted and dropped"} for name in DROPPED}
    properties |= {name: {"enum": [None, *values]} for name, values in NEUTRAL.items()}
    found["components"]["schemas"] |= {**schema.pop("$defs"), "ChatRequest": schema}
    return web.json_response(found)


async def page(request: web.Request) -> web.Response:
    """The chat page's three files."""
    name, kind = PAGE_FILES[request.path]
    headers = {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "Referrer-Policy": "no-referrer",
    }
    return web.Response(body=(PAGE / name).read_bytes(), content_type=kind, charset="utf-8", headers=headers)


async def page_info(request: web.Request) -> web.Response:
    """What the page shows of the gateway."""
    gateway = request.app[GATEWAY]
    return web.json_response(
        {
            "model": gateway.config.model_name or gateway.upstream.engine_model,
            "model_version": gateway.config.model_version,
            "token_method": gateway.upstream.thinks.method,
            "needs_key": gateway.keys is not None,
            "intended_use": INTENDED_USE,
            "requests": {
                language: {kind: asking.request(language, kind) for kind in ("diagnosis", "answer")}
                for language in ("en", "zh")
            },
            "labels": [label.strip() for label in CONCLUSION_LABELS.values()],
        }
    )
