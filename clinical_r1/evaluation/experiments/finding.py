"""What the reports of all experiments share: the arms' answers in; one estimate with its interval, power and verdict
out, on a page of tables, with planted effects beside it.

Effects are in percentage points. Power is computed from the standard error that the interval implies, for an effect
that was named before the run (`design_points`); the smallest effect that the data show in nine of ten runs stands
beside it. A planted effect is one that the simulated world is known to have: an experiment that misses it is broken.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

from pydantic import Field

from clinical_r1 import charts
from clinical_r1.atomic import read_table, write_text
from clinical_r1.errors import UserError
from clinical_r1.evaluation.inputs import PREDICTIONS, read_cases
from clinical_r1.evaluation.measure.compare import Comparison, PairedResult, compare
from clinical_r1.evaluation.measure.metrics import rated
from clinical_r1.evaluation.measure.resampling import difference_interval
from clinical_r1.page import p_value, percent, points, render
from clinical_r1.schema import Case, Prediction, read_jsonl
from clinical_r1.stats import Pairs, paired_interval, quantile
from clinical_r1.step import publish_metrics
from clinical_r1.strict import Strict

RESULT, PAGE = "result.json", "report.html"
WORDS: dict[str, dict[str, str]] = read_table(Path(__file__).with_name("words.yaml"))
"""Experiment -> title, question, answers, limits and more, with places for values."""
Verdict = Literal["shown", "opposite", "not shown"]


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

    def cases(self) -> list[Case]:
        """The cases that the arms were evaluated on."""
        return read_cases(self.splits / "test.jsonl")

    def before(self) -> list[Prediction]:
        """What the reference answered."""
        return read_jsonl(self.reference / PREDICTIONS, Prediction)

    def after(self, arms: Sequence[Arm]) -> dict[str, list[Prediction]]:
        """Predictions by arm; UserError where an arm has none."""
        if len(arms) != len(self.runs):
            told = f"{len(arms)} arms but {len(self.runs)} evaluations"
            raise UserError(f"experiment: {told}; run the pipeline as a whole")
        names = [arm.name for arm in arms]
        return dict(zip(names, (read_jsonl(run / PREDICTIONS, Prediction) for run in self.runs), strict=True))


class Estimate(NamedTuple):
    """A difference of shares with its 95% interval, all in 0..1, and the cases (pairs, patients) behind it."""

    value: float
    low: float
    high: float
    n: int
    confirmed: bool = True
    """Whether the independent judge, where there is one, sees what the reward judge sees."""

    @classmethod
    def of_pairs(cls, pairs: Pairs) -> "Estimate":
        """Second minus first."""
        return cls(pairs.difference, *paired_interval(pairs), pairs.n)

    @property
    def error(self) -> float:
        """Standard error that the interval implies."""
        return max((self.high - self.low) / (2 * quantile(0.95)), 1e-9)

    def power(self, effect: float) -> float:
        """Chance to exclude zero where the truth is `effect` (0..1), two-sided 5%."""
        return NormalDist().cdf(abs(effect) / self.error - quantile(0.95))

    @property
    def detectable(self) -> float:
        """Smallest true effect that is found with 90% power."""
        return (quantile(0.95) + quantile(0.9, sides=1)) * self.error

    @property
    def sign(self) -> int:
        """1 or -1 where the interval excludes zero, else 0."""
        return (self.low > 0) - (self.high < 0)

    @property
    def verdict(self) -> Verdict:
        """What is said of the effect that the experiment asks about."""
        return "not shown" if not self.confirmed or not self.sign else "shown" if self.sign == 1 else "opposite"

    def in_points(self) -> dict[str, Any]:
        """As a report gives it."""
        effect, low, high = (round(100 * share, 2) for share in self[:3])
        return {"effect": effect, "ci": (low, high)}

    @property
    def words(self) -> str:
        """+5.2 points (95% interval +1.0 to +9.4)."""
        return f"{points(self.value)} points (95% interval {points(self.low)} to {points(self.high)})"

    @property
    def words_zh(self) -> str:
        """+5.2 个百分点（95% 区间 +1.0 至 +9.4）。"""
        return f"{points(self.value)} 个百分点（95% 区间 {points(self.low)} 至 {points(self.high)}）"


def estimate_of(result: PairedResult) -> Estimate:
    """A paired result as an estimate."""
    return Estimate(result.difference, result.low, result.high, result.n)


def answer_of(comparison: Comparison) -> Estimate:
    """The overall result, with what the independent judge thinks of it."""
    estimate, other = estimate_of(comparison.overall), comparison.independent
    return estimate._replace(confirmed=other is None or estimate_of(other).sign == estimate.sign)


def over_cases(values: Sequence[float], cases: Sequence[Case]) -> Estimate:
    """Mean of one difference a case (or several of one patient), bootstrapped by patient within specialties."""
    units = [case.unit for case in cases]
    low, high = difference_interval(values, [case.specialty for case in cases], units)
    return Estimate(sum(values) / len(values), low, high, len(set(units)))


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
    left, right = (seeds_as_samples(list(runs) * count if len(runs) == 1 else runs) for runs in (first, second))
    return compare(cases, left, right, names)


class Drawn(NamedTuple):
    """A cell that is drawn, not written: a share or a difference with its interval, coloured where it is `shown`."""

    kind: Literal["share", "difference"]
    value: float
    low: float
    high: float
    shown: bool = False


Row = list[str | Drawn]
ACCURACY_HEAD = ["", "n", "accuracy", "95% interval"]
DIFFERENCE_HEAD = ["", "n", "difference", "points (95% interval)", "p", "found with 90% power"]


class Table(NamedTuple):
    """One section of the page."""

    title: str
    rows: Sequence[Row]
    note: str = ""
    head: Sequence[str] = DIFFERENCE_HEAD

    @property
    def reach(self) -> float:
        """Half-width of the axis that all differences of the table share."""
        drawn = [cell for row in self.rows for cell in row if isinstance(cell, Drawn) and cell.kind == "difference"]
        return charts.reach((cell.low, cell.high) for cell in drawn)


def share_cells(share: float, low: float, high: float) -> Row:
    """A share with its interval, drawn and written."""
    return [Drawn("share", share, low, high), f"{percent(share)} ({percent(low)} to {percent(high)})"]


def accuracy_row(label: str, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Row:
    """As ACCURACY_HEAD says; the interval is by patient, where patients or seeds repeat."""
    by_id = {case.id: case for case in cases}
    row = rated(predictions, [by_id[one.case_id] for one in predictions])
    return [label, f"{row.n}", *share_cells(row.share, *row.interval)]


def accuracy_table(runs: Iterable[tuple[str, Sequence[Prediction]]], cases: Sequence[Case]) -> Table:
    """Accuracies on the same cases."""
    return Table("Accuracy", [accuracy_row(name, run, cases) for name, run in runs], head=ACCURACY_HEAD)


def difference_row(label: str, estimate: Estimate, p: float | None = None) -> Row:
    """As DIFFERENCE_HEAD says; coloured where p, or the interval where no p was computed, shows a difference."""
    value, low, high, n, _ = estimate
    drawn = Drawn("difference", value, low, high, shown=estimate.sign != 0 if p is None else p < 0.05)
    written = f"{points(value)} ({points(low)} to {points(high)})"
    told = "–" if p is None else p_value(p).removeprefix("= ")
    return [label, f"{n}", drawn, written, told, f"{100 * estimate.detectable:.1f}"]


def paired_row(label: str, result: PairedResult) -> Row:
    """A paired result; p after Holm where the result is one of several strata."""
    return difference_row(label, estimate_of(result), result.p_holm if result.p_holm is not None else result.p_exact)


def second_opinion(label: str, comparison: Comparison) -> list[Row]:
    """The independent judge's row, where there is one."""
    other = comparison.independent
    return [] if other is None else [paired_row(f"{label}, independent judge", other)]


def strata_table(title: str, comparison: Comparison, axis: str) -> Table:
    """Paired differences by stratum."""
    rows = [paired_row(name, result) for name, result in comparison.by.get(axis, {}).items()]
    how = "signs flipped by patient, since patients or seeds repeat" if comparison.clustered else "McNemar, exact"
    return Table(title, rows, f"p: {how}; adjusted after Holm.")


class Planted(Strict):
    """An effect that the simulated world is known to have."""

    what: str
    size: float
    """Points, as planted."""
    power: float
    """Chance to find an effect of that size with this many cases."""
    detectable: float
    """Points that are found with 90% power."""
    effect: float
    """Points, as estimated."""
    ci: tuple[float, float]
    found: bool


class Finding(Strict):
    """The answer of one experiment; result.json."""

    experiment: str
    question: str
    answer: str
    """In one sentence, with its interval."""
    answer_zh: str
    effect: float
    """Points."""
    ci: tuple[float, float]
    n: int
    design_points: float
    """The effect that the power is for."""
    power: float
    detectable_points: float
    """Found with 90% power."""
    verdict: Verdict
    planted: list[Planted] = Field(default_factory=list)
    limits: list[str] = Field(default_factory=list)
    simulated: bool = False


def planted(what: str, size_points: float, estimate: Estimate) -> Planted:
    """Hold an estimate against what was planted: found where the interval excludes zero on the planted side."""
    return Planted(
        what=what,
        size=size_points,
        power=round(estimate.power(size_points / 100), 3),
        detectable=round(100 * estimate.detectable, 2),
        **estimate.in_points(),
        found=estimate.sign == math.copysign(1, size_points),
    )


def conclude(
    out_dir: Path,
    experiment: str,
    settings: ArmsReport,
    estimate: Estimate,
    tables: Sequence[Table],
    values: Mapping[str, object],
    effects: Sequence[tuple[str, float | None, Estimate]] = (),
) -> Finding:
    """Write result.json and report.html.

    Args:
        values: what the experiment's words have places for, besides `estimate`.
        effects: planted ones: which of the experiment's words names it, its size in points (None: not planted), and
            what was estimated.
    """
    words = {name: text.format(**values, estimate=estimate) for name, text in WORDS[experiment].items()}
    finding = Finding(
        experiment=experiment,
        question=words["question"],
        answer=words["answer"],
        answer_zh=words["answer_zh"],
        **estimate.in_points(),
        n=estimate.n,
        design_points=settings.design_points,
        power=round(estimate.power(settings.design_points / 100), 3),
        detectable_points=round(100 * estimate.detectable, 2),
        verdict=estimate.verdict,
        planted=[planted(words[name], size, found) for name, size, found in effects if size is not None],
        limits=[words["limits"]],
        simulated=settings.simulated,
    )
    page = render("experiment.html.j2", title=words["title"], finding=finding, tables=tables)
    write_text(Path(out_dir) / PAGE, page)
    write_text(Path(out_dir) / RESULT, finding.model_dump_json(indent=1) + "\n")
    return finding


def publish(finding: Finding, out_dir: Path, page: Any, metrics: Any) -> dict[str, object]:
    """Copy the page to where the dashboard shows HTML artifacts, put the numbers into the metrics artifact."""
    write_text(page.path, (Path(out_dir) / PAGE).read_text(encoding="utf-8"))
    numbers = finding.model_dump(mode="json", include={"effect", "power", "detectable_points", "n", "verdict"})
    numbers |= {"low": finding.ci[0], "high": finding.ci[1]}
    numbers["planted_found"] = sum(one.found for one in finding.planted)
    publish_metrics(numbers, metrics)
    return numbers
