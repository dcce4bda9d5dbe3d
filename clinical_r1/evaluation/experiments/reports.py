"""The report of each experiment: predictions and traces in, one answer with its interval out.

Here: what a training adds to the model before it, over several seeds. That is reinforcement learning (ablate-rl: the
paper shows one run of each, without a test), its reward (ablate-rewards), its algorithm (compare-algorithms), and the
synthesizer whose traces are learnt from (compare-synthesizers). And how far the judge of all that can be trusted
(audit-verifier).
"""

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from clinical_r1.evaluation.experiments import finding, transfer
from clinical_r1.evaluation.experiments.finding import ArmsReport, Estimate, Evidence, Finding, Row, Table, compare_runs
from clinical_r1.evaluation.inputs import read_cases
from clinical_r1.evaluation.judging.audit import Audit, corrected_accuracy
from clinical_r1.evaluation.measure.metrics import rated
from clinical_r1.page import interval, percent, points
from clinical_r1.schema import Case, Prediction, Trace, TraceOutcome, iter_jsonl
from clinical_r1.stats import Pairs


def ablate_rl(settings: ArmsReport, evidence: Evidence, out_dir: Path) -> Finding:
    """SFT against SFT + RL, over all seeds of RL."""
    cases, before, after = evidence.cases(), evidence.before(), evidence.after(settings.arms)
    pooled = compare_runs(cases, [before], list(after.values()), ("SFT", "SFT + RL"))
    answer = finding.answer_of(pooled)
    rows = [finding.paired_row("all seeds", pooled.overall)]
    for name, run in after.items():
        rows.append(finding.paired_row(name, compare_runs(cases, [before], [run], ("SFT", name)).overall))
    tables = [
        Table("SFT + RL minus SFT", [*rows, *finding.second_opinion("all seeds", pooled)]),
        finding.accuracy_table([("SFT", before), *after.items()], cases),
        finding.strata_table("By specialty", pooled, "specialty"),
        finding.strata_table("By language", pooled, "language"),
    ]
    doubt = "" if answer.confirmed else ", which the independent judge does not confirm"
    values = {"cases": len(cases), "overall": pooled.overall, "seeds": len(after), "doubt": doubt}
    return finding.conclude(out_dir, "ablate-rl", settings, answer, tables, values)


def contrast(experiment: str, settings: ArmsReport, evidence: Evidence, out_dir: Path) -> Finding:
    """Runs of RL from one SFT model: the first value of the experiment's factor against each other one; the last one
    named is the question's."""
    words = finding.WORDS[experiment]
    cases, before = evidence.cases(), evidence.before()
    by_value: dict[str, list[list[Prediction]]] = {}
    for arm, run in zip(settings.arms, evidence.after(settings.arms).values(), strict=True):
        by_value.setdefault(arm.factors[words["factor"]], []).append(run)
    reference, *others = by_value
    contrasts = {name: compare_runs(cases, by_value[reference], by_value[name], (reference, name)) for name in others}
    answers = {name: finding.answer_of(one) for name, one in contrasts.items()}
    rows = [finding.paired_row(f"{name} minus {reference}", one.overall) for name, one in contrasts.items()]
    for name, one in contrasts.items():
        rows += finding.second_opinion(f"{name} minus {reference}", one)
    against = []
    for name, runs in by_value.items():
        groups = {"all seeds": runs, **{f"seed {seed}": [run] for seed, run in enumerate(runs)}}
        for label, group in groups.items():
            overall = compare_runs(cases, [before], group, ("SFT", name)).overall
            against.append(finding.paired_row(f"{name}, {label}", overall))
    models = [("SFT", before), *((name, finding.seeds_as_samples(runs)) for name, runs in by_value.items())]
    accuracies = [_with_length(name, predictions, cases) for name, predictions in models]
    head = [*finding.ACCURACY_HEAD, "reasons", "tokens"]
    tables = [
        Table(words["between"], rows),
        Table(words["against"], against),
        Table("Accuracy, reasoning and length", accuracies, head=head),
    ]
    for name, one in contrasts.items():
        tables.append(finding.strata_table(f"{name} minus {reference}, by specialty", one, "specialty"))
    values = {
        "reference": reference,
        "share": contrasts[others[-1]].overall.first_accuracy,
        "cases": len(cases),
        "seeds": len(by_value[reference]),
        "others": len(others),
        "told": "; ".join(f"{name} {one.words}" for name, one in answers.items()),
        "told_zh": "；".join(f"“{name}”相差 {one.words_zh}" for name, one in answers.items()),
    }
    return finding.conclude(out_dir, experiment, settings, answers[others[-1]], tables, values)


def _with_length(name: str, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Row:
    reasons = sum(row.outcome.value == "ok" for row in predictions) / len(predictions)
    tokens = sum(row.reasoning_tokens for row in predictions) / len(predictions)
    return [*finding.accuracy_row(name, predictions, cases), percent(reasons), f"{tokens:.0f}"]


def compare_synthesizers(settings: ArmsReport, evidence: Evidence, out_dir: Path) -> Finding:
    """Models taught by either of two endpoints on the same cases, all else equal, and how the traces themselves differ
    (the paper: two runs, no test)."""
    cases, before, after = evidence.cases(), evidence.before(), evidence.after(settings.arms)
    first, second = (next(iter_jsonl(folder / "traces.jsonl", Trace)).synthesizer for folder in evidence.traces)
    if first == second:
        first, second = "the first synthesizer", "the second synthesizer"
    pooled = compare_runs(cases, [before], list(after.values()), (first, second))
    at_once = _first_try(read_cases(evidence.splits / "sft.jsonl"), evidence.traces)
    rows = [
        finding.paired_row(f"models: {second} minus {first}", pooled.overall),
        *finding.second_opinion("models", pooled),
        finding.difference_row("synthesizers: right at the first try", at_once),
    ]
    chains = evidence.traces[1]
    tables = [
        Table("What differs", rows),
        finding.strata_table("By specialty", pooled, "specialty"),
        finding.strata_table("By language", pooled, "language"),
        finding.accuracy_table([(first, before), *after.items()], cases),
        *_chains(json.loads((chains / "chains.json").read_text(encoding="utf-8"))),
    ]
    values = {"names": (first, second), "overall": pooled.overall, "cases": len(cases)}
    effects = [("planted", settings.planted_points, at_once)]
    answer = finding.answer_of(pooled)
    written = finding.conclude(out_dir, "compare-synthesizers", settings, answer, tables, values, effects)
    shutil.copyfile(chains / "chains.html", out_dir / "chains.html")
    return written


def _first_try(cases: Sequence[Case], traces: tuple[Path, Path]) -> Estimate:
    """Share of cases right at the first attempt, second synthesizer minus first, paired by case."""
    first, second = (
        {
            row.case_id: row.outcome is TraceOutcome.DIRECT
            for name in ("traces.jsonl", "rejected.jsonl")
            for row in iter_jsonl(folder / name, Trace)
        }
        for folder in traces
    )
    both = [case for case in cases if case.id in first and case.id in second]
    return finding.over_cases([float(second[case.id]) - float(first[case.id]) for case in both], both)


def _chains(comparison: dict[str, Any]) -> list[Table]:
    """The chain analysis (clinical_r1.synthesis.analysis), one table a language."""
    head = ["measure", *comparison["names"], "effect size (95% interval)", "p (Holm)"]
    note = "Amounts: Hedges' g, shares: Cohen's h; bootstrap over cases. The whole analysis is in chains.html."
    tables = []
    for section in comparison["sections"]:
        rows: list[Row] = []
        for row in section["rows"]:
            effect = "–"
            if row["effect"] is not None and row["effect_interval"]:
                effect = "{:+.2f} ({:+.2f} to {:+.2f})".format(row["effect"], *row["effect_interval"])
            p = "< 0.001" if row["p_holm"] < 0.001 else f"{row['p_holm']:.3f}"
            means = [percent(mean) if row["share"] else f"{mean:.3g}" for mean in row["mean"]]
            rows.append([row["title"], *means, effect, p])
        tables.append(Table(f"How their chains differ: {section['title']}", rows, note, head))
    return tables


_COUNTS = {
    "true_accept": "accepted, right", "false_accept": "accepted, wrong", "false_reject": "rejected, right",
    "true_reject": "rejected, wrong",
}  # fmt: skip


class AuditReport(ArmsReport):
    """What this report is told."""

    suspect: str
    """The judge that the question is about."""
    model: str = "the model"
    """What the page calls the model whose accuracy is corrected."""


def audit_verifier(settings: AuditReport, evidence: Evidence, out_dir: Path) -> Finding:
    """How far can the verifier be trusted, and what do its errors do to a reported accuracy? Each arm is a judge: its
    audit on the same labelled answers, and one model's accuracy as it reports it, corrected for its errors."""
    cases, answers = evidence.cases(), evidence.after(settings.arms)
    audits = {
        name: Audit.model_validate_json((folder / "audit" / "audit.json").read_bytes())
        for name, folder in zip(answers, evidence.runs, strict=True)
    }
    bias = {name: _bias(audit) for name, audit in audits.items()}
    corrected = {name: _corrected(answers[name], cases, audit) for name, audit in audits.items()}
    above = "On the labelled answers: above zero the judge flatters, below it punishes."
    tables = [
        Table("Accepted minus right", [finding.difference_row(name, one) for name, one in bias.items()], above),
        _confusions(audits),
        _stability(audits),
        _corrections(corrected, f"{settings.model} on {len(cases):,} test cases."),
    ]
    suspect, estimate = audits[settings.suspect], bias[settings.suspect]
    told, _, *ends = corrected[settings.suspect]
    values = {
        "answers": suspect.n - suspect.invalid,
        "suspect": settings.suspect,
        "bias": [f"{100 * share:+.1f}" for share in estimate[:3]],
        "kappa": suspect.kappa,
        "told": told,
        "model": settings.model,
        "corrected": ends,
    }
    effects = [("planted", settings.planted_points, estimate)]
    return finding.conclude(out_dir, "audit-verifier", settings, estimate, tables, values, effects)


def _bias(audit: Audit) -> Estimate:
    """Share accepted minus share right on the labelled answers, paired."""
    order = ("true_accept", "false_reject", "false_accept", "true_reject")
    return Estimate.of_pairs(Pairs(*(audit.confusion[name] for name in order)))


def _corrected(rows: Sequence[Prediction], cases: Sequence[Case], audit: Audit) -> tuple[float, ...]:
    """(reported, bias, corrected, low, high)."""
    by_id = {case.id: case for case in cases}
    told = rated(rows, [by_id[row.case_id] for row in rows])
    estimate, ends, bias = corrected_accuracy(told.share * told.effective, told.effective, audit)
    return told.share, bias, estimate, *ends


def _confusions(audits: dict[str, Audit]) -> Table:
    rows: list[Row] = []
    for name, audit in audits.items():
        kappa = "{:.2f} ({:.2f} to {:.2f})".format(audit.kappa, *audit.kappa_interval)
        accepted = f"{percent(audit.sensitivity)} ({interval(*audit.sensitivity_interval)})"
        rejected = f"{percent(audit.specificity)} ({interval(*audit.specificity_interval)})"
        counts = [f"{audit.confusion[key]}" for key in _COUNTS]
        rows.append([name, kappa, accepted, rejected, *counts, f"{audit.invalid}"])
    head = ["judge", "kappa", "right ones accepted", "wrong ones rejected", *_COUNTS.values(), "failed"]
    return Table("Confusion and agreement with the labels", rows, head=head)


def _stability(audits: dict[str, Audit]) -> Table:
    rows: list[Row] = []
    for name, audit in audits.items():
        for change, row in audit.stability.items():
            drawn, _ = finding.share_cells(row.rate, row.low, row.high)
            rows.append([f"{name}: {change}", f"{row.n}", f"{row.changed}", drawn, percent(row.rate)])
    note = (
        "The same answer in another wording, in a frame of the other language, with its choices in another order, or "
        "denied. A changed verdict is an error; a denied answer that is accepted is one too."
    )
    return Table("Stability", rows, note, ["judge: change", "n", "errors", "share, 95% interval", ""])


def _corrections(corrected: dict[str, tuple[float, ...]], whose: str) -> Table:
    rows: list[Row] = [
        [name, percent(told), *finding.share_cells(*ends), points(bias)]
        for name, (told, bias, *ends) in corrected.items()
    ]
    note = (
        f"{whose} Rogan and Gladen's estimate with Lang and Reiczigel's interval, which carries the uncertainty of the "
        "audit."
    )
    head = ["judge", "reported", "corrected", "corrected (95% interval)", "bias, points"]
    return Table("What its errors do to a reported accuracy", rows, note, head)


REPORTS: dict[str, tuple[type[ArmsReport], Callable[..., Finding]]] = {
    "ablate-rl": (ArmsReport, ablate_rl),
    "ablate-rewards": (ArmsReport, partial(contrast, "ablate-rewards")),
    "compare-algorithms": (ArmsReport, partial(contrast, "compare-algorithms")),
    "compare-synthesizers": (ArmsReport, compare_synthesizers),
    "cross-language": (ArmsReport, transfer.cross_language),
    "held-out-site": (transfer.HeldOutReport, transfer.held_out_site),
    "audit-verifier": (AuditReport, audit_verifier),
}
"""Experiment -> what its report is told, and the report: a function of settings, evidence and the output folder."""
