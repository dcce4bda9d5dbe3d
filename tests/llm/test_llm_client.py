"""The client against real HTTP: retries, fallbacks, concurrency, budget, and what it never says."""

import asyncio
import json
import time

import pytest
from aiohttp import web
from llm_server import Answer, Start, attempt_messages, chat_reply, error_reply

from clinical_r1.errors import UserError
from clinical_r1.llm.client import LLMClient
from clinical_r1.llm.config import BudgetConfig, EndpointConfig
from clinical_r1.llm.journal import Journal
from clinical_r1.llm.limits import Budget
from clinical_r1.llm.reply import BudgetExhausted, CallFailed, EndpointUnusable
from clinical_r1.privacy.crossing import CrossingPolicy, check_crossing
from clinical_r1.sampling import NEUTRAL

KEY = b"k" * 32


async def ask(client: LLMClient, sample: int = 0, **fields):
    return await client.chat(attempt_messages(), "t-1", sample, seed=sample, response_model=Answer, **fields)


async def test_a_call_returns_text_parsed_reply_model_usage_and_cost(start: Start) -> None:
    server = await start()
    async with LLMClient(server.entry(price_prompt=1.0, price_completion=2.0)) as client:
        completion = await ask(client)
    assert completion.parsed.answer in completion.text
    assert completion.model == "simulated-clinician" and completion.finish_reason == "stop" and not completion.cached
    usage = completion.usage
    assert usage.calls == 1
    assert usage.cost == pytest.approx((usage.prompt_tokens + 2 * usage.completion_tokens) / 1e6)
    assert client.statistics.summary()["cost"] == pytest.approx(usage.cost, abs=1e-6)


async def test_a_journaled_call_is_not_made_again(start: Start, tmp_path) -> None:
    server = await start()
    texts = []
    for _ in range(2):
        with Journal(tmp_path / "j.jsonl", KEY) as journal:
            async with LLMClient(server.entry(), journal) as client:
                texts.append([(await ask(client, sample)).text for sample in range(5)])
    assert texts[0] == texts[1]
    assert server.replies == 5


async def test_the_same_call_is_never_in_flight_twice(start: Start, tmp_path) -> None:
    server = await start(latency_ms=20)
    with Journal(tmp_path / "j.jsonl", KEY) as journal:
        async with LLMClient(server.entry(), journal) as client:
            completions = await asyncio.gather(*(ask(client) for _ in range(30)))
    assert server.replies == 1
    assert sum(not completion.cached for completion in completions) == 1


async def test_a_cancelled_first_asker_does_not_take_the_others_down(start: Start, tmp_path) -> None:
    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        asked.set()
        await cancelled.wait()
        return chat_reply('{"reasoning": "r", "answer": "a"}')

    server = await start(handler)
    with Journal(tmp_path / "j.jsonl", KEY) as journal:
        async with LLMClient(server.entry(), journal) as client:
            first = asyncio.create_task(ask(client))
            await asked.wait()
            second = asyncio.create_task(ask(client))
            await asyncio.sleep(0.01)
            assert first.cancel()
            cancelled.set()
            assert (await second).parsed.answer


@pytest.mark.parametrize(
    ("sample", "version", "temperature"), [(1, "t-1", 0.7), (0, "t-2", 0.7), (0, "t-1", 0.0)], ids=str
)
async def test_what_makes_a_call_another_call(start: Start, tmp_path, sample, version, temperature) -> None:
    server = await start()
    with Journal(tmp_path / "j.jsonl", KEY) as journal:
        async with LLMClient(server.entry(), journal) as client:
            await client.chat(attempt_messages(), "t-1", 0)
            await client.chat(attempt_messages(), version, sample, temperature=temperature)
    assert server.replies == 2


async def test_more_room_pays_only_for_what_was_cut(start: Start, tmp_path) -> None:
    bodies = []

    async def handler(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        long = "long" in bodies[-1]["messages"][0]["content"]
        cut = long and bodies[-1]["max_tokens"] < 500
        return chat_reply("part" if cut else "whole", "length" if cut else "stop")

    server = await start(handler)
    asked = [[{"role": "user", "content": text}] for text in ("short", "long")]
    with Journal(tmp_path / "j.jsonl", KEY) as journal:
        async with LLMClient(server.entry(max_resamples=0), journal) as client:
            assert (await client.chat(asked[0], max_tokens=100)).text == "whole"
            with pytest.raises(CallFailed, match="truncated"):
                await client.chat(asked[1], max_tokens=100)
            assert [(await client.chat(one, max_tokens=600)).text for one in asked] == ["whole", "whole"]
    assert [body["max_tokens"] for body in bodies] == [100, 100, 600]


async def test_a_cut_answer_counts_and_is_asked_again_where_the_room_changes(start: Start, tmp_path) -> None:
    rooms = []

    async def handler(request: web.Request) -> web.Response:
        rooms.append((await request.json())["max_tokens"])
        return chat_reply("a " * min(rooms[-1], 50), "length" if rooms[-1] < 50 else "stop")

    server = await start(handler)
    for room in (20, 20, 80, 200, 20):  # cut; from the journal; asked again; whole, so from the journal; cut anew
        with Journal(tmp_path / "j.jsonl", KEY) as journal:
            async with LLMClient(server.entry(max_resamples=0), journal) as client:
                answer = await client.chat(attempt_messages(), max_tokens=room, keep_truncated=True)
                assert len(answer.text.split()) == min(room, 50)
    assert rooms == [20, 80, 20]


async def test_faults_are_retried_and_change_no_reply(start: Start) -> None:
    texts = []
    for faults in ({}, {"rate_limited": 0.1, "server_error": 0.1, "retry_after": 0.02}):
        server = await start(**faults)
        async with LLMClient(server.entry()) as client:
            texts.append([c.text for c in await asyncio.gather(*(ask(client, sample) for sample in range(60)))])
    assert texts[0] == texts[1]
    assert client.statistics.retries["rate_limited"] > 0 and client.statistics.retries["http_500"] > 0


async def test_broken_and_truncated_replies_are_asked_for_again(start: Start) -> None:
    server = await start(malformed=0.15, truncated=0.1)
    async with LLMClient(server.entry(max_resamples=9)) as client:
        completions = await asyncio.gather(*(ask(client, sample) for sample in range(80)))
    assert all(completion.parsed.answer for completion in completions)
    assert client.statistics.retries["unparseable"] > 0 and client.statistics.retries["truncated"] > 0
    assert sum(completion.usage.calls for completion in completions) > 80


async def test_a_hang_ends(start: Start) -> None:
    server = await start(hang=1.0)
    async with LLMClient(server.entry(total_timeout=0.1, connect_timeout=1, max_retries=1)) as client:
        with pytest.raises(CallFailed) as failure:
            async with asyncio.timeout(120):
                await ask(client)
    assert failure.value.reason == "timeout" and failure.value.attempts == 2


async def test_retry_after_is_waited_for(start: Start) -> None:
    times: list[float] = []

    async def handler(request: web.Request) -> web.Response:
        times.append(time.monotonic())
        return error_reply(429, "slow down", **{"retry-after-ms": "200"}) if len(times) == 1 else chat_reply("fine")

    server = await start(handler)
    async with LLMClient(server.entry()) as client:
        assert (await client.chat(attempt_messages())).text == "fine"
    assert times[1] - times[0] >= 0.2


@pytest.mark.parametrize(("status", "reason"), [(400, "http_400"), (413, "http_413"), (422, "http_422")])
async def test_what_cannot_succeed_is_not_retried(start: Start, status: int, reason: str) -> None:
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(await request.json())
        return error_reply(status, "no")

    server = await start(handler)
    async with LLMClient(server.entry()) as client:
        with pytest.raises(CallFailed, match=reason):
            await client.chat(attempt_messages())
    forms = [True] if status == 413 else [True, False]  # once more without the fields that are not OpenAI's
    assert ["top_k" in body for body in asked] == forms


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (401, None, "MY_KEY"),
        (403, None, "MY_KEY"),
        (404, None, "model 'simulated"),
        (429, "insufficient_quota", "quota"),
    ],
)
async def test_an_unusable_endpoint_stops_the_run(start: Start, monkeypatch, status, code, says) -> None:
    async def handler(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer secret"
        return error_reply(status, "no", code)

    monkeypatch.setenv("MY_KEY", "secret")
    server = await start(handler)
    async with LLMClient(server.entry(api_key_env="MY_KEY")) as client:
        with pytest.raises(EndpointUnusable, match=says) as failure:
            await ask(client)
    assert "secret" not in str(failure.value)


async def test_an_endpoint_that_stays_down_stops_the_run(start: Start) -> None:
    server = await start(server_error=1.0)
    async with LLMClient(server.entry(give_up_after=0.05, backoff_first=0.05, max_retries=20)) as client:
        with pytest.raises(EndpointUnusable, match="run the same command again"):
            await ask(client)


@pytest.mark.parametrize(("mode", "refusals"), [("object", 1), ("refused", 2)])
async def test_json_mode_falls_back_and_is_remembered(start: Start, mode: str, refusals: int) -> None:
    server = await start(json_mode=mode)
    async with LLMClient(server.entry()) as client:
        for sample in range(5):
            assert (await ask(client, sample)).parsed.answer
    assert server.counters is not None and server.counters.counts["bad_request"] == refusals


async def test_schema_mode_sends_a_closed_schema(start: Start) -> None:
    bodies = []

    async def handler(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return chat_reply('{"reasoning": "r", "answer": "a"}')

    server = await start(handler)
    async with LLMClient(server.entry()) as client:
        await ask(client)
    schema = bodies[0]["response_format"]["json_schema"]
    assert schema["strict"] and schema["schema"]["additionalProperties"] is False
    assert schema["schema"]["required"] == ["reasoning", "answer"]


async def test_dialects_of_the_protocol(start: Start) -> None:
    bodies = []

    async def handler(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return chat_reply("fine")

    server = await start(handler)
    entry = server.entry(
        token_field="max_completion_tokens", send_temperature=False, send_seed=False, extra_body={"top_p": 0.9}
    )
    async with LLMClient(entry) as client:
        await client.chat(attempt_messages(), max_tokens=77, seed=3)
    assert set(bodies[0]) == {"model", "messages", "max_completion_tokens", *NEUTRAL}, "nothing is left to the server"
    assert bodies[0]["top_p"] == 0.9
    assert bodies[0]["max_completion_tokens"] == 77


async def test_resamples_vary_the_seed(start: Start, tmp_path) -> None:
    bodies = []

    async def handler(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return chat_reply("no JSON here")

    server = await start(handler)
    with Journal(tmp_path / "j.jsonl", KEY) as journal:
        async with LLMClient(server.entry(max_resamples=3, price_completion=1e6), journal) as client:
            with pytest.raises(CallFailed, match="unparseable"):
                await ask(client, 7)
        assert len(journal) == 0
        assert journal.usage.calls == 4 and journal.usage.cost > 0
    seeds = [body["seed"] for body in bodies]
    assert seeds[0] == 7 and len(set(seeds)) == 4, "the same seed would give the same reply, paid twice"


async def test_any_number_is_in_flight(start: Start) -> None:
    everyone, here = asyncio.Event(), []

    async def handler(request: web.Request) -> web.Response:
        here.append(1)
        if len(here) == 250:
            everyone.set()
        await everyone.wait()
        return chat_reply("all here")

    server = await start(handler)
    async with LLMClient(server.entry(max_concurrency=250, total_timeout=120, max_retries=0)) as client:
        await asyncio.gather(*(client.chat(attempt_messages(), sample_index=n) for n in range(250)))
    assert len(here) == 250


async def test_concurrency_falls_while_the_endpoint_throttles(start: Start) -> None:
    server = await start(rate_limited=0.5, retry_after=0.0)
    async with LLMClient(server.entry(max_concurrency=64)) as client:
        await asyncio.gather(*(ask(client, sample) for sample in range(200)), return_exceptions=True)
    assert client.gate.limit < 40


async def test_a_budget_stops_cleanly_and_resumes(start: Start, tmp_path) -> None:
    server = await start(latency_ms=5)
    entry = server.entry(max_concurrency=4)

    async def run(max_tokens: int) -> tuple[int, int]:
        with Journal(tmp_path / "j.jsonl", KEY) as journal:
            async with LLMClient(entry, journal, Budget(BudgetConfig(max_tokens=max_tokens))) as client:
                results = await asyncio.gather(*(ask(client, s) for s in range(40)), return_exceptions=True)
            stopped = sum(isinstance(result, BudgetExhausted) for result in results)
            assert stopped + sum(not isinstance(result, Exception) for result in results) == 40
            return len(journal), stopped

    finished, stopped = await run(800)
    assert 0 < finished < 40 and stopped == 40 - finished
    assert server.replies == finished, "a reply that was paid for is not in the journal"
    assert (await run(800))[0] == finished, "a spent budget buys nothing on resuming"
    assert await run(10**9) == (40, 0)
    assert server.replies == 40


async def test_a_dead_endpoint_is_one_sentence() -> None:
    entry = EndpointConfig(name="teacher", base_url="http://127.0.0.1:9/v1", model="m", connect_timeout=1)
    async with LLMClient(entry) as client:
        with pytest.raises(EndpointUnusable, match="teacher: no answer from http"):
            await client.check()


def test_a_missing_key_is_one_sentence(monkeypatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(UserError, match="NO_SUCH_KEY"):
        EndpointConfig(name="e", base_url="http://h/v1", model="m", api_key_env="NO_SUCH_KEY").api_key()


async def test_replies_that_are_no_protocol_fail_with_a_code(start: Start) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response({"choices": []})

    server = await start(handler)
    async with LLMClient(server.entry(max_retries=1)) as client:
        with pytest.raises(CallFailed, match="bad_reply"):
            await ask(client)


async def test_no_text_of_a_record_in_errors_or_logs(start: Start, caplog) -> None:
    async def handler(request: web.Request) -> web.Response:
        return error_reply(400, f"cannot process: {json.dumps(await request.json())}")

    server = await start(handler)
    caplog.set_level("DEBUG", logger="clinical_r1")
    async with LLMClient(server.entry()) as client:
        with pytest.raises(CallFailed) as failure:
            await ask(client)
    assert "chest" not in str(failure.value) and "chest" not in caplog.text
    assert failure.value.__cause__ is None and failure.value.__suppress_context__


@pytest.mark.parametrize(
    ("entry", "policy", "trains", "refusal"),
    [
        ({}, {}, False, "leave the security boundary"),
        ({"trusted": True}, {}, True, None),
        ({"trusted": True, "terms": "no_train"}, {}, True, "terms is 'no_train'"),
        ({"data_region": "eu"}, {"allow_external": True}, False, None),
        ({}, {"allow_external": True}, False, "data_region 'unknown' is not allowed"),
        ({"data_region": "us"}, {"allow_external": True, "regions": ["eu"]}, False, "data_region 'us'"),
        ({"data_region": "eu", "terms": "no_train"}, {"allow_external": True}, True, "terms is 'no_train'"),
        ({"data_region": "eu", "terms": "train"}, {"allow_external": True}, True, None),
    ],
)
def test_crossing_is_off_unless_set(entry, policy, trains, refusal) -> None:
    endpoint = EndpointConfig(name="e", base_url="https://h/v1", model="m", **entry)
    if refusal is None:
        check_crossing(endpoint, CrossingPolicy(**policy), trains)
    else:
        with pytest.raises(UserError, match=refusal):
            check_crossing(endpoint, CrossingPolicy(**policy), trains)


async def test_a_truncated_plain_reply_is_kept_where_it_is_asked_for(start: Start) -> None:
    server = await start(truncated=1.0)
    async with LLMClient(server.entry(max_resamples=0)) as client:
        kept = await client.chat([{"role": "user", "content": "case"}], keep_truncated=True)
        assert kept.finish_reason == "length" and kept.text
        with pytest.raises(CallFailed, match="truncated"):
            await client.chat([{"role": "user", "content": "case"}])
