"""Endpoints that misbehave: what the client does with broken, endless, packed, slow and redirected replies."""

import asyncio
import gzip
import json
import multiprocessing
import time
from pathlib import Path

import pytest
from aiohttp import web
from llm_server import Answer, Start, attempt_messages, chat_reply, error_reply

from clinical_r1.errors import UserError
from clinical_r1.llm import transport
from clinical_r1.llm.client import LLMClient
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.journal import load_key
from clinical_r1.llm.limits import backoff
from clinical_r1.llm.reply import AttemptError, CallFailed, EndpointUnusable, read_reply


def body_of(content: object, **usage: object) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}}], "usage": usage}).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"<html><body>Welcome to the guest network</body></html>",
        b"",
        b"null",
        b"[]",
        b"\xff\xfe\x00",
        b'{"choices": null}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": {"content": 7}}]}',
        b'{"choices": [{"message": {"content": {"a": 1}}}], "usage": {"completion_tokens": 3}}',
        b'{"choices": [{"message": {"content": ["a"]}}]}',
        b"[" * 200_000,
        b'{"choices":' * 50_000,
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)
def test_what_is_no_reply_fails_with_a_code(body: bytes) -> None:
    with pytest.raises(AttemptError, match="bad_reply"):
        read_reply(body)


def test_odd_but_readable_replies() -> None:
    assert read_reply(body_of(None)).text == ""
    assert (
        read_reply(body_of([{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}])).text
        == "ab"
    )


@pytest.mark.parametrize("count", [-9, 10**30, float("inf"), float("nan"), "many", [], {}])
def test_no_answer_is_lost_by_a_usage_that_cannot_be(count: object) -> None:
    """Nor does it earn tokens back, or fill the books with what nobody can pay."""
    reply = read_reply(body_of("four four", prompt_tokens=count, completion_tokens=count, total_tokens=count,
                               completion_tokens_details={"reasoning_tokens": count}))  # fmt: skip
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens, reply.reasoning_tokens) == (
        "four four",
        0,
        2,
        None,
    )
    assert read_reply(b'{"choices": [{"message": {"content": "a"}}], "usage": "none"}').text == "a"


async def test_a_page_instead_of_a_reply_is_tried_again(start: Start) -> None:
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(1)
        page = web.Response(text="<html>Bad gateway</html>", content_type="text/html")
        return page if len(asked) < 3 else chat_reply("fine")

    server = await start(handler)
    async with LLMClient(server.entry()) as client:
        assert (await client.chat(attempt_messages())).text == "fine"
    assert client.statistics.retries["bad_reply"] == 2


async def test_null_content_is_no_structured_answer(start: Start) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response({"model": "m", "choices": [{"message": {"content": None}, "finish_reason": "stop"}]})

    server = await start(handler)
    async with LLMClient(server.entry(max_resamples=1)) as client:
        with pytest.raises(CallFailed, match="unparseable"):
            await client.chat(attempt_messages(), response_model=Answer)


@pytest.mark.parametrize("packed", [False, True])
async def test_a_huge_reply_is_cut_off_and_not_asked_for_again(start: Start, monkeypatch, packed: bool) -> None:
    monkeypatch.setattr(transport, "MAX_REPLY", 1 << 16)
    asked = []
    data = gzip.compress(bytes(1 << 22)) if packed else bytes(1 << 22)
    assert not packed or len(data) < 1 << 16

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.headers["Accept-Encoding"])
        return web.Response(body=data, headers={"Content-Encoding": "gzip"} if packed else {})

    server = await start(handler)
    async with LLMClient(server.entry()) as client:
        with pytest.raises(CallFailed, match="oversized"):
            await client.chat(attempt_messages())
    assert asked == ["identity"]


async def test_a_packed_reply_is_read_all_the_same(start: Start) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(body_of("fine")), headers={"Content-Encoding": "gzip"})

    server = await start(handler)
    async with LLMClient(server.entry()) as client:
        assert (await client.chat(attempt_messages())).text == "fine"


async def test_a_reply_that_drips_ends_with_the_total_timeout(start: Start) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.05)
        except (ConnectionError, asyncio.CancelledError):
            pass
        return response

    server = await start(handler)
    limits = {"total_timeout": 0.4, "connect_timeout": 1, "read_timeout": 30}
    async with LLMClient(server.entry(max_retries=0, **limits)) as client:
        with pytest.raises(CallFailed, match="timeout"):
            async with asyncio.timeout(120):
                await client.chat(attempt_messages())


async def test_a_lost_connection_is_tried_again(start: Start) -> None:
    asked = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(1)
        assert request.transport is not None
        if len(asked) == 1:
            request.transport.abort()
            return chat_reply("never seen")
        if len(asked) == 2:  # half a body, then gone
            response = web.StreamResponse(headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b'{"choices": [')
            request.transport.abort()
            return response
        return chat_reply("fine")

    server = await start(handler)
    async with LLMClient(server.entry()) as client:
        assert (await client.chat(attempt_messages())).text == "fine"
    assert client.statistics.retries["connection"] == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(start: Start, monkeypatch, status: int) -> None:
    seen = []

    async def elsewhere(request: web.Request) -> web.Response:
        seen.append((request.headers.get("Authorization"), await request.text()))
        return chat_reply("stolen")

    other = await start(elsewhere)

    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": f"{other.base_url}/chat/completions"})

    monkeypatch.setenv("MY_KEY", "secret")
    server = await start(handler)
    async with LLMClient(server.entry(api_key_env="MY_KEY")) as client:
        with pytest.raises(EndpointUnusable, match="follow no redirect"):
            await client.chat(attempt_messages())
    assert seen == []


@pytest.mark.parametrize("text", ["502 Bad Gateway", '{"error": "busy"}', '{"error": [1]}', "[1]", "[" * 100_000])
async def test_errors_in_any_form_are_retried_by_their_status(start: Start, text: str) -> None:
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(1)
        return web.Response(status=502, text=text) if len(asked) == 1 else chat_reply("fine")

    server = await start(handler)
    async with LLMClient(server.entry()) as client:
        assert (await client.chat(attempt_messages())).text == "fine"
    assert client.statistics.retries == {"http_502": 1}


async def test_an_endless_retry_after_waits_no_longer_than_we_allow(start: Start) -> None:
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(1)
        wait = {1: "999999999", 2: "Fri, 31 Dec 9999 23:59:59 GMT", 3: "-5", 4: "soon", 5: "inf"}
        return error_reply(429, "no", **{"Retry-After": wait[len(asked)]}) if len(asked) <= 5 else chat_reply("fine")

    server = await start(handler)
    began = time.monotonic()
    async with LLMClient(server.entry(backoff_max=0.05)) as client:
        assert (await client.chat(attempt_messages())).text == "fine"
    assert time.monotonic() - began < 120 and len(asked) == 6


@pytest.mark.parametrize("asked", [1e300, 0.0])
def test_the_wait_is_bounded(asked: float) -> None:
    import random

    assert 0 <= backoff(500, 0.5, 60.0, asked, random.Random(0)) <= 75


async def test_a_storm_of_429_ends_with_one_sentence(start: Start) -> None:
    async def handler(request: web.Request) -> web.Response:
        return error_reply(429, "slow down", **{"Retry-After": "0"})

    server = await start(handler)
    entry = server.entry(give_up_after=0.2, max_retries=10_000, backoff_max=0.05, max_concurrency=16)
    async with LLMClient(entry) as client:
        ends = await asyncio.gather(
            *(client.chat(attempt_messages(), sample_index=n) for n in range(40)), return_exceptions=True
        )
    assert all(isinstance(end, EndpointUnusable) for end in ends)
    assert "rate_limited" in str(ends[0])


@pytest.mark.parametrize("key", ["two words", "line\nend", "schl\u00fcssel"])
def test_a_key_that_is_none_is_one_sentence(monkeypatch, key: str) -> None:
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(UserError, match="MY_KEY") as refusal:
        EndpointConfig(name="e", base_url="http://h/v1", model="m", api_key_env="MY_KEY").api_key()
    assert key not in str(refusal.value)
    monkeypatch.setenv("MY_KEY", "fine\n")
    assert EndpointConfig(name="e", base_url="http://h/v1", model="m", api_key_env="MY_KEY").api_key() == "fine"


def _load(path: Path, start, found) -> None:
    start.wait()
    found.put(load_key(path))


def test_processes_that_begin_at_once_share_one_key(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, found = context.Event(), context.Queue()
    workers = [context.Process(target=_load, args=(tmp_path / "new" / "journal.key", start, found)) for _ in range(4)]
    for worker in workers:
        worker.start()
    start.set()
    keys = {found.get(timeout=300) for _ in workers}
    for worker in workers:
        worker.join()
    assert keys == {(tmp_path / "new" / "journal.key").read_bytes()}


async def test_a_cancelled_call_lets_go_of_its_connection(start: Start) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        asked.set()
        while request.transport is not None and not request.transport.is_closing():
            await asyncio.sleep(0.01)
        gone.set()
        return web.Response()

    server = await start(handler)
    async with LLMClient(server.entry()) as client:
        call = asyncio.create_task(client.chat(attempt_messages()))
        await asyncio.wait_for(asked.wait(), 120)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(gone.wait(), 120)


async def test_the_proxy_of_the_environment_is_used(start: Start, monkeypatch) -> None:
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(request.headers["Host"])
        return chat_reply("fine")

    proxy = await start(handler)
    monkeypatch.setenv("http_proxy", proxy.base_url.removesuffix("/v1"))
    elsewhere = proxy.entry().model_copy(update={"base_url": "http://endpoint.invalid/v1"})
    async with LLMClient(elsewhere) as client:
        assert (await client.chat(attempt_messages())).text == "fine"
    assert asked == ["endpoint.invalid"]
    monkeypatch.setenv("no_proxy", "endpoint.invalid")
    async with LLMClient(elsewhere.model_copy(update={"max_retries": 0})) as client:
        with pytest.raises(CallFailed, match="connection"):
            await client.chat(attempt_messages())
