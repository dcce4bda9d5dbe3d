"""Several samples of one case: pass@k, majority vote, and calibration by how much the samples agree."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from clinical_r1.schema import Prediction
from clinical_r1.text import one_width


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased chance that at least one of k samples is right, given `correct` of n were (Chen et al. 2021, eq. 1)."""
    if not 0 < k <= n:
        raise ValueError(f"k must be in 1..{n}, not {k}")
    if n - correct < k:
        return 1.0
    return 1.0 - math.prod(1 - k / i for i in range(n - correct + 1, n + 1))


_LEAD = re.compile(
    r"^(the )?(most likely |final |probable )*(diagnosis|answer)( is| would be|:)?\s*"
    r"|^(最可能的?|最终)?(诊断|答案)(为|是|：|:)?\s*"
)


def answer_key(response: str) -> str:
    """A response reduced to what two samples must share to count as the same answer.

    Unicode-folded, case-folded, first non-empty line, without a lead such as "The diagnosis is" and without punctuation
    at its ends.
    """
    lines = [line for line in one_width(response).casefold().splitlines() if line.strip()]
    if not lines:
        return ""
    return re.sub(r"\s+", " ", _LEAD.sub("", lines[0].strip(" *#"))).strip(" .,;:!。，；：！*\"'“”")


class Vote(NamedTuple):
    """What the samples of one case say together."""

    case_id: str
    n: int
    correct: int
    scored: int
    majority: bool | None
    """Whether the majority answer is right; None where its judgement failed or nothing was answered."""
    agreement: float
    """Share of samples that gave the majority answer."""


def votes(predictions: Iterable[Prediction], independent: bool = False) -> list[Vote]:
    """Majority vote of each case. Ties go to the answer that was sampled first. Empty answers count as dissent."""
    groups: dict[str, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        groups[prediction.case_id].append(prediction)
    return [_vote(case_id, group, independent) for case_id, group in groups.items()]


def _vote(case_id: str, group: list[Prediction], independent: bool) -> Vote:
    group = sorted(group, key=lambda prediction: prediction.sample)
    labels = [_label(prediction, independent) for prediction in group]
    keys = [answer_key(prediction.response) for prediction in group]
    ranking = Counter(key for key in keys if key).most_common(1)
    majority: bool | None = False
    agreement = 0.0
    if ranking:
        winner, size = ranking[0]
        agreement = size / len(group)
        heard = [label for key, label in zip(keys, labels, strict=True) if key == winner and label is not None]
        majority = heard[0] if heard else None
    return Vote(case_id, len(group), sum(label is True for label in labels), _count_known(labels), majority, agreement)


def _label(prediction: Prediction, independent: bool) -> bool | None:
    verdict = prediction.independent if independent else prediction.verdict
    return verdict.label.right if verdict is not None else None


def _count_known(labels: Sequence[bool | None]) -> int:
    return sum(label is not None for label in labels)


class Bin(NamedTuple):
    """Cases whose agreement falls into one stretch."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


class Calibration(NamedTuple):
    """How far agreement of samples can be read as a probability of being right."""

    bins: list[Bin]
    ece: float
    """Expected calibration error (Naeini 2015): mean gap of confidence and accuracy, weighted by cases."""
    brier: float
    n: int


def calibrate(confidences: Sequence[float], right: Sequence[bool], bins: int = 10) -> Calibration:
    """Equal-width reliability bins in [0, 1], expected calibration error and Brier score."""
    members: list[list[int]] = [[] for _ in range(bins)]
    for index, confidence in enumerate(confidences):
        members[min(bins - 1, int(confidence * bins))].append(index)
    n, table, ece = len(confidences), [], 0.0
    for number, group in enumerate(members):
        if not group:
            continue
        mean = sum(confidences[i] for i in group) / len(group)
        accuracy = sum(right[i] for i in group) / len(group)
        table.append(Bin(number / bins, (number + 1) / bins, len(group), mean, accuracy))
        ece += len(group) / n * abs(mean - accuracy)
    brier = sum((confidence - hit) ** 2 for confidence, hit in zip(confidences, right, strict=True)) / n if n else 0.0
    return Calibration(table, ece, brier, n)
