"""audit-verifier: how far can the verifier be trusted, and what do its errors do to a reported accuracy?

Several judges on the same labelled answers (an audit each, `judging.audit`), and one model's accuracy as each of them
reports it, corrected for its errors.
"""

from collections.abc import Sequence
from pathlib import Path

from clinical_r1.evaluation.experiments import finding
from clinical_r1.evaluation.experiments.finding import ArmsReport, Estimate, Evidence, Finding, Row, Table
from clinical_r1.evaluation.judging.audit import Audit, corrected_accuracy
from clinical_r1.evaluation.measure.metrics import rated
from clinical_r1.page import interval, percent, points
from clinical_r1.schema import Case, Prediction
from clinical_r1.stats import Pairs

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


def report(settings: AuditReport, evidence: Evidence, out_dir: Path) -> Finding:
    """Each arm is a judge: its audit, and the model's answers as it sees them."""
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
