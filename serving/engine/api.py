"""The OpenAI chat protocol over the scheduler, in vLLM's dialect (`return_token_ids`, `/tokenize`), raw tags included.

The engine splits nothing: `<think>` reaches the gateway as the model wrote it.
"""

import secrets
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import ValidationError

from clinical_r1.errors import UserError
from clinical_r1.generation.chat import conversation_ids
from clinical_r1.schema import first_problem
from serving.engine.answer import Answer, Message, Request, Served, TokenizeRequest, error
from serving.engine.scheduler import Job, QueueFullError, Settings

MAX_BODY = 2 * 1024 * 1024
SERVED: web.AppKey[Served] = web.AppKey("served", Served)


def build_app(served: Served) -> web.Application:
    """The engine's routes; starts and stops the scheduler with the app."""
    app = web.Application(client_max_size=MAX_BODY, middlewares=[refusals])
    app[SERVED] = served
    posts = {"/v1/chat/completions": chat, "/v1/completions": complete, "/tokenize": tokenize}
    gets = {"/v1/models": models, "/health": health, "/metrics": metrics}
    app.add_routes([web.post(path, handler) for path, handler in posts.items()])
    app.add_routes([web.get(path, handler) for path, handler in gets.items()])

    async def lifespan(_app: web.Application) -> AsyncIterator[None]:
        served.scheduler.start()
        yield
        await served.scheduler.stop()

    app.cleanup_ctx.append(lifespan)
    return app


@web.middleware
async def refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What is wrong with a request as OpenAI's errors."""
    try:
        return await handler(request)
    except ValidationError as problem:
        return error(400, first_problem(problem), "invalid_request")
    except UserError:
        return error(400, "the model's chat template refuses these messages", "invalid_messages")
    except QueueFullError:
        refusal = error(429, "the engine's queue is full", "queue_full")
        refusal.headers["Retry-After"] = "1"
        return refusal


async def health(request: web.Request) -> web.Response:
    """Alive and loaded: the app is only built with a loaded model."""
    return web.json_response({"status": "ok"})


async def models(request: web.Request) -> web.Response:
    """OpenAI's list of models, with vLLM's `max_model_len`."""
    served = request.app[SERVED]
    card = {"id": served.name, "object": "model", "created": served.started, "owned_by": "clinical-r1"}
    return web.json_response({"object": "list", "data": [card | {"max_model_len": served.context}]})


async def metrics(request: web.Request) -> web.Response:
    """A few counters in Prometheus' text form."""
    scheduler = request.app[SERVED].scheduler
    rows = [
        ("requests_total", "counter", scheduler.requests),
        ("batches_total", "counter", scheduler.batches),
        ("generated_tokens_total", "counter", scheduler.tokens),
        ("busy_seconds_total", "counter", scheduler.busy_seconds),
        ("waiting", "gauge", len(scheduler.waiting)),
        ("running", "gauge", sum(not job.ended for job in scheduler.running)),
    ]
    names = ((f"clinical_r1_engine_{name}", kind, value) for name, kind, value in rows)
    text = "".join(f"# TYPE {name} {kind}\n{name} {value}\n" for name, kind, value in names)
    return web.Response(text=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def tokenize(request: web.Request) -> web.Response:
    """vLLM's /tokenize, for a prompt or a conversation: the gateway asks it for the ids of the tags."""
    served = request.app[SERVED]
    asked = TokenizeRequest.model_validate_json(await request.read())
    ids = _conversation(served, asked.messages) if asked.messages else _plain(served, asked.prompt)
    return web.json_response({"tokens": ids, "count": len(ids), "max_model_len": served.context})


async def chat(request: web.Request) -> web.StreamResponse:
    """One chat completion, unary or streamed."""
    asked = Request.model_validate_json(await request.read())
    if not asked.messages:
        return error(400, "messages: at least one is needed", "invalid_request")
    return await generate(request, asked, _conversation(request.app[SERVED], asked.messages))


async def complete(request: web.Request) -> web.StreamResponse:
    """One plain completion: the gateway asks for one where it has closed a thought."""
    served = request.app[SERVED]
    asked = Request.model_validate_json(await request.read())
    prompt = _plain(served, asked.prompt) if isinstance(asked.prompt, str) else asked.prompt
    if not prompt or not all(0 <= token < served.tokenizer.get_vocab_size() for token in prompt):
        return error(400, "prompt: a text or token ids of this model are needed", "invalid_request")
    return await generate(request, asked, prompt)


def _conversation(served: Served, messages: list[Message]) -> list[int]:
    return conversation_ids(served.template, [{"role": turn.role, "content": turn.text()} for turn in messages])


def _plain(served: Served, text: str) -> list[int]:
    return list(served.tokenizer.encode(text, add_special_tokens=False).ids)


async def generate(request: web.Request, asked: Request, prompt: list[int]) -> web.StreamResponse:
    """Continue the prompt as asked."""
    served = request.app[SERVED]
    room = served.context - len(prompt)
    if room < 1:
        return error(400, f"the prompt has {len(prompt)} tokens, the context {served.context}", "context_length")
    limit = min(asked.max_completion_tokens or asked.max_tokens or room, room)
    settings = Settings(asked.temperature, asked.top_p, asked.top_k, asked.min_p, asked.repetition_penalty)
    seed = secrets.randbits(62) if asked.seed is None else asked.seed
    jobs = [Job(list(prompt), limit, settings, seed + index) for index in range(asked.n)]
    served.scheduler.submit(jobs)
    try:
        answer = Answer(served, asked, jobs, len(prompt))
        return await (answer.stream(request) if asked.stream else answer.whole())
    finally:
        for job in jobs:
            job.cancelled = True
