"""Audit of a verifier against labelled judgements: how often it errs, whether wording moves it, and what its errors do
to a reported accuracy.

Labelled rows are JSONL: the fields of a judgement and `correct`, a person's grade. Sources: Rogan and Gladen 1978 and
Lang and Reiczigel 2014 (accuracy corrected for an imperfect judge), Cohen 1960 (kappa).
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.evaluation.inputs import PREDICTIONS
from clinical_r1.evaluation.judging.judge import ask_all, judge_client
from clinical_r1.evaluation.measure.resampling import kappa_interval, share_interval
from clinical_r1.llm.client import run_calls
from clinical_r1.page import render
from clinical_r1.progress import progress
from clinical_r1.schema import Language, Prediction, VerdictLabel, iter_jsonl, read_jsonl
from clinical_r1.stats import Interval, effective_n, quantile
from clinical_r1.strict import Strict
from clinical_r1.verifier.config import JudgeConfig
from clinical_r1.verifier.judgement import Judgement, Verifier
from clinical_r1.verifier.verifier import build_verifier


class LabelledJudgement(Strict):
    """One answer with a person's grade."""

    question: str
    reference: str
    answer: str
    language: Language
    correct: bool
    icd10: str = ""
    options: list[str] = Field(default_factory=list)
    patient: str = ""
    """Hashed patient, where known: answers of one patient (or to one question) are drawn together for the intervals."""

    @property
    def unit(self) -> str:
        return self.patient or self.question

    def asked(self) -> Judgement:
        """What a verifier is asked."""
        return Judgement(**self.model_dump(exclude={"correct", "patient"}), subject=self.patient)


class Stability(Strict):
    """What one change of wording did to the verdicts on the answers that were judged before and after."""

    n: int
    changed: int
    """Verdicts that changed although the meaning did not (or, for negation, did not change although it did)."""
    rate: float
    low: float
    high: float


class Audit(Strict):
    """The whole audit; audit.json."""

    verifier: str
    n: int
    invalid: int
    """Judgements that failed; left out of all rates."""
    confusion: dict[str, int]
    """true_accept, false_accept, false_reject, true_reject."""
    sensitivity: float
    """Share of right answers that it accepts (TPR), with its 95% interval: Wilson's, or the bootstrap's by patient
    (or question) where several answers are of one."""
    sensitivity_interval: tuple[float, float]
    specificity: float
    """Share of wrong answers that it rejects (TNR)."""
    specificity_interval: tuple[float, float]
    kappa: float
    kappa_interval: tuple[float, float]
    stability: dict[str, Stability]


FRAMES = {
    "paraphrase": {
        "en": "After weighing all findings, my final diagnosis is {answer}.",
        "zh": "综合全部所见，最终诊断为{answer}。",
    },
    "order": {
        "en": "The final diagnosis is {answer}. This follows from the history and the findings taken together.",
        "zh": "最终诊断为{answer}。以上结论综合病史与各项所见得出。",
    },
    "language": {"en": "最可能的诊断是 {answer}。", "zh": "The most likely diagnosis is {answer}."},
    "negation": {"en": "The diagnosis is not {answer}.", "zh": "诊断不是{answer}。"},
}
"""Frames that leave the meaning (conclusion last, conclusion first, a frame of the other language) or reverse it (a
right answer denied). With choices, `order` lists them the other way round."""

Labels = list[bool | None]


def audit_judge(
    config: JudgeConfig,
    labelled: Path,
    out_dir: Path,
    state_dir: Path,
    reported: dict[str, tuple[float, float]] | None = None,
    concurrency: int = 64,
) -> Audit:
    """Audit a configured judge on a labelled file and write audit.json and audit.html (`write_audit`).

    Calls to an endpoint are journaled in `state_dir`: the same audit again, or after a kill, pays for none twice.
    Raises UserError where the file has no rows, the endpoint may not have them, or does not answer.
    """
    rows = read_jsonl(labelled, LabelledJudgement)
    if not rows:
        raise UserError(f"{labelled}: no labelled answers in it; give JSONL with question, reference, answer, correct")
    config.check_privacy(Path(labelled))

    async def work() -> Audit:
        async with judge_client(config, Path(state_dir)) as client:
            return await audit_verifier(build_verifier(config.verifier, client), rows, concurrency)

    audit = run_calls(work())
    write_audit(audit, out_dir, reported)
    return audit


async def audit_verifier(verifier: Verifier, rows: Sequence[LabelledJudgement], concurrency: int = 64) -> Audit:
    """Judge all rows plainly and in each changed wording."""
    plain = await judge_items(verifier, [row.asked() for row in rows], concurrency, "labelled answers")
    stability = {}
    for name in FRAMES:
        changes = [
            (row, label, changed)
            for row, label in zip(rows, plain, strict=True)
            if label is not None and (changed := _reworded(name, row))
        ]
        items = [changed.asked() for _, _, changed in changes]
        after = await judge_items(verifier, items, concurrency, f"the same, {name}")
        # A negated answer is wrong, whatever it was before: an acceptance is the error.
        hits = [
            (row, now if name == "negation" else before != now)
            for (row, before, _), now in zip(changes, after, strict=True)
            if now is not None
        ]
        rate, (low, high) = _share(hits)
        stability[name] = Stability(n=len(hits), changed=sum(hit for _, hit in hits), rate=rate, low=low, high=high)
    return tally(verifier.name, rows, plain, stability)


def tally(verifier: str, rows: Sequence[LabelledJudgement], labels: Labels, stability: dict[str, Stability]) -> Audit:
    """The audit of a verifier that labelled the rows so."""
    known = [(row, label) for row, label in zip(rows, labels, strict=True) if label is not None]
    table = Counter((row.correct, label) for row, label in known)
    kappa, interval = kappa_interval([(row.correct, label) for row, label in known], [row.unit for row, _ in known])
    sensitivity, of_right = _share([(row, label) for row, label in known if row.correct])
    specificity, of_wrong = _share([(row, not label) for row, label in known if not row.correct])
    return Audit(
        verifier=verifier,
        n=len(rows),
        invalid=len(rows) - len(known),
        confusion={
            "true_accept": table[True, True],
            "false_accept": table[False, True],
            "false_reject": table[True, False],
            "true_reject": table[False, False],
        },
        sensitivity=sensitivity,
        sensitivity_interval=of_right,
        specificity=specificity,
        specificity_interval=of_wrong,
        kappa=kappa,
        kappa_interval=interval,
        stability=stability,
    )


def _share(hits: Sequence[tuple[LabelledJudgement, bool]]) -> tuple[float, Interval]:
    told = [hit for _, hit in hits]
    interval = share_interval(told, [row.language for row, _ in hits], [row.unit for row, _ in hits])
    return sum(told) / len(told) if told else 0.0, interval


def _reworded(name: str, row: LabelledJudgement) -> LabelledJudgement | None:
    """The answer in a frame, or None where it does not fit into it."""
    if name == "order" and len(row.options) > 1:
        letter = len(row.answer.strip(" .。()（）")) <= 1  # a bare letter means another choice in another order
        return None if letter else row.model_copy(update={"options": row.options[::-1]})
    if len(row.answer) >= 80 or (name == "negation" and not row.correct):
        return None
    return row.model_copy(update={"answer": FRAMES[name][row.language].format(answer=row.answer.strip().rstrip(".。"))})


async def judge_items(verifier: Verifier, items: Sequence[Judgement], concurrency: int, label: str) -> Labels:
    """Accepted, rejected, or None where the judgement failed; in order."""
    with progress(label, len(items)) as advance:
        verdicts = await ask_all(items, verifier.judge, concurrency, advance)
    return [verdict.label.right for verdict in verdicts]


def corrected_accuracy(correct: float, n: float, audit: Audit) -> tuple[float, Interval, float]:
    """(accuracy corrected for the judge's errors, its 95% interval, the judge's bias in points of accuracy).

    Lang and Reiczigel's interval, which carries the uncertainty of sensitivity and specificity. (0, 1) where the judge
    is no better than chance. Where patients repeat, `correct` and `n` are effective numbers (`metrics.Accuracy`), and
    the labelled answers count as many as their intervals say.
    """
    z = quantile(0.95)
    counts, (tpr, tnr) = audit.confusion, (audit.sensitivity, audit.specificity)
    positives = effective_n(tpr, counts["true_accept"] + counts["false_reject"], Interval(*audit.sensitivity_interval))
    negatives = effective_n(tnr, counts["true_reject"] + counts["false_accept"], Interval(*audit.specificity_interval))
    n_, p = n + z * z, (correct + z * z / 2) / (n + z * z)
    sensitivity = (tpr * positives + 1) / (positives + 2)
    specificity = (tnr * negatives + 1) / (negatives + 2)
    youden, raw_youden = sensitivity + specificity - 1, tpr + tnr - 1
    if youden <= 0 or raw_youden <= 0:
        return correct / n, Interval(0.0, 1.0), 0.0
    estimate = min(1.0, max(0.0, (correct / n + tnr - 1) / raw_youden))
    centre = (p + specificity - 1) / youden
    of_right = sensitivity * (1 - sensitivity) / (positives + 2)
    of_wrong = specificity * (1 - specificity) / (negatives + 2)
    shift = 2 * z * z * (centre * of_right - (1 - centre) * of_wrong)
    variance = p * (1 - p) / n_ + centre**2 * of_right + (1 - centre) ** 2 * of_wrong
    half = z / youden * math.sqrt(max(variance, 0.0))
    low, high = centre + shift - half, centre + shift + half
    interval = Interval(max(0.0, min(low, estimate)), min(1.0, max(high, estimate)))
    return estimate, interval, correct / n - estimate


def write_audit(audit: Audit, out_dir: Path, reported: dict[str, tuple[float, float]] | None = None) -> None:
    """audit.json and audit.html; `reported` maps a model's name to (right, scored) under this verifier."""
    corrected = {name: (k / n, *corrected_accuracy(k, n, audit)) for name, (k, n) in (reported or {}).items()}
    page = render("audit.html.j2", title=f"Audit of the verifier {audit.verifier}", audit=audit, corrected=corrected)
    write_text(Path(out_dir) / "audit.html", page)
    write_text(Path(out_dir) / "audit.json", audit.model_dump_json(indent=1) + "\n")


Confusion = tuple[list[str], list[list[int]]]
"""Categories, and counts: rows are the truth (or the first judge), columns what is held against it."""


def of_audit(audit: Audit) -> Confusion:
    """Labelled answers against what the judge says of them."""
    kinds = [("true_accept", "false_reject"), ("false_accept", "true_reject")]
    return ["right", "wrong"], [[audit.confusion[kind] for kind in row] for row in kinds]


def of_judges(evaluated: Path) -> Confusion | None:
    """The independent judge (rows) against the reward judge on the same answers; None where there is one judge only."""
    pairs: Counter[tuple[str, str]] = Counter()
    for row in iter_jsonl(Path(evaluated) / PREDICTIONS, Prediction):
        if row.verdict and row.independent:
            pairs[row.independent.label.value, row.verdict.label.value] += 1
    labels = [label.value for label in VerdictLabel if any(label.value in pair for pair in pairs)]
    return (labels, [[pairs[row, column] for column in labels] for row in labels]) if pairs else None


def show(matrix: Confusion | None, artifact: Any) -> None:
    """Put the counts into a KFP `ClassificationMetrics` artifact, as metadata for the dashboard and as its file.

    Without the file kfp.local takes the artifact for lost, and a finished step is never reused.
    """
    if matrix:
        artifact.log_confusion_matrix(*matrix)
    told = dict(zip(("categories", "rows"), matrix, strict=True)) if matrix else {}
    write_text(artifact.path, json.dumps(told) + "\n")
