"""audit-verifier: how far can the verifier be trusted, and what do its errors do to a reported accuracy?

Several judges on the same labelled answers (an audit each, `judging.audit`), and one model's accuracy as each of them
reports it, corrected for its errors.
"""

from collections.abc import Sequence
from pathlib import Path

from clinical_r1.evaluation.experiments import arms
from clinical_r1.evaluation.experiments.arms import ArmsReport, Evidence
from clinical_r1.evaluation.experiments.finding import Cell, Estimate, Finding, Table, conclude, planted, write_finding
from clinical_r1.evaluation.judging.audit import Audit, corrected_accuracy
from clinical_r1.evaluation.measure.metrics import rated
from clinical_r1.page import interval, percent, points
from clinical_r1.schema import Case, Prediction
from clinical_r1.stats import Pairs, paired_interval

QUESTION = "Does the judge flatter or punish, and what is a reported accuracy worth?"


class Settings(ArmsReport):
    """Settings of this report."""

    suspect: str
    """The judge that the question is about."""
    model: str = "the model"
    """What the page calls the model whose accuracy is corrected."""


def report(settings: Settings, evidence: Evidence, out_dir: Path) -> Finding:
    """Each arm is a judge: its audit, and the model's answers as it sees them."""
    cases = arms.cases_of(evidence.splits)
    found = {
        arm.name: Audit.model_validate_json((folder / "audit" / "audit.json").read_text(encoding="utf-8"))
        for arm, folder in zip(settings.arms, evidence.runs, strict=True)
    }
    answers = arms.read_arms(settings.arms, evidence.runs)
    suspect = found[settings.suspect]
    bias = bias_of(suspect)
    told, corrected, _, low, high = _corrected(answers[settings.suspect], cases, suspect)
    finding = conclude(
        "audit-verifier",
        QUESTION,
        bias,
        settings.design_points,
        f"On {suspect.n - suspect.invalid:,} labelled answers the judge '{settings.suspect}' accepts more than it "
        f"should by {bias.words()} (kappa {suspect.kappa:.2f}); the {percent(told)} that it reports "
        f"for {settings.model} are {percent(corrected)} after correction ({percent(low)} to {percent(high)}).",
        f"在 {suspect.n - suspect.invalid} 个已标注答案上，评判者“{settings.suspect}”多接受 "
        f"{100 * bias.value:+.1f} 个百分点（95% 区间 {100 * bias.low:+.1f} 至 {100 * bias.high:+.1f}，"
        f"kappa {suspect.kappa:.2f}）；其报告的 {percent(told)} 校正后为 "
        f"{percent(corrected)}（{percent(low)} 至 {percent(high)}）。",
        simulated=settings.simulated,
        limits=(
            "The correction holds where the judge errs on the model's answers as it does on the labelled ones; label a "
            "sample of the model's own answers (expert review) to be sure. A judge of one kind cannot show what all "
            "judges get wrong."
        ),
    )
    if settings.planted_points is not None:
        finding.planted = [planted("a biased judge (accepts wrong answers)", settings.planted_points, bias)]
    tables = [
        arms.difference_table("Accepted minus right",
                              [arms.difference_row(name, bias_of(one)) for name, one in found.items()],
                              "On the labelled answers: above zero the judge flatters, below it punishes."),
        _confusions(found),
        _stability(found),
        _corrections(settings, answers, found, cases),
    ]  # fmt: skip
    return write_finding(finding, tables, out_dir, "Audit of the verifiers")


def bias_of(audit: Audit) -> Estimate:
    """Share accepted minus share right on the labelled answers, paired."""
    counts = audit.confusion
    pairs = Pairs(counts["true_accept"], counts["false_reject"], counts["false_accept"], counts["true_reject"])
    low, high = paired_interval(pairs)
    return Estimate(value=pairs.difference, low=low, high=high, n=pairs.n)


def _corrected(
    rows: Sequence[Prediction], cases: Sequence[Case], audit: Audit
) -> tuple[float, float, float, float, float]:
    """(reported, corrected, bias, low, high)."""
    by_id = {case.id: case for case in cases}
    told = rated(rows, [by_id[row.case_id] for row in rows])
    estimate, interval, bias = corrected_accuracy(told.share * told.effective, told.effective, audit)
    return told.share, estimate, bias, interval.low, interval.high


_COUNTS = {
    "true_accept": "accepted, right", "false_accept": "accepted, wrong", "false_reject": "rejected, right",
    "true_reject": "rejected, wrong",
}  # fmt: skip


def _confusions(found: dict[str, Audit]) -> Table:
    def share(value: float, ends: tuple[float, float]) -> Cell:
        return Cell(text=f"{percent(value)} ({interval(*ends)})")

    rows = [
        [Cell(text=name), Cell(text=f"{one.kappa:.2f} ({one.kappa_interval[0]:.2f} to {one.kappa_interval[1]:.2f})"),
         share(one.sensitivity, one.sensitivity_interval), share(one.specificity, one.specificity_interval),
         *(Cell(text=str(one.confusion[key])) for key in _COUNTS), Cell(text=str(one.invalid))]
        for name, one in found.items()
    ]  # fmt: skip
    head = ["judge", "kappa", "right ones accepted", "wrong ones rejected", *_COUNTS.values(), "failed"]
    return Table(title="Confusion and agreement with the labels", head=head, rows=rows)


def _stability(found: dict[str, Audit]) -> Table:
    rows = [
        [Cell(text=f"{name}: {change}"), Cell(text=str(row.n)), Cell(text=str(row.changed)),
         Cell(kind="share", value=row.rate, low=row.low, high=row.high), Cell(text=percent(row.rate))]
        for name, one in found.items() for change, row in one.stability.items()
    ]  # fmt: skip
    note = (
        "The same answer in another wording, in a frame of the other language, with its choices in another order, or "
        "denied. A changed verdict is an error; a denied answer that is accepted is one too."
    )
    return Table(
        title="Stability", note=note, head=["judge: change", "n", "errors", "share, 95% interval", ""], rows=rows
    )


def _corrections(
    settings: Settings, answers: dict[str, list[Prediction]], found: dict[str, Audit], cases: Sequence[Case]
) -> Table:
    rows = []
    for name, audit in found.items():
        told, corrected, bias, low, high = _corrected(answers[name], cases, audit)
        rows.append([
            Cell(text=name), Cell(text=percent(told)), Cell(kind="share", value=corrected, low=low, high=high),
            Cell(text=f"{percent(corrected)} ({percent(low)} to {percent(high)})"), Cell(text=points(bias)),
        ])  # fmt: skip
    note = (
        f"{settings.model} on {len(cases):,} test cases. Rogan and Gladen's estimate with Lang and Reiczigel's "
        "interval, which carries the uncertainty of the audit."
    )
    head = ["judge", "reported", "corrected", "corrected (95% interval)", "bias, points"]
    return Table(title="What its errors do to a reported accuracy", note=note, head=head, rows=rows)
