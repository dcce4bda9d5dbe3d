"""Limits and security: who may ask, how much, and that nothing of it is repeated anywhere."""

import asyncio
import hashlib
import io
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from gateway_fixture import ASK, PATIENCE, running, talk, until
from scripted_engine import Script, ScriptedEngine

from clinical_r1.errors import UserError
from clinical_r1.settings import load
from serving.gateway.app import build_gateway
from serving.gateway.config import INTENDED_USE, GatewayConfig
from serving.gateway.keys import KeyRing, main, new_key, parse_keys
from serving.gateway.request import DROPPED, NEUTRAL, ChatRequest

CANARY = "XCANARYX"


def key_line(name: str, key: str, until: str = "") -> str:
    digest = hashlib.sha256(key.encode()).hexdigest()
    return f"{name} sha256:{digest}" + (f" until={until}" if until else "")


async def test_keys_rotate_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# keys\n" + key_line("old", "OLD") + "\n" + key_line("gone", "GONE", "2020-01-01") + "\n")
    async with running(auth="keys", keys_file=path) as r:

        async def status(key: str | None) -> int:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            async with r.session.post(f"{r.base}/v1/chat/completions", json=ASK, headers=headers) as response:
                return response.status

        assert [await status(k) for k in ("OLD", None, "WRONG", "GONE", "ключ")] == [200, 401, 401, 401, 401]
        path.write_text(key_line("old", "OLD") + "\n" + key_line("new", "NEW") + "\n")
        assert r.listener.gateway.keys
        assert r.listener.gateway.keys.reload_if_changed() is True
        assert [await status(k) for k in ("OLD", "NEW")] == [200, 200]
        path.write_text("not a key file\n")
        assert r.listener.gateway.keys.reload_if_changed() is False
        assert await status("NEW") == 200
        async with r.session.get(f"{r.base}/v1/models") as response:
            assert response.status == 401
            assert response.headers["WWW-Authenticate"] == "Bearer"
        assert await r.sample("clinical_r1_rejections_total", reason="unauthorized") == 5


def test_key_file_problems_name_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text, where in (("", "no API key"), ("a b", ":1"), (key_line("a", "k", "soon"), "until")):
        with pytest.raises(UserError, match=where):
            parse_keys(text, "keys")
    with pytest.raises(UserError):
        KeyRing(tmp_path / "absent")
    key, line = new_key("team-a")
    assert key not in line
    assert main(["new", "team-b"]) == 0
    assert main(["new"]) == 2
    assert main(["new", "bad id"]) == 2
    assert capsys.readouterr().out.startswith("team-b sha256:")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "bad_json"),
        (b"{", "bad_json"),
        (b"[]", "bad_json"),
        (b'"x"', "bad_json"),
        (b"\xff\xfe", "bad_json"),
        (b'{"a":' * 5000, "bad_json"),
        (b"[" * 100_000, "bad_json"),
        (b'{"messages": "\\ud800"}', "bad_json"),
        (json.dumps({**ASK, CANARY: 1}).encode(), "refused_field"),
        (json.dumps({**ASK, "model": CANARY}).encode(), "unknown_model"),
        (json.dumps({**ASK, "model": None}).encode(), "bad_field"),
        (json.dumps({**ASK, "messages": []}).encode(), "bad_field"),
        (json.dumps({**ASK, "messages": [CANARY]}).encode(), "bad_field"),
        (json.dumps({**ASK, "messages": [{"role": CANARY, "content": "x"}]}).encode(), "bad_field"),
        (json.dumps({**ASK, "messages": [{"role": "user", "content": {"x": CANARY}}]}).encode(), "bad_field"),
        (json.dumps({**ASK, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}).encode(), "bad_field"),
        (json.dumps({**ASK, "messages": [{"role": "user", "content": "x"}] * 200}).encode(), "bad_field"),
        (json.dumps({**ASK, "temperature": CANARY}).encode(), "bad_field"),
        (json.dumps({**ASK, "temperature": True}).encode(), "bad_field"),
        (json.dumps({**ASK, "temperature": 99}).encode(), "bad_field"),
        (json.dumps({**ASK, "max_tokens": 0}).encode(), "bad_field"),
        (json.dumps({**ASK, "max_tokens": 1.5}).encode(), "bad_field"),
        (json.dumps(ASK).encode()[:-1] + b', "seed": 1e999}', "bad_json"),
        (json.dumps(ASK).encode()[:-1] + b', "seed": 99999999999999999999999}', "bad_field"),
        (json.dumps({**ASK, "stream": "yes"}).encode(), "bad_field"),
        (json.dumps({**ASK, "stream_options": {"include_usage": True}}).encode(), "bad_field"),
        (json.dumps({**ASK, "stream": True, "stream_options": {CANARY: 1}}).encode(), "bad_field"),
        (json.dumps({**ASK, "stop": ["x"] * 9}).encode(), "bad_field"),
        (json.dumps({**ASK, "stop": [""]}).encode(), "bad_field"),
        *[(json.dumps({**ASK, name: CANARY}).encode(), "refused_field") for name in NEUTRAL],
    ],
)
async def test_hostile_bodies(body: bytes, code: str) -> None:
    async with running() as r:
        headers = {"Content-Type": "application/json"}
        async with r.session.post(f"{r.base}/v1/chat/completions", data=body, headers=headers) as response:
            answer = await response.json()
            assert 400 <= response.status < 500
        assert answer["error"]["code"] == code or (code == "bad_json" and answer["error"]["code"] == "bad_field")
        assert CANARY not in json.dumps(answer)
        assert r.engine.bodies == []
        assert await r.sample("clinical_r1_rejections_total") == 1


async def test_clamps_and_dropped_fields() -> None:
    async with running(limits={"max_tokens": 100, "max_n": 2, "default_max_tokens": 50}, model_name="alias") as r:
        await r.unary(model="alias", max_tokens=10**6, n=100, user=CANARY, seed=3, top_k=5)
        await r.unary(max_completion_tokens=20, max_tokens=99)
        await r.unary()
        first, second, third = r.engine.bodies
        assert (first["max_tokens"], first["n"], first["model"]) == (100, 2, "engine-model")
        assert "user" not in first
        assert second["max_tokens"] == 20
        assert third["max_tokens"] == 50
        assert not DROPPED & set(NEUTRAL) and not set(ChatRequest.model_fields) & (DROPPED | set(NEUTRAL))


async def test_a_large_body_is_refused_before_it_is_read() -> None:
    async with running(limits={"body_bytes": 2048}) as r:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        # Announced: the answer comes though not one byte of the body was sent.
        out = await talk(r.listener.port, head + b"Content-Length: 99999999\r\n\r\n")
        assert b" 413 " in out.split(b"\r\n")[0]
        # Unannounced: cut off when it grows.
        chunks = b"".join(b"400\r\n" + b"x" * 1024 + b"\r\n" for _ in range(8))
        out = await talk(r.listener.port, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
        assert b" 413 " in out.split(b"\r\n")[0]
        assert await r.sample("clinical_r1_rejections_total", reason="body_too_large") == 2


async def test_a_slow_body_and_wrong_media() -> None:
    async with running(timeouts={"body": 0.3}) as r:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        out = await talk(r.listener.port, head + b"Content-Length: 100\r\n\r\n{")
        assert b" 408 " in out.split(b"\r\n")[0]
        async with r.session.post(f"{r.base}/v1/chat/completions", data="x") as response:
            assert response.status == 415
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        async with r.session.post(f"{r.base}/v1/chat/completions", data=b"x", headers=headers) as response:
            assert response.status == 415


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/completions", 404),
        ("POST", "/v1/completions", 404),
        ("POST", "/v1/embeddings", 404),
        ("POST", "/tokenize", 404),
        ("GET", "/docs", 404),
        ("GET", f"/{CANARY}", 404),
        ("GET", "/v1/../v1/chat/completions", 405),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("TRACE", "/v1/models", 405),
        ("GET", "/chat.js", 404),
    ],
)
async def test_only_listed_routes(method: str, path: str, status: int) -> None:
    async with running() as r, r.session.request(method, r.base + path) as response:
        body = await response.text()
        assert response.status == status
        assert CANARY not in body
        assert json.loads(body)["error"]["type"] == "invalid_request_error"


async def test_every_answer_states_its_use() -> None:
    async with running() as r:
        for path in ("/v1/models", "/healthz/live", "/metrics", "/nothing"):
            async with r.session.get(r.base + path) as response:
                assert response.headers["X-Intended-Use"] == INTENDED_USE
                assert response.headers["X-Request-Id"].startswith("req-")
                assert response.headers["Server"] == "clinical-r1"


async def test_back_pressure() -> None:
    async with running(limits={"in_flight": 2}) as r:
        r.engine.script = Script(held=(end := asyncio.Event()))
        asked = [asyncio.create_task(r.unary()) for _ in range(5)]
        await r.reaches(3, "clinical_r1_rejections_total", reason="overloaded")
        end.set()
        answers = await asyncio.gather(*asked)
        assert sorted(status for status, _ in answers) == [200, 200, 429, 429, 429]
        async with r.session.post(f"{r.base}/v1/chat/completions", json=ASK) as response:
            assert response.status == 200
        assert await r.sample("clinical_r1_rejections_total", reason="overloaded") == 3


@pytest.mark.parametrize(
    "data",
    [
        f"GET /{CANARY} HTTP/9.9\r\n\r\n".encode(),
        f"{CANARY}\r\n\r\n".encode(),
        f"GET / HTTP/1.1\r\nHost: x\r\n{CANARY} : y\r\n\r\n".encode(),
        f"GET / HTTP/1.1\r\nHost: x\r\nX: {CANARY}\x00\r\n\r\n".encode(),
        b"GET /" + CANARY.encode() * 3000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + CANARY.encode() * 3000 + b"\r\n\r\n",
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {CANARY}\r\n\r\n".encode(),
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_broken_http_is_answered_without_an_echo(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with running() as r:
        out = await talk(r.listener.port, data)
        assert CANARY.encode() not in out
        assert b" 400 " in out.split(b"\r\n")[0] or b" 404 " in out.split(b"\r\n")[0]
        assert (await r.unary())[0] == 200
    assert not [record for record in caplog.records if CANARY in record.getMessage()]


async def test_no_text_anywhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A canary in questions, answers, errors and headers turns up in no log, metric, audit line or error."""
    caplog.set_level(logging.DEBUG)
    audit = tmp_path / "audit.jsonl"
    stderr = io.StringIO()
    logging.getLogger().addHandler(logging.StreamHandler(stderr))
    async with running(audit_file=str(audit)) as r:
        question = [{"role": "user", "content": CANARY}]
        r.session.headers.update({"X-Request-Id": CANARY, "User-Agent": CANARY, "Authorization": f"Bearer {CANARY}"})
        errors = []
        for script in (
            Script(texts=[f"<think>{CANARY}</think>{CANARY}"]),
            Script(status=500, body=CANARY.encode()),
            Script(status=400, body=CANARY.encode()),
            Script(garbage=CANARY.encode()),
            Script(garbage=json.dumps({"choices": [{"index": CANARY}]}).encode()),
        ):
            r.engine.script = script
            _, body = await r.unary(messages=question)
            errors.append(body if "error" in body else {})
            chunks: list[Any] = []
            if script.status == 200:
                chunks = await r.stream(messages=question)
            errors += [chunk for chunk in chunks if "error" in chunk]
        # An exception of our own in the middle of a request.
        r.engine.script = Script()
        broken = r.listener.gateway.upstream

        def boom(*_: Any, **__: Any) -> None:
            raise ValueError(CANARY)

        broken.ask = boom  # type: ignore[method-assign, assignment]
        status, body = await r.unary(messages=question)
        assert (status, body["error"]["code"]) == (500, "internal")
        errors.append(body)
        text = (await r.get("/metrics"))[1] + (await r.get("/metrics", Accept="application/openmetrics-text"))[1]
        assert await r.sample("clinical_r1_answers_total") == await r.sample("clinical_r1_answers_started_total")
    out, err = capfd.readouterr()
    logs = "".join(record.getMessage() + str(record.exc_info) for record in caplog.records) + stderr.getvalue()
    for name, place in {
        "errors": json.dumps(errors),
        "metrics": text,
        "audit": audit.read_text(),
        "logs": logs,
        "stdout": out,
        "stderr": err,
    }.items():
        assert CANARY not in place, name
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert len(lines) == 9
    assert lines[0]["outcomes"] == ["ok"]
    assert {"time", "key", "model_version", "request_id", "completion_tokens", "reasoning_tokens"} <= lines[0].keys()


async def test_half_open_connections_do_not_stop_service() -> None:
    async with running(timeouts={"header": 600.0}) as r:
        sockets = []
        for index in range(1000):
            reader, writer = await asyncio.open_connection("127.0.0.1", r.listener.port)
            if index % 2:
                writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-")
            sockets.append((reader, writer))
        assert (await r.unary())[0] == 200
        assert len(r.listener._runner.server.connections) >= 1000  # type: ignore[union-attr]
        r.listener.gateway.config.timeouts.header = 0.1
        await until(lambda: len(r.listener._runner.server.connections) < 20)  # type: ignore[union-attr]
        assert (await r.unary())[0] == 200
        for _, writer in sockets:
            writer.close()


def test_configuration_problems_name_file_and_key(tmp_path: Path) -> None:
    for text, where in (
        ("port: x", "port"),
        ("limits: {max_n: 0}", "limits.max_n"),
        ("a: [", "YAML"),
        ("typo: 1", "typo"),
    ):
        path = tmp_path / "gateway.yaml"
        path.write_text(text)
        with pytest.raises(UserError, match=re.escape(where)):
            load(GatewayConfig, path)
    with pytest.raises(UserError, match="keys_file"):
        build_gateway(GatewayConfig())
    with pytest.raises(UserError, match=r"sampling\.store"):
        build_gateway(GatewayConfig.model_validate({"auth": "none", "sampling": {"rate": 0.5}}))


def test_schemathesis_finds_nothing() -> None:
    """Generated requests, valid and not, against our own OpenAPI document: no 500, no undocumented answer."""
    schemathesis = pytest.importorskip("schemathesis")
    import threading

    ready, done = threading.Event(), threading.Event()
    found: dict[str, str] = {}

    async def serve() -> None:
        async with running(ScriptedEngine()) as r:
            found["base"] = r.base
            ready.set()
            while not done.is_set():
                await asyncio.sleep(0.05)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(PATIENCE)
        schema = schemathesis.openapi.from_url(found["base"] + "/openapi.json")
        operations = [operation.ok() for operation in schema.get_all_operations()]
        assert len(operations) == 7
        for operation in operations:
            _fuzz(operation, found["base"])
    finally:
        done.set()
        thread.join(10)


def _fuzz(operation: Any, base: str) -> None:
    """Valid and invalid requests to one operation; every answer is documented, fits its schema and is no 5xx."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis.errors import Unsatisfiable
    from schemathesis.generation import GenerationMode
    from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        def check(case: Any) -> None:
            if isinstance(case.body, dict) and len(case.body) % 2:
                case.body["model"] = "engine-model"  # else all would end at the unknown model
            response = case.call(base_url=base, timeout=PATIENCE)
            assert response.status_code < 500
            assert "Traceback" not in response.text
            case.validate_response(response, checks=[status_code_conformance, response_schema_conformance])

        try:
            check()
        except Unsatisfiable:
            continue  # nothing can be wrong about an operation without parameters
