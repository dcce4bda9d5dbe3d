"""Which traces an arm gets, and the planted leak."""

from pathlib import Path

import pytest

from clinical_r1.errors import UserError
from clinical_r1.evaluation.experiments.selection import LEAKED, Leak, Selection, leak_cases, select_traces
from clinical_r1.schema import Case, Trace, TraceOutcome, read_jsonl, write_jsonl
from clinical_r1.simulator.world import sample_records


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    cases = list(sample_records(240, seed=0))
    for name, part in (("sft", cases[:120]), ("rl", []), ("validation", []), ("test", cases[120:])):
        write_jsonl(tmp_path / "splits" / f"{name}.jsonl", part)
    return tmp_path / "splits"


def traces_of(splits: Path, out: Path) -> Path:
    rows = [
        Trace(
            case_id=case.id, language=case.language, question=case.question, reference=case.reference,
            outcome=TraceOutcome.DIRECT,
        )
        for case in read_jsonl(splits / "sft.jsonl", Case)
    ]  # fmt: skip
    write_jsonl(out / "traces.jsonl", rows)
    return out


def chosen(settings: Selection, splits: Path, traces: Path, out: Path) -> list[Trace]:
    select_traces(settings, splits, traces, out)
    return read_jsonl(out / "traces.jsonl", Trace)


def test_languages_sites_and_number(splits: Path, tmp_path: Path) -> None:
    traces = traces_of(splits, tmp_path / "all")
    sites = {case.id: case.site for case in read_jsonl(splits / "sft.jsonl", Case)}
    chinese = chosen(Selection(languages=["zh"]), splits, traces, tmp_path / "a")
    assert chinese and {row.language for row in chinese} == {"zh"}
    away = chosen(Selection(without_sites=["hillside"], limit=30), splits, traces, tmp_path / "b")
    assert len(away) == 30 and "hillside" not in {sites[row.case_id] for row in away}
    assert away == chosen(Selection(without_sites=["hillside"], limit=30), splits, traces, tmp_path / "c")
    with pytest.raises(UserError, match="none of 120 traces"):
        select_traces(Selection(without_sites=["north", "harbor", "hillside"]), splits, traces, tmp_path / "d")


def test_a_leak_reaches_the_leaking_arm_alone(splits: Path, tmp_path: Path) -> None:
    leaking = tmp_path / "leaking"
    counts = leak_cases(Leak(site="hillside", share=0.5), splits, leaking)
    leaked = {case.id for case in read_jsonl(leaking / LEAKED, Case)}
    assert len(leaked) == counts["leaked"] == round(counts["site_test_cases"] / 2) > 0
    assert leaked <= {case.id for case in read_jsonl(splits / "test.jsonl", Case)}
    traces = traces_of(leaking, tmp_path / "all")
    clean = chosen(Selection(limit=40), leaking, traces, tmp_path / "a")
    dirty = chosen(Selection(limit=40, leaked=True), leaking, traces, tmp_path / "b")
    assert not leaked & {row.case_id for row in clean}
    assert leaked <= {row.case_id for row in dirty} and len(dirty) == 40 + len(leaked)
    with pytest.raises(UserError, match="no test case"):
        leak_cases(Leak(site="nowhere", share=0.5), splits, tmp_path / "x")
