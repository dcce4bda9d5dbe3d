"""Registering a published version: the real client against a server that keeps what it is sent (no Model Registry)."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner

from clinical_r1.baseline import FILE_NAME as BASELINE
from clinical_r1.errors import UserError
from clinical_r1.objectstore import models
from clinical_r1.objectstore.manifest import GATE, Facts, Gate, RuleResult, folder_weights
from clinical_r1.objectstore.publication import facts_of, publish_run, register, register_in_mlflow
from clinical_r1.objectstore.store import open_store
from pipelines.cli.main import app

EVALUATION = [
    {"benchmark": "test", "overall": {"accuracy": 0.61}},
    {"benchmark": "dx", "overall": {"lower_bound": 0.4}},
]


class Registry(BaseHTTPRequestHandler):
    """The paths of the registry's REST API that the client asks for."""

    rows: ClassVar[dict[str, list[dict[str, Any]]]] = {}

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        asked = {key: values[0] for key, values in parse_qs(url.query).items()}
        kind = url.path.split("/v1/")[1]
        if kind.endswith("s"):
            kept = Registry.rows.get(kind, [])
            return self.reply({"items": kept, "nextPageToken": "", "pageSize": 10, "size": len(kept)})
        place = f"model_versions/{asked.get('parentResourceId')}/artifacts" if "artifact" in kind else f"{kind}s"
        found = [row for row in Registry.rows.get(place, []) if row["name"] == asked.get("name")]
        return self.reply(found[0]) if found else self.reply({"code": "404", "message": "none"}, 404)

    def do_POST(self) -> None:
        kind = urlsplit(self.path).path.split("/v1/")[1]
        row = self.sent()
        row["id"] = str(len(Registry.rows.setdefault(kind, [])) + 1)
        Registry.rows[kind].append(row)
        self.reply(row, 201)

    def do_PATCH(self) -> None:
        kind, _, number = urlsplit(self.path).path.split("/v1/")[1].rpartition("/")
        Registry.rows[kind][int(number) - 1] |= self.sent()
        self.reply(Registry.rows[kind][int(number) - 1])

    def sent(self) -> dict[str, Any]:
        row: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return row

    def reply(self, row: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(row).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def registry() -> Iterator[str]:
    Registry.rows.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_what_is_told_is_flat_and_a_lower_bound_keeps_its_name(tmp_path: Path, model_folder: Path) -> None:
    store = open_store(tmp_path / "store")
    manifest = models.publish(store, "r1", model_folder, Facts(base_model="Qwen/Qwen2.5-7B", evaluation=EVALUATION))
    facts = facts_of(manifest, ["candidate"])
    assert facts["accuracy_test"] == 0.61 and facts["lower_bound_dx"] == 0.4 and "accuracy_dx" not in facts
    assert re.fullmatch("[0-9a-f]{64}", facts["weights_sha256"]) and facts["aliases"] == "candidate"
    assert all(isinstance(value, str | int | float) for value in facts.values())


def test_a_version_is_registered_once_and_brought_up_to_date(registry: str, tmp_path: Path, model_folder: Path) -> None:
    pytest.importorskip("model_registry")
    store = open_store(tmp_path / "store")
    version = models.publish(store, "r1", model_folder, Facts(evaluation=EVALUATION)).version
    arguments = [
        "models",
        "register",
        "r1",
        "--store",
        str(tmp_path / "store"),
        "--registry",
        registry,
        "--by",
        "Dr. Li",
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0 and f"r1/{version}" in done.output, (done.output, done.exception)
    (artifact,) = next(rows for kind, rows in Registry.rows.items() if kind.endswith("artifacts"))
    assert artifact["uri"] == f"{store.uri}/r1/{version}"
    (row,) = Registry.rows["model_versions"]
    assert row["customProperties"]["aliases"]["string_value"] == "candidate"
    assert row["customProperties"]["accuracy_test"]["double_value"] == 0.61
    models.publish(store, "r1", model_folder, Facts(), version="two")
    register(store, "r1", version, registry, "Dr. Li")
    assert len(Registry.rows["model_versions"]) == len(Registry.rows["registered_models"]) == 1
    assert Registry.rows["model_versions"][0]["customProperties"]["aliases"]["string_value"] == ""
    elsewhere = open_store(tmp_path / "elsewhere")
    models.publish(elsewhere, "r1", model_folder, Facts(evaluation=EVALUATION))
    with pytest.raises(UserError, match="is registered at another place"):
        register(elsewhere, "r1", version, registry, "Dr. Li")


def test_a_registry_that_is_not_there_is_named(tmp_path: Path, model_folder: Path) -> None:
    pytest.importorskip("model_registry")
    store = open_store(tmp_path / "store")
    models.publish(store, "r1", model_folder, Facts())
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9: the registry does not take r1 v-"):
        register(store, "r1", "candidate", "http://127.0.0.1:9", "Dr. Li")


def test_mlflow_gets_the_version_with_its_facts_and_aliases_once(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    server = (tmp_path / "mlruns").as_uri()
    store = open_store(tmp_path / "store")
    version = models.publish(store, "r1", model_folder, Facts(evaluation=EVALUATION)).version
    done = CliRunner().invoke(app, ["models", "register", "r1", "--store", str(tmp_path / "store"), "--mlflow", server])
    assert done.exit_code == 0 and "registered: r1/1 in" in done.output, (done.output, done.exception)
    client = mlflow.MlflowClient(server, server)
    (row,) = client.search_model_versions("name='r1'")
    assert row.source == f"{store.uri}/r1/{version}" and row.tags["accuracy_test"] == "0.61"
    assert row.tags["version"] == version and client.get_registered_model("r1").aliases == {"candidate": "1"}
    models.publish(store, "r1", model_folder, Facts(), version="two")
    assert register_in_mlflow(store, "r1", version, server) == "r1/1"
    assert client.get_registered_model("r1").aliases == {}, "candidate has moved on, and `two` is not registered"
    assert register_in_mlflow(store, "r1", "two", server) == "r1/2"
    elsewhere = open_store(tmp_path / "elsewhere")
    models.publish(elsewhere, "r1", model_folder, Facts(evaluation=EVALUATION))
    with pytest.raises(UserError, match="is registered at another place"):
        register_in_mlflow(elsewhere, "r1", version, server)


def test_what_was_tracked_in_mlflow_is_registered_there_when_it_is_published(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    folders = {name: tmp_path / name for name in ("splits", "traces", "predictions", "gate", "report")}
    for folder, files in {"splits": ["sft", "rl", "validation", "test"], "traces": ["traces"]}.items():
        folders[folder].mkdir()
        for file in files:
            (folders[folder] / f"{file}.jsonl").touch()
    for name in ("predictions", "gate"):
        folders[name].mkdir()
    (folders["predictions"] / "metrics.json").write_text(
        json.dumps({**EVALUATION[0], "weights": folder_weights(model_folder)})
    )
    rule = RuleResult(rule="accuracy", result="hold", reason="few cases", n=1, power="")
    weights = folder_weights(model_folder)
    (folders["predictions"] / "metrics.json").write_text(json.dumps({**EVALUATION[0], "weights": weights}))
    gate = Gate(decision="hold", candidate="r1", weights=weights, against="base model", incumbent=False, rules=[rule],
                policy={})  # fmt: skip
    (folders["gate"] / GATE).write_text(gate.model_dump_json())
    (folders["gate"] / BASELINE).write_text(json.dumps({"weights": weights}))
    facts = {"run_id": "run", "code_version": "c", "sources_sha256": "s"}
    settings = json.dumps({"ppo": {"tracking": {"to": ["mlflow"]}}})
    for server in ((tmp_path / "mlruns").as_uri(), "http://127.0.0.1:9"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        store = str(tmp_path / server[:4])
        published = publish_run(store, "r1", model_folder, folders, settings, facts)
        assert models.read_manifest(open_store(store), "r1", published.version).run_id == "run"
    said = capsys.readouterr()
    assert "registered in MLflow: r1/1" in said.out and "clinical-r1 models register r1 --mlflow URI" in said.err
    server = (tmp_path / "mlruns").as_uri()
    assert len(mlflow.MlflowClient(server, server).search_model_versions("name='r1'")) == 1
