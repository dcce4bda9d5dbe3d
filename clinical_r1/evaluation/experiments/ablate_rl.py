"""ablate-rl: what does reinforcement learning add to fine-tuning? (The paper shows one run of each, without a test.)"""

from collections.abc import Sequence
from pathlib import Path

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
    strata_table,
)
from clinical_r1.evaluation.experiments.finding import Finding, Table, conclude, write_finding
from clinical_r1.evaluation.inputs import PREDICTIONS
from clinical_r1.evaluation.page import percent
from clinical_r1.schema import Prediction, read_jsonl

QUESTION = "Does reinforcement learning after fine-tuning make the diagnoses better?"


def report(settings: ArmsReport, splits: Path, sft: Path, runs: Sequence[Path], out_dir: Path) -> Finding:
    """SFT against SFT + RL, over all seeds of RL; writes result.json and report.html."""
    cases = cases_of(splits)
    before = read_jsonl(Path(sft) / PREDICTIONS, Prediction)
    after = read_arms(settings.arms, runs)
    pooled = compare_runs(cases, [before], list(after.values()), ("SFT", "SFT + RL"))
    overall = pooled.overall
    start = f"On {len(cases):,} unseen cases SFT is right in {percent(overall.first_accuracy)}, SFT + RL in "
    answer = (
        f"{start}{percent(overall.second_accuracy)} over {len(after)} seeds: {estimate_of(overall).words()}"
        f"{'' if confirmed(pooled) else ', which the independent judge does not confirm'}."
    )
    answer_zh = (
        f"在 {len(cases)} 个未见病例上，SFT 正确率 {percent(overall.first_accuracy)}，SFT + RL（{len(after)} 个种子）"
        f"为 {percent(overall.second_accuracy)}，相差 {100 * overall.difference:+.1f} 个百分点"
        f"（95% 区间 {100 * overall.low:+.1f} 至 {100 * overall.high:+.1f}）。"
    )
    finding = conclude(
        "ablate-rl",
        QUESTION,
        estimate_of(overall),
        settings.design_points,
        answer,
        answer_zh,
        confirmed=confirmed(pooled),
    )
    finding.simulated = settings.simulated
    finding.limits = [
        "The interval carries the chance of the cases, not the chance of training: the seeds, each for itself, show "
        "how far runs of the same recipe lie apart. All seeds start from one SFT model."
    ]
    singles = [compare_runs(cases, [before], [run], ("SFT", name)) for name, run in after.items()]
    rows = [paired_row("all seeds", overall)]
    rows += [paired_row(one.second, one.overall) for one in singles]
    if pooled.independent is not None:
        rows.append(paired_row("all seeds, independent judge", pooled.independent))
    tables = [
        difference_table("SFT + RL minus SFT", rows),
        Table(
            title="Accuracy",
            head=ACCURACY_HEAD,
            rows=[accuracy_row(name, run, cases) for name, run in [("SFT", before), *after.items()]],
        ),
        strata_table("By specialty", pooled, "specialty"),
        strata_table("By language", pooled, "language"),
    ]
    return write_finding(finding, tables, out_dir, "What reinforcement learning adds")
