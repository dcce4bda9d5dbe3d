"""From a form to what the steps are told: the configure step's work, the records of a run, what a failure says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clinical_r1 import step
from clinical_r1.errors import UserError
from clinical_r1.records.config import RecordsConfig, Source
from clinical_r1.records.run import read_cases
from clinical_r1.runs import resolve as resolving
from clinical_r1.runs.form import FORMS, settle
from clinical_r1.runs.resolve import OUTPUTS, configure_audit, configure_run
from clinical_r1.runs.sources import fetched, fingerprint, own_cases, simulated, with_world
from clinical_r1.schema import Case, read_jsonl, write_jsonl
from clinical_r1.simulator.beside import ADDRESS_VARIABLE
from clinical_r1.simulator.beside import simulated as simulated_beside
from clinical_r1.simulator.world import sample_records
from components.publication import deploy_published

ROOT = Path(__file__).resolve().parent.parent
EMPTY, EMPTY_AUDIT = ({name: row[1] for name, row in FORMS[form].items()} for form in ("train", "audit"))


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The claim of a cluster."""
    monkeypatch.setattr(resolving, "STATE_MOUNT", str(tmp_path / "state"))
    return tmp_path / "state"


def told(pipeline: str, **filled: object) -> tuple[dict, str]:
    values, page = configure_run(pipeline, EMPTY | filled)
    return dict(zip(OUTPUTS, values, strict=True)), page


def test_nothing_filled_in_is_the_demo_on_a_sample_of_its_world(state: Path) -> None:
    given, page = told("train", overrides={"simulator.cases": 40})
    records = json.loads(given["records"])
    (source,) = records["sources"]
    assert source["path"].startswith(str(state)) and len(list(read_jsonl(Path(source["path"]), Case))) == 40
    assert given["state_dir"].startswith(f"{state}/train-") and given["shards"] == ["0/1"]
    assert json.loads(given["simulator"])[ADDRESS_VARIABLE]["careful"] == 0.18
    assert json.loads(given["settings"])["ppo"] == json.loads(given["ppo"])
    assert "learning_rate: 0.006" in page and "`overrides`" in page
    question = next(iter(read_jsonl(Path(source["path"]), Case))).question
    assert question[:40] not in page
    again, _ = told("train", overrides={"simulator.cases": 40, "report.samples": 0})
    assert [name for name in given if given[name] != again[name]] == ["report"]


@pytest.mark.parametrize("pipeline", ["ablate-rl", "cross-language", "audit-verifier", "held-out-site"])
def test_an_experiment_gets_arms_and_endpoints_of_its_own(pipeline: str, state: Path) -> None:
    given, _ = told(pipeline, preset="")
    arms = given["arms"]
    assert given["experiment"] == pipeline
    assert arms and all(arm["state_dir"].startswith(given["state_dir"]) for arm in arms)
    wanted = {ADDRESS_VARIABLE} | ({f"{ADDRESS_VARIABLE}_LENIENT"} if pipeline == "audit-verifier" else set())
    assert set(json.loads(given["simulator"])) == wanted


@pytest.mark.parametrize(
    ("filled", "said"),
    [
        ({"overrides": {"sft": {"epoch": 2}}}, "unknown key 'sft.epoch': did you mean 'epochs'?"),
        ({"base_model": "/nowhere/model"}, "base_model.folder: /nowhere/model"),
        ({"base_model": "s3://b/models/name"}, "write s3://BUCKET/models/NAME/VERSION"),
        ({"records": "/nowhere/cases.jsonl"}, "the simulated teacher knows"),
        ({"overrides": {"gate": {"policy": "/nowhere.yaml"}}}, "gate.policy: /nowhere.yaml"),
        ({"synthesizer_url": "ftp://x", "synthesizer_model": "m"}, "parameter synthesizer_url: synthesis.synthesizer"),
    ],
)
def test_a_mistake_stands_on_the_first_step_in_one_sentence(filled: dict, said: str, state: Path) -> None:
    with pytest.raises(UserError) as refused:
        told("train", **filled)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_the_first_step_misses_a_key_that_the_secret_has_not(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = {"synthesizer_url": "http://t/v1", "synthesizer_model": "m", "synthesizer_key": "SYNTHESIZER_API_KEY"}
    monkeypatch.delenv("SYNTHESIZER_API_KEY", raising=False)
    with pytest.raises(UserError, match=r"synthesizer\.api_key_env: SYNTHESIZER_API_KEY: steps see no key"):
        told("train", **real)
    monkeypatch.setenv("SYNTHESIZER_API_KEY", "made-up")
    assert "made-up" not in str(told("train", **real))


def test_records_that_are_not_there_are_named(state: Path) -> None:
    real = {"synthesizer_url": "http://t/v1", "synthesizer_model": "m"}
    with pytest.raises(UserError, match=r"records.sources: /nowhere/cases.jsonl: no such file"):
        told("train", records="/nowhere/cases.jsonl", **real)


def test_an_audit_without_a_store_looks_into_the_charts_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINICAL_R1_BUCKET", "bucket")
    (config, *_), page = configure_audit(EMPTY_AUDIT)
    assert json.loads(config)["store"] == "s3://bucket/audit" and "days: 30" in page
    with pytest.raises(UserError, match="judge_url and judge_model"):
        configure_audit(EMPTY_AUDIT | {"judge_url": "http://j/v1"})


def test_records_of_a_pattern_are_hashed_by_their_files(tmp_path: Path) -> None:
    sources = [Source(path=f"{tmp_path}/ward-*.jsonl")]
    with pytest.raises(UserError, match=r"records\.sources: .*no file fits this pattern"):
        fingerprint(sources)
    hashes = set()
    for name, content in (("ward-1", "a"), ("ward-2", "b"), ("ward-2", "c")):
        (tmp_path / f"{name}.jsonl").write_text(content, encoding="utf-8")
        hashes.add(fingerprint(sources))
    assert len(hashes) == 3


def test_an_empty_folder_of_records_is_told_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^records\.sources: .*: no file in this folder: give one that holds some$"):
        fingerprint([Source(path=str(tmp_path))])


def test_records_of_a_store_are_hashed_and_fetched(tmp_path: Path) -> None:
    lies = tmp_path / "store" / "records" / "ward"
    write_jsonl(lies / "a.jsonl", sample_records(12, seed=0))
    uri = f"file://{lies}/a.jsonl"
    config = RecordsConfig(sources=[Source(path=uri)], phi={"policy": "off", "off_because": "synthetic"})
    before = fingerprint(config.sources)
    copy = fetched(config, tmp_path / "work")
    assert copy.sources[0].source == "a" and Path(copy.sources[0].path).read_bytes() == (lies / "a.jsonl").read_bytes()
    real = {"synthesizer_url": "http://t/v1", "synthesizer_model": "m"}
    assert own_cases(settle("train", "demo", real | {"records": uri}))
    write_jsonl(lies / "a.jsonl", sample_records(12, seed=1))
    assert fingerprint(config.sources) != before
    folder = fetched(config.model_copy(update={"sources": [Source(path=f"file://{lies}")]}), tmp_path / "folder")
    assert [path.name for path in Path(folder.sources[0].path).iterdir()] == ["a.jsonl"]
    with pytest.raises(UserError, match=r"nothing there: `clinical-r1 import-records`"):
        fingerprint([Source(path=f"file://{tmp_path}/store/records/nobody")])


def test_languages_keep_the_rows_of_those_languages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINICAL_R1_PATIENT_KEY", "x" * 20)
    write_jsonl(tmp_path / "cases.jsonl", sample_records(60, seed=0))
    config = RecordsConfig.model_validate(
        {
            "sources": [{"path": str(tmp_path / "cases.jsonl")}],
            "languages": ["zh"],
            "phi": {"policy": "off", "off_because": "synthetic"},
        }
    )
    assert {case.language for case in read_cases(config)} == {"zh"}


def test_a_world_is_sampled_only_where_the_records_are_not_the_users(tmp_path: Path) -> None:
    config = with_world(settle("train", "demo", {"overrides": {"simulator": {"cases": 30}}}), tmp_path)
    assert config.report.simulated and config.report.ceiling and len(list(tmp_path.iterdir())) == 1
    asked = {"synthesis.synthesizer.base_url": "http://t/v1", "records.sources": [{"path": "mine.jsonl"}]}
    mine = settle("train", "demo", {"overrides": asked})
    assert not with_world(mine, tmp_path).report.simulated and set(simulated(mine)) == {ADDRESS_VARIABLE}


def test_a_step_starts_its_own_endpoint_where_nobody_else_did(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = json.dumps({ADDRESS_VARIABLE: {"seed": 1}})
    monkeypatch.setenv(ADDRESS_VARIABLE, "")
    with simulated_beside(wanted):
        host, _, port = os.environ[ADDRESS_VARIABLE].partition(":")
        assert host == "127.0.0.1" and int(port) > 0
    monkeypatch.setenv(ADDRESS_VARIABLE, "chart:8080")
    with simulated_beside(wanted), simulated_beside(""):
        assert os.environ[ADDRESS_VARIABLE] == "chart:8080"


def test_what_went_wrong_stands_where_kubernetes_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "termination-log"
    log.touch()
    monkeypatch.setattr(step, "TERMINATION_LOG", log)
    monkeypatch.delenv("_KFP_RUNTIME", raising=False)
    with pytest.raises(UserError), step.record_step("records", tmp_path):
        raise UserError("cases.jsonl:3: not a case: mend the line")
    assert log.read_text() == "records: cases.jsonl:3: not a case: mend the line\n"
    with pytest.raises(ValueError, match="patient"), step.record_step("records", tmp_path):
        raise ValueError("patient Li, 45, has fever")
    assert "ValueError" in log.read_text() and "Li" not in log.read_text()
    monkeypatch.setenv("_KFP_RUNTIME", "true")
    with pytest.raises(SystemExit) as end, step.record_step("records", tmp_path):
        raise UserError("one sentence")
    assert end.value.code == "error: one sentence" and not (tmp_path / step.STEP_FILE).exists()


class Artifact:
    def __init__(self, path: Path) -> None:
        self.path, self.logged = str(path), {}

    def log_metric(self, name: str, value: float) -> None:
        self.logged[name] = value


@pytest.mark.parametrize(("mode", "gate"), [("none", "promote"), ("dark", "hold"), ("replicas", "refuse")])
def test_nothing_is_deployed_that_was_not_asked_for_or_not_promoted(
    mode: str, gate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "clinical_r1.cluster.deploy", None)  # importing it would fail
    monkeypatch.setattr(
        "clinical_r1.evaluation.promotion.run.read_gate", lambda _: type("Gate", (), {"decision": gate})
    )
    rollout, metrics = Artifact(tmp_path / "page.md"), Artifact(tmp_path / "metrics.json")
    folder = Artifact(tmp_path)
    (result,) = deploy_published.python_func("s3://b/models/m/v", mode, "code", folder, folder, rollout, metrics)
    assert result == ("not asked for" if mode == "none" else f"nothing deployed: the gate says {gate}")
    assert result in Path(rollout.path).read_text()


def test_nothing_is_imported_from_the_folder_that_the_user_stands_in(tmp_path: Path) -> None:
    """Worker, step and executor are Pythons of their own, each of which would look there first."""
    for package in ("pipelines", "components", "clinical_r1", "kfp"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'a').write(__file__)")
    (tmp_path / "store").mkdir()
    command = [sys.executable, "-P", "-m", "pipelines.cli.main", "run", "audit", "--set", f"store={tmp_path / 'store'}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 2 and done.stderr.startswith("error: "), done.stdout + done.stderr
    assert "Judge sampled answers" in done.stdout, done.stdout
    assert not (tmp_path / "imported").exists()
