"""The gateway end to end over HTTP: parts, counts, books."""

import asyncio
import json

import aiohttp
import pytest
from aiohttp import web
from gateway_fixture import ASK, PATIENCE, TooLateError, given_time, joined, running, until
from scripted_engine import Script, ScriptedEngine

from clinical_r1.reasoning import Outcome, split
from serving.gateway import upstream

OUTPUTS = {
    "ok": "<think>\nweigh 体温 it\n</think>\n\nFlu, 流感.",
    "no_think": "Flu.",
    "empty_think": "<think>\n\n</think>\n\nFlu.",
    "unclosed": "<think>\nand then and then",
    "no_answer": "<think>\nhmm\n</think>\n\n",
    "multiple": "<think>a</think>b<think>c</think>d",
}


def thought_tokens(text: str) -> int:
    """By hand: characters between tags (the scripted engine's tokens are characters)."""
    inside = total = 0
    rest = text
    while rest:
        if rest.startswith("<think>"):
            inside, rest = 1, rest[7:]
        elif rest.startswith("</think>"):
            inside, rest = 0, rest[8:]
        else:
            total += inside
            rest = rest[1:]
    return total


@pytest.mark.parametrize("outcome", OUTPUTS)
async def test_unary_and_stream_agree(outcome: str) -> None:
    text = OUTPUTS[outcome]
    finish = "length" if outcome == "unclosed" else "stop"
    expected = split(text)
    async with running() as r:
        r.engine.script = Script(texts=[text], finish=finish)
        status, whole = await r.unary()
        assert status == 200
        message = whole["choices"][0]["message"]
        assert (message["content"], message["reasoning_content"] or "") == (expected.response, expected.thinking)
        assert message["reasoning"] == message["reasoning_content"]
        usage = whole["usage"]
        told = thought_tokens(text) if expected.thinking else 0  # an empty thought's line breaks are told as none
        assert usage["completion_tokens_details"] == {"reasoning_tokens": told}
        for chunk, cut in ((1, 0), (3, 0), (1, 7), (100, 1)):
            r.engine.script = Script(texts=[text], finish=finish, chunk=chunk, cut=cut)
            chunks = await r.stream(stream_options={"include_usage": True})
            assert joined(chunks) == (expected.thinking, expected.response, finish)
            assert chunks[-1]["usage"] == usage
            assert all("token_ids" not in json.dumps(chunk) for chunk in chunks)
        assert await r.sample("clinical_r1_answers_total", outcome=outcome) == 5
        assert await r.sample("clinical_r1_answers_total") == await r.sample("clinical_r1_answers_started_total") == 5
        assert await r.sample("clinical_r1_reasoning_tokens_sum") == 5 * thought_tokens(text)
        assert await r.sample("clinical_r1_token_checks_total", result="exact") == 5
        assert await r.sample("clinical_r1_truncated_thoughts_total") == (5 if outcome == "unclosed" else 0)


async def test_several_answers_are_kept_apart() -> None:
    async with running() as r:
        r.engine.script = Script(texts=list(OUTPUTS.values())[:3])
        chunks = await r.stream(n=3)
        for index, name in enumerate(list(OUTPUTS)[:3]):
            wanted = split(OUTPUTS[name])
            assert joined(chunks, index)[:2] == (wanted.thinking, wanted.response)
            assert await r.sample("clinical_r1_answers_total", outcome=name) == 1


async def test_only_what_was_asked_for_reaches_the_client() -> None:
    async with running() as r:
        chunks = await r.stream()
        assert all(chunk["choices"] for chunk in chunks)
        _, whole = await r.unary()
        assert "prompt_token_ids" not in whole
        assert "token_ids" not in whole["choices"][0]
        assert r.engine.bodies[0]["return_token_ids"] is True
        assert r.engine.bodies[0]["stream_options"] == {"include_usage": True}
        assert r.engine.bodies[1]["max_tokens"] == 4096


async def test_spaced_json_and_an_engine_that_parses_itself() -> None:
    async with running() as r:
        r.engine.script = Script(separators=(", ", ": "))
        assert joined(await r.stream())[:2] == ("weigh it", "Flu.")
        r.engine.script = Script(parsed=True)
        assert joined(await r.stream())[:2] == ("weigh it", "Flu.")
        assert await r.sample("clinical_r1_answers_total", outcome="ok") == 2


async def test_a_template_that_opens_the_thought() -> None:
    async with running(thinking={"opened": True}) as r:
        r.engine.script = Script(texts=["weigh it\n</think>\n\nFlu."])
        _, whole = await r.unary()
        assert whole["choices"][0]["message"]["reasoning_content"] == "weigh it"
        assert await r.sample("clinical_r1_answers_total", outcome="ok") == 1


async def test_times_of_a_stream() -> None:
    async with running() as r:
        r.engine.script = Script(delay=0.01)
        await r.stream()
        first = await r.sample("clinical_r1_time_to_first_thought_seconds_sum")
        answer = await r.sample("clinical_r1_time_to_first_answer_seconds_sum")
        think = await r.sample("clinical_r1_think_seconds_sum")
        assert 0 < first < answer
        # The end of the thought is its closing tag; the answer begins some whitespace later.
        assert answer - first >= think > 0.05
        assert await r.sample("clinical_r1_inter_token_seconds_count") > 10


@pytest.mark.parametrize(
    ("script", "by", "kind"),
    [
        (Script(die_after=4), "engine", "died"),
        (Script(garbage=b"{not json"), "engine", "bad_answer"),
        (Script(garbage=b'{"error": {"message": "CANARY"}}'), "engine", "bad_answer"),
        (Script(hang_after=4), "timeout", "timeout"),
    ],
)
async def test_a_broken_stream_ends_with_an_error_and_one_outcome(script: Script, by: str, kind: str) -> None:
    async def check(seconds: float) -> None:
        async with running(timeouts={"idle": seconds, "first_byte": seconds}) as r:
            r.engine.script = script
            chunks = await r.stream()
            assert chunks[-1]["error"]["code"] in ("engine_failed", "engine_timeout")
            assert "CANARY" not in json.dumps(chunks)
            await r.settled()
            assert await r.sample("clinical_r1_answers_total", outcome="aborted") == 1
            assert await r.sample("clinical_r1_answers_total") == 1
            assert await r.sample("clinical_r1_aborts_total", by=by) == 1
            assert await r.sample("clinical_r1_upstream_errors_total", kind=kind) == 1
            assert await r.sample("clinical_r1_in_flight") == 0

    await given_time(check, 0.3 if by == "timeout" else PATIENCE)


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (Script(status=400), 400, "engine_refused"),
        (Script(status=500), 502, "engine_failed"),
        (Script(status=429), 429, "engine_busy"),
        (Script(garbage=b"not json"), 502, "engine_failed"),
        (Script(garbage=b'{"choices": []}'), 502, "engine_failed"),
        (Script(hang_after=0), 504, "engine_timeout"),
    ],
)
async def test_an_engine_that_fails_before_it_answers(script: Script, status: int, code: str) -> None:
    async with running(timeouts={"total": 0.3 if status == 504 else PATIENCE}) as r:
        r.engine.script = script
        got, body = await r.unary()
        assert (got, body["error"]["code"]) == (status, code)
        assert "CANARY" not in json.dumps(body)
        assert await r.sample("clinical_r1_answers_total", outcome="aborted") == 1
        assert await r.sample("clinical_r1_rejections_total", reason=code) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_cancels_the_engine(stream: bool) -> None:
    async with running() as r:
        r.engine.script = Script(delay=0.05, texts=["<think>" + "long " * 100]) if stream else Script(hang_after=0)
        reader, writer = await asyncio.open_connection("127.0.0.1", r.listener.port)
        body = json.dumps({**ASK, "stream": stream}).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        if stream:
            await reader.readuntil(b"reasoning_content")
        else:
            await until(lambda: r.engine.bodies, "the request")
        writer.close()
        await r.settled()
        await until(lambda: r.engine.cancelled, "the engine's part")
        assert r.engine.cancelled == 1
        assert await r.sample("clinical_r1_answers_total", outcome="aborted") == 1
        assert await r.sample("clinical_r1_aborts_total", by="client") == 1


async def test_the_engine_goes_and_comes_back() -> None:
    engine = ScriptedEngine()
    async with running(engine) as r:
        assert (await r.get("/healthz/ready"))[0] == 200
        engine.up = False
        await r.listener.gateway.upstream._probe()
        assert (await r.get("/healthz/ready"))[0] == 503
        assert (await r.get("/healthz/live"))[0] == 200
        status, body = await r.unary()
        assert (status, body["error"]["code"]) == (503, "engine_unreachable")
        assert await r.sample("clinical_r1_upstream_ready") == 0
        engine.up = True
        await until(lambda: r.listener.gateway.upstream.ready)
        assert (await r.unary())[0] == 200


async def test_one_late_answer_to_a_probe_turns_nobody_away(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(ScriptedEngine):
        late = 0

        async def health(self, request: web.Request) -> web.Response:
            self.late -= 1
            if self.late >= 0:
                await asyncio.sleep(600)
            return await super().health(request)

    async def check(seconds: float) -> None:
        async with running(engine := Late()) as r:
            probed = r.listener.gateway.upstream
            assert probed._task
            probed._task.cancel()  # the test probes
            monkeypatch.setattr(upstream, "PROBE_TIMEOUT", aiohttp.ClientTimeout(total=seconds))
            engine.late = 1
            await probed._probe()
            if not probed.ready:
                raise TooLateError("the second answer came late, too")
            engine.late = 2
            await probed._probe()
            assert not probed.ready

    await given_time(check, 0.3)


async def test_drain_lets_running_answers_finish() -> None:
    async with running(timeouts={"settle": 0.05, "drain": PATIENCE}) as r:
        r.engine.script = Script(held=(end := asyncio.Event()))
        running_answer = asyncio.create_task(r.stream())
        await until(lambda: r.engine.bodies, "the request")
        assert (await r.get("/healthz/ready"))[0] == 200
        drain = asyncio.create_task(r.listener.drain())
        await until(lambda: r.listener.gateway.draining)
        assert (await r.get("/healthz/ready"))[0] == 503  # by a connection that was there before
        await until(lambda: r.listener.gateway.closed)
        assert not drain.done()
        end.set()
        assert joined(await running_answer)[1] == "Flu."
        await drain
        assert await r.sample("clinical_r1_aborts_total") == 0
        assert await r.sample("clinical_r1_answers_total", outcome="ok") == 1


async def test_drain_cuts_what_does_not_end_in_time() -> None:
    async with running(timeouts={"settle": 0.05, "drain": 0.2}) as r:
        r.engine.script = Script(held=asyncio.Event())
        body = {**ASK, "stream": True}
        async with r.session.post(f"{r.base}/v1/chat/completions", json=body) as response:
            await response.content.readline()
            await r.listener.drain()
            last = (await response.text()).splitlines()[-2]
            assert json.loads(last.removeprefix("data: "))["error"]["code"] == "draining"
        assert await r.sample("clinical_r1_aborts_total", by="shutdown") == 1
        assert await r.sample("clinical_r1_answers_total") == 1


async def test_metrics_text_exemplars_and_the_engines_own() -> None:
    async with running() as r:
        await r.unary()
        _, plain = await r.get("/metrics")
        assert 'clinical_r1_answers_total{language="zh",model_version="unversioned",outcome="aborted"} 0.0' in plain
        _, open_metrics = await r.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert '# {request_id="req-' in open_metrics
        assert (await r.get("/metrics/engine")) == (200, "vllm:x 1\n")


async def test_every_outcome_is_created_at_zero() -> None:
    async with running() as r:
        for outcome in Outcome:
            text = (await r.get("/metrics"))[1]
            assert text.count(f'outcome="{outcome.value}"') >= 3


async def test_the_openai_client_reads_it() -> None:
    import openai

    async with running() as r:
        client = openai.AsyncOpenAI(base_url=f"{r.base}/v1", api_key="none", max_retries=0)
        answer = await client.chat.completions.create(**ASK)
        assert answer.choices[0].message.content == "Flu."
        assert answer.choices[0].message.reasoning_content == "weigh it"
        assert answer.usage.completion_tokens_details.reasoning_tokens == 10
        stream = await client.chat.completions.create(**ASK, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert text == "Flu."
        r.engine.script = Script(die_after=4)
        with pytest.raises(openai.APIError):
            async for _ in await client.chat.completions.create(**ASK, stream=True):
                pass
        await client.close()


async def test_a_kept_connection_that_the_engine_closed_is_tried_again() -> None:
    async with running() as r:
        assert (await r.unary())[0] == 200
        for connection in list(r.engine.server.runner.server.connections):  # type: ignore[union-attr]
            connection.transport.abort()
        assert (await r.unary())[0] == 200
        assert isinstance(r.session, aiohttp.ClientSession)


DIALECTS = {
    "<thinking>weigh it</thinking>Flu.": "tags",
    "weigh it\n</think>\n\nFlu.": "opened",
    "## Thinking\n\nweigh it\n\n## Final Response\n\nFlu.": "headings",
    "<unused94>thought\nweigh it<unused95>Flu.": "gemma",
    "<|channel|>analysis<|message|>weigh it<|end|><|start|>assistant<|channel|>final<|message|>Flu.": "channels",
}


@pytest.mark.parametrize("text", DIALECTS)
async def test_an_engine_of_another_dialect_is_found_out_by_one_answer(text: str) -> None:
    engine = ScriptedEngine(tokenize_route=False)
    engine.script = Script(texts=[text])
    async with running(engine) as gateway:
        assert len(engine.bodies) == 1, "one probe"
        status, body = await gateway.unary()
        message = body["choices"][0]["message"]
        assert (status, message["reasoning_content"], message["content"]) == (200, "weigh it", "Flu.")
        assert joined(await gateway.stream()) == ("weigh it", "Flu.", "stop")
        await gateway.settled()
        assert await gateway.sample("clinical_r1_answers_total", outcome="ok") == 2
        assert len(engine.bodies) == 3


async def test_a_dialect_may_be_set_and_an_unknown_form_is_counted() -> None:
    engine = ScriptedEngine(tokenize_route=False)
    engine.script = Script(texts=["<scratchpad>weigh it</scratchpad>Flu."])
    async with running(engine) as gateway:
        assert joined(await gateway.stream())[1] == engine.script.texts[0]
        await gateway.settled()
        assert await gateway.sample("clinical_r1_answers_total", outcome="unknown_form") == 1
    async with running(ScriptedEngine(tokenize_route=False), thinking={"dialect": "none"}) as gateway:
        assert (await gateway.unary())[1]["choices"][0]["message"]["content"].startswith("<think>")
        assert not [body for body in gateway.engine.bodies if body.get("max_tokens") == 1024]
