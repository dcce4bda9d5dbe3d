"""Hostile clients and broken engines on real sockets: no 500, no hang, nothing repeated, and the books balance."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from gateway_fixture import ASK, PATIENCE, Running, TooLateError, given_time, running, talk, until
from scripted_engine import Script, ScriptedEngine

from serving.gateway.config import Timeouts

CANARY = b"XCANARYX"
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = json.dumps(ASK).encode()


def with_length(body: bytes) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(body: bytes) -> bytes:
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"


async def balanced(r: Running) -> None:
    """Every answer that was asked of the engine has one outcome, nothing is in flight, and service goes on."""
    await r.settled()
    r.engine.script, r.listener.gateway.config.timeouts = Script(), Timeouts()
    assert (await r.unary())[0] == 200
    assert await r.sample("clinical_r1_answers_total") == await r.sample("clinical_r1_answers_started_total")
    assert await r.sample("clinical_r1_in_flight") == 0
    assert await r.sample("clinical_r1_rejections_total", reason="internal") == 0


@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (with_length(BODY) * 3, [200, 200, 200]),  # pipelining: in order, each answered
        (chunked(BODY), [200]),
        (with_length(BODY[:-1] + b',"model":"engine-model"}'), [200]),  # duplicate keys: the last one counts, checked
        (with_length(BODY[:-1] + b',"temperature":1,"temperature":9}'), [400]),
        (with_length(BODY[:-1] + b',"temperature":NaN}'), [400]),
        (with_length(BODY[:-1] + b',"temperature":-Infinity}'), [400]),
        (with_length(BODY[:-1] + b',"max_tokens":' + b"9" * 5000 + b"}"), [400]),
        (with_length(BODY[:-1] + b',"user":' + b"[" * 900 + b"]" * 900 + b"}"), [200, 400]),
        (with_length(b'{"model":"engine-model","messages":[{"role":"user","content":"\xff\xfe"}]}'), [400]),
        (with_length(b'{"model":"engine-model","messages":[{"role":"user","content":"\\ud83d"}]}'), [400]),
        (
            with_length(b"\xef\xbb\xbf" + BODY),
            [200],
        ),  # a byte order mark may be ignored (RFC 8259, 8.1); PowerShell sends it
        # smuggling: two lengths, length and chunks, a space before the colon, an unknown coding
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nXCANARYX", [400]),
        (
            HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /XCANARYX HTTP/1.1\r\n\r\n",
            [400],
        ),
        (HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", [400]),
        (HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", [400, 411, 415, 501]),
        (HEAD + b"Content-Length: -1\r\n\r\n", [400]),
        (HEAD + b"X: " + CANARY * 4000 + b"\r\n\r\n", [400]),
        (HEAD + b"".join(b"X-%d: XCANARYX\r\n" % i for i in range(5000)) + b"\r\n", [400]),
        (b"GET /v1/../metrics/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", [404]),
        (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", [404]),
        (b"GET //v1/models HTTP/1.1\r\nHost: x\r\n\r\n", [404]),
        (b"GET /v1/models%00XCANARYX HTTP/1.1\r\nHost: x\r\n\r\n", [400, 404]),
        (b"GET http://XCANARYX/v1/models HTTP/1.1\r\nHost: x\r\n\r\n", [200, 400, 404]),
        (b"CONNECT XCANARYX:443 HTTP/1.1\r\nHost: x\r\n\r\n", [400, 404, 405]),
    ],
)
async def test_hostile_requests(data: bytes, statuses: list[int], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with running() as r:
        out = await talk(r.listener.port, data, answers=data.count(b"POST /v1/chat/completions"))
        codes = [int(line.split()[1]) for line in out.split(b"\r\n") if line.startswith(b"HTTP/1.")]
        assert codes, "no answer"
        assert codes == statuses or (len(codes) == 1 and codes[0] in statuses), (codes, out[:300])
        assert CANARY not in out
        await balanced(r)
    assert CANARY.decode() not in caplog.text


async def test_a_connection_with_many_short_requests_is_never_cut() -> None:
    async with running() as r:
        reader, writer = await asyncio.open_connection("127.0.0.1", r.listener.port)

        async def ask() -> None:
            writer.write(with_length(BODY))
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
            await reader.readexactly(length)

        await ask()
        r.listener.gateway.config.timeouts.header = 0.1  # from now on the connection is older than that
        for _ in range(3):
            silent, other = await asyncio.open_connection("127.0.0.1", r.listener.port)
            while not silent.at_eof():  # the sweeper has been there
                await ask()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(silent.read(), 0.1)
            other.close()
        await ask()
        writer.close()


async def test_a_client_that_does_not_read_is_let_go() -> None:
    async def check(seconds: float) -> None:
        async with running(timeouts={"idle": seconds, "total": 6 * seconds, "body": seconds}) as r:
            r.engine.script = Script(texts=["<think>" + "x" * 60_000], chunk=20)
            reader, writer = await asyncio.open_connection("127.0.0.1", r.listener.port, limit=1024)
            writer.write(with_length(json.dumps({**ASK, "stream": True}).encode()))
            await reader.readexactly(10)  # and no more: the buffers fill
            await until(lambda: not r.listener.gateway.in_flight)
            if await r.sample("clinical_r1_aborts_total", by="timeout"):
                raise TooLateError("the buffers were not full yet")
            assert await r.sample("clinical_r1_upstream_errors_total") == 0
            writer.close()
            await balanced(r)

    await given_time(check, 0.5)


def event(value: Any) -> bytes:
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


def delta(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"id": "x", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


USAGE = {"id": "x", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 9, "total_tokens": 10}}
OK = b"HTTP/1.1 200 OK\r\n"
OPEN = [event(delta("<think>a")), event(delta("</think>b"))]
BROKEN = {
    "no end mark": ([*OPEN, event(delta("", "stop")), event(USAGE)], "ok"),
    "two usages": ([*OPEN, event(delta("", "stop")), event(USAGE), event(USAGE), event(b"[DONE]")], "ok"),
    "odd usage": (
        [*OPEN, event(delta("", "stop")), event({**USAGE, "usage": {"completion_tokens": "x"}}), event(b"[DONE]")],
        "ok",
    ),
    "no finish": ([*OPEN, event(b"[DONE]")], "ok"),
    # dropped and counted: the answer before it is whole
    "text after the end": ([*OPEN, event(delta("", "stop")), event(delta("late")), event(b"[DONE]")], "ok"),
    "more after the mark": ([*OPEN, event(delta("", "stop")), event(b"[DONE]"), event(delta("late"))], "ok"),
    "half an event": ([*OPEN, b'data: {"choices": [{"ind'], "aborted"),
    "half a character": ([*OPEN, b'data: {"choices":[{"index":0,"delta":{"content":"\xe4\xbd"}}]}\n\n'], "aborted"),
    "binary": ([b"\x00\xff" * 500, b"\n\n"], "aborted"),
    "an endless event": ([b"data: " + b"x" * 70_000] * 40, "aborted"),
    "another index": ([event({"choices": [{"index": 7, "delta": {"content": "x"}}]})], "aborted"),
    "nothing": ([], "aborted"),
}


@contextlib.asynccontextmanager
async def raw_engine(parts: list[bytes], close: bool = True) -> AsyncIterator[str]:
    """An engine that answers health and models, and streams the parts as they are."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if length := re.search(rb"Content-Length: (\d+)", head):  # closed with a body unread, TCP resets the answer
                await reader.readexactly(int(length[1]))
            if b"chat/completions" not in head.split(b"\r\n")[0]:
                listed = b'{"data":[{"id":"engine-model"}],"tokens":[1]}'
                writer.write(
                    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(listed) + listed
                )
            else:
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                for part in parts:
                    writer.write(b"%x\r\n" % len(part) + part + b"\r\n")
                    await writer.drain()
                if close:
                    writer.write(b"0\r\n\r\n")
                else:
                    writer.write(b"ff\r\ndata")  # dies in the middle of a chunk
            await writer.drain()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


@pytest.mark.parametrize("close", [True, False], ids=["ended", "died in a chunk"])
@pytest.mark.parametrize("name", BROKEN)
async def test_broken_engines(name: str, close: bool, caplog: pytest.LogCaptureFixture) -> None:
    parts, expected = BROKEN[name]
    async with raw_engine(parts, close) as url, running(ScriptedEngine(), upstream=url) as r:
        async with r.session.post(f"{r.base}/v1/chat/completions", json={**ASK, "stream": True}) as response:
            text = await asyncio.wait_for(response.read(), PATIENCE)
        await r.settled()
        assert await r.sample("clinical_r1_answers_total", outcome=expected) == 1
        assert await r.sample("clinical_r1_answers_total") == await r.sample("clinical_r1_answers_started_total") == 1
        if close:  # else the death may come before or after the last event
            assert (b"[DONE]" in text) == (expected == "ok")
        assert (b"[DONE]" in text) != (b'"error"' in text)
        assert await r.sample("clinical_r1_rejections_total", reason="internal") == 0
        if close:
            late = await r.sample("clinical_r1_upstream_errors_total", kind="late_text")
            assert (late, b"late" in text) == (int(name == "text after the end"), False)


async def test_an_engine_that_never_ends_is_cut_by_the_total_time() -> None:
    async def check(seconds: float) -> None:
        async with running(timeouts={"total": seconds, "idle": PATIENCE}) as r:
            r.engine.script = Script(texts=["<think>" + "x" * 5000], delay=0.1)
            chunks = await r.stream()
            assert chunks[-1]["error"]["code"] == "engine_timeout"
            assert await r.sample("clinical_r1_aborts_total", by="timeout") == 1
            await balanced(r)

    await given_time(check, 0.6)
