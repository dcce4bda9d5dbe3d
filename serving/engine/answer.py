"""What clients ask of the engine, in the fields of vLLM's dialect that it honours, and what they get: n running
generations as one unary body, or as one stream of server-sent events."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from pydantic import BaseModel, Field
from tokenizers import Tokenizer

from serving.engine.scheduler import Job, Scheduler


class Message(BaseModel):
    """One turn of the conversation."""

    role: str
    content: str | list[dict[str, Any]]

    def text(self) -> str:
        """The content as plain text (text parts joined)."""
        if isinstance(self.content, str):
            return self.content
        return "".join(str(part.get("text", "")) for part in self.content if part.get("type") == "text")


class StreamOptions(BaseModel):
    """OpenAI's stream_options."""

    include_usage: bool = False


class Request(BaseModel):
    """The fields of a chat completion (`messages`) or a plain one (`prompt`) that the engine honours; others are
    ignored, as vLLM does."""

    messages: list[Message] = Field(default_factory=list)
    model: str = ""
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=-1, ge=-1)
    min_p: float = Field(default=0.0, ge=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0)
    n: int = Field(default=1, ge=1, le=16)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    stream: bool = False
    prompt: str | list[int] = ""
    """Of a plain completion: what to go on from, as text or token ids."""
    stream_options: StreamOptions | None = None
    return_token_ids: bool = False


class TokenizeRequest(BaseModel):
    """vLLM's tokenize request: a prompt, or messages."""

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


class Detokenizer:
    """Incremental decoding of one completion by the two-offset method (as vLLM and TGI do it): what may still change,
    a character cut between tokens, is held back.

    The concatenation of what `push` and `finish` return equals `decode(all ids)` for byte-level BPE tokenizers.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._decode = tokenizer.decode
        self._ids: list[int] = []
        self._prefix = self._read = 0

    def push(self, token_id: int) -> str:
        """Add a token; return the text that became certain (empty while a character is incomplete)."""
        self._ids.append(token_id)
        text = self.finish()
        if not text or text.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        self._prefix, self._read = self._read, len(self._ids)
        return text

    def finish(self) -> str:
        """What is held back, at the end of the output."""
        before = self._decode(self._ids[self._prefix : self._read])
        return str(self._decode(self._ids[self._prefix :])[len(before) :])


class StopText:
    """Finds stop strings in a growing text; what may be the beginning of one is held back."""

    def __init__(self, stops: list[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.hit = False

    def push(self, text: str) -> str:
        """Return the text that is certainly in front of any stop string."""
        if self.hit:
            return ""
        text = self._held + text
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.hit, self._held = True, ""
            return text[: min(found)]
        begun = (n for stop in self._stops for n in range(1, min(len(stop), len(text) + 1)) if text.endswith(stop[:n]))
        certain = len(text) - max(begun, default=0)
        self._held = text[certain:]
        return text[:certain]

    def finish(self) -> str:
        """What was held back and turned out to be no stop string."""
        held, self._held = self._held, ""
        return held


def error(status: int, message: str, code: str) -> web.Response:
    """An error in OpenAI's shape."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return web.json_response({"error": {"message": message, "type": kind, "param": None, "code": code}}, status=status)


class Answer:
    """Turns the events of n jobs into one unary body or one stream."""

    def __init__(self, served: Served, asked: Request, jobs: list[Job], prompt_tokens: int) -> None:
        self.served, self.asked, self.jobs, self.prompt_tokens = served, asked, jobs, prompt_tokens
        self.head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": served.name}

    async def deltas(self, job: Job) -> AsyncIterator[tuple[str, list[int], str | None]]:
        """(text, token ids, finish reason or None) until the reason comes."""
        stop = self.asked.stop
        stops = StopText([stop] if isinstance(stop, str) else stop or [])
        detokenizer = Detokenizer(self.served.tokenizer)
        while True:
            event = await job.events.get()
            if isinstance(event, Exception):
                raise event
            if isinstance(event, str):
                text = stops.push(detokenizer.finish())
                yield text + stops.finish(), [], "stop" if stops.hit else event
                return
            text = "" if event in self.served.scheduler.eos_token_ids else stops.push(detokenizer.push(event))
            if stops.hit:
                job.cancelled = True
                yield text, [event], "stop"
                return
            yield text, [event], None

    def usage(self, completion: int) -> dict[str, int]:
        """OpenAI's usage object."""
        prompt = self.prompt_tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    async def whole(self) -> web.Response:
        """The unary answer."""

        async def collect(index: int, job: Job) -> dict[str, Any]:
            pieces = [piece async for piece in self.deltas(job)]
            text, ids = "".join(text for text, _, _ in pieces), [id for _, ids, _ in pieces for id in ids]
            said = {"message": {"role": "assistant", "content": text}} if self.asked.messages else {"text": text}
            return {"index": index, **said, "finish_reason": pieces[-1][2], "logprobs": None, "token_ids": ids}

        try:
            choices = await asyncio.gather(*(collect(index, job) for index, job in enumerate(self.jobs)))
        except Exception as problem:
            return error(500, f"generation failed ({type(problem).__name__})", "generation_failed")
        usage = self.usage(sum(len(choice["token_ids"]) for choice in choices))
        for choice in () if self.asked.return_token_ids else choices:
            del choice["token_ids"]
        kind = "chat.completion" if self.asked.messages else "text_completion"
        return web.json_response({**self.head, "object": kind, "choices": choices, "usage": usage})

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The answer as server-sent events."""
        headers = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        lock = asyncio.Lock()
        kind = "chat.completion.chunk" if self.asked.messages else "text_completion"

        async def send(choices: list[dict[str, Any]], **more: Any) -> None:
            chunk = {**self.head, "object": kind, "choices": choices, **more}
            data = json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
            async with lock:
                await response.write(f"data: {data}\n\n".encode())

        async def pump(index: int, job: Job) -> int:
            if self.asked.messages:
                await send([{"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
            count = 0
            async for text, tokens, reason in self.deltas(job):
                count += len(tokens)
                said = {"delta": {"content": text}} if self.asked.messages else {"text": text}
                ids = {"token_ids": tokens} if self.asked.return_token_ids else {}
                await send([{"index": index, **said, "finish_reason": reason, **ids}])
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
