"""An OpenAI-compatible engine on loopback that says what the test tells it to, in vLLM's dialect."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

OPEN_ID, CLOSE_ID, END_ID = 900001, 900002, 900003


def tokenize(text: str) -> list[tuple[str, int]]:
    """One token a character (its code point is its id), one for each tag."""
    out: list[tuple[str, int]] = []
    while text:
        for tag, number in (("<think>", OPEN_ID), ("</think>", CLOSE_ID)):
            if text.startswith(tag):
                out.append((tag, number))
                text = text[len(tag) :]
                break
        else:
            out.append((text[0], ord(text[0])))
            text = text[1:]
    return out


@dataclass
class Script:
    """What the engine does next."""

    texts: list[str] = field(default_factory=lambda: ["<think>\nweigh it\n</think>\n\nFlu."])
    finish: str = "stop"
    chunk: int = 1
    """Tokens in one event."""
    cut: int = 0
    """Bytes in one write; 0: an event a write."""
    delay: float = 0.0
    """Seconds between events."""
    die_after: int | None = None
    """Events before the connection is dropped."""
    hang_after: int | None = None
    held: asyncio.Event | None = None
    """A whole answer waits for this, and a stream before its fifth event."""
    status: int = 200
    body: bytes = b'{"error": "CANARY in an upstream error"}'
    garbage: bytes | None = None
    """Sent as an event in the middle."""
    ids: bool = True
    rest: str = "Flu, said after a cut."
    """What it says when it is asked to go on from a text."""
    rest_status: int = 200
    rest_hangs: bool = False
    """It stops in the middle of that."""
    parsed: bool = False
    """Behave as with a reasoning parser: thinking in its own field."""
    separators: tuple[str, str] = (",", ":")


class ScriptedEngine:
    """The server, what it was sent, and how many of its answers were cancelled."""

    def __init__(self, tokenize_route: bool = True) -> None:
        self.script = Script()
        self.bodies: list[dict[str, Any]] = []
        self.rests: list[dict[str, Any]] = []
        """Requests to go on from a text."""
        self.cancelled = 0
        self.hanging = 0
        """Answers behind a cut that have come to where they stop."""
        self.up = True
        app = web.Application()
        app.add_routes(
            [
                web.post("/v1/chat/completions", self.chat),
                web.get("/v1/models", self.models),
                web.get("/health", self.health),
                web.get("/metrics", self.metrics),
            ]
        )
        if tokenize_route:
            app.router.add_post("/tokenize", self.tokenize)
            app.router.add_post("/v1/completions", self.completions)
        self.server = TestServer(app, handler_cancellation=True)

    @property
    def url(self) -> str:
        return str(self.server.make_url("")).rstrip("/")

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "engine-model", "max_model_len": 32768}]})

    async def health(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if self.up else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        return web.Response(text="vllm:x 1\n")

    async def tokenize(self, request: web.Request) -> web.Response:
        asked = await request.json()
        text = asked.get("prompt", "?")
        return web.json_response({"tokens": [token for _, token in tokenize(text)]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        script = self.script
        if script.status != 200:
            return web.Response(status=script.status, body=script.body, content_type="application/json")
        try:
            return await (self.stream(request, body, script) if body.get("stream") else self.whole(body, script))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """vLLM's form: a text in `choices[].text`."""
        body = await request.json()
        if "prompt" not in body:
            return web.Response(status=400)
        self.rests.append(body)
        if self.script.rest_status != 200:
            return web.Response(status=self.script.rest_status, body=self.script.body)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for text, number in [*tokenize(self.script.rest), ("", END_ID)]:
            choice = {"index": 0, "text": text, "finish_reason": "stop" if number == END_ID else None}
            if self.script.ids:
                choice["token_ids"] = [number]
            if self.script.rest_hangs and number == END_ID:
                self.hanging += 1
                try:
                    await asyncio.sleep(600)
                except asyncio.CancelledError:
                    self.cancelled += 1
                    raise
            data = json.dumps({"id": "y", "object": "text_completion", "created": 2, "model": "m", "choices": [choice]})
            await response.write(f"data: {data}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    def usage(self, body: dict[str, Any], script: Script) -> dict[str, int]:
        made = sum(len(tokenize(self.text(script, i))) + (script.finish == "stop") for i in range(body.get("n", 1)))
        return {"prompt_tokens": 5, "completion_tokens": made, "total_tokens": 5 + made}

    def text(self, script: Script, index: int) -> str:
        return script.texts[index % len(script.texts)]

    async def whole(self, body: dict[str, Any], script: Script) -> web.Response:
        if script.hang_after is not None:
            await asyncio.sleep(600)
        if script.held:
            await script.held.wait()
        if script.delay:
            await asyncio.sleep(script.delay)
        if script.garbage:
            return web.Response(body=script.garbage, content_type="application/json")
        choices = []
        for index in range(body.get("n", 1)):
            text = self.text(script, index)
            choice: dict[str, Any] = {"index": index, "finish_reason": script.finish, "message": {"content": text}}
            if body.get("return_token_ids") and script.ids:
                choice["token_ids"] = [t for _, t in tokenize(text)] + [END_ID] * (script.finish == "stop")
            choices.append(choice)
        answer = {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"], "choices": choices}
        return web.json_response({**answer, "usage": self.usage(body, script), "prompt_token_ids": [1, 2]})

    async def stream(self, request: web.Request, body: dict[str, Any], script: Script) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)

        async def send(event: bytes) -> None:
            step = script.cut or len(event)
            for at in range(0, len(event), step):
                await response.write(event[at : at + step])

        for sent, choices in enumerate(self.events(body, script)):
            if script.die_after is not None and sent >= script.die_after:
                request.transport.abort()  # type: ignore[union-attr]
                return response
            if script.hang_after is not None and sent >= script.hang_after:
                await asyncio.sleep(600)
            if script.held and sent == 4:
                await script.held.wait()
            if script.garbage and sent == 2:
                await send(b"data: " + script.garbage + b"\n\n")
            head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
            data = json.dumps({**head, "choices": choices}, ensure_ascii=False, separators=script.separators)
            await send(f"data: {data}\n\n".encode())
            if script.delay:
                await asyncio.sleep(script.delay)
        if body.get("stream_options", {}).get("include_usage"):
            tail = {"id": "x", "object": "chat.completion.chunk", "choices": [], "usage": self.usage(body, script)}
            await send(f"data: {json.dumps(tail)}\n\n".encode())
        await send(b"data: [DONE]\n\n")
        return response

    def events(self, body: dict[str, Any], script: Script) -> list[list[dict[str, Any]]]:
        """The choices of each event, the answers interleaved."""
        columns = [self.column(index, body, script) for index in range(body.get("n", 1))]
        longest = max(map(len, columns))
        return [[column[row]] for row in range(longest) for column in columns if row < len(column)]

    def column(self, index: int, body: dict[str, Any], script: Script) -> list[dict[str, Any]]:
        with_ids = body.get("return_token_ids") and script.ids
        tokens = tokenize(self.text(script, index))
        rows: list[dict[str, Any]] = [
            {"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        ]
        inside = False
        for at in range(0, len(tokens), script.chunk):
            part = tokens[at : at + script.chunk]
            name = "content"
            if script.parsed:
                inside = (inside or part[0][1] == OPEN_ID) and part[0][1] != CLOSE_ID
                name = "reasoning" if inside else "content"
                part = [token for token in part if token[1] not in (OPEN_ID, CLOSE_ID)]
            delta = {name: "".join(text for text, _ in part)}
            row: dict[str, Any] = {"index": index, "delta": delta, "finish_reason": None}
            if with_ids:
                row["token_ids"] = [token for _, token in part]
            rows.append(row)
        last: dict[str, Any] = {"index": index, "delta": {"content": ""}, "finish_reason": script.finish}
        if with_ids:
            last["token_ids"] = [END_ID] * (script.finish == "stop")
        return [*rows, last]
