"""Seeded corruptions of faithful thoughts, to measure a detector of hallucinated reasoning: each changes one thing."""

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

from clinical_r1.evaluation.hallucination import check
from clinical_r1.lexicon.findings import findings, mentions, supported
from clinical_r1.schema import Case, Prediction
from clinical_r1.stats import Interval, wilson

KINDS = ("finding", "number", "result", "conclusion")
_FLIPS = (("raised", "normal"), ("elevated", "normal"), ("positive", "negative"), ("升高", "正常"), ("阳性", "阴性"))


class Score(NamedTuple):
    """How well the detector did on one kind of corruption, or on all."""

    corrupted: int
    caught: int
    clean: int
    false_alarms: int
    recall: float
    recall_interval: Interval
    precision: float
    precision_interval: Interval


def corrupt(
    case: Case, prediction: Prediction, kind: str, rng: random.Random, diagnoses: Sequence[str]
) -> Prediction | None:
    """The prediction with one thing changed, or None where it offers nothing to change."""
    thinking = prediction.thinking
    if kind == "finding":
        changed = _swap_finding(case, thinking, rng)
    elif kind == "number":
        changed = _swap_number(case.question, thinking, rng)
    elif kind == "result":
        changed = _flip_result(case.question, thinking, rng)
    else:
        others = [name for name in diagnoses if name.casefold() not in prediction.response.casefold()]
        if not others or case.reference.casefold() not in thinking.casefold()[-160:]:
            return None
        return prediction.model_copy(update={"response": rng.choice(others)})
    return None if changed is None else prediction.model_copy(update={"thinking": changed})


def _swap_finding(case: Case, thinking: str, rng: random.Random) -> str | None:
    """A finding of the patient becomes one that the case does not have."""
    present, denied = supported(case.question)
    own = [mention for mention in mentions(thinking) if mention.stance == "asserted" and mention.key in present]
    related = {key for key in findings() if set(findings()[key].broader) & present}
    absent = sorted(set(findings()) - present - denied - related)
    if not own or not absent:
        return None
    mention, key = rng.choice(own), rng.choice(absent)
    name = findings()[key].english[0] if case.language == "en" else findings()[key].chinese[0]
    return thinking[: mention.start] + name + thinking[mention.start + len(mention.text) :]


def _swap_number(question: str, thinking: str, rng: random.Random) -> str | None:
    known = re.findall(r"\d+(?:\.\d+)?", question)
    own = [
        m for m in re.finditer(r"(?<![\w.\-])\d+(?:\.\d+)?(?![\w.])", thinking) if m[0] in known and float(m[0]) >= 10
    ]
    if not own:
        return None
    match = rng.choice(own)
    value = float(match[0])
    changed = value
    while f"{changed:g}" in known or changed == value:
        changed = round(value * rng.choice((0.6, 0.75, 1.3, 1.6, 1.9)), 1 if "." in match[0] else None)
    return f"{thinking[: match.start()]}{changed:g}{thinking[match.end() :]}"


def _flip_result(question: str, thinking: str, rng: random.Random) -> str | None:
    places = []
    for pair in _FLIPS:
        for old, new in (pair, pair[::-1]):
            for match in re.finditer(rf"([\w-]+ |[\u4e00-\u9fff]+){old}(?![a-z])", thinking):
                if match[0] in question:
                    places.append((match.end() - len(old), old, new))
    if not places:
        return None
    at, old, new = rng.choice(places)
    return thinking[:at] + new + thinking[at + len(old) :]


def score(cases: Sequence[Case], predictions: Sequence[Prediction], seed: int = 0) -> dict[str, Score]:
    """Detector against corruptions of faithful predictions: by kind and `all`.

    Every prediction appears once clean and once for each kind that it offers a place for; precision is that of a set
    with as many clean as corrupted thoughts.
    """
    rng = random.Random(seed)
    diagnoses = sorted({case.reference for case in cases})
    clean = [bool(check(case, prediction, diagnoses)) for case, prediction in zip(cases, predictions, strict=True)]
    scores: dict[str, Score] = {}
    total = caught = 0
    for kind in KINDS:
        changed = [(case, corrupt(case, p, kind, rng, diagnoses)) for case, p in zip(cases, predictions, strict=True)]
        hits = [bool(check(case, p, diagnoses)) for case, p in changed if p is not None]
        scores[kind] = _score(len(hits), sum(hits), len(clean), sum(clean))
        total, caught = total + len(hits), caught + sum(hits)
    scores["all"] = _score(total, caught, len(clean), sum(clean))
    return scores


def _score(corrupted: int, caught: int, clean: int, alarms: int) -> Score:
    recall = caught / corrupted if corrupted else 0.0
    rate = alarms / clean if clean else 0.0
    flagged = recall + rate
    effective = round(flagged * min(corrupted, clean))
    precision = recall / flagged if flagged else 0.0
    return Score(
        corrupted, caught, clean, alarms, recall, wilson(caught, corrupted),
        precision, wilson(round(precision * effective), effective),
    )  # fmt: skip
