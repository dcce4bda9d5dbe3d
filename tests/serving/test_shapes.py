"""Shapes of requests as the world's clients and their users send them, and the table in docs/serving.md row by row."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from gateway_fixture import ASK, PATIENCE, joined, running
from scripted_engine import ScriptedEngine

from serving.gateway.config import EFFORTS, Limits
from serving.gateway.errors import RejectionError
from serving.gateway.request import Asked, Budgets, parse

SAY = [{"role": "user", "content": "Fever?"}]
TURNS = {"messages": SAY}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def asked(body: dict[str, Any], tools: bool = False) -> Asked:
    data = json.dumps({"model": "m", **TURNS, **body}).encode()
    return parse(data, Limits(), frozenset(["m"]), tools=tools, budgets=Budgets(EFFORTS))


TAKEN: dict[str, dict[str, Any]] = {
    "curl, the least": {},
    "langchain": {"stream": False, "n": 1, "temperature": 0.7, "max_completion_tokens": 99},
    "langchain, streaming": {"stream": True, "stream_options": {"include_usage": True}},
    "langchain, assistant turns": {
        "messages": [*SAY, {"role": "assistant", "content": "", "tool_calls": [], "function_call": None}, *SAY]
    },
    "langchain, a thought in the history": {
        "messages": [
            *SAY,
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}]},
            *SAY,
        ]
    },
    "litellm": {"extra_body": {}, "extra_headers": {}, "user": "u", "metadata": {"model_group": "g"}, "seed": None},
    "litellm, anthropic's thinking": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    "litellm, a reasoning part": {
        "messages": [*SAY, {"role": "assistant", "content": [{"type": "reasoning", "text": "hm"}]}, *SAY]
    },
    "litellm, cache control": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}
        ]
    },
    "open webui": {"stream": True, "chat_id": "c", "session_id": "s", "metadata": {"features": {}}, "tools": None},
    "open webui, its reasoning setting": {"reasoning_effort": "medium", "stream": True},
    "spring ai, every field null": dict.fromkeys(
        ("audio", "modalities", "seed", "service_tier", "tools", "verbosity", "web_search_options", "extra_body")
    ),
    "spring ai, whole turns": {
        "messages": [
            {"role": "user", "content": "Fever?", "name": None, "tool_calls": None, "refusal": None, "audio": None}
        ]
    },
    "vercel ai sdk": {"temperature": 0, "messages": [{"role": "developer", "content": "Be short."}, *SAY]},
    "vercel ai sdk, parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "Fever?"}]}]},
    "llamaindex": {"temperature": 0.1, "stream": False, "messages": [{"role": "system", "content": "x"}, *SAY]},
    "the responses api's parts": {"messages": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}]},
    "qwen's switch": {"chat_template_kwargs": {"enable_thinking": False}},
    "qwen's switch, at the top": {"enable_thinking": True, "thinking_budget": 50},
    "openrouter": {"reasoning": {"effort": "high", "exclude": False}, "usage": None},
    "openrouter, no thought": {"reasoning": {"effort": "none"}},
    "sglang": {"separate_reasoning": True, "stream_reasoning": True, "top_k": -1, "min_p": 0},
    "lm studio": {"max_tokens": -1, "stream": False},
    "a float of a whole number": {"max_tokens": 100.0, "n": 1.0, "seed": 5.0},
    "top_p of 0": {"top_p": 0},
    "vllm's benchmark": {"ignore_eos": False, "logprobs": None, "repetition_penalty": 1.0, "top_k": 20},
    "an unknown field of null": {"safety_settings": None},
    "a model that ends with an assistant": {"messages": [*SAY, {"role": "assistant", "content": "It is"}]},
}


@pytest.mark.parametrize("name", TAKEN)
def test_taken(name: str) -> None:
    sent = asked(TAKEN[name]).forward
    assert set(sent) <= {"messages", "model", "max_tokens", "n", "temperature", "top_p", "top_k", "min_p", "seed",
                         "repetition_penalty"}  # fmt: skip
    assert all(set(turn) == {"role", "content"} and isinstance(turn["content"], str) for turn in sent["messages"])
    assert sent.get("top_p", 1) > 0 and sent.get("max_tokens", 1) > 0 and "stop" not in sent
    assert "hm" not in str(sent["messages"])


TOOL = {"tools": [{"type": "function", "function": {"name": "f"}}]}
REFUSED: dict[str, tuple[dict[str, Any], str, str | None]] = {
    # body, code, field
    "messages as a string": ({"messages": "Fever?"}, "bad_field", "messages"),
    "one message, no list": ({"messages": {"role": "user", "content": "x"}}, "bad_field", "messages"),
    "no messages": ({"messages": []}, "bad_field", "messages"),
    "messages of strings": ({"messages": ["Fever?"]}, "bad_field", "messages"),
    "content of a number": ({"messages": [{"role": "user", "content": 5}]}, "bad_field", "messages"),
    "no content": ({"messages": [{"role": "user"}]}, "bad_field", "messages"),
    "a role of another api": ({"messages": [{"role": "human", "content": "x"}]}, "bad_field", "messages"),
    "a role in capitals": ({"messages": [{"role": "USER", "content": "x"}]}, "bad_field", "messages"),
    "a picture": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}]},
        "bad_field",
        "messages",
    ),
    "a tool's turn": ({"messages": [*SAY, {"role": "tool", "content": "x"}]}, "bad_field", "messages"),
    "a tool call": ({"messages": [*SAY, {"role": "assistant", "tool_calls": [CALL]}]}, "bad_field", "messages"),
    "tools": (TOOL, "refused_field", "tools"),
    "no model": ({"model": None}, "bad_field", "model"),
    "a model of a number": ({"model": 4}, "bad_field", "model"),
    "another model": ({"model": "gpt-4o"}, "unknown_model", "model"),
    "numbers as strings": ({"temperature": "0.7"}, "bad_field", "temperature"),
    "true as a string": ({"stream": "true"}, "bad_field", "stream"),
    "true for a number": ({"max_tokens": True}, "bad_field", "max_tokens"),
    "zero tokens": ({"max_tokens": 0}, "bad_field", "max_tokens"),
    "minus two tokens": ({"max_tokens": -2}, "bad_field", "max_tokens"),
    "half a token": ({"max_tokens": 1.5}, "bad_field", "max_tokens"),
    "too hot": ({"temperature": 3}, "bad_field", "temperature"),
    "zero answers": ({"n": 0}, "bad_field", "n"),
    "five stops": ({"stop": list("abcde")}, "bad_field", "stop"),
    "an empty stop string": ({"stop": [""]}, "bad_field", "stop"),
    "a stop of a number": ({"stop": 5}, "bad_field", "stop"),
    "usage without a stream": ({"stream_options": {"include_usage": True}}, "bad_field", "stream_options"),
    "a schema": ({"response_format": {"type": "json_schema", "json_schema": {}}}, "refused_field", "response_format"),
    "the old completions": ({"prompt": "Fever?"}, "refused_field", None),
    "ollama's options": ({"options": {"temperature": 0}}, "refused_field", None),
    "another template": (
        {"chat_template_kwargs": {"tools_in_user_message": 1}},
        "refused_field",
        "chat_template_kwargs",
    ),
    "an extra body with a meaning": ({"extra_body": {"top_k": 1}}, "refused_field", "extra_body"),
    "an effort of no known word": ({"reasoning_effort": "maximal"}, "bad_field", "reasoning_effort"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_a_sentence_that_names_the_field_and_repeats_nothing(name: str) -> None:
    body, code, field = REFUSED[name]
    with pytest.raises(RejectionError) as problem:
        asked(body)
    assert (problem.value.reason, problem.value.param) == (code, field)
    for word in ("Fever", "gpt-4o", "maximal", "human", "tools_in_user_message", "prompt"):
        assert word not in problem.value.message


RAW: dict[str, tuple[dict[str, str], bytes, int, str]] = {
    # headers, body, status, code
    "curl -d without a type": ({"Content-Type": "application/x-www-form-urlencoded"}, b"{}", 415, "bad_media_type"),
    "text": ({"Content-Type": "text/plain"}, b"{}", 415, "bad_media_type"),
    "a charset": ({"Content-Type": "application/json; charset=UTF-8"}, b"", 200, ""),
    "a byte order mark": ({"Content-Type": "application/json"}, b"\xef\xbb\xbf", 200, ""),
    "single quotes": ({"Content-Type": "application/json"}, b"{'model': 'm'}", 400, "bad_json"),
    "nothing": ({"Content-Type": "application/json"}, b" ", 400, "bad_json"),
    "null": ({"Content-Type": "application/json"}, b"null", 400, "bad_json"),
    "a list": ({"Content-Type": "application/json"}, b"[]", 400, "bad_json"),
    "utf-16": ({"Content-Type": "application/json"}, json.dumps(ASK).encode("utf-16"), 400, "bad_json"),
    "half a body": ({"Content-Type": "application/json"}, b'{"model": "m", "mess', 400, "bad_json"),
    "not a number": ({"Content-Type": "application/json"}, b'{"temperature": NaN}', 400, "bad_json"),
    "compressed": (
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        b"\x1f\x8b",
        415,
        "bad_media_type",
    ),
}


@pytest.mark.parametrize("name", RAW)
async def test_bodies(name: str) -> None:
    headers, body, status, code = RAW[name]
    body += json.dumps(ASK).encode() if status == 200 else b""
    async with (
        running() as r,
        r.session.post(f"{r.base}/v1/chat/completions", data=body, headers=headers) as response,
    ):
        told = await response.json()
        assert response.status == status and told.get("error", {}).get("code", "") == code


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
@pytest.mark.parametrize("chunked", [True, False])
async def test_http_as_java_and_curl_write_it(expect: bytes, chunked: bool) -> None:
    body = json.dumps({**ASK, "stream": True}).encode()
    length = b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: %d\r\n" % len(body)
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    async with running() as r:
        reader, writer = await asyncio.open_connection("127.0.0.1", r.listener.port)
        head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        )
        writer.write(head + expect + length + b"\r\n")
        await asyncio.sleep(0.05)
        writer.write(sent)
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
        assert b"200 OK" in answer and b"[DONE]" in answer


def one(delta: Any, reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more}


PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "Flu."}]
ODD: dict[str, list[Any]] = {
    "content in parts": [one({"content": PARTS}), one({}, "stop")],
    "content in parts, apart": [one({"content": PARTS[:1]}), one({"content": PARTS[1:]}), one({}, "stop")],
    "reasoning and content in one": [one({"reasoning": "hm", "content": "Flu."}, "stop")],
    "empty strings beside": [one({"reasoning_content": "hm", "content": ""}), one({"content": "Flu."}, "stop")],
    "nulls beside": [one({"reasoning": "hm", "content": None, "role": None}), one({"content": "Flu."}, "stop")],
    "no delta": [one(None), one({"content": "<think>hm</think>Flu."}), one(None, "stop")],
    "a usage in every chunk": [
        one({"content": "<think>hm</think>"}, usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}),
        one({"content": "Flu."}, "stop", usage={"prompt_tokens": 1, "completion_tokens": 9, "total_tokens": 10}),
    ],
    "heartbeats": [{}, one({"content": "<think>hm</think>Flu."}), {"object": "chat.completion.chunk"}, one({}, "stop")],
    "a reason of its own": [one({"content": "<think>hm</think>Flu."}, "eos_token")],
}
BROKEN: dict[str, list[Any]] = {
    "an error object": [one({"content": "Flu"}), {"object": "error", "message": "CANARY", "code": 500}],
    "an answer given up": [one({"content": "Flu"}), one({}, "abort")],
    "an error as an event": [one({"content": "Flu"}), {"error": {"message": "CANARY"}}],
}


def engine_of(chunks: list[Any]) -> ScriptedEngine:
    """Sends these events."""
    from aiohttp import web

    class Odd(ScriptedEngine):
        async def chat(self, request: Any) -> Any:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            for chunk in chunks:
                await response.write(
                    b": ping\n\nevent: message\nid: 1\ndata:" + json.dumps(chunk).encode() + b"\r\n\r\n"
                )
            await response.write(b"data:[DONE]\n\n")
            return response

    return Odd()


@pytest.mark.parametrize("name", ODD)
async def test_odd_chunks_lose_no_answer(name: str) -> None:
    async with running(engine_of(ODD[name]), thinking={"dialect": "think", "opened": False}) as r:
        thinking, answer, reason = joined(await r.stream())
        assert (thinking, answer) == ("hm", "Flu.") and reason


@pytest.mark.parametrize("name", BROKEN)
async def test_what_the_engine_gave_up_is_no_answer(name: str) -> None:
    async with running(engine_of(BROKEN[name]), thinking={"dialect": "think", "opened": False}) as r:
        chunks = await r.stream()
        assert chunks[-1]["error"]["code"] == "engine_failed" and "CANARY" not in str(chunks)
        await r.settled()
        assert await r.sample("clinical_r1_answers_total", outcome="aborted") == 1


@pytest.mark.parametrize("text", ["", "<think>\nhm\n</think>\n\nI can"])
async def test_what_a_filter_took_is_refused_as_it_is_in_evaluation(text: str) -> None:
    engine = ScriptedEngine()
    engine.script.texts, engine.script.finish = [text], "content_filter"
    async with running(engine) as r:
        assert (await r.unary())[1]["choices"][0]["finish_reason"] == "content_filter"
        assert joined(await r.stream())[2] == "content_filter"
        await r.settled()
        assert await r.sample("clinical_r1_answers_total", outcome="refused") == 2


def table() -> list[tuple[str, str]]:
    """(code spans of the first column, the second column) of the table of fields in docs/serving.md."""
    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    rows = text.partition("| field | what happens |\n|---|---|\n")[2].partition("\n\n")[0].splitlines()
    return [(span, row.split("|")[2].strip()) for row in rows for span in re.findall(r"`([^`]+)`", row.split("|")[1])]


VALUES: dict[str, Any] = {
    "stream_options.include_usage": {"stream": True, "stream_options": {"include_usage": True}},
    "stream": {"stream": True},
    "stop": {"stop": ["x"]},
    "n": {"n": 2},
    "seed": {"seed": 1},
    "tools": TOOL,
    "tool_choice": {**TOOL, "tool_choice": "required"},
    "chat_template": {"chat_template": "x"},
    "reasoning_effort": {"reasoning_effort": "low"},
    "top_k": {"top_k": 5},
    "service_tier": {"service_tier": "flex"},
}


def body_of(span: str) -> dict[str, Any] | None:
    """`name: value` or a bare name as a request; None for a span that is no field."""
    name, colon, value = span.partition(": ")
    if colon:
        value = re.sub(r"\.\.\.|\bN\b", "1", value)
        return {name: json.loads(value)} if not re.search(r'"effort": 1', value) else {name: {"effort": "low"}}
    if name in VALUES:
        return dict(VALUES[name])
    if name in ("model", "messages"):
        return {}
    return {name: 1} if re.fullmatch(r"[a-z_]+", name) else None


def of_a_request(span: str, says: str) -> bool:
    """Not of a turn, whose fields are tried above."""
    return span != "null" and not says.startswith(("taken as empty", "joined")) and body_of(span) is not None


@pytest.mark.parametrize(("span", "says"), [row for row in table() if of_a_request(*row)])
def test_the_table_says_what_happens(span: str, says: str) -> None:
    body = body_of(span)
    assert body is not None
    name = next(iter(body), "model")
    if says.startswith("refused"):
        with pytest.raises(RejectionError) as problem:
            asked(body)
        assert (problem.value.reason, problem.value.param) == ("refused_field", name)
    elif says.startswith("pass through"):
        assert name in asked(body, tools=True).forward
    elif says == "taken as left out":
        assert asked(body).forward == asked({}).forward
    elif "budget" in says or says.startswith("tokens that the thought"):
        assert asked(body).budget is not None
    elif says.startswith("forwarded"):
        assert {"max_completion_tokens": "max_tokens"}.get(name, name) in asked(body).forward
    elif "dropped" in says:
        assert set(asked(body).forward) == {"model", "messages", "max_tokens"}
    else:
        assert says.startswith("taken")
        asked(body)
