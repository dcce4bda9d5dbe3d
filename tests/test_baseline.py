"""The reasoning baseline: histogram, round trip, drift numbers; and that serving can read it without torch."""

import subprocess
import sys

import pytest

from clinical_r1.baseline import (
    EDGES,
    LengthHistogram,
    make_baseline,
    read_baseline,
    write_baseline,
)
from clinical_r1.errors import UserError
from clinical_r1.reasoning import Outcome
from clinical_r1.schema import Case, Prediction


def prediction(case: Case, tokens: int, outcome: Outcome = Outcome.OK) -> Prediction:
    return Prediction(
        case_id=case.id,
        output="",
        thinking="x",
        response="y",
        outcome=outcome,
        reasoning_tokens=tokens,
        answer_tokens=2,
    )


CASES = [Case(language="en", question="q", reference="r"), Case(language="zh", question="问", reference="答")]


def test_edges_are_inclusive_and_the_last_bucket_is_open():
    histogram = LengthHistogram.of([0, 8, 9, EDGES[-1], EDGES[-1] + 1])
    assert histogram.counts[0] == 1
    assert histogram.counts[1] == 1
    assert histogram.counts[2] == 1
    assert histogram.counts[-2:] == [1, 1]
    assert histogram.n == 5


def test_round_trip(tmp_path):
    rows = [prediction(CASES[0], 40), prediction(CASES[1], 90, Outcome.UNCLOSED), prediction(CASES[1], 100)]
    baseline = make_baseline(rows, CASES, "ours", "test")
    assert baseline.n == 3
    assert baseline.outcomes == {str(o): 0 for o in Outcome} | {"ok": 2, "unclosed": 1}
    assert baseline.languages == {"en": 1, "zh": 2}
    assert baseline.lengths.total_tokens == 230
    write_baseline(baseline, tmp_path)
    assert read_baseline(tmp_path) == baseline


def test_unreadable_baselines_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="no reasoning baseline"):
        read_baseline(tmp_path)
    (tmp_path / "reasoning_baseline.json").write_text('{"n": -1}', encoding="utf-8")
    with pytest.raises(UserError, match="not a reasoning baseline"):
        read_baseline(tmp_path)


def test_serving_reads_it_without_torch():
    code = "import clinical_r1.baseline, sys; assert not {'torch', 'pandas', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
