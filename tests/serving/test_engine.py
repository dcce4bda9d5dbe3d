"""The CPU engine over HTTP, with a tiny random model."""

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_r1.errors import UserError
from serving.engine.answer import Detokenizer, StopText
from serving.engine.api import build_app
from serving.engine.main import load_served, main

QUESTION = {"messages": [{"role": "user", "content": "发热三天 fever?"}], "max_tokens": 24, "seed": 7}


class Engine:
    """A running engine and a client on it."""

    def __init__(self, server: TestServer, session: aiohttp.ClientSession) -> None:
        self.server, self.session = server, session

    async def post(self, body: object, path: str = "/v1/chat/completions") -> tuple[int, dict]:
        async with self.session.post(self.server.make_url(path), json=body) as response:
            return response.status, await response.json()

    async def stream(self, body: dict) -> list[dict]:
        async with self.session.post(self.server.make_url("/v1/chat/completions"), json=body) as response:
            assert response.status == 200
            lines = [line.strip() async for line in response.content]
        assert lines[-2] == b"data: [DONE]"
        return [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]


@pytest.fixture
async def engine(model_folder: Path):
    server = TestServer(build_app(load_served(model_folder, max_batch=4)))
    await server.start_server()
    async with aiohttp.ClientSession() as session:
        yield Engine(server, session)
    await server.close()


async def test_unary_and_stream_agree_to_the_token(engine: Engine) -> None:
    status, whole = await engine.post({**QUESTION, "return_token_ids": True})
    assert status == 200
    chunks = await engine.stream(
        {**QUESTION, "return_token_ids": True, "stream": True, "stream_options": {"include_usage": True}}
    )
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
    ids = [i for c in chunks if c["choices"] for i in c["choices"][0].get("token_ids", [])]
    assert text == whole["choices"][0]["message"]["content"]
    assert ids == whole["choices"][0]["token_ids"]
    assert chunks[-1]["usage"] == whole["usage"]
    assert len(ids) == whole["usage"]["completion_tokens"] <= 24


async def test_same_seed_same_text_in_any_company(engine: Engine) -> None:
    alone = (await engine.post(QUESTION))[1]["choices"][0]["message"]["content"]
    others = [{**QUESTION, "seed": 100 + i} for i in range(5)]
    together = await asyncio.gather(*(engine.post(body) for body in [*others, QUESTION]))
    assert together[-1][1]["choices"][0]["message"]["content"] == alone
    texts = {answer["choices"][0]["message"]["content"] for _, answer in together}
    assert len(texts) > 1


async def test_every_value_of_sampling_is_honoured(engine: Engine) -> None:
    async def ids(**how: float) -> list[int]:
        return (await engine.post({**QUESTION, "return_token_ids": True, **how}))[1]["choices"][0]["token_ids"]

    greedy = await ids(temperature=0)
    assert await ids(temperature=1, top_k=1) == greedy == await ids(temperature=1, min_p=1)
    assert await ids(temperature=1) != greedy != await ids(temperature=0, repetition_penalty=10)
    assert (await engine.post({**QUESTION, "top_k": -2}))[0] == 400


async def test_n_answers_and_a_stop_string(engine: Engine) -> None:
    status, answer = await engine.post({**QUESTION, "n": 3})
    assert status == 200
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    full = answer["choices"][0]["message"]["content"]
    stop = full[len(full) // 2 :][:2]
    cut = (await engine.post({**QUESTION, "stop": [stop]}))[1]["choices"][0]
    assert cut["message"]["content"] == full[: full.index(stop)]
    assert cut["finish_reason"] == "stop"


async def test_a_text_is_gone_on_with_as_its_question_would_be(engine: Engine) -> None:
    """A completion of (question + what was said so far) continues the greedy answer."""
    greedy = {**QUESTION, "temperature": 0, "return_token_ids": True}
    _, whole = await engine.post(greedy)
    _, asked = await engine.post({"messages": QUESTION["messages"], "add_generation_prompt": True}, "/tokenize")
    ids = whole["choices"][0]["token_ids"]
    body = {"prompt": asked["tokens"] + ids[:10], "max_tokens": 14, "temperature": 0, "return_token_ids": True}
    status, rest = await engine.post(body, "/v1/completions")
    assert (status, rest["object"], rest["choices"][0]["token_ids"]) == (200, "text_completion", ids[10:])
    assert rest["usage"]["prompt_tokens"] == len(asked["tokens"]) + 10
    assert (await engine.post({"prompt": "fever", "max_tokens": 2}, "/v1/completions"))[0] == 200
    for wrong in ({}, {"prompt": []}, {"prompt": [10**9]}, {"prompt": [-1]}, {"prompt": ["a"]}):
        assert (await engine.post(wrong, "/v1/completions"))[0] == 400


async def test_models_health_tokenize(engine: Engine) -> None:
    async with engine.session.get(engine.server.make_url("/v1/models")) as response:
        card = (await response.json())["data"][0]
    assert card["id"] == "tiny"
    assert card["max_model_len"] == 512
    status, tokens = await engine.post({"prompt": "<think>"}, "/tokenize")
    assert status == 200
    assert tokens["count"] == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": [{"role": "user", "content": "x" * 600}]},
        {**QUESTION, "n": 99},
        {**QUESTION, "temperature": -1},
        [],
    ],
)
async def test_wrong_input_is_a_400(engine: Engine, body: object) -> None:
    status, answer = await engine.post(body)
    assert status == 400
    assert answer["error"]["message"]


def test_a_folder_that_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="no model folder"):
        load_served(tmp_path / "absent")
    (tmp_path / "config.json").write_text("{}")
    assert main(["--model", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


class Bytes:
    """Each id is one byte: the worst case for characters cut between tokens."""

    def decode(self, token_ids: list[int]) -> str:
        return bytes(token_ids).decode("utf-8", "replace")


@given(st.text())
@settings(max_examples=100, deadline=None)
def test_detokenizer_concatenates_to_the_text(text: str) -> None:
    data = text.encode("utf-8", "ignore")
    detokenizer = Detokenizer(Bytes())
    assert "".join(detokenizer.push(byte) for byte in data) + detokenizer.finish() == data.decode()


@given(st.text(alphabet="abx", max_size=20), st.lists(st.text(alphabet="abx", min_size=1, max_size=3), max_size=2))
@settings(max_examples=200, deadline=None)
def test_stop_text_cuts_at_the_first_stop_however_cut(text: str, stops: list[str]) -> None:
    watcher = StopText(stops)
    out = "".join(watcher.push(character) for character in text) + watcher.finish()
    first = min((at for stop in stops if (at := text.find(stop)) >= 0), default=None)
    if first is None:
        assert out == text
    else:
        assert watcher.hit
        assert text.startswith(out)
        assert not any(stop in out for stop in stops)
