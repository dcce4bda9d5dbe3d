"""ablate-rewards: does the design of the reward matter? Tables of `reward_tables.yaml`, several seeds each."""

from collections.abc import Sequence
from pathlib import Path

from clinical_r1.evaluation.compare import Comparison
from clinical_r1.evaluation.experiments.arms import (
    ACCURACY_HEAD,
    ArmsReport,
    accuracy_row,
    cases_of,
    compare_runs,
    confirmed,
    difference_table,
    estimate_of,
    paired_row,
    read_arms,
    seeds_as_samples,
    strata_table,
)
from clinical_r1.evaluation.experiments.finding import Cell, Finding, Table, conclude, write_finding
from clinical_r1.evaluation.inputs import PREDICTIONS
from clinical_r1.evaluation.page import percent
from clinical_r1.schema import Case, Prediction, read_jsonl

QUESTION = "Does the design of the reward change what reinforcement learning reaches?"


def report(settings: ArmsReport, splits: Path, sft: Path, runs: Sequence[Path], out_dir: Path) -> Finding:
    """The first table against each other one, seed by seed; the last one named is the question's."""
    cases = cases_of(splits)
    before = read_jsonl(Path(sft) / PREDICTIONS, Prediction)
    by_table: dict[str, list[list[Prediction]]] = {}
    for arm, run in zip(settings.arms, read_arms(settings.arms, runs).values(), strict=True):
        by_table.setdefault(arm.factors["table"], []).append(run)
    reference, *others = by_table
    contrasts = {name: compare_runs(cases, by_table[reference], by_table[name], (reference, name)) for name in others}
    main = contrasts[others[-1]]
    estimate = estimate_of(main.overall)
    told = "; ".join(f"{name} {estimate_of(one.overall).words()}" for name, one in contrasts.items())
    told_zh = "；".join(f"“{name}”相差 {estimate_of(one.overall).words_zh()}" for name, one in contrasts.items())
    finding = conclude(
        "ablate-rewards",
        QUESTION,
        estimate,
        settings.design_points,
        f"Against the reward table '{reference}' (right in {percent(main.overall.first_accuracy)} of {len(cases):,} "
        f"cases, {len(by_table[reference])} seeds): {told}.",
        f"与奖励表“{reference}”相比（{len(cases)} 个病例，正确率 {percent(main.overall.first_accuracy)}），{told_zh}。",
        confirmed=confirmed(main),
    )
    finding.simulated = settings.simulated
    finding.limits = [
        f"{len(others)} comparisons with one reference table: read them together, a single one at the edge of its "
        "interval is what chance gives. All runs start from one SFT model; seeds are few."
    ]
    rows = [paired_row(f"{name} minus {reference}", one.overall) for name, one in contrasts.items()]
    rows += [
        paired_row(f"{name} minus {reference}, independent judge", one.independent)
        for name, one in contrasts.items()
        if one.independent is not None
    ]
    tables = [
        difference_table("Between the tables", rows),
        _against_sft(cases, before, by_table),
        Table(title="Accuracy, reasoning and length", head=[*ACCURACY_HEAD, "reasons", "tokens"],
              rows=[_row("SFT", before, cases),
                    *(_row(name, seeds_as_samples(runs), cases) for name, runs in by_table.items())]),
        *(strata_table(f"{name} minus {reference}, by specialty", one, "specialty") for name, one in contrasts.items()),
    ]  # fmt: skip
    return write_finding(finding, tables, out_dir, "Reward designs")


def _against_sft(cases, before: list[Prediction], by_table: dict[str, list[list[Prediction]]]) -> Table:
    rows = []
    for name, runs in by_table.items():
        pooled: Comparison = compare_runs(cases, [before], runs, ("SFT", name))
        rows.append(paired_row(f"{name}, all seeds", pooled.overall))
        for seed, run in enumerate(runs):
            one = compare_runs(cases, [before], [run], ("SFT", name))
            rows.append(paired_row(f"{name}, seed {seed}", one.overall))
    return difference_table("Each table against SFT", rows)


def _row(name: str, predictions: Sequence[Prediction], cases: Sequence[Case]) -> list[Cell]:
    reasons = sum(row.outcome.value == "ok" for row in predictions) / len(predictions)
    tokens = sum(row.reasoning_tokens for row in predictions) / len(predictions)
    return [*accuracy_row(name, predictions, cases), Cell(text=percent(reasons)), Cell(text=f"{tokens:.0f}")]
