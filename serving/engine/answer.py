"""n running generations as one unary body, or as one stream of server-sent events."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from tokenizers import Tokenizer

from serving.engine.detokenize import Detokenizer, StopText
from serving.engine.protocol import Request
from serving.engine.scheduler import Job, Scheduler


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


def error(status: int, message: str, code: str) -> web.Response:
    """An error in OpenAI's shape."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return web.json_response({"error": {"message": message, "type": kind, "param": None, "code": code}}, status=status)


class Answer:
    """Turns the events of n jobs into one unary body or one stream."""

    def __init__(self, served: Served, asked: Request, jobs: list[Job], prompt_tokens: int) -> None:
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
            text = "".join(parts)
            said = {"message": {"role": "assistant", "content": text}} if self.asked.messages else {"text": text}
            return {"index": index, **said, "finish_reason": reason, "logprobs": None, "token_ids": ids}

        try:
            choices = await asyncio.gather(*(collect(index, job) for index, job in enumerate(self.jobs)))
        except Exception as problem:
            return error(500, f"generation failed ({type(problem).__name__})", "generation_failed")
        usage = self.usage(sum(len(choice["token_ids"]) for choice in choices))
        if not self.asked.return_token_ids:
            for choice in choices:
                del choice["token_ids"]
        kind = "chat.completion" if self.asked.messages else "text_completion"
        return web.json_response({**self.head, "object": kind, "choices": choices, "usage": usage})

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The answer as server-sent events."""
        headers = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        lock = asyncio.Lock()

        async def send(choices: list[dict[str, Any]], **more: Any) -> None:
            kind = "chat.completion.chunk" if self.asked.messages else "text_completion"
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
                choice: dict[str, Any] = {"index": index, **said, "finish_reason": reason}
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
