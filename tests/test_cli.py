"""Wrong input on the command line: one sentence (the thing, the place, the fix), exit code 2, no traceback."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from clinical_r1.errors import UserError
from clinical_r1.evaluation.config import EvaluationConfig
from pipelines.cli.main import main
from pipelines.evaluate_run import read_settings

ROOT = Path(__file__).resolve().parent.parent


def clinical_r1(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """The command in this process: importing what it needs for each call would take longer than the calls."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["clinical-r1", *arguments])
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def process(*arguments: str) -> subprocess.CompletedProcess:
    """The command as a user starts it."""
    command = [sys.executable, "-m", "pipelines.cli.main", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def assert_refused(done: subprocess.CompletedProcess, *words: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    last = done.stderr.strip()
    assert last.startswith("error: ") and "\n" not in last, last
    for word in words:
        assert word in last, last


def test_unknown_pipeline() -> None:
    for start in (process, clinical_r1):
        assert_refused(start("run", "trian"), "unknown pipeline 'trian'", "train")


def test_missing_cases_file(tmp_path: Path) -> None:
    done = process("run", "train", "--cases", str(tmp_path / "none.jsonl"), "--runs", str(tmp_path / "runs"))
    assert_refused(done, "none.jsonl", "no such file")
    assert not (tmp_path / "runs").exists()


def test_empty_cases_file(tmp_path: Path) -> None:
    (tmp_path / "cases.jsonl").touch()
    done = clinical_r1("run", "train", "--cases", str(tmp_path / "cases.jsonl"), "--runs", str(tmp_path / "runs"))
    assert_refused(done, "cases.jsonl", "empty")
    assert not (tmp_path / "runs").exists()


def test_unknown_parameter_gets_a_suggestion() -> None:
    done = clinical_r1("run", "train", "--set", "synthesis.temprature=0.5")
    assert_refused(done, "synthesis.temprature", "did you mean 'temperature'")


def test_parameter_out_of_range() -> None:
    assert_refused(clinical_r1("run", "train", "--set", "synthesis.retries=99"), "--set synthesis.retries: ", "less")


def test_a_wrong_setting_is_blamed_on_where_it_came_from(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("samples: 0\n", encoding="utf-8")
    for overrides, start in (
        ([], "mine.yaml:1: samples"),
        (["temperature=0.5"], "mine.yaml:1: samples"),
        (["samples=-1"], "--set samples: samples"),
        (["samples=2"], "mine.yaml with --set samples: samples above 1"),
    ):
        with pytest.raises(UserError, match=start):
            read_settings(EvaluationConfig, path, overrides)
    with pytest.raises(UserError, match=r"^--set smaples: unknown key .smaples.: did you mean .samples."):
        read_settings(EvaluationConfig, None, ["seed=3", "smaples=2"])


def test_parameter_that_is_no_yaml() -> None:
    assert_refused(clinical_r1("run", "train", "--set", "ppo.kl_beta=[1"), "ppo.kl_beta=[1", "YAML")


def test_settings_that_do_not_fit_together_are_told_without_jargon() -> None:
    done = clinical_r1("run", "train", "--set", "ppo.batch_size=17")
    assert_refused(done, "ppo: batch_size 17", "multiple")


def test_a_base_model_that_is_none_is_refused_before_any_step(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    done = clinical_r1("run", "train", "--set", f"base_model.folder={tmp_path}", "--runs", str(runs))
    assert_refused(done, "base_model.folder", str(tmp_path), "config.json")
    assert not runs.exists()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("gate.policy", "no such policy file"),
        ("gate.incumbent", "no model folder"),
        ("gate.forgetting", "no such file"),
        ("ppo.probe.forgetting_cases", "no such file"),
        ("sft.dpo.cases", "no such file"),
        ("ppo.rollout.vllm_python", "no such program"),
        ("synthesis.traces.path", "no such file; give JSON"),
    ],
)
def test_a_file_that_only_a_late_step_reads_is_missed_before_any_step(tmp_path: Path, setting: str, said: str) -> None:
    runs, none = tmp_path / "runs", tmp_path / "none"
    done = clinical_r1("run", "train", "--set", f"{setting}={none}", "--runs", str(runs))
    assert_refused(done, f"{setting}: ", str(none), said)
    assert not runs.exists()


def test_unknown_configuration() -> None:
    assert_refused(clinical_r1("run", "train", "--config", "dmeo"), "dmeo", "demo")


def test_malformed_lines_above_the_limit_name_file_and_line(tmp_path: Path) -> None:
    good = {"language": "en", "question": "A 40-year-old has fever and cough.", "reference": "pneumonia"}
    lines = [json.dumps(good), "{broken", json.dumps(good | {"question": "A 41-year-old has wheeze."})]
    (tmp_path / "cases.jsonl").write_text("\n".join(lines) + "\n")
    done = clinical_r1("run", "train", "--cases", str(tmp_path / "cases.jsonl"), "--runs", str(tmp_path / "runs"))
    assert_refused(done, "cases.jsonl", ":2", "lines 2)")


def test_preflight_refuses_and_names_what_fits(tmp_path: Path) -> None:
    done = process("preflight", "ppo-paper-7b-8x80-full")
    assert done.returncode == 0 and "reference" in done.stdout and done.stdout.endswith("fits\n"), done.stderr
    assert_refused(
        clinical_r1("preflight", "ppo-paper-7b-8x80-full", "--gpu-gib", "40"), "ppo-paper-7b-1x40-lora.yaml fits"
    )
    assert_refused(clinical_r1("preflight", "sft-paper-7b-4x80-full", "--host-gib", "64"), "of host memory")
    assert_refused(clinical_r1("preflight", "nosuch"), "nosuch: neither a file", "sft-paper-7b-1x80-lora")
    for name in ("sft-paper-7b-8x80-full", "ppo-paper-7b-8x80-full"):
        assert_refused(clinical_r1("preflight", name, "--gpus", "3"), "batch_size 16", "3 processes")
    odd = tmp_path / "odd"
    odd.mkdir()
    for file, text in (
        ("config.json", '{"model_type": "qwen2", "hidden_size": 0}'),
        ("tokenizer.json", "{}"),
    ):
        (odd / file).write_text(text, encoding="utf-8")
    header = b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
    (odd / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    asked = clinical_r1("preflight", "sft-paper-7b-8x80-full", "--model", str(odd))
    assert_refused(asked, "config.json", "hidden_size is missing")
    own = tmp_path / "mine.yaml"
    own.write_text("", encoding="utf-8")
    assert_refused(clinical_r1("preflight", str(own)), "mine.yaml: is empty")
    own.write_text("kl_beta: -1\n", encoding="utf-8")
    assert_refused(clinical_r1("preflight", str(own)), "mine.yaml:1: kl_beta")
    own.write_text("lora: [", encoding="utf-8")
    assert_refused(clinical_r1("preflight", str(own)), "mine.yaml:1: not valid YAML")
    for text in ("seed: 2020-13-45", "seed: !!int abc", "[" * 3000):
        own.write_text(text, encoding="utf-8")
        assert_refused(clinical_r1("preflight", str(own)), "mine.yaml:1: not valid YAML")
    own.write_text("[[1]]", encoding="utf-8")
    assert_refused(clinical_r1("preflight", str(own)), "mine.yaml: expected a mapping")


def test_folder_that_is_no_model(tmp_path: Path) -> None:
    assert_refused(process("serve", str(tmp_path)), str(tmp_path), "config.json")


@pytest.mark.parametrize("arguments", [(), ("run",), ("compile",), ("serve",)], ids=lambda a: a[0] if a else "top")
def test_help_teaches(arguments: tuple[str, ...]) -> None:
    done = process(*arguments, "--help") if not arguments else clinical_r1(*arguments, "--help")
    assert done.returncode == 0 and "Usage" in done.stdout


def test_help_is_light() -> None:
    """No torch, kfp or openai for --help, and no model of settings: it must answer at once."""
    code = (
        "import sys, pipelines.cli.main;"
        "print([name for name in ('torch', 'kfp', 'openai', 'pandas', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no column question and reference; say which columns hold them with --map"),
        (["--map", "question=nope,reference=dx"], "--map question=nope: no such column"),
        (["--map", "question"], "expected FIELD=COLUMN pairs"),
        (["--map", "question=note,reference=dx,patient=pid"], "there is no key to hash it"),
    ],
)
def test_refused_cases_are_one_sentence_and_leave_nothing_behind(
    tmp_path: Path, monkeypatch, arguments, message
) -> None:
    monkeypatch.delenv("CLINICAL_R1_PATIENT_KEY", raising=False)
    (tmp_path / "notes.csv").write_text("pid,note,dx\nP1,Cough for two weeks.,pneumonia\n")
    command = ["run", "train", "--cases", str(tmp_path / "notes.csv"), "--runs", str(tmp_path / "runs"), *arguments]
    assert_refused(clinical_r1(*command), message)
    assert not (tmp_path / "runs").exists()


NOTES = """pid,note,dx
P1,"Mr. John Smith, cough and fever since 3 March 2024, phone 555-123-4567.",pneumonia
P2,A 60-year-old woman with chest pain on exertion.,angina pectoris
P3,,asthma
P4,一名45岁男性，发热咳嗽三天。,肺炎
"""


def test_records_are_imported_once_with_a_preview_of_the_phi_gate(tmp_path: Path) -> None:
    notes = tmp_path / "notes.csv"
    notes.write_text(NOTES, encoding="utf-8")
    words = ("--map", "question=note,reference=dx,patient=pid", "--store", str(tmp_path / "store"))
    done = clinical_r1("import-records", str(notes), "--name", "ward-7", *words, "--preview")
    assert done.returncode == 0, done.stderr
    assert "4 rows, 3 cases, 1 malformed" in done.stdout and "scrubbed phone: 1" in done.stdout
    assert "Smith" not in done.stdout and not (tmp_path / "store").exists()
    for _ in range(2):  # the same again changes nothing
        done = clinical_r1("import-records", str(notes), "--name", "ward-7", *words)
        assert done.returncode == 0 and f"records={tmp_path}/store/ward-7/notes.csv" in done.stdout, done.stderr
    assert (tmp_path / "store" / "ward-7" / "notes.csv").read_bytes() == notes.read_bytes()
    notes.write_text(NOTES + "P5,Wheeze at night.,asthma\n", encoding="utf-8")
    assert_refused(clinical_r1("import-records", str(notes), "--name", "ward-7", *words), "other content is there")
    other = tmp_path / "other.csv"
    other.write_text(NOTES, encoding="utf-8")
    assert_refused(clinical_r1("import-records", str(other), "--name", "ward-7", *words), "holds notes.csv")
    assert_refused(clinical_r1("import-records", str(other), "--name", "a/b", *words), "--name a/b: a name has no '/'")
    assert_refused(clinical_r1("import-records", str(other), "--name", "a b", *words), "--name 'a b': use letters")
    assert_refused(clinical_r1("import-records", str(tmp_path / "no.csv"), "--name", "a"), "no such file or folder")


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (("run", "train", "--param", "sft_epochs=2"), "sft", 2.0),
        (("evaluate", "model", "-b", "cases", "--set", "samples=1"), "samples", 1),
        (("run", "audit", "--set", "store=s3://b/audit"), "store", "s3://b/audit"),
        (("gate", "decide", "a", "b", "--set", "max_unscored_rate=0.1"), "max_unscored_rate", 0.1),
    ],
)
def test_a_dry_run_prints_the_resolved_settings_and_does_nothing(words, key, value, tmp_path: Path) -> None:
    done = clinical_r1(*words, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)[key]
    assert (found["epochs"] if isinstance(found, dict) else found) == value
    assert list(tmp_path.iterdir()) == []
