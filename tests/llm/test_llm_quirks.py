"""What endpoints refuse is sent otherwise where their words are unambiguous, and told to the user where not."""

import asyncio
from typing import Any

import pytest
from aiohttp import web
from llm_server import QUESTION, Answer, Start, attempt_messages, chat_reply, error_reply

from clinical_r1.llm.client import LLMClient
from clinical_r1.llm.config import BudgetConfig, EndpointConfig
from clinical_r1.llm.journal import open_journal
from clinical_r1.llm.limits import FIRST_CALLS
from clinical_r1.llm.quirks import said
from clinical_r1.llm.reply import AttemptError, CallFailed, EndpointUnusable

GOOD = '{"reasoning": "r", "answer": "a"}'
FUSSY = {
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.": (
        "max_tokens", "token_field: max_completion_tokens"),
    "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) value is supported.": (
        "temperature", "send_temperature: false"),
    "Unknown parameter: 'seed'": ("seed", "send_seed: false"),
    "seed: Extra inputs are not permitted": ("seed", "send_seed: false"),
    "response_format is not supported": ("response_format", "json_mode: text"),
    "Invalid request body": ("response_format", "json_mode: text"),
}  # fmt: skip


@pytest.mark.parametrize("words", FUSSY)
async def test_a_refused_field_is_found_out_once_and_remembered(start: Start, capsys, words: str) -> None:
    field, setting = FUSSY[words]
    bodies: list[dict[str, Any]] = []

    async def handler(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return error_reply(400, words) if field in bodies[-1] else chat_reply(GOOD)

    server = await start(handler)
    async with LLMClient(server.entry()) as client:
        for sample in range(3):
            await client.chat(attempt_messages(), sample_index=sample, seed=5, response_model=Answer)
    refused = sum(field in body for body in bodies)
    # schema and object are refused; without a reason given, also the attempt without the fields that are not OpenAI's
    expected = 3 if words == "Invalid request body" else 2 if field == "response_format" else 1
    assert refused == expected and len(bodies) == 3 + refused
    assert setting in client.quirks.learnt
    assert capsys.readouterr().err.count(setting) == 1
    async with LLMClient(server.entry()) as client:  # many on their way at once learn the same
        calls = (client.chat(attempt_messages(), sample_index=n, seed=5, response_model=Answer) for n in range(20))
        await asyncio.gather(*calls)
    assert capsys.readouterr().err.count(setting) == 1


async def test_fastapi_words_are_read(start: Start) -> None:
    async def handler(request: web.Request) -> web.Response:
        if "seed" not in await request.json():
            return chat_reply(GOOD)
        detail = [{"loc": ["body", "seed"], "msg": "extra fields not permitted", "type": "value_error.extra"}]
        return web.json_response({"detail": detail}, status=422)

    server = await start(handler)
    async with LLMClient(server.entry()) as client:
        assert (await client.chat(attempt_messages(), seed=5)).text == GOOD


async def test_azure_and_gateways_by_configuration(start: Start, monkeypatch) -> None:
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        return chat_reply("fine") if request.query.get("api-version") else error_reply(404, "Resource not found")

    monkeypatch.setenv("AZURE_KEY", "s3cret")
    server = await start(handler)
    azure = {"api_key_env": "AZURE_KEY", "api_key_header": "api-key", "headers": {"x-team": "clinic"}}
    async with LLMClient(server.entry(query={"api-version": "2026-01-01"}, **azure)) as client:
        assert (await client.chat(attempt_messages())).text == "fine"
    assert seen[0].headers["api-key"] == "s3cret" and seen[0].headers["x-team"] == "clinic"
    assert "Authorization" not in seen[0].headers
    in_the_address = server.entry().model_copy(update={"base_url": f"{server.base_url}?api-version=1"})
    async with LLMClient(in_the_address) as client:
        assert (await client.chat(attempt_messages())).text == "fine"
    async with LLMClient(server.entry(**azure)) as client:
        with pytest.raises(EndpointUnusable, match=r"Resource not found.*api-version"):
            await client.chat(attempt_messages())


@pytest.mark.parametrize("kind", ["finish", "declared", "azure"])
async def test_a_refusal_is_asked_once_also_by_the_next_run(start: Start, tmp_path, kind: str) -> None:
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(await request.json())
        if kind == "azure":
            return error_reply(400, "The response was filtered due to the content management policy", "content_filter")
        if kind == "finish":
            return chat_reply(GOOD[:9], "content_filter")
        message = {"role": "assistant", "content": None, "refusal": "I can't help with that."}
        return web.json_response({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    server = await start(handler)
    for run in range(2):
        with open_journal(tmp_path) as journal:
            async with LLMClient(server.entry(), journal) as client:
                with pytest.raises(CallFailed) as failure:
                    await client.chat(attempt_messages(), response_model=Answer)
        if kind == "azure" and run == 0:
            assert "content management policy" in client.statistics.told()
        assert failure.value.reason == ("refused" if kind == "declared" else "content_filter")
    assert len(asked) == 1


async def test_an_endpoint_whose_first_calls_all_fail_ends_the_step_with_its_words(start: Start) -> None:
    async def handler(request: web.Request) -> web.Response:
        return error_reply(
            400, "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"
        )

    server = await start(handler)
    async with LLMClient(server.entry()) as client:
        for sample in range(FIRST_CALLS):
            with pytest.raises(CallFailed, match="too_long"):
                await client.chat(attempt_messages(), sample_index=sample)
        with pytest.raises(EndpointUnusable) as failure:
            await client.chat(attempt_messages(), sample_index=FIRST_CALLS)
    assert "none of the first 50 calls" in str(failure.value)
    assert "maximum context length is 4096" in str(failure.value) and "lower max_tokens" in str(failure.value)


async def test_replies_of_no_use_are_such_calls_also_while_they_are_asked_again(start: Start) -> None:
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append((await request.json())["seed"])
        return chat_reply("Let us talk about the weather.")

    server = await start(handler)
    async with LLMClient(server.entry(max_concurrency=4)) as client:
        calls = (client.chat(attempt_messages(), sample_index=n, seed=n, response_model=Answer) for n in range(40))
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert FIRST_CALLS <= len(asked) <= FIRST_CALLS + 4, "no call begins after the first 50"
    assert len(set(asked)) == len(asked) == client.statistics.attempts
    stopped = [error for error in results if isinstance(error, EndpointUnusable)]
    assert stopped and "most often unparseable" in str(stopped[0])


def test_what_an_endpoint_says_never_carries_what_was_sent() -> None:
    def words(message: str, content: str = QUESTION) -> str:
        return said(AttemptError("http_400", 400, message=message), [{"role": "user", "content": content}])

    assert words("Unsupported  value:\n 'x'") == "Unsupported value: 'x'"
    assert "quotes the request" in words(f"Invalid prompt: {QUESTION[20:60]}")
    assert "quotes the request" in words("提示无效：患者发热一周伴皮疹。", "病例：患者发热一周伴皮疹，无出血。")
    assert words("<html><body>x</body></html>") == ""
    assert "sk-" + "a1" * 20 not in words("Incorrect API key: sk-" + "a1" * 20)
    assert len(words("no " * 500)) < 300


async def test_a_cut_reply_gets_room_at_once(start: Start) -> None:
    bodies: list[dict[str, Any]] = []

    async def handler(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return chat_reply(GOOD[:12], "length") if bodies[-1]["max_tokens"] < 200 else chat_reply(GOOD)

    server = await start(handler)
    async with LLMClient(server.entry()) as client:
        assert (
            await client.chat(attempt_messages(), max_tokens=64, seed=1, response_model=Answer)
        ).parsed.answer == "a"
    assert [body["max_tokens"] for body in bodies] == [64, 128, 256]
    assert client.statistics.summary()["cut"] == 2 and client.statistics.summary()["cut_at"]


def test_limits_hold_for_the_whole_job() -> None:
    entry = EndpointConfig(
        name="e",
        base_url="http://x/v1",
        model="m",
        requests_per_minute=600,
        tokens_per_minute=1000,
        max_concurrency=128,
    )
    share = entry.shared(4)
    assert (share.requests_per_minute, share.tokens_per_minute, share.max_concurrency) == (150, 250, 32)
    assert entry.shared(1) is entry and entry.shared(500).max_concurrency == 1
    assert BudgetConfig(max_cost=10, max_tokens=100).shared(4) == BudgetConfig(max_cost=2.5, max_tokens=25)
    assert BudgetConfig().shared(4) == BudgetConfig()


async def test_an_error_within_a_200_is_an_error(start: Start) -> None:
    calls = []

    async def handler(request: web.Request) -> web.Response:
        calls.append(1)
        bad = web.json_response({"error": {"message": "Provider overloaded", "code": 502}})
        return bad if len(calls) < 3 else chat_reply("fine")

    server = await start(handler)
    async with LLMClient(server.entry()) as client:
        assert (await client.chat(attempt_messages())).text == "fine"
        assert client.statistics.retries["http_502"] == 2
