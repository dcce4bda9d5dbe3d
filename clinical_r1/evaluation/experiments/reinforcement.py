"""What reinforcement learning adds to fine-tuning (ablate-rl: the paper shows one run of each, without a test), and
what its reward (ablate-rewards) and its algorithm (compare-algorithms) do to that: several seeds, one SFT model.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from clinical_r1.evaluation.experiments import arms
from clinical_r1.evaluation.experiments.arms import ArmsReport, Evidence
from clinical_r1.evaluation.experiments.finding import Cell, Finding, Table, conclude, write_finding
from clinical_r1.evaluation.measure.compare import Comparison
from clinical_r1.page import percent
from clinical_r1.schema import Case, Prediction

RL_HELPS = "Does reinforcement learning after fine-tuning make the diagnoses better?"


def ablate_rl(settings: ArmsReport, evidence: Evidence, out_dir: Path) -> Finding:
    """SFT against SFT + RL, over all seeds of RL; writes result.json and report.html."""
    cases, before = arms.cases_of(evidence.splits), arms.read_reference(evidence)
    after = arms.read_arms(settings.arms, evidence.runs)
    pooled = arms.compare_runs(cases, [before], list(after.values()), ("SFT", "SFT + RL"))
    overall = pooled.overall
    start = f"On {len(cases):,} unseen cases SFT is right in {percent(overall.first_accuracy)}, SFT + RL in "
    answer = (
        f"{start}{percent(overall.second_accuracy)} over {len(after)} seeds: {arms.estimate_of(overall).words()}"
        f"{'' if arms.confirmed(pooled) else ', which the independent judge does not confirm'}."
    )
    answer_zh = (
        f"在 {len(cases)} 个未见病例上，SFT 正确率 {percent(overall.first_accuracy)}，SFT + RL（{len(after)} 个种子）"
        f"为 {percent(overall.second_accuracy)}，相差 {100 * overall.difference:+.1f} 个百分点"
        f"（95% 区间 {100 * overall.low:+.1f} 至 {100 * overall.high:+.1f}）。"
    )
    finding = conclude(
        "ablate-rl",
        RL_HELPS,
        arms.estimate_of(overall),
        settings.design_points,
        answer,
        answer_zh,
        confirmed=arms.confirmed(pooled),
        simulated=settings.simulated,
        limits=(
            "The interval carries the chance of the cases, not the chance of training: the seeds, each for itself, "
            "show how far runs of the same recipe lie apart. All seeds start from one SFT model."
        ),
    )
    singles = [arms.compare_runs(cases, [before], [run], ("SFT", name)) for name, run in after.items()]
    rows = [arms.paired_row("all seeds", overall)]
    rows += [arms.paired_row(one.second, one.overall) for one in singles]
    if pooled.independent is not None:
        rows.append(arms.paired_row("all seeds, independent judge", pooled.independent))
    tables = [
        arms.difference_table("SFT + RL minus SFT", rows),
        Table(
            title="Accuracy",
            head=arms.ACCURACY_HEAD,
            rows=[arms.accuracy_row(name, run, cases) for name, run in [("SFT", before), *after.items()]],
        ),
        arms.strata_table("By specialty", pooled, "specialty"),
        arms.strata_table("By language", pooled, "language"),
    ]
    return write_finding(finding, tables, out_dir, "What reinforcement learning adds")


class Contrast(NamedTuple):
    """What runs of RL from one SFT model differ by, and the words for it."""

    experiment: str
    question: str
    factor: str
    """Key of `Arm.factors`."""
    one: str
    """What one of them is called."""
    one_zh: str
    many: str
    title: str


TABLES = Contrast(
    "ablate-rewards",
    "Does the design of the reward change what reinforcement learning reaches?",
    "table",
    "reward table",
    "奖励表",
    "tables",
    "Reward designs",
)


ALGORITHMS = Contrast(
    "compare-algorithms",
    "Does another algorithm than PPO reach more with as many rollouts?",
    "algorithm",
    "algorithm",
    "算法",
    "algorithms",
    "Algorithms of reinforcement learning",
)


def contrast(what: Contrast, settings: ArmsReport, evidence: Evidence, out_dir: Path) -> Finding:
    """The first value of the factor against each other one; the last one named is the question's."""
    cases, before = arms.cases_of(evidence.splits), arms.read_reference(evidence)
    by_table: dict[str, list[list[Prediction]]] = {}
    for arm, run in zip(settings.arms, arms.read_arms(settings.arms, evidence.runs).values(), strict=True):
        by_table.setdefault(arm.factors[what.factor], []).append(run)
    reference, *others = by_table
    start = by_table[reference]
    contrasts = {name: arms.compare_runs(cases, start, by_table[name], (reference, name)) for name in others}
    main = contrasts[others[-1]]
    estimate = arms.estimate_of(main.overall)
    told = "; ".join(f"{name} {arms.estimate_of(one.overall).words()}" for name, one in contrasts.items())
    told_zh = "；".join(f"“{name}”相差 {arms.estimate_of(one.overall).words_zh()}" for name, one in contrasts.items())
    finding = conclude(
        what.experiment,
        what.question,
        estimate,
        settings.design_points,
        f"Against the {what.one} '{reference}' (right in {percent(main.overall.first_accuracy)} of {len(cases):,} "
        f"cases, {len(start)} seeds): {told}.",
        f"与{what.one_zh}“{reference}”相比（{len(cases)} 个病例，正确率 "
        f"{percent(main.overall.first_accuracy)}），{told_zh}。",
        confirmed=arms.confirmed(main),
        simulated=settings.simulated,
        limits=(
            f"{len(others)} comparisons with one reference: read them together, a single one at the edge of its "
            "interval is what chance gives. All runs start from one SFT model; seeds are few."
        ),
    )
    rows = [arms.paired_row(f"{name} minus {reference}", one.overall) for name, one in contrasts.items()]
    rows += [
        arms.paired_row(f"{name} minus {reference}, independent judge", one.independent)
        for name, one in contrasts.items()
        if one.independent is not None
    ]
    tables = [
        arms.difference_table(f"Between the {what.many}", rows),
        _against_sft(cases, before, by_table, what.one),
        Table(title="Accuracy, reasoning and length", head=[*arms.ACCURACY_HEAD, "reasons", "tokens"],
              rows=[_row("SFT", before, cases),
                    *(_row(name, arms.seeds_as_samples(runs), cases) for name, runs in by_table.items())]),
        *(arms.strata_table(f"{name} minus {reference}, by specialty", one, "specialty")
          for name, one in contrasts.items()),
    ]  # fmt: skip
    return write_finding(finding, tables, out_dir, what.title)


def _against_sft(cases, before: list[Prediction], by_table: dict[str, list[list[Prediction]]], one: str) -> Table:
    rows = []
    for name, runs in by_table.items():
        pooled: Comparison = arms.compare_runs(cases, [before], runs, ("SFT", name))
        rows.append(arms.paired_row(f"{name}, all seeds", pooled.overall))
        for seed, run in enumerate(runs):
            single = arms.compare_runs(cases, [before], [run], ("SFT", name))
            rows.append(arms.paired_row(f"{name}, seed {seed}", single.overall))
    return arms.difference_table(f"Each {one} against SFT", rows)


def _row(name: str, predictions: Sequence[Prediction], cases: Sequence[Case]) -> list[Cell]:
    reasons = sum(row.outcome.value == "ok" for row in predictions) / len(predictions)
    tokens = sum(row.reasoning_tokens for row in predictions) / len(predictions)
    return [*arms.accuracy_row(name, predictions, cases), Cell(text=percent(reasons)), Cell(text=f"{tokens:.0f}")]


ablate_rewards = partial(contrast, TABLES)
compare_algorithms = partial(contrast, ALGORITHMS)
