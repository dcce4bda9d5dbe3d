"""The programs that the chart carries: store set-up on a real MinIO, the streamed call of `helm test`, the drain."""

import asyncio
import base64
import contextlib
import hashlib
import importlib
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from minio import Minio
from rendering import CHART, MODEL, Render

from clinical_r1.objectstore.face import Store, StoreRefused
from clinical_r1.objectstore.settings import StoreSettings
from clinical_r1.objectstore.store import open_store
from serving.engine.api import SERVED, metrics
from serving.gateway.keys import parse_keys
from tests.objectstore.minio_server import MinioServer, minio_binary

FILES = CHART / "files"
REPOSITORY = CHART.parents[1]


def program(name: str) -> Any:
    """One of the chart's programs as a module."""
    spec = importlib.util.spec_from_file_location(name, FILES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Installed:
    """The plan and Secrets of a rendered chart, laid out as in the set-up job, against a running MinIO."""

    def __init__(self, server: MinioServer, chart: Any, folder: Path) -> None:
        self.server, self.plan, self.secrets = server, folder / "plan", folder / "secrets"
        self.plan.mkdir()
        for name, text in chart.get("ConfigMap", "store")["data"].items():
            (self.plan / name).write_text(text)
        plan = json.loads((self.plan / "plan.json").read_text())
        self.users: list[str] = plan["users"]
        (self.plan / "plan.json").write_text(json.dumps(plan | {"endpoint": server.endpoint}))
        for user in self.users:
            data = chart.get("Secret", f"store-{user}")["data"]
            self.write(user, {key: base64.b64decode(value).decode() for key, value in data.items()})
        self.write("root", {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key})

    def write(self, user: str, keys: dict[str, str]) -> None:
        """A mounted Secret."""
        (self.secrets / user).mkdir(parents=True, exist_ok=True)
        for name, value in keys.items():
            (self.secrets / user / name).write_text(value)

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """The job's command."""
        command = [sys.executable, str(FILES / "store_setup.py"), str(self.plan), str(self.secrets)]
        return subprocess.run(
            command, env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False
        )

    def store(self, user: str, prefix: str) -> Store:
        """The store as that user sees it."""
        settings = StoreSettings(endpoint=self.server.endpoint, secret_dir=self.secrets / user, patience=20)
        return open_store(f"s3://clinical-r1/{prefix}", settings)


@pytest.fixture(scope="module")
def installed(render: Render, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    binary = minio_binary()
    if binary is None:
        pytest.skip("no minio binary; `python -m tests.cluster.build minio` builds it")
    folder = tmp_path_factory.mktemp("store")
    # As the chart's MinIO has it.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIO_PROMETHEUS_AUTH_TYPE", "public")
        server = MinioServer(binary, folder / "data")
        server.start()
    with contextlib.ExitStack() as stack:
        stack.push(server.__exit__)
        found = Installed(server, render("one-gpu", MODEL), folder)
        done = found.run()
        assert done.returncode == 0, done.stderr
        yield found


def test_setup_can_be_run_again(installed: Installed) -> None:
    done = installed.run()
    assert done.returncode == 0, done.stderr
    assert "bucket clinical-r1: there" in done.stdout
    assert "journal/ after 365 days" in done.stdout


def test_the_alerts_metrics_are_those_of_minio(installed: Installed, render: Render) -> None:
    group = render("one-gpu", MODEL).kind("PrometheusRule")[0]["spec"]["groups"][-1]
    wanted = set(re.findall(r"minio_\w+", json.dumps(group["rules"])))
    deadline = time.monotonic() + 300
    text = ""
    while time.monotonic() < deadline and not all(name in text for name in wanted):
        time.sleep(1)
        with urllib.request.urlopen(f"{installed.server.endpoint}/minio/v2/metrics/cluster", timeout=10) as response:
            text = response.read().decode()
    assert wanted and all(re.search(rf"(?m)^{name}[{{ ]", text) for name in wanted), wanted


def test_every_user_can_do_its_own_and_nothing_else(installed: Installed) -> None:
    for user in ("records", "traces", "journal", "models", "reports"):
        own = installed.store(user, user)
        own.put("a/one.json", b"{}")
        assert own.get("a/one.json") == b"{}" and [entry.key for entry in own.list()] == ["a/one.json"]
        for other in {"records", "traces", "models", "pipelines"} - {user}:
            foreign = installed.store(user, other)
            for refused in (lambda f=foreign: f.put("x", b""), lambda f=foreign: f.get("a/one.json")):
                with pytest.raises(StoreRefused):
                    refused()
            with pytest.raises(StoreRefused):
                list(foreign.list())


def test_serving_reads_models_only_and_audit_writes_only(installed: Installed) -> None:
    installed.store("models", "models").put("r1/1/config.json", b"{}")
    serving = installed.store("serving", "models")
    assert serving.get("r1/1/config.json") == b"{}"
    # KServe's storage initializer begins with HeadBucket.
    access, secret = StoreSettings(endpoint=installed.server.endpoint, secret_dir=installed.secrets / "serving").keys()
    address = installed.server.endpoint.removeprefix("http://")
    assert Minio(address, access, secret, secure=False).bucket_exists("clinical-r1")
    with pytest.raises(StoreRefused):
        installed.store("serving", "records").get("by-a-step")
    for refused in (lambda: serving.put("r1/1/x", b""), lambda: serving.delete("r1/1/config.json")):
        with pytest.raises(StoreRefused):
            refused()
    audit = installed.store("audit", "audit")
    audit.put("2026/segment.jsonl", b"{}")
    with pytest.raises(StoreRefused):
        audit.get("2026/segment.jsonl")


def test_pipelines_reach_every_prefix(installed: Installed) -> None:
    for prefix in ("records", "traces", "journal", "models", "reports", "pipelines", "audit"):
        installed.store("pipelines", prefix).put("by-a-step", b"1")


def test_a_rotated_key_replaces_the_old_one(installed: Installed) -> None:
    old = (installed.secrets / "traces" / "AWS_SECRET_ACCESS_KEY").read_text()
    installed.write("traces", {"AWS_SECRET_ACCESS_KEY": "a-new-secret-key-of-forty-characters-xxx"})
    assert installed.run().returncode == 0
    installed.store("traces", "traces").put("after", b"1")
    installed.write("stale", {"AWS_ACCESS_KEY_ID": "r1-traces", "AWS_SECRET_ACCESS_KEY": old})
    with pytest.raises(StoreRefused):
        installed.store("stale", "traces").put("never", b"1")


def test_roots_password_can_be_changed(installed: Installed) -> None:
    installed.server.kill()
    installed.server.secret_key = "another-root-password-0123456789"
    installed.write("root", {"AWS_SECRET_ACCESS_KEY": installed.server.secret_key})
    installed.server.start()
    assert installed.run().returncode == 0
    installed.store("reports", "reports").put("after-rotation", b"1")


def test_an_external_stores_user_finds_its_bucket(installed: Installed) -> None:
    plan = json.loads((installed.plan / "plan.json").read_text())
    root = {
        key: (installed.secrets / "root" / key).read_text() for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    }
    user = {key: (installed.secrets / "pipelines" / key).read_text() for key in root}
    installed.write("root", user)  # with an external store the job has the keys of `pipelines`
    try:
        for change, code in (({"create_bucket": False, "lifecycle": {}, "users": []}, 0), ({"users": []}, 2)):
            (installed.plan / "plan.json").write_text(json.dumps(plan | change))
            done = installed.run()
            assert done.returncode == code, done.stderr
        assert "objectStore.setup.lifecycle=false" in done.stderr
    finally:
        installed.write("root", root)
        (installed.plan / "plan.json").write_text(json.dumps(plan))


def test_setup_says_what_is_wrong(installed: Installed) -> None:
    right = (installed.secrets / "root" / "AWS_SECRET_ACCESS_KEY").read_text()
    installed.write("root", {"AWS_SECRET_ACCESS_KEY": "wrong-password-0123456789"})
    done = installed.run()
    installed.write("root", {"AWS_SECRET_ACCESS_KEY": right})
    assert done.returncode == 2 and "keys" in done.stderr and "Traceback" not in done.stderr
    plan = json.loads((installed.plan / "plan.json").read_text())
    (installed.plan / "plan.json").write_text(json.dumps(plan | {"endpoint": "http://127.0.0.1:9"}))
    done = installed.run(PATIENCE_SECONDS="1")
    (installed.plan / "plan.json").write_text(json.dumps(plan))
    assert done.returncode == 2 and "no answer from the store within 1 s" in done.stderr


def test_manifests_secrets_fit_the_rendered_manifests() -> None:
    script = REPOSITORY / "manifests" / "make-secrets.sh"
    done = subprocess.run([script, "clinical-r1"], capture_output=True, text=True, timeout=120, check=True)
    made = {(doc["kind"], doc["metadata"]["name"]): doc for doc in yaml.safe_load_all(done.stdout) if doc}
    text = (REPOSITORY / "manifests" / "rendered" / "one-gpu.yaml").read_text()
    rendered = [doc for doc in yaml.load_all(text, Loader=yaml.CSafeLoader) if doc]
    there = {(doc["kind"], doc["metadata"]["name"]) for doc in rendered}

    def wanted(node: Any) -> Iterator[tuple[str, str]]:
        if isinstance(node, list):
            for item in node:
                yield from wanted(item)
        elif isinstance(node, dict):
            for key, kind in (("secretName", "Secret"), ("secretKeyRef", "Secret"), ("configMap", "ConfigMap")):
                if key in node and key != "matchLabels":
                    name = node[key] if isinstance(node[key], str) else node[key].get("name")
                    if name:
                        yield kind, name
            for value in node.values():
                yield from wanted(value)

    missing = {pair for doc in rendered for pair in wanted(doc) if pair not in there and pair not in made}
    assert not missing
    client = base64.b64decode(made["Secret", "clinical-r1-first-client"]["data"]["key"])
    keys = base64.b64decode(made["Secret", "clinical-r1-gateway-keys"]["data"]["keys"]).decode()
    assert parse_keys(keys, "keys")[0].digest == hashlib.sha256(client).digest()


def test_the_first_clients_key_opens_the_gateway(render: Render) -> None:
    chart = render("one-gpu", MODEL)
    key = base64.b64decode(chart.get("Secret", "first-client")["data"]["key"])
    keys = base64.b64decode(chart.get("Secret", "gateway-keys")["data"]["keys"]).decode()
    assert parse_keys(keys, "keys")[0].digest == hashlib.sha256(key).digest()


async def stream_test(base: str, **environment: str) -> tuple[int, str]:
    """What `helm test` runs; (exit code, output)."""
    given = {
        "GATEWAY": base.removeprefix("http://"),
        "PROMPT": "Fever?",
        "MODEL": "engine-model",
        "TIMEOUT_SECONDS": "120",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(FILES / "stream_test.py"),
        env=os.environ | given | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_helm_test_streams_and_sees_the_metric_move(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "tests" / "serving"))
    fixture = importlib.import_module("gateway_fixture")
    async with fixture.running() as gateway:
        code, output = await stream_test(gateway.base)
        assert code == 0, output
        assert "moved from 0 to 1" in output
        gateway.engine.script.die_after = 2
        code, output = await stream_test(gateway.base)
        assert code == 1 and "error: the stream" in output and "Traceback" not in output
    keys = tmp_path / "keys"
    keys.write_text("a sha256:" + "0" * 64)
    async with fixture.running(auth="keys", keys_file=keys) as gateway:
        code, output = await stream_test(gateway.base, API_KEY="cr1-wrong")
        assert code == 1 and "refused the API key" in output
    code, output = await stream_test("http://127.0.0.1:9")
    assert code == 1 and "is the InferenceService ready?" in output


class Gauges(BaseHTTPRequestHandler):
    """An engine's metrics page: busy for some questions, then idle."""

    busy = 3
    line = "clinical_r1_engine_running"

    def do_GET(self) -> None:
        type(self).busy -= 1
        value = 1 if type(self).busy >= 0 else 0
        body = f"# TYPE {self.line} gauge\n{self.line} {value}\nother 5\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Silence."""


@pytest.mark.parametrize("line", ["clinical_r1_engine_running", 'vllm:num_requests_running{engine="0",model_name="m"}'])
def test_drain_waits_until_the_engine_is_idle(line: str) -> None:
    handler = type("Handler", (Gauges,), {"line": line, "busy": 3})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/metrics"
    began = time.monotonic()
    program("engine_drain").main(0.0, 300.0, url)
    waited = time.monotonic() - began
    server.shutdown()
    assert handler.busy <= -2 and 1.5 < waited < 250  # type: ignore[attr-defined]


def test_drain_gives_up_in_time() -> None:
    handler = type("Handler", (Gauges,), {"busy": 10**6})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    began = time.monotonic()
    program("engine_drain").main(0.0, 2.0, f"http://127.0.0.1:{server.server_port}/metrics")
    server.shutdown()
    assert 1.9 < time.monotonic() - began < 120


def test_an_engine_too_busy_to_answer_is_not_idle() -> None:
    drain = program("engine_drain")
    drain.ANSWER_SECONDS = 0.2
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections are made and nobody reads them
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/metrics"
        assert drain.busy(url)
    assert not drain.busy(url)


async def test_drain_reads_the_gauges_of_our_engine() -> None:
    job = SimpleNamespace(ended=False)
    counters = dict.fromkeys(("requests", "batches", "tokens", "busy_seconds"), 7)
    scheduler = SimpleNamespace(**counters, waiting=[job, job], running=[job])
    page = await metrics(SimpleNamespace(app={SERVED: SimpleNamespace(scheduler=scheduler)}))  # type: ignore[arg-type]
    assert sorted(program("engine_drain").GAUGES.findall(page.text)) == ["1", "2"]
