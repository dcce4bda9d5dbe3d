"""The registration job's program against a Kubeflow that remembers."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from rendering import CHART

TEXT = """# PIPELINE
pipelineInfo: {name: audit, description: Judges sampled answers.}
root: {inputDefinitions: {parameters: {days: {parameterType: NUMBER_INTEGER}, data_cpu: {parameterType: STRING}}}}
"""
PLAN: dict[str, Any] = {
    "tags": {"app": "clinical-r1"},
    "audit": {"schedule": "", "parameters": {}, "account": "a"},
    "must": False,
}


@pytest.fixture
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("register", CHART / "files" / "register_pipelines.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Kubeflow:
    """Pipelines, their versions and recurring runs, as the server keeps them."""

    def __init__(self) -> None:
        self.pipelines: dict[str, Any] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.recurring: dict[str, dict[str, Any]] = {}
        self._pipelines_api = self._upload_api = self

    def list_pipelines(self, filter: str, namespace: str | None) -> Any:
        name = json.loads(filter)["predicates"][0]["stringValue"]
        return SimpleNamespace(pipelines=[self.pipelines[name]] if name in self.pipelines else None)

    def pipeline_service_create_pipeline(self, body: Any) -> Any:
        self.pipelines[body.name] = SimpleNamespace(pipeline_id=body.name, body=body)
        return self.pipelines[body.name]

    def list_pipeline_versions(self, pipeline_id: str, page_token: str, page_size: int) -> Any:
        found = self.versions.get(pipeline_id, {})
        rows = [SimpleNamespace(display_name=name, pipeline_version_id=name) for name in found]
        return SimpleNamespace(pipeline_versions=rows, next_page_token="")

    def upload_pipeline_version(self, path: str, name: str, pipelineid: str, description: str, tags: str) -> Any:
        self.versions.setdefault(pipelineid, {})[name] = {"description": description, "tags": json.loads(tags)}
        return SimpleNamespace(pipeline_version_id=name)

    def create_experiment(self, name: str, namespace: str | None) -> Any:
        return SimpleNamespace(experiment_id=name)

    def list_recurring_runs(self, experiment_id: str, page_size: int) -> Any:
        rows = [SimpleNamespace(display_name=name, recurring_run_id=name) for name in self.recurring]
        return SimpleNamespace(recurring_runs=rows)

    def create_recurring_run(self, experiment: str, name: str, **more: Any) -> None:
        self.recurring[name] = more

    def delete_recurring_run(self, run: str) -> None:
        del self.recurring[run]


def folder(path: Path, text: str = TEXT, **plan: Any) -> Path:
    path.mkdir(exist_ok=True)
    (path / "audit.yaml").write_text(text)
    (path / "plan.json").write_text(json.dumps(PLAN | plan))
    return path


@pytest.fixture
def server(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Kubeflow:
    made = Kubeflow()
    monkeypatch.setenv("KFP_ENDPOINT", "http://kubeflow")
    monkeypatch.setattr(program, "connected", lambda endpoint: made)
    return made


def test_one_version_a_content_with_description_and_tags(program: ModuleType, server: Kubeflow, tmp_path: Path) -> None:
    for _ in range(2):
        assert program.main(folder(tmp_path / "p")) == 0
    [version] = server.versions["clinical-r1-audit"].values()
    assert version == {"description": "Judges sampled answers.", "tags": {"app": "clinical-r1"}}
    assert server.pipelines["clinical-r1-audit"].body.description == "Judges sampled answers."
    assert program.main(folder(tmp_path / "p", TEXT + "x: 1\n")) == 0
    assert len(server.versions["clinical-r1-audit"]) == 2


def test_the_audit_recurs_once_as_it_is_told(program: ModuleType, server: Kubeflow, tmp_path: Path) -> None:
    weekly = {"schedule": "0 0 3 * * 1", "parameters": {"days": 7}, "account": "a"}
    for _ in range(2):
        program.main(folder(tmp_path / "p", audit=weekly))
    [(name, run)] = server.recurring.items()
    assert run["cron_expression"] == "0 0 3 * * 1" and run["params"] == {"days": 7} and run["version_id"]
    program.main(folder(tmp_path / "p", audit=weekly | {"schedule": "0 0 4 * * *"}))
    [other] = server.recurring
    assert other != name
    server.recurring["somebody's own"] = {}
    program.main(folder(tmp_path / "p"))
    assert set(server.recurring) == {"somebody's own"}


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"dayz": 7}, "no such parameter: days?"),
        ({"days": "7"}, "'7' is no NUMBER_INTEGER"),
        ({"days": True}, "True is no NUMBER_INTEGER"),
        ({"data_cpu": 2}, "2 is no STRING"),
        ({"x": 1}, "data_cpu, days?"),
    ],
)
def test_parameters_of_the_audit_that_kubeflow_would_refuse(
    program: ModuleType, server: Kubeflow, tmp_path: Path, parameters: dict, said: str
) -> None:
    told = {"schedule": "0 0 3 * * 1", "parameters": parameters, "account": "a"}
    with pytest.raises(ValueError, match=r"kubeflow\.audit\.parameters\.\w+: ") as refused:
        program.main(folder(tmp_path / "p", audit=told))
    assert said in str(refused.value) and not server.versions


@pytest.mark.parametrize(("must", "code"), [(True, 2), (False, 0)])
def test_a_kubeflow_that_does_not_answer(
    program: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    must: bool,
    code: int,
) -> None:
    monkeypatch.setenv("KFP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(program, "PATIENCE_SECONDS", 0.0)
    assert program.main(folder(tmp_path / "p", must=must)) == code
    assert "did not answer within" in capsys.readouterr().err
