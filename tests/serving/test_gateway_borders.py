"""The world's clients and engines: what says nothing is taken, odd engines lose no answer, none leads elsewhere."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from gateway_fixture import ASK, joined, running, until
from scripted_engine import ScriptedEngine

from serving.gateway import audit as audit_module
from serving.gateway.keys import new_key
from serving.gateway.upstream import EventReader

NOTHING_SAID: list[dict[str, Any]] = [
    {"tools": None, "tool_choice": None, "functions": None, "function_call": None},
    {"tools": [], "tool_choice": "none", "parallel_tool_calls": True},
    {"logprobs": False, "top_logprobs": None},
    {"logprobs": None, "top_logprobs": 0},
    {"response_format": {"type": "text"}},
    {"metadata": {}, "store": False, "service_tier": "auto", "user": "u"},
    {"metadata": {"trace": "1"}, "safety_identifier": "x", "prompt_cache_key": "y"},
    {"logit_bias": {}, "modalities": ["text"], "audio": None, "prediction": None, "web_search_options": None},
    {"stop": None, "seed": None, "n": None, "temperature": None, "max_tokens": None, "stream_options": None},
    {"stop": [], "n": 1},
    # vLLM's own extra fields at their defaults
    {"ignore_eos": False, "skip_special_tokens": True, "min_tokens": 0, "stop_token_ids": [], "best_of": None},
    {"add_generation_prompt": True, "continue_final_message": False, "echo": False, "include_reasoning": True},
    {"length_penalty": 1.0, "min_tokens": 0.0, "best_of": 1.0, "top_logprobs": 0.0},  # JSON knows one kind of number
    {"a_field_of_next_year": None},
]
SAYS_SOMETHING: list[dict[str, Any]] = [
    {"tools": [{"type": "function", "function": {"name": "f"}}]},
    {"tool_choice": "required"},
    {"logprobs": True},
    {"top_logprobs": 3},
    {"response_format": {"type": "json_object"}},
    {"store": True},
    {"logit_bias": {"5": 1}},
    {"modalities": ["text", "audio"]},
    {"skip_special_tokens": False},
    {"min_tokens": False},  # not the number 0
    {"logprobs": 0},  # not false: an older API's number
    {"a_field_of_next_year": False},
]


@pytest.mark.parametrize("extra", NOTHING_SAID, ids=lambda extra: "+".join(extra))
async def test_what_says_nothing_is_taken_and_does_not_reach_the_engine(extra: dict[str, Any]) -> None:
    async with running() as r:
        status, _ = await r.unary(**extra)
        assert status == 200
        assert set(r.engine.bodies[0]) <= {"messages", "model", "max_tokens", "n", "return_token_ids"}


@pytest.mark.parametrize("extra", SAYS_SOMETHING, ids=lambda extra: "+".join(extra))
async def test_what_is_not_offered_is_refused(extra: dict[str, Any]) -> None:
    async with running() as r:
        status, body = await r.unary(**extra)
        assert (status, body["error"]["code"]) == (400, "refused_field")
        assert r.engine.bodies == []


CLIENTS: dict[str, dict[str, Any]] = {
    "openai": {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
    "langchain": {"n": 1, "stream": False, "temperature": 0.7, "stop": None, "tools": None},
    "litellm": {"temperature": None, "user": "u-1", "metadata": {"model_group": "x"}, "extra_headers": None},
    "open webui": {
        "stream": True,
        "stream_options": {"include_usage": True},
        "metadata": {"chat_id": "c", "message_id": "m", "features": {}},
        "tool_choice": None,
    },
    "spring ai": {"logit_bias": None, "parallel_tool_calls": None, "store": False, "response_format": None},
    "vllm's tests": {"temperature": 0.0, "logprobs": False, "top_logprobs": None, "max_completion_tokens": 10},
}


@pytest.mark.parametrize("name", CLIENTS)
async def test_request_shapes_of_common_clients(name: str) -> None:
    turns: list[dict[str, Any]] = [
        {"role": "system", "content": [{"type": "text", "text": "Answer."}], "name": "s"},
        {"role": "user", "content": "Fever?"},
        {"role": "assistant", "content": None, "tool_calls": None, "refusal": None, "annotations": []},
        {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "text", "text": "cough?"}]},
    ]
    async with running() as r:
        body = {**CLIENTS[name], "messages": turns}
        if body.get("stream"):
            body.pop("stream")
            assert joined(await r.stream(**body)) == ("weigh it", "Flu.", "stop")
        else:
            assert (await r.unary(**body))[0] == 200
        sent = r.engine.bodies[0]["messages"]
        assert [turn["content"] for turn in sent] == ["Answer.", "Fever?", "", "And cough?"]


async def test_the_real_openai_client() -> None:
    import openai

    async with running() as r:
        client = openai.AsyncOpenAI(base_url=f"{r.base}/v1", api_key="none")
        messages: Any = ASK["messages"]
        whole = await client.chat.completions.create(model="engine-model", messages=messages, store=False, metadata={})
        assert whole.choices[0].message.content == "Flu."
        stream = await client.chat.completions.create(
            model="engine-model", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].usage and chunks[-1].usage.completion_tokens_details
        assert chunks[-1].usage.completion_tokens_details.reasoning_tokens == len("\nweigh it\n")
        await client.close()


def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [choice], **more}).encode()


def text_chunks(text: str = "<think>\nweigh it\n</think>\n\nFlu.") -> list[bytes]:
    return [chunk({"content": character}) for character in text]


USAGE = {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}
DONE = b"[DONE]"
STREAMS: dict[str, tuple[list[bytes], Any]] = {
    "an empty chunk after the end": ([*text_chunks(), chunk({}, "stop"), chunk({"content": ""}), DONE], None),
    "the end twice, with usage": ([*text_chunks(), chunk({}, "stop"), chunk({}, "stop", usage=USAGE), DONE], USAGE),
    "an empty finish_reason": ([*(chunk({"content": c}, "") for c in "Flu."), chunk({}, "stop"), DONE], None),
    "choices null": ([b'{"id": "c", "choices": null}', *text_chunks(), chunk({}, "stop"), DONE], None),
    "no index": ([c.replace(b'"index": 0, ', b"") for c in (*text_chunks(), chunk({}, "stop"))] + [DONE], None),
    "error null": ([chunk({"content": "Flu."}, error=None), chunk({}, "stop"), DONE], None),
    "negative usage": ([chunk({"content": "Flu."}), chunk({}, "stop", usage={"completion_tokens": -3}), DONE], None),
    "usage of the moon": ([*text_chunks(), chunk({}, "stop", usage={"completion_tokens": 10**12}), DONE], None),
    "words for numbers": ([*text_chunks(), chunk({}, "stop", usage={"completion_tokens": "9"}), DONE], None),
    "usage of no number": ([*text_chunks(), chunk({}, "stop", usage={"completion_tokens": float("nan")}), DONE], None),
    "words for a part of the usage": (
        [*text_chunks(), chunk({}, "stop", usage={**USAGE, "prompt_tokens_details": {"cached_tokens": -1}}), DONE],
        USAGE,
    ),
    "several data lines": (
        [chunk({"content": "Flu."}).replace(b", ", b",\ndata: "), chunk({}, "stop"), DONE],
        None,
    ),
}


async def engine_of(events: list[bytes], end: bytes = b"\n\n") -> TestServer:
    """An engine that streams these events and knows nothing else."""

    async def chat(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            await response.write(b"data: " + event + end)
        return response

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "engine-model"}]})

    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", chat), web.get("/v1/models", models), web.get("/health", models)])
    server = TestServer(app)
    await server.start_server()
    return server


@pytest.mark.parametrize("name", STREAMS)
async def test_odd_engines_lose_no_answer(name: str) -> None:
    events, usage = STREAMS[name]
    server = await engine_of(events)
    async with running(upstream=str(server.make_url(""))) as r:
        chunks = await r.stream(stream_options={"include_usage": True})
        assert joined(chunks)[1:] == ("Flu.", "stop"), chunks
        assert not any("error" in c for c in chunks)
        assert chunks[-1]["usage"] == usage
        assert all(c["finish_reason"] is None or c["finish_reason"] for e in chunks for c in e["choices"])
        await r.settled()
        dropped = await r.sample("clinical_r1_upstream_errors_total", kind="absurd_usage")
        assert dropped == (("usage" in name and "with" not in name) or "words" in name)
    await server.close()


async def test_a_character_in_two_halves() -> None:
    halves = [b'{"choices": [{"index": 0, "delta": {"content": "\\ud83d"}}]}', b'{"choices": [{"index": 0, "delta": ']
    halves[1] += b'{"content": "\\ude37!"}}]}'
    server = await engine_of([*halves, chunk({}, "stop"), DONE])
    async with running(upstream=str(server.make_url(""))) as r:
        assert joined(await r.stream())[1] == "😷!"
    await server.close()


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_line_ends_of_one_kind_or_another(step: int) -> None:
    raw = b"\xef\xbb\xbfdata: a\r\rdata: b\r\ndata: c\r\n\r\ndata: d\n\n: comment\rdata: e\r\r"
    reader = EventReader()
    got = [event for at in range(0, len(raw), step) for event in reader.feed(raw[at : at + step])]
    assert got == [b"a", b"b\nc", b"d", b"e"]


async def test_usage_of_a_whole_answer_is_null_where_the_engine_gave_none() -> None:
    engine = ScriptedEngine()
    engine.script.garbage = json.dumps(
        {"choices": [{"index": 0, "message": {"content": "Flu."}, "finish_reason": "stop"}]}
    ).encode()
    async with running(engine) as r:
        status, body = await r.unary()
        assert (status, body["usage"]) == (200, None)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_redirect_takes_no_prompt_elsewhere(stream: bool) -> None:
    taken = []

    async def elsewhere(request: web.Request) -> web.Response:
        taken.append(await request.read())
        return web.json_response({})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", elsewhere)
    other = TestServer(app)
    await other.start_server()

    async def chat(request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(str(other.make_url("/v1/chat/completions")))

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "engine-model"}]})

    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", chat), web.get("/v1/models", models), web.get("/health", models)])
    bad = TestServer(app)
    await bad.start_server()
    async with running(upstream=str(bad.make_url(""))) as r:
        status, body = await r.unary(stream=stream)
        assert (status, body["error"]["code"]) == (502, "engine_failed")
        assert taken == []
        assert await r.sample("clinical_r1_upstream_errors_total", kind="redirect") == 1
    for server in (bad, other):
        await server.close()


async def test_tool_calls_pass_through_where_they_are_allowed() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "lab", "arguments": "{}"}}
    tools = [{"type": "function", "function": {"name": "lab"}}]
    server = await engine_of([chunk({"role": "assistant", "tool_calls": [call]}), chunk({}, "tool_calls"), DONE])
    turns = [
        *ASK["messages"],
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "WBC 12"},
    ]
    async with running(upstream=str(server.make_url("")), tools=True) as r:
        chunks = await r.stream(messages=turns, tools=tools, tool_choice="auto")
        calls = [c["delta"]["tool_calls"] for e in chunks for c in e["choices"] if "tool_calls" in c["delta"]]
        assert calls == [[call]]
        await r.settled()
        assert await r.sample("clinical_r1_answers_total", outcome="no_think") == 1
    async with running() as r:
        assert (await r.unary(messages=turns))[1]["error"]["code"] == "bad_field"
    await server.close()


async def test_one_key_cannot_take_all_slots(tmp_path: Path) -> None:
    first, first_line = new_key("first")
    second, second_line = new_key("second")
    (tmp_path / "keys").write_text(f"{first_line}\n{second_line}\n")
    engine, end = ScriptedEngine(), asyncio.Event()
    engine.script.held = end
    async with running(
        engine, auth="keys", keys_file=tmp_path / "keys", limits={"in_flight": 4, "key_share": 0.5}
    ) as r:

        async def ask(key: str) -> int:
            headers = {"Authorization": f"Bearer {key}"}
            async with r.session.post(f"{r.base}/v1/chat/completions", json=ASK, headers=headers) as response:
                return response.status

        asked = [asyncio.create_task(ask(key)) for key in (first, first, first, first, second)]
        await r.reaches(2, "clinical_r1_rejections_total", reason="key_overloaded")
        await until(lambda: len(engine.bodies) == 3, "the third request")
        end.set()
        statuses = await asyncio.gather(*asked)
        assert sorted(statuses[:4]) == [200, 200, 429, 429]
        assert statuses[4] == 200
        assert await ask(first) == 200


async def test_malformed_http_is_counted() -> None:
    async with running() as r:
        reader, writer = await asyncio.open_connection("127.0.0.1", r.listener.port)
        writer.write(b"GARBAGE \x00\r\n\r\n")
        assert b"bad_http" in await reader.read()
        writer.close()
        assert await r.sample("clinical_r1_rejections_total", reason="bad_http") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
async def test_a_full_disk_is_counted_and_refuses_where_the_line_is_required() -> None:
    async with running(audit_file="/dev/full") as r:
        assert [(await r.unary())[0] for _ in range(2)] == [200, 200]
        await r.reaches(2, "clinical_r1_audit_lines_lost_total")
        assert "clinical_r1_audit_failing" in (await r.get("/metrics"))[1]
        assert await r.sample("clinical_r1_audit_failing") == 1
    async with running(audit_file="/dev/full", audit_required=True) as r:
        assert (await r.unary())[0] == 200  # nothing has failed yet
        await r.reaches(1, "clinical_r1_audit_lines_lost_total")
        status, body = await r.unary()
        assert (status, body["error"]["code"]) == (503, "audit_unavailable")


async def test_a_reader_that_stalls_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "STALLED_SECONDS", 0.2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    async with running(audit_file=str(pipe), audit_required=True) as r:
        statuses = [200]
        while statuses[-1] == 200 and len(statuses) < 10_000:  # a pipe holds 64 KiB, the queue as many lines
            statuses.append((await r.unary())[0])
        assert statuses[-1] == 503
        assert len(statuses) > 100
        while os.read(read, 65536):
            await asyncio.sleep(0.05)
            if (await r.unary())[0] == 200:
                break
        os.close(read)
