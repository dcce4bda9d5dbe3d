"""Thinking budgets: a thought that reaches its own is closed, and the answer asked for behind it."""

import asyncio
from typing import Any

import pytest
from gateway_fixture import TooLateError, given_time, joined, running, until
from scripted_engine import ScriptedEngine, tokenize

from clinical_r1.baseline import Baseline, LengthHistogram, write_baseline
from clinical_r1.dialects import DIALECTS
from clinical_r1.reasoning import Outcome, Splitter

LONG = "<think>\nweigh it well\n</think>\n\nFlu."
"""15 tokens of thought, by the scripted engine's tokenizer."""
ENDED = {"ok", "cut_thought", "aborted", "unclosed", "multiple"}


async def outcomes(r: Any) -> dict[str, float]:
    found = {name: await r.sample("clinical_r1_answers_total", outcome=name) for name in ENDED}
    return {name: count for name, count in found.items() if count}


@pytest.mark.parametrize("ids", [True, False])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_long_thought_is_closed_and_its_answer_asked_for(stream: bool, ids: bool, tokenizer_file: Any) -> None:
    engine = ScriptedEngine()
    engine.script.texts, engine.script.ids = [LONG], ids
    async with running(engine, token_ids=ids, tokenizer=tokenizer_file) as r:
        more: dict[str, Any] = {"thinking_token_budget": 7, "seed": 5, "temperature": 0.5, "max_tokens": 100}
        if stream:
            chunks = await r.stream(stream_options={"include_usage": True}, **more)
            thinking, answer, reason = joined(chunks)
            assert {chunk["id"] for chunk in chunks} == {"x"}  # one answer to the client
            assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
            usage = chunks[-1]["usage"]
        else:
            status, body = await r.unary(**more)
            assert (status, body["object"], body["id"]) == (200, "chat.completion", "x")
            message = body["choices"][0]["message"]
            thinking, answer, reason = message["reasoning"], message["content"], body["choices"][0]["finish_reason"]
            usage = body["usage"]
        await r.settled()
        assert (thinking, answer, reason) == ("weigh", "Flu, said after a cut.", "stop")
        assert await outcomes(r) == {"cut_thought": 1}
        assert await r.sample("clinical_r1_cut_thoughts_total", budget="request") == 1
        (rest,) = engine.rests
        begun = "<think>\nweigh \n</think>\n\n"
        assert rest["prompt"] == [number for _, number in tokenize("?" + begun)]
        assert {name: rest[name] for name in ("seed", "temperature", "stream")} == {
            "seed": 5,
            "temperature": 0.5,
            "stream": True,
        }
        assert "messages" not in rest and "thinking_token_budget" not in engine.bodies[0]
        if ids:
            assert usage["completion_tokens_details"] == {"reasoning_tokens": 7}
            assert usage["completion_tokens"] == 1 + 7 + len(engine.script.rest) + 1
            assert rest["max_tokens"] == 100 - len(tokenize(begun))
            assert usage["prompt_tokens"] == 1


async def test_a_thought_within_its_budget_is_left_alone() -> None:
    async with running() as r:
        status, body = await r.unary(thinking_token_budget=1000)
        assert (status, body["choices"][0]["message"]["content"]) == (200, "Flu.")
        assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": len("\nweigh it\n")}
        assert joined(await r.stream(thinking_token_budget=1000)) == ("weigh it", "Flu.", "stop")
        assert r.engine.rests == [] and await outcomes(r) == {"ok": 2}
        assert await r.sample("clinical_r1_token_checks_total", result="exact") == 2


@pytest.mark.parametrize(
    ("said", "budget"),
    [
        ({"thinking_token_budget": 0}, 0),
        ({"reasoning_effort": "none"}, 0),
        ({"reasoning_effort": "low"}, 3),
        ({"reasoning_effort": "low", "thinking_token_budget": 9}, 9),
        ({"reasoning": {"effort": "low"}}, 3),
        ({"reasoning": {"max_tokens": 4}}, 4),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, 5),
        ({"thinking": {"type": "disabled"}}, 0),
        ({"thinking_token_budget": 5.0}, 5),
    ],
    ids=str,
)
async def test_every_way_to_say_it(said: dict[str, Any], budget: int) -> None:
    engine = ScriptedEngine()
    engine.script.texts = [LONG]
    async with running(engine, thinking={"efforts": {"none": 0, "low": 3}}) as r:
        _, body = await r.unary(**said)
        assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == budget
        assert body["choices"][0]["message"]["content"] == engine.script.rest


@pytest.mark.parametrize(
    "said",
    [
        {"thinking_token_budget": None, "reasoning_effort": None, "reasoning": None, "thinking": None},
        {"reasoning_effort": "high"},
        {"reasoning": {}},
        {"thinking": {"type": "enabled"}},
        {"enable_thinking": True},
        {"chat_template_kwargs": {"enable_thinking": True}},
    ],
    ids=str,
)
async def test_what_asks_for_no_less_changes_nothing(said: dict[str, Any]) -> None:
    async with running() as r:
        assert (await r.unary(**said))[1]["choices"][0]["message"]["content"] == "Flu."
        assert r.engine.rests == []


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"thinking_token_budget": -2}, "thinking_token_budget"),
        ({"thinking_token_budget": "10"}, "thinking_token_budget"),
        ({"thinking_token_budget": True}, "thinking_token_budget"),
        ({"reasoning_effort": "heroic"}, "reasoning_effort"),
        ({"reasoning": {"max_tokens": -3}}, "reasoning"),
        ({"thinking": {"type": "maybe"}}, "thinking"),
    ],
    ids=str,
)
async def test_what_cannot_be_a_budget_is_refused_by_name(said: dict[str, Any], field: str) -> None:
    async with running() as r:
        status, body = await r.unary(**said)
        assert (status, body["error"]["code"], body["error"]["param"]) == (400, "bad_field", field)
        assert "heroic" not in body["error"]["message"] and r.engine.bodies == []


async def test_an_engine_that_cannot_go_on_refuses_budgets_and_needs_none() -> None:
    async with running(ScriptedEngine(tokenize_route=False), thinking={"budget": 3, "dialect": "think"}) as r:
        status, body = await r.unary(reasoning_effort="low")
        assert (status, body["error"]["param"]) == (400, "reasoning_effort")
        assert (await r.unary())[1]["choices"][0]["message"]["content"] == "Flu."


async def test_several_answers_are_cut_each_for_itself() -> None:
    engine = ScriptedEngine()
    engine.script.texts = [LONG, "<think>\nno\n</think>\n\nCold.", "At once.", LONG]
    async with running(engine) as r:
        chunks = await r.stream(n=4, thinking_token_budget=6, seed=1)
        rest = engine.script.rest
        assert [joined(chunks, index)[1] for index in range(4)] == [rest, "Cold.", "At once.", rest]
        assert [body["seed"] for body in engine.rests] == [1, 4]
        _, body = await r.unary(n=4, thinking_token_budget=6)
        assert [choice["message"]["content"] for choice in body["choices"]] == [rest, "Cold.", "At once.", rest]
        await r.settled()
        assert await r.sample("clinical_r1_answers_total", outcome="cut_thought") == 4


@pytest.mark.parametrize("text", ["<think>\n" + "a" * 50, "<think>" + "思" * 50, "<think>\n" + "😀" * 40])
@pytest.mark.parametrize("chunk", [1, 3])
async def test_an_endless_thought_still_has_an_answer(text: str, chunk: int) -> None:
    engine = ScriptedEngine()
    engine.script.texts, engine.script.chunk, engine.script.finish = [text], chunk, "length"
    async with running(engine) as r:
        thinking, answer, reason = joined(await r.stream(thinking_token_budget=12))
        assert (answer, reason) == (engine.script.rest, "stop")
        assert 11 <= len(thinking) < 12 + chunk


async def test_the_default_budget_is_counted_apart_and_announced(tmp_path: Any) -> None:
    engine = ScriptedEngine()
    engine.script.texts = [LONG]
    lengths = LengthHistogram.of([4, 20, 30, 300])
    known = Baseline(
        n=4, lengths=lengths, outcomes={o.value: 4 * (o is Outcome.OK) for o in Outcome}, thinking_budget=8
    )
    path = write_baseline(known, tmp_path)
    async with running(engine, baseline=path, thinking={"budget": "auto"}) as r:
        assert (await r.unary())[1]["choices"][0]["message"]["content"] == engine.script.rest
        await r.settled()
        assert await r.sample("clinical_r1_cut_thoughts_total", budget="default") == 1
        assert await r.sample("clinical_r1_thinking_budget_tokens") == 8
        assert await r.sample("clinical_r1_baseline_outcome_share", outcome="cut_thought") == 0.75
    async with running(ScriptedEngine(), baseline=path) as r:  # off unless it is set
        await r.unary()
        assert r.engine.rests == [] and await r.sample("clinical_r1_thinking_budget_tokens") == 0


async def test_an_engine_with_budgets_of_its_own_is_told_and_watched() -> None:
    engine = ScriptedEngine()
    engine.script.texts = [LONG]
    async with running(engine, thinking={"budget_by": "engine"}) as r:
        await r.unary(thinking_token_budget=15)
        assert engine.bodies[0]["thinking_token_budget"] == 15
        await r.settled()
        assert engine.rests == [] and await outcomes(r) == {"cut_thought": 1}
        engine.script.texts = ["<think>\n" + "on and on " * 30]  # it ignores it
        assert (await r.unary(thinking_token_budget=15))[1]["choices"][0]["message"]["content"] == engine.script.rest


async def test_tools_and_budgets_do_not_mix() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    async with running(tools=True, thinking={"budget": 3}) as r:
        assert (await r.unary(tools=[tool], thinking_token_budget=5))[0] == 400
        assert (await r.unary(tools=[tool]))[1]["choices"][0]["message"]["content"] == "Flu."


async def test_an_engine_that_dies_behind_a_cut_is_told_in_the_stream() -> None:
    engine = ScriptedEngine()
    engine.script.texts, engine.script.rest_status = [LONG], 500
    async with running(engine) as r:
        chunks = await r.stream(thinking_token_budget=4)
        assert chunks[-1]["error"]["code"] == "engine_failed"
        assert (await r.unary(thinking_token_budget=4))[0] == 502
        await r.settled()
        assert await outcomes(r) == {"aborted": 2}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_behind_a_cut_cancels_the_engine(stream: bool) -> None:
    engine = ScriptedEngine()
    engine.script.texts, engine.script.rest_hangs = [LONG], True
    async with running(engine) as r:
        asked = asyncio.create_task((r.stream if stream else r.unary)(thinking_token_budget=4))
        await until(lambda: engine.hanging, "the rest of the answer")
        asked.cancel()
        await r.settled()
        await until(lambda: engine.cancelled, "the engine's part")
        assert await outcomes(r) == {"aborted": 1}
        assert await r.sample("clinical_r1_aborts_total", by="client") == 1


async def test_an_engine_that_stops_behind_a_cut_times_out() -> None:
    async def check(seconds: float) -> None:
        engine = ScriptedEngine()
        engine.script.texts, engine.script.rest_hangs = [LONG], True
        async with running(engine, timeouts={"idle": seconds, "first_byte": seconds}) as r:
            assert (await r.stream(thinking_token_budget=4))[-1]["error"]["code"] == "engine_timeout"
            if not engine.hanging:
                raise TooLateError("the thought was not cut yet")
            assert (await r.unary(thinking_token_budget=4))[0] == 504
            await r.settled()
            assert await outcomes(r) == {"aborted": 2}

    await given_time(check, 0.4)


@pytest.mark.parametrize("name", [name for name, d in DIALECTS.items() if d.opens])
def test_every_dialect_can_be_closed(name: str) -> None:
    dialect = DIALECTS[name]
    for opening in [""] if dialect.opened else dialect.opens:
        for begun in ("fever", "fever\n", "fever </thi", "发热"):
            splitter = Splitter(dialect=dialect)
            splitter.feed(opening + begun)
            splitter.close()
            splitter.feed("Flu.")
            split = splitter.finish()[1]
            assert (split.response, split.outcome) == ("Flu.", Outcome.CUT_THOUGHT)
            assert split.thinking == begun.strip()


@pytest.mark.parametrize("stream", [True, False])
async def test_on_the_cpu_engine(stream: bool, model_folder: Any) -> None:
    """The real engine: the same greedy tokens up to the budget, then an answer behind the closed thought."""
    import aiohttp
    from aiohttp.test_utils import TestServer
    from gateway_fixture import Running

    from serving.engine.api import build_app
    from serving.engine.main import load_served
    from serving.gateway.app import build_gateway
    from serving.gateway.config import GatewayConfig
    from serving.gateway.server import Listener

    server = TestServer(build_app(load_served(model_folder)), handler_cancellation=True)
    await server.start_server()
    settings = {"auth": "none", "audit_file": "", "port": 0, "upstream": str(server.make_url(""))}
    # A random model writes no tags: its whole output counts as a thought that the prompt has opened.
    listener = Listener(build_gateway(GatewayConfig.model_validate({**settings, "thinking": {"opened": True}})))
    await listener.start()
    async with aiohttp.ClientSession() as session:
        r = Running(ScriptedEngine(), listener, session)
        ask: dict[str, Any] = {"model": str(await name_of(r)), "temperature": 0, "max_tokens": 40}
        _, full = await r.unary(**ask)
        assert full["choices"][0]["finish_reason"] == "length"
        if stream:
            thinking, answer, reason = joined(await r.stream(thinking_token_budget=9, **ask))
        else:
            _, body = await r.unary(thinking_token_budget=9, **ask)
            message = body["choices"][0]["message"]
            thinking, answer, reason = message["reasoning"], message["content"], body["choices"][0]["finish_reason"]
            assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 9
        await r.settled()
        assert full["choices"][0]["message"]["reasoning"].startswith((thinking or "")[:4]) and reason == "length"
        assert answer and await r.sample("clinical_r1_answers_total", outcome="cut_thought") == 1
    await listener.stop()
    await server.close()


async def name_of(r: Any) -> str:
    async with r.session.get(f"{r.base}/v1/models") as response:
        return (await response.json())["data"][0]["id"]
