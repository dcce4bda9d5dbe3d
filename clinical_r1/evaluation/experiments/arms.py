"""What the arms of an experiment have in common: reading them, seeds as samples, rows of the tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from clinical_r1.charts import reach
from clinical_r1.errors import Strict, UserError
from clinical_r1.evaluation.experiments.finding import Cell, Estimate, Table
from clinical_r1.evaluation.inputs import PREDICTIONS, read_cases
from clinical_r1.evaluation.measure.compare import Comparison, PairedResult, compare
from clinical_r1.evaluation.measure.metrics import is_right, rated
from clinical_r1.evaluation.measure.resampling import difference_interval
from clinical_r1.page import p_value, percent, points
from clinical_r1.schema import Case, Prediction, read_jsonl


class Arm(Strict):
    """One arm: its name, and what sets it apart from the others."""

    name: str
    seed: int = 0
    factors: dict[str, str] = Field(default_factory=dict)
    """What this arm is of: {"table": "paper"}, {"base": "bilingual", "train": "en"}."""


class ArmsReport(Strict):
    """What every report of an experiment is told."""

    arms: list[Arm]
    """In the order of the collected folders."""
    design_points: float = Field(gt=0)
    """The effect for which the power is printed."""
    planted_points: float | None = None
    """Size of the effect that the simulated world is known to have; None where nothing is planted."""
    simulated: bool = False
    """Say at the top that the cases come from a simulated world."""


class Evidence(NamedTuple):
    """The folders that every report reads from; which of them an experiment has a use for, it knows."""

    splits: Path
    """Of the arms."""
    traces: tuple[Path, Path]
    """The reference's and the arms'."""
    reference: Path
    """Predictions of the reference."""
    runs: Sequence[Path]
    """Predictions of the arms, in their order."""
    trained_on: Sequence[Path]
    """Traces that the reference was trained on, then those of the arms."""


def read_reference(evidence: Evidence) -> list[Prediction]:
    """What the reference answered."""
    return read_jsonl(evidence.reference / PREDICTIONS, Prediction)


def read_arms(arms: Sequence[Arm], folders: Sequence[Path]) -> dict[str, list[Prediction]]:
    """Predictions by arm; UserError where an arm has none."""
    if len(arms) != len(folders):
        raise UserError(f"experiment: {len(arms)} arms but {len(folders)} evaluations; run the pipeline as a whole")
    return {
        arm.name: read_jsonl(Path(folder) / PREDICTIONS, Prediction) for arm, folder in zip(arms, folders, strict=True)
    }


def cases_of(splits: Path) -> list[Case]:
    """The cases that the arms were evaluated on."""
    return read_cases(Path(splits) / "test.jsonl")


def right_by_case(predictions: Sequence[Prediction]) -> dict[str, bool]:
    """Case -> right or wrong, judged ones only."""
    return {row.case_id: right for row in predictions if (right := is_right(row)) is not None}


def seeds_as_samples(runs: Sequence[Sequence[Prediction]]) -> list[Prediction]:
    """Runs of several seeds as samples of each case, so that the comparison clusters them by patient."""
    return [row.model_copy(update={"sample": seed}) for seed, run in enumerate(runs) for row in run]


def compare_runs(
    cases: Sequence[Case],
    first: Sequence[Sequence[Prediction]],
    second: Sequence[Sequence[Prediction]],
    names: tuple[str, str],
) -> Comparison:
    """Two systems, each with the same number of seeds (one run stands against all seeds of the other)."""
    count = max(len(first), len(second))
    left = list(first) * count if len(first) == 1 else list(first)
    right = list(second) * count if len(second) == 1 else list(second)
    return compare(cases, seeds_as_samples(left), seeds_as_samples(right), names)


def estimate_of(result: PairedResult) -> Estimate:
    """A paired result as an estimate."""
    return Estimate(value=result.difference, low=result.low, high=result.high, n=result.n)


def over_cases(values: Sequence[float], cases: Sequence[Case]) -> Estimate:
    """Mean of one difference a case (or several of one patient), bootstrapped by patient within specialties."""
    units = [case.unit for case in cases]
    low, high = difference_interval(list(values), [case.specialty for case in cases], units)
    return Estimate(value=sum(values) / len(values), low=low, high=high, n=len(set(units)))


def confirmed(comparison: Comparison) -> bool:
    """Whether the independent judge, where there is one, sees what the reward judge sees."""
    sign = estimate_of(comparison.overall).sign
    other = comparison.independent
    return other is None or estimate_of(other).sign == sign


def accuracy_row(label: str, predictions: Sequence[Prediction], cases: Sequence[Case]) -> list[Cell]:
    """Label, n, accuracy with its interval (by patient, where patients or seeds repeat)."""
    by_id = {case.id: case for case in cases}
    row = rated(predictions, [by_id[one.case_id] for one in predictions])
    low, high = row.interval
    return [
        Cell(text=label),
        Cell(text=f"{row.n}"),
        Cell(kind="share", value=row.share, low=low, high=high),
        Cell(text=f"{percent(row.share)} ({percent(low)} to {percent(high)})"),
    ]


ACCURACY_HEAD = ["", "n", "accuracy", "95% interval"]


def difference_row(label: str, estimate: Estimate, p: float | None = None) -> list[Cell]:
    """Label, n, difference with its interval, and a p value where one was computed."""
    shown = estimate.sign != 0 if p is None else p < 0.05
    return [
        Cell(text=label),
        Cell(text=f"{estimate.n}"),
        Cell(kind="difference", value=estimate.value, low=estimate.low, high=estimate.high, shown=shown),
        Cell(text=f"{points(estimate.value)} ({points(estimate.low)} to {points(estimate.high)})"),
        Cell(text="–" if p is None else p_value(p).removeprefix("= ")),
        Cell(text=f"{100 * estimate.detectable:.1f}"),
    ]


DIFFERENCE_HEAD = ["", "n", "difference", "points (95% interval)", "p", "found with 90% power"]


def paired_row(label: str, result: PairedResult) -> list[Cell]:
    """A paired result; p after Holm where the result is one of several strata."""
    return difference_row(label, estimate_of(result), result.p_holm if result.p_holm is not None else result.p_exact)


def difference_table(title: str, rows: list[list[Cell]], note: str = "") -> Table:
    """A table of differences on one axis."""
    ends = [(cell.low, cell.high) for row in rows for cell in row if cell.kind == "difference"]
    return Table(title=title, note=note, head=DIFFERENCE_HEAD, rows=rows, reach=reach(ends))


def strata_table(title: str, comparison: Comparison, axis: str) -> Table:
    """Paired differences by stratum."""
    rows = [paired_row(name, result) for name, result in comparison.by.get(axis, {}).items()]
    how = "signs flipped by patient, since patients or seeds repeat" if comparison.clustered else "McNemar, exact"
    return difference_table(title, rows, f"p: {how}; adjusted after Holm.")
