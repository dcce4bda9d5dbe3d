"""The simulated endpoint over real HTTP: protocol, determinism, faults, and what it says to whom."""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

import clinical_r1
from clinical_r1.errors import UserError
from clinical_r1.schema import Case, write_jsonl
from clinical_r1.simulator import teacher
from clinical_r1.simulator.beside import Failures, SimulatorConfig
from clinical_r1.simulator.judge import is_right
from clinical_r1.simulator.responder import AnswerKey
from clinical_r1.simulator.server import (
    FAULTS,
    Endpoint,
    configuration,
    draw_fault,
    main,
    parse_arguments,
    read_request,
    routes,
)
from clinical_r1.simulator.world import sample_cases

WORLD = list(sample_cases(60, seed=3))
OUTSIDE = [
    Case(
        language="en", question=f"A {20 + n}-year-old sailor has bleeding gums. What is the diagnosis?", reference=name
    )
    for n, name in enumerate(("scurvy", "leukemia", "gingivitis", "beriberi", "pellagra", "rickets"))
]
FORMAT = {"response_format": {"type": "json_object"}}


class Client:
    """Asks one server; remembers what it said."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, endpoint: Endpoint) -> None:
        self.session = session
        self.base_url = base_url
        self.endpoint = endpoint

    async def raw(self, body: dict[str, Any], attempt: int = 0) -> tuple[int, dict[str, Any], Any]:
        headers = {"x-stainless-retry-count": str(attempt), "Idempotency-Key": f"key-{attempt}"}
        async with self.session.post(self.base_url + "/v1/chat/completions", json=body, headers=headers) as response:
            return response.status, await response.json(), response.headers

    async def ask(self, task: str, attempt: int = 0, seed: int = 0, fields: dict = FORMAT, **blocks: str) -> Any:
        user = "\n".join(f"<{name}>\n{text}\n</{name}>" for name, text in blocks.items())
        messages = [{"role": "system", "content": f"# Task: {task}\nGo."}, {"role": "user", "content": user}]
        body = {"model": "m", "messages": messages, "seed": seed, **fields}
        status, reply, _ = await self.raw(body, attempt)
        assert status == 200, reply
        content = reply["choices"][0]["message"]["content"]
        return json.loads(content) if fields is FORMAT else content


Serve = Callable[..., Awaitable[Client]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """`client = await serve(config, cases of the key)`."""
    closing: list[Callable[[], Awaitable[None]]] = []

    async def run(config: SimulatorConfig | None = None, key: list[Case] | None = None) -> Client:
        endpoint = Endpoint(config or SimulatorConfig(), AnswerKey.of(key or ()))
        app = web.Application()
        app.add_routes(routes(endpoint))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        session = aiohttp.ClientSession()
        closing.extend((session.close, runner.cleanup))
        return Client(session, f"http://127.0.0.1:{runner.addresses[0][1]}", endpoint)

    yield run
    for close in closing:
        await close()


async def test_it_speaks_the_protocol(serve: Serve) -> None:
    client = await serve(SimulatorConfig(model="sim-1"))
    status, reply, _ = await client.raw({"model": "m", "messages": [{"role": "user", "content": WORLD[0].question}]})
    assert status == 200 and reply["object"] == "chat.completion" and reply["model"] == "sim-1"
    usage = reply["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
    async with client.session.get(client.base_url + "/v1/models") as response:
        assert [row["id"] for row in (await response.json())["data"]] == ["sim-1"]
    async with client.session.get(client.base_url + "/sim/stats") as response:
        assert (await response.json())["replies"] == 1
    async with client.session.get(client.base_url + "/sim/served") as response:
        assert await response.json() == ["key-0"]


@pytest.mark.parametrize(
    "body",
    [{}, {"model": "m"}, {"model": "m", "messages": []}, {"model": "m", "messages": [{"role": "user"}]},
     {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}, []],
)  # fmt: skip
async def test_a_bad_request_is_a_400(serve: Serve, body) -> None:
    status, reply, _ = await (await serve()).raw(body)
    assert status == 400 and reply["error"]["type"] == "invalid_request_error"


async def test_replies_do_not_depend_on_order_or_neighbours(serve: Serve) -> None:
    answers = []
    for shuffle in (1, 2):
        client = await serve()
        cases = WORLD[:30]
        order = random.Random(shuffle).sample(range(30), 30)
        replies = await asyncio.gather(*(client.ask("initial", case=cases[n].question, seed=n) for n in order))
        answers.append(dict(zip(order, replies, strict=True)))
    assert answers[0] == answers[1]
    other = await (await serve(SimulatorConfig(seed=9))).ask("initial", case=WORLD[0].question)
    seeds = [await client.ask("initial", case=WORLD[0].question, seed=seed) for seed in range(12)]
    assert any(reply != seeds[0] for reply in seeds), "the seed of a request draws another sample"
    assert set(other) == {"reasoning", "answer"}


def test_faults_have_their_shares_and_repeat() -> None:
    failures = Failures(rate_limited=0.05, server_error=0.05, hang=0.02, malformed=0.1, truncated=0.01)
    drawn = [draw_fault(failures, 0, f"request {n}".encode(), 0) for n in range(20_000)]
    assert drawn == [draw_fault(failures, 0, f"request {n}".encode(), 0) for n in range(20_000)]
    assert drawn != [draw_fault(failures, 0, f"request {n}".encode(), 1) for n in range(20_000)]
    for fault in FAULTS:
        share = getattr(failures, fault)
        assert abs(drawn.count(fault) / 20_000 - share) < 4 * (share / 20_000) ** 0.5


@pytest.mark.parametrize(("fault", "status"), [("rate_limited", 429), ("server_error", 500)])
async def test_http_faults(serve: Serve, fault: str, status: int) -> None:
    client = await serve(SimulatorConfig(failures=Failures(**{fault: 1.0}, retry_after=2.5)))
    got, reply, headers = await client.raw({"model": "m", "messages": [{"role": "user", "content": "x"}]})
    assert got == status and "error" in reply
    if status == 429:
        assert headers["Retry-After"] == "3" and headers["retry-after-ms"] == "2500"


async def test_broken_replies(serve: Serve) -> None:
    body = {"model": "m", "messages": [{"role": "system", "content": "# Task: initial"},
            {"role": "user", "content": f"<case>\n{WORLD[0].question}\n</case>"}], **FORMAT}  # fmt: skip
    for fault, finish in (("malformed", "stop"), ("truncated", "length")):
        client = await serve(SimulatorConfig(failures=Failures(**{fault: 1.0})))
        _, reply, _ = await client.raw(body)
        choice = reply["choices"][0]
        assert choice["finish_reason"] == finish
        with pytest.raises(ValueError):
            json.loads(choice["message"]["content"])


async def test_a_hang_does_not_answer(serve: Serve) -> None:
    client = await serve(SimulatorConfig(failures=Failures(hang=1.0)))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await client.raw({"model": "m", "messages": [{"role": "user", "content": "x"}]})


async def test_json_mode_can_be_refused_and_text_may_wrap_the_object(serve: Serve) -> None:
    client = await serve(SimulatorConfig(json_mode="refused"))
    messages = [{"role": "user", "content": "x"}]
    status, reply, _ = await client.raw({"model": "m", "messages": messages, **FORMAT})
    assert status == 400 and "response_format" in reply["error"]["message"]
    texts = [await client.ask("initial", seed=n, fields={}, case=WORLD[0].question) for n in range(20)]
    assert any("```json" in text for text in texts) and any(text.startswith("{") for text in texts)


async def test_a_chain_in_the_world(serve: Serve) -> None:
    """initial -> strategies -> guided -> natural -> response -> judge, on blocks alone, in both languages."""
    client = await serve()
    for case in WORLD[:20]:
        first = await client.ask("initial", case=case.question)
        previous = f"[reasoning]\n{first['reasoning']}\n[answer]\n{first['answer']}"
        for strategy in ("exploring_new_paths", "backtracking", "verification", "corrections"):
            further = await client.ask(strategy, case=case.question, previous=previous)
            assert further["answer"] and further["reasoning"]
        guided = await client.ask("guided", case=case.question, previous=previous, reference=case.reference)
        assert guided["answer"] == case.reference
        previous += f"\n[reasoning]\n{guided['reasoning']}\n[answer]\n{guided['answer']}"
        natural = await client.ask("natural", case=case.question, previous=previous)
        assert guided["reasoning"] in natural["thinking"]
        response = await client.ask("response", case=case.question, thinking=natural["thinking"], answer=case.reference)
        verdict = await client.ask("judge", case=case.question, reference=case.reference, answer=response["response"])
        assert verdict == {"verdict": "correct"}
        wrong = next(other.reference for other in WORLD if other.reference != case.reference)
        verdict = await client.ask("judge", case=case.question, reference=wrong, answer=response["response"])
        assert verdict == {"verdict": "incorrect"}


async def test_competence_makes_a_better_teacher(serve: Serve) -> None:
    right = []
    for competence in (0.0, 1.0):
        client = await serve(SimulatorConfig(competence=competence))
        replies = await asyncio.gather(*(client.ask("initial", case=case.question) for case in WORLD))
        right.append(sum(reply["answer"] == case.reference for reply, case in zip(replies, WORLD, strict=True)))
    assert right[1] > right[0] + 10


@pytest.mark.parametrize(("competence", "least", "most"), [(0.0, 0, 0), (0.5, 50, 130), (1.0, 180, 180)])
async def test_cases_from_outside_are_answered_by_the_key(serve: Serve, competence, least, most) -> None:
    client = await serve(SimulatorConfig(competence=competence), key=OUTSIDE)
    right = 0
    for case in OUTSIDE:
        for seed in range(30):
            reply = await client.ask("initial", case=case.question, seed=seed)
            right += reply["answer"] == case.reference
            assert "bleeding gums" in reply["reasoning"] and reply["answer"] in reply["reasoning"]
    assert least <= right <= most


async def test_care_at_the_worlds_cases_leaves_those_from_outside_alone(serve: Serve) -> None:
    client = await serve(SimulatorConfig(careful=0.0), key=OUTSIDE)
    asked = [(case, seed) for case in OUTSIDE for seed in range(30)]
    replies = [await client.ask("initial", case=case.question, seed=seed) for case, seed in asked]
    right = sum(reply["answer"] == case.reference for reply, (case, _) in zip(replies, asked, strict=True))
    assert 0.4 * len(asked) < right < 0.8 * len(asked)
    reasonings = [(await client.ask("initial", case=case.question))["reasoning"] for case in WORLD]
    assert not any(teacher.checks_look_alikes(text) for text in reasonings)


async def test_without_a_key_it_does_not_know(serve: Serve) -> None:
    client = await serve()
    assert (await client.ask("initial", case=OUTSIDE[0].question))["answer"] == "I do not know"
    assert (await client.ask("initial", case="患者牙龈出血。诊断是什么？"))["answer"] == "无法确定"


async def test_a_plain_question_gets_a_plain_answer(serve: Serve) -> None:
    client = await serve(SimulatorConfig(competence=1.0), key=OUTSIDE)
    for question, reference in (
        (OUTSIDE[0].question, "scurvy"),
        (OUTSIDE[0].question + "\n\nA. scurvy\nB. gout", "scurvy"),
    ):
        _, reply, _ = await client.raw({"model": "m", "messages": [{"role": "user", "content": question}]})
        assert is_right(reference, reply["choices"][0]["message"]["content"])


def test_wrong_answers_are_never_the_reference() -> None:
    key = AnswerKey.of(OUTSIDE)
    rng = random.Random(0)
    answers = {key.answer(OUTSIDE[0].question, "en", 0.0, rng) for _ in range(200)}
    assert "scurvy" not in answers and len(answers) > 3


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ("心肌梗死", "myocardial infarction", True),
        ("pneumonia", "The diagnosis is pneumonia, because of the fever.", True),
        ("A broken bone.", "The answer is A broken bone.", True),
        ("pneumonia", "The diagnosis is not pneumonia.", False),
        ("pneumonia", "pneumonia or asthma", False),
        ("pneumonia", "", False),
        ("肺炎", "不能除外肺炎。", False),
    ],
)
def test_the_judge(reference: str, answer: str, right: bool) -> None:
    assert is_right(reference, answer) is right


@pytest.mark.parametrize(
    ("criterion", "answer", "met"),
    [
        ("The answer names: migraine", "The most likely diagnosis is Migraine.", True),
        ("Advises a head CT scan", "I advise a CT scan of the head.", True),
        ("The answer names: gout", "The diagnosis is scurvy.", False),
        ("回答指出：急性心肌梗死", "最可能的诊断是急性心肌梗死。", True),
        ("回答指出：急性心肌梗死", "最可能的诊断是肺炎。", False),
        ("The answer names: migraine", "", False),
    ],
)
async def test_a_criterion_is_met_by_its_words(serve: Serve, criterion: str, answer: str, met: bool) -> None:
    client = await serve()
    assert (await client.ask("rubric", case="Fever?", answer=answer, criterion=criterion))["met"] is met


def test_options_of_the_command_line() -> None:
    config = configuration(
        parse_arguments(["--latency-ms", "5", "--hang", "0.02", "--competence", "0.7", "--seed", "4"])
    )
    assert (config.latency_ms, config.failures.hang, config.competence, config.seed) == (5, 0.02, 0.7, 4)
    with pytest.raises(UserError, match="simulator: hang: ") as failure:
        configuration(parse_arguments(["--hang", "1.5"]))
    assert "\n" not in str(failure.value)


def test_wrong_input_is_one_sentence_and_code_2(tmp_path, capsys) -> None:
    assert main(["--key", str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl: no such file" in capsys.readouterr().out


def test_the_process_reports_its_address_and_ends_with_its_parent(tmp_path) -> None:
    write_jsonl(tmp_path / "key.jsonl", OUTSIDE)
    ready = tmp_path / "ready.json"
    command = [sys.executable, "-m", "clinical_r1.simulator.server", "--ready-file", str(ready), "--key",
               str(tmp_path / "key.jsonl"), "--parent"]  # fmt: skip
    parent = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    server = subprocess.Popen([*command, str(parent.pid)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    row = json.loads(ready.read_text())
    assert row["base_url"] == f"http://127.0.0.1:{row['port']}/v1" and row["pid"] == server.pid
    os.kill(server.pid, 0)
    parent.communicate()
    assert server.wait(120) == 0


def test_every_prompt_names_its_task_in_both_languages() -> None:
    """The simulated endpoint, and whoever reads a journal, knows a call by the first line of its prompt."""
    here = Path(clinical_r1.__file__).parent
    tasks = Counter(
        read_request(
            json.dumps(
                {"model": "m", "messages": [{"role": "system", "content": prompt.read_text(encoding="utf-8")}]}
            ).encode()
        ).task
        for prompt in here.rglob("prompts/**/*.md.j2")
    )
    assert set(tasks.values()) == {2} and {"judge", "rubric", "told", "initial"} <= tasks.keys()
