"""compare-synthesizers: whose traces teach better? Two endpoints, everything else equal (the paper: two runs, no test).

The same cases, the same base model and tokenizer, the same recipe; only the endpoint that wrote the traces differs.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clinical_r1.evaluation.experiments import arms
from clinical_r1.evaluation.experiments.arms import ArmsReport, Evidence
from clinical_r1.evaluation.experiments.finding import Cell, Estimate, Finding, Table, conclude, planted, write_finding
from clinical_r1.evaluation.inputs import read_cases
from clinical_r1.page import percent
from clinical_r1.schema import Case, Trace, TraceOutcome, iter_jsonl

QUESTION = "Do the traces of the second synthesizer teach a better model than those of the first?"


def report(settings: ArmsReport, evidence: Evidence, out_dir: Path) -> Finding:
    """Models taught by either synthesizer on the same cases, and how the two synthesizers themselves differ."""
    cases, before = arms.cases_of(evidence.splits), arms.read_reference(evidence)
    after = arms.read_arms(settings.arms, evidence.runs)
    names, chains = _names(evidence.traces), evidence.traces[1]
    pooled = arms.compare_runs(cases, [before], list(after.values()), names)
    estimate = arms.estimate_of(pooled.overall)
    at_once = first_try(read_cases(evidence.splits / "sft.jsonl"), evidence.traces)
    finding = conclude(
        "compare-synthesizers",
        QUESTION,
        estimate,
        settings.design_points,
        f"Taught by {names[1]} the model is right in {percent(pooled.overall.second_accuracy)} of {len(cases):,} "
        f"unseen cases, taught by {names[0]} in {percent(pooled.overall.first_accuracy)}: {estimate.words()}.",
        f"在 {len(cases)} 个未见病例上，由 {names[1]} 的推理数据训练的模型正确率 "
        f"{percent(pooled.overall.second_accuracy)}，由 {names[0]} 训练的为 "
        f"{percent(pooled.overall.first_accuracy)}，相差 {estimate.words_zh()}。",
        confirmed=arms.confirmed(pooled),
        simulated=settings.simulated,
        limits=(
            "One model a synthesizer and seed: a difference of this size may also come from training with another "
            "seed; give more seeds to tell them apart. The tokenizer is that of the first one's traces for both."
        ),
    )
    if settings.planted_points is not None:
        finding.planted = [planted("a better synthesizer (right at the first try)", settings.planted_points, at_once)]
    rows = [arms.paired_row(f"models: {names[1]} minus {names[0]}", pooled.overall)]
    if pooled.independent is not None:
        rows.append(arms.paired_row("models, independent judge", pooled.independent))
    rows.append(arms.difference_row("synthesizers: right at the first try", at_once))
    tables = [
        arms.difference_table("What differs", rows),
        arms.strata_table("By specialty", pooled, "specialty"),
        arms.strata_table("By language", pooled, "language"),
        Table(title="Accuracy", head=arms.ACCURACY_HEAD,
              rows=[arms.accuracy_row(name, run, cases) for name, run in [(names[0], before), *after.items()]]),
        *_chains(json.loads((chains / "chains.json").read_text(encoding="utf-8"))),
    ]  # fmt: skip
    written = write_finding(finding, tables, out_dir, "Two synthesizers, everything else equal")
    shutil.copyfile(chains / "chains.html", out_dir / "chains.html")
    return written


def first_try(cases: Sequence[Case], traces: tuple[Path, Path]) -> Estimate:
    """Share of cases right at the first attempt, second synthesizer minus first, paired by case."""
    direct = [
        {
            row.case_id: row.outcome is TraceOutcome.DIRECT
            for name in ("traces.jsonl", "rejected.jsonl")
            for row in iter_jsonl(Path(folder) / name, Trace)
        }
        for folder in traces
    ]
    both = [case for case in cases if case.id in direct[0] and case.id in direct[1]]
    return arms.over_cases([float(direct[1][case.id]) - float(direct[0][case.id]) for case in both], both)


def _names(traces: tuple[Path, Path]) -> tuple[str, str]:
    names = [next(iter_jsonl(Path(folder) / "traces.jsonl", Trace)).synthesizer for folder in traces]
    return (names[0], names[1]) if names[0] != names[1] else ("the first synthesizer", "the second synthesizer")


def _chains(comparison: dict[str, Any]) -> list[Table]:
    """The chain analysis (clinical_r1.synthesis.analysis), one table a language."""
    head = ["measure", *comparison["names"], "effect size (95% interval)", "p (Holm)"]
    return [
        Table(
            title=f"How their chains differ: {section['title']}",
            note="Amounts: Hedges' g, shares: Cohen's h; bootstrap over cases. The whole analysis is in chains.html.",
            head=head,
            rows=[_chain_row(row) for row in section["rows"]],
        )
        for section in comparison["sections"]
    ]


def _chain_row(row: dict[str, Any]) -> list[Cell]:
    values = [percent(mean) if row["share"] else f"{mean:.3g}" for mean in row["mean"]]
    effect = "–"
    if row["effect"] is not None and row["effect_interval"]:
        low, high = row["effect_interval"]
        effect = f"{row['effect']:+.2f} ({low:+.2f} to {high:+.2f})"
    p = "< 0.001" if row["p_holm"] < 0.001 else f"{row['p_holm']:.3f}"
    return [Cell(text=row["title"]), *(Cell(text=value) for value in values), Cell(text=effect), Cell(text=p)]
