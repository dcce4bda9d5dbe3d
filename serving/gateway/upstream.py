"""The engine behind the gateway: the connection pool, what can be asked of it before the first request, and
its events out of bytes that are cut anywhere."""

import asyncio
import codecs
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import aiohttp
import orjson

from clinical_r1.dialects import AUTO, CLOSE, DIALECTS, OPEN, THINK, Dialect
from clinical_r1.recognise import named, recognise
from serving.gateway.config import GatewayConfig
from serving.gateway.counting import TokenizerCounter
from serving.gateway.observer import IN_TAGS, Thinks
from serving.metrics import GatewayMetrics

log = logging.getLogger("clinical_r1.gateway")
PROBE_SECONDS = 1.0
PROBE_TIMEOUT = aiohttp.ClientTimeout(total=3.0)
EXAMPLE = [{"role": "user", "content": "Which organ makes insulin? Think it over, then answer in one word."}]
EXAMPLE_SECONDS = 60.0
KEEPALIVE = 3.0
"""Idle connections are dropped before the engine does it (uvicorn: 5 s), or a request could meet a closed one."""


class Upstream:
    """Knows whether the engine is up, what it serves and how its tags look as tokens."""

    def __init__(self, config: GatewayConfig, metrics: GatewayMetrics) -> None:
        self._config, self._metrics = config, metrics
        self._base = config.upstream.rstrip("/")
        self.ready = False
        self.names: frozenset[str] = frozenset()
        self.engine_model = ""
        self.context = 0
        self.goes_on = False
        """It can be asked to go on from a text of ours: it has /tokenize with a chat template, and /v1/completions."""
        tokenizer = TokenizerCounter(config.tokenizer) if config.tokenizer else None
        known = config.thinking
        ids = (known.open_id, known.close_id) if known.open_id is not None and known.close_id is not None else None
        if ids is None and tokenizer:
            ids = tokenizer.tag_ids()
        dialect = named(known.dialect) or (THINK if ids else None)
        self.thinks = Thinks(bool(known.opened), dialect, ids, tokenizer, config.token_ids)
        metrics.set_method(self.thinks.method)
        self._asked = False
        self._task: asyncio.Task[None] | None = None
        self.session: aiohttp.ClientSession

    async def ask(self, method: str, path: str, **more: Any) -> aiohttp.ClientResponse:
        """The one way to the engine. A redirect is an answer like any other: it is never followed."""
        return await self.session.request(method, self._base + path, allow_redirects=False, **more)

    async def start(self) -> None:
        """Open the pool and begin to watch the engine."""
        limits = self._config.timeouts
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.connect),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity"},
        )
        await self._probe()
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Close the pool."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self.session.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            await self._probe()

    async def _probe(self) -> None:
        """Ask /health, and after each start of the engine what it serves."""
        was = self.ready
        try:
            try:
                up = await self._healthy()
            except TimeoutError:
                if not was:
                    raise
                up = await self._healthy()  # a pause of our own machine would turn everybody away
            if up and (not was or not self.names):
                await self._read_models()
                await self._ask_dialect()
            self.ready = up and bool(self.names)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            self.ready = False
        self._metrics.ready_child.set(int(self.ready))
        if was != self.ready:
            log.log(
                logging.INFO if self.ready else logging.WARNING, "engine is %s", "ready" if self.ready else "not ready"
            )

    async def _healthy(self) -> bool:
        async with await self.ask("GET", "/health", timeout=PROBE_TIMEOUT) as response:
            return response.status == 200

    async def _read_models(self) -> None:
        async with await self.ask("GET", "/v1/models", timeout=PROBE_TIMEOUT) as response:
            listed = orjson.loads(await response.read())
        try:
            card = listed["data"][0]
            self.engine_model = str(card["id"])
            self.context = int(card.get("max_model_len") or 0)
        except (KeyError, IndexError, TypeError):
            raise ValueError("no model list") from None
        self.names = frozenset(filter(None, (self.engine_model, self._config.model_name)))

    async def _ask_dialect(self) -> None:
        """Learn how the model marks its thoughts, where the configuration does not say: by what the engine's tokenizer
        makes of the marks, by how its template ends a prompt, and else by one answer."""
        known, dialect, ids = self._config.thinking, named(self._config.thinking.dialect), self.thinks.tag_ids
        if ids is None and (dialect is None or dialect in IN_TAGS):
            ids = await self._ids_of(OPEN, CLOSE)
        prompt = await self.tokenize(messages=[{"role": "user", "content": "?"}], add_generation_prompt=True)
        self.goes_on = bool(prompt) and await self._has_completions()
        opened = known.opened
        if opened is None and ids:
            opened = (ids[0] in prompt[-4:] and ids[1] not in prompt[-4:]) if prompt else None
        how = "as set"
        if dialect is None and ids:
            dialect, how = THINK, "by its tokens"
        if dialect is None and await self._ids_of("<|channel|>", "<|message|>"):
            dialect, how = DIALECTS["channels"], "by its tokens"
        if dialect is None and opened is None:
            dialect, how = await self._by_example(), "by one answer"
        elif (
            opened is None and dialect is THINK and known.dialect == AUTO
        ):  # an engine that cannot be asked for a prompt
            example = await self._by_example()
            opened = example.opened if example else None
        if dialect is None and opened:
            dialect = DIALECTS["opened"]
        self.thinks = Thinks(bool(opened), dialect, ids, self.thinks.tokenizer, self._config.token_ids)
        self._metrics.set_method(self.thinks.method)
        name = f"`{dialect.name}` ({how})" if dialect else "read answer by answer"
        log.info("the model's dialect of thinking: %s%s", name, ", opened by the template" if opened else "")
        if self.thinks.method == "unavailable":
            self.goes_on = False
            log.warning("reasoning tokens cannot be counted: set `tokenizer`, or `thinking.open_id` and `close_id`")

    async def _ids_of(self, *marks: str) -> tuple[int, int] | None:
        """Ids of two marks where each is one token of the engine."""
        asked = [await self.tokenize(prompt=mark, add_special_tokens=False) for mark in marks]
        return (asked[0][0], asked[1][0]) if all(len(one) == 1 for one in asked) else None

    async def _by_example(self) -> Dialect | None:
        """The dialect of one answer; None where it shows none (each later answer is read by its own marks)."""
        body = orjson.dumps({"model": self.engine_model, "messages": EXAMPLE, "max_tokens": 1024, "temperature": 0})
        headers, timeout = {"Content-Type": "application/json"}, aiohttp.ClientTimeout(total=EXAMPLE_SECONDS)
        try:
            posted = self.ask("POST", "/v1/chat/completions", data=body, headers=headers, timeout=timeout)
            async with await posted as response:
                choice = orjson.loads(await response.read())["choices"][0]
            found = recognise(choice["message"]["content"] or "", choice.get("finish_reason") == "length")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, IndexError, TypeError):
            return None
        return found if found is not None and found.opens else None

    async def _has_completions(self) -> bool:
        """Whether the route is there: an empty request is refused, but not as unknown."""
        headers = {"Content-Type": "application/json"}
        posted = self.ask("POST", "/v1/completions", data=b"{}", headers=headers, timeout=PROBE_TIMEOUT)
        async with await posted as response:
            return response.status not in (404, 405, 501)

    async def tokenize(self, **body: Any) -> list[int]:
        """vLLM's /tokenize; empty where the engine has none."""
        data = orjson.dumps({"model": self.engine_model, **body})
        headers = {"Content-Type": "application/json"}
        posted = self.ask("POST", "/tokenize", data=data, headers=headers, timeout=PROBE_TIMEOUT)
        async with await posted as response:
            if response.status != 200:
                return []
            tokens = orjson.loads(await response.read()).get("tokens")
        return tokens if isinstance(tokens, list) else []


class EventTooLongError(Exception):
    """One event is longer than the limit."""


class EventReader:
    """Feed bytes, get the `data` of each complete event; comments and other fields are dropped.

    Handles LF, CRLF and CR line ends, a byte order mark, and events of several data lines (joined by LF, as the
    standard says).
    """

    def __init__(self, limit: int = 1_048_576) -> None:
        self._buffer = b""
        self._after_cr = False
        self._limit = limit

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the data of each event that is complete now."""
        if self._after_cr:
            data = data.removeprefix(b"\n")  # the CR before it ended the line already
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        elif data:
            self._after_cr = False
        buffer = self._buffer + data if self._buffer else data
        start = 0
        while (end := buffer.find(b"\n\n", start)) >= 0:
            event = _data(buffer[start:end])
            start = end + 2
            if event:
                yield event
        self._buffer = buffer[start:]
        if len(self._buffer) > self._limit:
            raise EventTooLongError

    def finish(self) -> bytes:
        """The data of an event that the end of the stream left without its blank line (empty if none)."""
        rest, self._buffer = self._buffer.strip(b"\n"), b""
        return _data(rest)


def _data(event: bytes) -> bytes:
    event = event.removeprefix(codecs.BOM_UTF8)
    if b"\n" not in event:
        return event[5:].strip() if event.startswith(b"data:") else b""
    lines = (line for line in event.split(b"\n") if line.startswith(b"data:"))
    return b"\n".join(line[6:] if line[5:6] == b" " else line[5:] for line in lines).strip()
