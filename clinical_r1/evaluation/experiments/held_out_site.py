"""held-out-site: how much worse is a model at a hospital that it was not trained on? And is the test really unseen?

Arms of equal size, same recipe: `without` the site's traces, `with` them. A third arm, `leaking`, is `without` plus a
part of the site's *test* cases: what a contaminated benchmark looks like, and whether the containment check finds it.
"""

from collections.abc import Sequence
from pathlib import Path

from clinical_r1.errors import UserError
from clinical_r1.evaluation.benchmarks.builder import overlaps, read_training
from clinical_r1.evaluation.experiments import arms
from clinical_r1.evaluation.experiments.arms import ArmsReport, Evidence
from clinical_r1.evaluation.experiments.finding import Cell, Estimate, Finding, Table, conclude, planted, write_finding
from clinical_r1.evaluation.measure.compare import paired
from clinical_r1.page import percent
from clinical_r1.schema import Case, Prediction
from clinical_r1.stats import Pairs, paired_interval

QUESTION = "What does it cost that the model never saw the hospital that it is used in?"
WITHOUT, WITH, LEAKING = "without", "with", "leaking"


class Settings(ArmsReport):
    """Settings of this report."""

    site: str
    """The hospital that is held out."""
    leak_points: float | None = None
    """Share of the site's test cases that were leaked on purpose, in points; None: no leak was planted."""


def report(settings: Settings, evidence: Evidence, out_dir: Path) -> Finding:
    """The reference is the model that was trained without the site."""
    cases = arms.cases_of(evidence.splits)
    answers = {WITHOUT: arms.read_reference(evidence), **arms.read_arms(settings.arms, evidence.runs)}
    own = [case for case in cases if case.site == settings.site]
    others = [case for case in cases if case.site != settings.site]
    if not own or not others:
        raise UserError(
            f"held-out-site: site '{settings.site}' has {len(own)} of {len(cases)} test cases; name a site "
            f"of {', '.join(sorted({case.site for case in cases}))}"
        )
    here, there = (_compare(part, answers[WITHOUT], answers[WITH]) for part in (own, others))
    estimate = arms.estimate_of(here)
    finding = conclude(
        "held-out-site",
        QUESTION,
        estimate,
        settings.design_points,
        f"At {settings.site} ({len(own):,} unseen cases) the model trained without this site is right in "
        f"{percent(here.first_accuracy)}, one trained with it on as many traces in {percent(here.second_accuracy)}: "
        f"not having seen the site costs {estimate.words()}.",
        f"在 {settings.site}（{len(own)} 个未见病例），未见过该院的模型正确率 {percent(here.first_accuracy)}，见过的为 "
        f"{percent(here.second_accuracy)}；未见该院的代价为 {estimate.words_zh()}。",
        simulated=settings.simulated,
        limits=(
            "Both models were trained on the same number of traces, so the one with the site saw fewer of the others: "
            "the row of the other sites says what that costs."
        ),
    )
    found = {name: contained(own, folder) for name, folder in zip(answers, evidence.trained_on, strict=True)}
    if settings.planted_points is not None:
        finding.planted.append(planted("a site that writes in its own words", settings.planted_points, estimate))
    if settings.leak_points is not None and LEAKING in found:
        leak = leaked_share(own, found[WITHOUT], found[LEAKING])
        finding.planted.append(planted("a leaking benchmark (test cases in the training data)",
                                       settings.leak_points, leak))  # fmt: skip
    tables = [
        arms.difference_table("With the site minus without it", [
            arms.paired_row(f"cases of {settings.site}", here), arms.paired_row("cases of the other sites", there),
        ], "The same cases, answered by both models."),
        Table(title="Accuracy", head=arms.ACCURACY_HEAD, rows=[
            arms.accuracy_row(f"{name}, {label}", [row for row in rows if row.case_id in ids], part)
            for name, rows in answers.items() for label, part in ((settings.site, own), ("other sites", others))
            for ids in [{case.id for case in part}]
        ]),
        _leaks(own, found),
    ]  # fmt: skip
    if found.get(LEAKING):
        tables.append(_inflation(own, found[LEAKING], answers))
    return write_finding(finding, tables, out_dir, f"Without the site {settings.site}")


def contained(benchmark: Sequence[Case], traces: Path) -> set[str]:
    """Benchmark cases that the questions of the training traces contain (at least half of their n-grams)."""
    return {overlap.case_id for overlap in overlaps(benchmark, read_training(traces / "traces.jsonl"))}


def leaked_share(benchmark: Sequence[Case], clean: set[str], leaking: set[str]) -> Estimate:
    """Share of the benchmark found in the leaking training data beyond what the check flags in clean ones."""
    both, first, second = len(clean & leaking), len(clean - leaking), len(leaking - clean)
    pairs = Pairs(both, first, second, len(benchmark) - both - first - second)
    low, high = paired_interval(pairs)
    return Estimate(value=pairs.difference, low=low, high=high, n=pairs.n)


def _compare(cases: Sequence[Case], first: Sequence[Prediction], second: Sequence[Prediction]):
    left, right = ({row.case_id: row for row in rows} for rows in (first, second))
    units = {case.unit for case in cases}
    return paired(
        cases,
        [left[case.id] for case in cases],
        [right[case.id] for case in cases],
        clustered=len(units) < len(cases),
    )


def _leaks(benchmark: Sequence[Case], found: dict[str, set[str]]) -> Table:
    rows = [
        [Cell(text=f"training data of '{name}'"), Cell(text=str(len(benchmark))), Cell(text=str(len(ids))),
         Cell(text=percent(len(ids) / len(benchmark)))]
        for name, ids in found.items()
    ]  # fmt: skip
    note = "Test cases of the site of which one training case contains at least half of the word n-grams."
    return Table(
        title="Is the test unseen?", note=note, head=["", "test cases", "found in training", "share"], rows=rows
    )


def _inflation(benchmark: Sequence[Case], leaked: set[str], answers: dict[str, list[Prediction]]) -> Table:
    rows = []
    for label, part in (
        ("leaked cases", [case for case in benchmark if case.id in leaked]),
        ("clean cases", [case for case in benchmark if case.id not in leaked]),
    ):
        if part:
            rows.append(
                arms.difference_row(label, arms.estimate_of(_compare(part, answers[WITHOUT], answers[LEAKING])))
            )
    note = "What the leak does to the benchmark: the leaking model minus the clean one, on leaked and on clean cases."
    return arms.difference_table("How a leak inflates the score", rows, note)
