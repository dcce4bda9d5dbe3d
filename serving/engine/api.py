"""The OpenAI chat protocol over the scheduler, in vLLM's dialect (`return_token_ids`, `/tokenize`), raw tags included.

The engine splits nothing: `<think>` reaches the gateway as the model wrote it.
"""

import asyncio
import json
import secrets
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from jinja2.exceptions import TemplateError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tokenizers import Tokenizer

from clinical_r1.generation.chat import conversation_ids
from clinical_r1.schema import first_problem
from serving.engine.detokenize import Detokenizer, StopText
from serving.engine.scheduler import Job, QueueFullError, Scheduler, Settings

MAX_BODY = 2 * 1024 * 1024


class Message(BaseModel):
    """One turn of the conversation."""

    model_config = ConfigDict(extra="ignore")
    role: str
    content: str | list[dict[str, Any]]

    def text(self) -> str:
        """The content as plain text (text parts joined)."""
        if isinstance(self.content, str):
            return self.content
        return "".join(str(part.get("text", "")) for part in self.content if part.get("type") == "text")


class StreamOptions(BaseModel):
    """OpenAI's stream_options."""

    model_config = ConfigDict(extra="ignore")
    include_usage: bool = False


class ChatRequest(BaseModel):
    """The fields of a chat completion that the engine honours; others are ignored, as vLLM does."""

    model_config = ConfigDict(extra="ignore")
    messages: list[Message] = Field(min_length=1)
    model: str = ""
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    n: int = Field(default=1, ge=1, le=16)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    return_token_ids: bool = False

    def stops(self) -> list[str]:
        """The stop strings as a list."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])


class TokenizeRequest(BaseModel):
    """vLLM's tokenize request: a prompt, or messages."""

    model_config = ConfigDict(extra="ignore")
    prompt: str = ""
    messages: list[Message] = Field(default_factory=list)


@dataclass
class Served:
    """The loaded model as the API sees it."""

    name: str
    tokenizer: Tokenizer
    template: Any
    """The transformers tokenizer, whose chat template gives prompt ids."""
    context: int
    """Longest prompt plus completion, in tokens."""
    scheduler: Scheduler
    started: int = 0


SERVED: web.AppKey[Served] = web.AppKey("served", Served)


def error(status: int, message: str, code: str) -> web.Response:
    """An error in OpenAI's shape."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return web.json_response({"error": {"message": message, "type": kind, "param": None, "code": code}}, status=status)


def build_app(served: Served) -> web.Application:
    """The engine's routes; starts and stops the scheduler with the app."""
    app = web.Application(client_max_size=MAX_BODY)
    app[SERVED] = served
    app.add_routes(
        [
            web.post("/v1/chat/completions", chat),
            web.get("/v1/models", models),
            web.get("/health", health),
            web.get("/metrics", metrics),
            web.post("/tokenize", tokenize),
        ]
    )

    async def lifespan(_app: web.Application) -> AsyncIterator[None]:
        served.scheduler.start()
        yield
        await served.scheduler.stop()

    app.cleanup_ctx.append(lifespan)
    return app


async def health(request: web.Request) -> web.Response:
    """Alive and loaded: the app is only built with a loaded model."""
    return web.json_response({"status": "ok"})


async def models(request: web.Request) -> web.Response:
    """OpenAI's list of models, with vLLM's `max_model_len`."""
    served = request.app[SERVED]
    card = {
        "id": served.name,
        "object": "model",
        "created": served.started,
        "owned_by": "clinical-r1",
        "max_model_len": served.context,
    }
    return web.json_response({"object": "list", "data": [card]})


async def metrics(request: web.Request) -> web.Response:
    """A few counters in Prometheus' text form."""
    scheduler = request.app[SERVED].scheduler
    rows = [
        ("clinical_r1_engine_requests_total", "counter", scheduler.counters.requests),
        ("clinical_r1_engine_batches_total", "counter", scheduler.counters.batches),
        ("clinical_r1_engine_generated_tokens_total", "counter", scheduler.counters.tokens),
        ("clinical_r1_engine_busy_seconds_total", "counter", scheduler.counters.busy_seconds),
        ("clinical_r1_engine_waiting", "gauge", scheduler.waiting),
        ("clinical_r1_engine_running", "gauge", scheduler.running),
    ]
    text = "".join(f"# TYPE {name} {kind}\n{name} {value}\n" for name, kind, value in rows)
    return web.Response(text=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def tokenize(request: web.Request) -> web.Response:
    """vLLM's /tokenize, for a prompt or a conversation: the gateway asks it for the ids of the tags."""
    served = request.app[SERVED]
    try:
        asked = TokenizeRequest.model_validate_json(await request.read())
    except ValidationError as problem:
        return error(400, first_problem(problem), "invalid_request")
    if asked.messages:
        rows = [{"role": message.role, "content": message.text()} for message in asked.messages]
        ids = conversation_ids(served.template, rows)
    else:
        ids = served.tokenizer.encode(asked.prompt, add_special_tokens=False).ids
    return web.json_response({"tokens": ids, "count": len(ids), "max_model_len": served.context})


async def chat(request: web.Request) -> web.StreamResponse:
    """One chat completion, unary or streamed."""
    served = request.app[SERVED]
    try:
        asked = ChatRequest.model_validate_json(await request.read())
    except ValidationError as problem:
        return error(400, first_problem(problem), "invalid_request")
    try:
        rows = [{"role": message.role, "content": message.text()} for message in asked.messages]
        prompt = conversation_ids(served.template, rows)
    except (TemplateError, ValueError, TypeError):
        return error(400, "the model's chat template refuses these messages", "invalid_messages")
    room = served.context - len(prompt)
    if room < 1:
        return error(400, f"the prompt has {len(prompt)} tokens, the context {served.context}", "context_length")
    limit = min(asked.max_completion_tokens or asked.max_tokens or room, room)
    settings = Settings(asked.temperature, asked.top_p)
    seed = secrets.randbits(62) if asked.seed is None else asked.seed
    jobs = [Job(list(prompt), limit, settings, seed + index) for index in range(asked.n)]
    try:
        served.scheduler.submit(jobs)
    except QueueFullError:
        refusal = error(429, "the engine's queue is full", "queue_full")
        refusal.headers["Retry-After"] = "1"
        return refusal
    try:
        answer = _Answer(served, asked, jobs, len(prompt))
        return await (answer.stream(request) if asked.stream else answer.whole())
    finally:
        for job in jobs:
            job.cancelled = True


class _Answer:
    """Turns the events of n jobs into one unary body or one stream."""

    def __init__(self, served: Served, asked: ChatRequest, jobs: list[Job], prompt_tokens: int) -> None:
        self.served, self.asked, self.jobs, self.prompt_tokens = served, asked, jobs, prompt_tokens
        self.head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": served.name,
        }

    async def deltas(self, job: Job) -> AsyncIterator[tuple[str, list[int], str | None]]:
        """(text, token ids, finish reason or None) until the reason comes."""
        eos = self.served.scheduler.eos_token_ids
        detokenizer, stops = Detokenizer(self.served.tokenizer), StopText(self.asked.stops())
        while True:
            event = await job.events.get()
            if isinstance(event, Exception):
                raise event
            if isinstance(event, str):
                text = stops.push(detokenizer.finish())
                yield text + stops.finish(), [], "stop" if stops.hit else event
                return
            text = "" if event in eos else stops.push(detokenizer.push(event))
            if stops.hit:
                job.cancelled = True
                yield text, [event], "stop"
                return
            yield text, [event], None

    def usage(self, completion_tokens: int) -> dict[str, int]:
        """OpenAI's usage object."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
        }

    async def whole(self) -> web.Response:
        """The unary answer."""

        async def collect(index: int, job: Job) -> dict[str, Any]:
            parts: list[str] = []
            ids: list[int] = []
            reason: str | None = None
            async for text, tokens, ended in self.deltas(job):
                parts.append(text)
                ids += tokens
                reason = ended
            message = {"role": "assistant", "content": "".join(parts)}
            choice = {"index": index, "message": message, "finish_reason": reason, "logprobs": None}
            return {**choice, "token_ids": ids}

        try:
            choices = await asyncio.gather(*(collect(index, job) for index, job in enumerate(self.jobs)))
        except Exception as problem:
            return error(500, f"generation failed ({type(problem).__name__})", "generation_failed")
        usage = self.usage(sum(len(choice["token_ids"]) for choice in choices))
        if not self.asked.return_token_ids:
            for choice in choices:
                del choice["token_ids"]
        return web.json_response({**self.head, "object": "chat.completion", "choices": choices, "usage": usage})

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The answer as server-sent events."""
        headers = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        lock = asyncio.Lock()

        async def send(choices: list[dict[str, Any]], **more: Any) -> None:
            chunk = {**self.head, "object": "chat.completion.chunk", "choices": choices, **more}
            data = json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
            async with lock:
                await response.write(f"data: {data}\n\n".encode())

        async def pump(index: int, job: Job) -> int:
            await send([{"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
            count = 0
            async for text, tokens, reason in self.deltas(job):
                count += len(tokens)
                choice: dict[str, Any] = {"index": index, "delta": {"content": text}, "finish_reason": reason}
                if self.asked.return_token_ids:
                    choice["token_ids"] = tokens
                await send([choice])
            return count

        try:
            counts = await asyncio.gather(*(pump(index, job) for index, job in enumerate(self.jobs)))
            if self.asked.stream_options and self.asked.stream_options.include_usage:
                await send([], usage=self.usage(sum(counts)))
        except ConnectionError:
            raise
        except Exception as problem:
            body = {"error": {"message": f"generation failed ({type(problem).__name__})", "type": "server_error"}}
            await response.write(f"data: {json.dumps(body)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response
