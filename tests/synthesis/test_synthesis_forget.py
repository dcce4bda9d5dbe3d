"""Forgetting a patient: cases, traces, journal, and the models that it names."""

import html
import json
from pathlib import Path

import pytest

from clinical_r1.atomic import file_sha256
from clinical_r1.errors import UserError
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.privacy.crossing import CrossingPolicy, gate_state
from clinical_r1.schema import Case, Trace, read_jsonl, write_jsonl
from clinical_r1.synthesis.config import SynthesisConfig
from clinical_r1.synthesis.dataset import read_report, store_dataset
from clinical_r1.synthesis.forget import forget
from clinical_r1.synthesis.run import synthesize

PATIENT = "patient-3"


@pytest.fixture
def house(endpoint: EndpointConfig, world_cases: list[Case], tmp_path: Path) -> Path:
    """A folder with records, a stored dataset, a journal and three models."""
    root = tmp_path / "house"
    write_jsonl(root / "records/sft.jsonl", world_cases)
    config = SynthesisConfig.model_validate(
        {"name": "demo", "synthesizer": endpoint, "verifier": {"kind": "rule"}, "max_guided_share": 1.0}
    )
    synthesize(config, root / "records/sft.jsonl", tmp_path / "out", root / "state")
    address = store_dataset(tmp_path / "out", root)
    hashes = {
        "by-dataset": read_report(address).dataset_hash,
        "by-short-hash": read_report(address).dataset_hash[:16],
        "by-cases": file_sha256(root / "records/sft.jsonl"),
        "unrelated": "0" * 64,
    }
    for name, digest in hashes.items():
        (root / "models" / name).mkdir(parents=True)
        (root / "models" / name / "manifest.json").write_text(json.dumps({"datasets": {"x": digest}}))
    return root


def test_nothing_of_the_patient_remains_and_models_are_named(house: Path, world_cases: list[Case]) -> None:
    texts = [case.question for case in world_cases if case.patient == PATIENT]
    old = next((house / "traces/demo").iterdir())
    counted = forget([PATIENT], [house], dry_run=True)
    result = forget([PATIENT], [house], manifests={"s3": {"traces": old.name}, "other": {}})
    assert result.cases == len(texts) > 1
    assert result.journal_lines == counted.journal_lines >= 3 * len(texts)
    assert counted.lines == result.lines
    assert sorted(result.models) == ["models/by-cases", "models/by-dataset", "models/by-short-hash", "s3"]
    for path in house.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(text.encode() in content for text in texts), path
    new = next((house / "traces/demo").iterdir())
    assert new.name != old.name
    report = read_report(new)
    assert new.name == report.dataset_hash[:16] == file_sha256(new / "traces.jsonl")[:16]
    kept = read_jsonl(new / "traces.jsonl", Trace)
    assert report.traces == len(kept)
    others = {case.id for case in world_cases if case.patient != PATIENT}
    assert {trace.case_id for trace in kept} <= others
    assert len(read_jsonl(house / "records/sft.jsonl", Case)) == len(world_cases) - len(texts)


def test_the_others_calls_stay_paid(house: Path, endpoint: EndpointConfig, tmp_path: Path) -> None:
    forget([PATIENT], [house])
    config = SynthesisConfig.model_validate(
        {"synthesizer": endpoint, "verifier": {"kind": "rule"}, "max_guided_share": 1.0}
    )
    report = synthesize(config, house / "records/sft.jsonl", tmp_path / "again", house / "state")
    assert report.endpoints[0]["calls"] == 0


def test_nothing_to_forget_changes_nothing(house: Path) -> None:
    before = {path: path.read_bytes() for path in house.rglob("*") if path.is_file()}
    result = forget(["nobody"], [house])
    assert (result.cases, result.lines, result.journal_lines, result.models) == (0, {}, 0, [])
    assert {path: path.read_bytes() for path in house.rglob("*") if path.is_file()} == before


def test_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        forget([PATIENT], [tmp_path / "missing"])
    with pytest.raises(UserError, match="no patient"):
        forget([""], [tmp_path])


def test_what_is_left_of_a_gated_split_still_counts_as_gated(world_cases: list[Case], tmp_path: Path) -> None:
    split = tmp_path / "sft.jsonl"
    write_jsonl(split, world_cases)
    report = {"phi": {"policy": "scrub"}, "hashes": {"sft.jsonl": file_sha256(split)}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert forget([PATIENT], [tmp_path]).lines
    assert gate_state(split, CrossingPolicy()) == "passed"


def test_pages_review_files_and_samples_that_quote_a_patient_go_too(tmp_path: Path) -> None:
    question = "A 61-year-old woman with <3 days of fever & a painful swelling below the left jaw. What is it?"
    other = "A 30-year-old man with an itching rash on both forearms since last week. What is it?"
    cases = [{"id": "c-1", "patient": "p-1", "question": question}, {"id": "c-2", "patient": "p-2", "question": other}]
    (tmp_path / "sft.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases))
    samples = [{"messages": [{"role": "user", "content": "Please:\n" + text}]} for text in (question, other)]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples))
    (tmp_path / "report.html").write_text(f"<p>{html.escape(question)}</p>")
    (tmp_path / "other.html").write_text(f"<p>{html.escape(other)}</p>")
    (tmp_path / "review.csv").write_text(f'"item","question"\r\n"1","{question}"\r\n')
    (tmp_path / "old.jsonl.gz").write_bytes(b"")
    seen = forget(["p-1"], [tmp_path], dry_run=True)
    assert (tmp_path / "report.html").is_file() and seen.quoting == ["report.html", "review.csv"]
    found = forget(["p-1"], [tmp_path])
    assert found.lines == {"sft.jsonl": 1, "samples.jsonl": 1} and found.quoting == ["report.html", "review.csv"]
    assert "old.jsonl.gz" in found.unreached and any("backups" in place for place in found.unreached)
    left = "".join(path.read_text() for path in tmp_path.iterdir() if path.suffix != ".gz")
    assert "jaw" not in left and "forearms" in left
    assert (tmp_path / "sft.jsonl").stat().st_mode & 0o777 == 0o600
