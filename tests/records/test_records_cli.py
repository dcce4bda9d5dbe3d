"""`records preview` and `records prepare`: what a user sees before and after, and what is refused."""

import json

import pytest
from typer.testing import CliRunner

from clinical_r1.errors import UserError
from pipelines.cli.data import records as app


def call(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def ward(tmp_path):
    lines = ["note,dx,code,pid"] + [
        f"Finding {i} and mark {i * 7}; Mr. Weber coughs,Disease {'abc'[i % 3]}x,J18.9,{i}" for i in range(40)
    ]
    lines[5] = ",Asthma,J45.9,9"
    lines[6] = "He has Influenza,Influenza,486,10"
    (tmp_path / "ward.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "ward.csv"


MAP = ("--map", "question=note,reference=dx,icd10=code,patient=pid")


def test_preview_shows_cases_and_accounts_and_writes_nothing(ward):
    said = call("preview", ward, *MAP, "--cases", 1)
    assert "ward (csv): 40 read, 38 kept; 1 malformed, 1 leak" in said and "codes not taken: 1 icd9" in said
    assert "ward.csv:2" in said and "-> Disease ax" in said and "Weber" not in said
    assert "ward.csv:6: question: empty (note)" in said and [p.name for p in ward.parent.iterdir()] == ["ward.csv"]


def test_prepare_writes_splits_and_says_what_became_of_the_rows(ward, monkeypatch):
    monkeypatch.setenv("CLINICAL_R1_PATIENT_KEY", "k" * 32)
    out = ward.parent / "out"
    said = call("prepare", ward, *MAP, "--out", out, "--set", "group_by=[patient]", "--set", "dedup.near=off")
    assert "38 kept" in said and "splits: " in said
    report = json.loads((out / "report.json").read_text())
    (source,) = report["sources"]
    assert source["read"] == 40 == source["kept"] + sum(source["rejected"].values()) + source["quarantined"]
    case = json.loads((out / "sft.jsonl").read_text().splitlines()[0])
    assert case["origin"].startswith("ward.csv:") and (out / "sft.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("words", "message"),
    [((), "no source"), (("gone.csv",), "no such file"), (("*.nothing",), "no file fits this pattern")],
)
def test_what_is_refused(words, message):
    with pytest.raises(UserError, match=message):
        call("prepare", *words)
