"""Check the thinking of an evaluation against its cases, and measure how well that check does."""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.evaluation.grounding.hallucination import check
from clinical_r1.evaluation.inputs import read_evaluated, sample_of
from clinical_r1.lexicon.findings import findings, mentions, supported
from clinical_r1.reasoning import Outcome
from clinical_r1.schema import Case, Prediction, Trace, read_jsonl, write_jsonl
from clinical_r1.stats import Interval, wilson
from clinical_r1.text import HAN, has_han

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
            for match in re.finditer(rf"([\w-]+ |[{HAN}]+){old}(?![a-z])", thinking):
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


MOST_CHAINS = 400
"""More chains than this are sampled by the seed: enough for intervals of a few points."""


def check_evaluation(folder: Path, out: Path | None = None) -> Iterator[str]:
    """Flags of every thought of an evaluation; yields lines to print, writes one JSON line a flag to `out`."""
    done = read_evaluated(folder)
    by_id, diagnoses = {case.id: case for case in done.cases}, sorted({case.reference for case in done.cases})
    thoughts = [row for row in done.predictions if row.thinking]
    outcomes = Counter(row.outcome for row in done.predictions)
    kept_back = sum(row.outcome is Outcome.OK and not row.thinking for row in done.predictions)
    if not thoughts:
        raise UserError(
            f"{folder}: no answer in it has a thought that can be read ({kept_back} are kept back by the endpoint, "
            f"{outcomes[Outcome.UNKNOWN_FORM]} in a form that is not known); there is nothing to check"
        )
    if unread := kept_back + outcomes[Outcome.UNKNOWN_FORM]:
        yield f"{unread} of {len(done.predictions)} thoughts cannot be read (kept back, or unknown_form): not checked"
    rows = []
    for row in thoughts:
        for flag in check(by_id[row.case_id], row, diagnoses):
            rows.append({"case_id": row.case_id, "sample": row.sample, **flag._asdict()})
    flagged = len({(row["case_id"], row["sample"]) for row in rows})
    low, high = wilson(flagged, len(thoughts))
    yield f"{flagged} of {len(thoughts)} thoughts state what the case does not hold (95%: {low:.1%} to {high:.1%})"
    for kind, count in Counter(str(row["kind"]) for row in rows).most_common():
        yield f"  {kind.replace('_', ' ')}: {count}"
    if out is not None:
        write_jsonl(out, rows)
        yield str(out)


def measure_detector(chains: Path, seed: int = 0, out: Path | None = None) -> Iterator[str]:
    """Precision and recall on seeded corruptions of faithful chains: traces.jsonl, or a list of problems with their
    chains (`Question`, `Complex_CoT`, `Response`: the form of HuatuoGPT-o1's data). UserError for other files."""
    cases, predictions = read_chains(chains)
    if not cases:
        raise UserError(f"{chains}: no accepted chain in it; give traces.jsonl or a list of problems with their chains")
    if len(cases) > MOST_CHAINS:
        chosen = {case.id for case in sample_of(cases, MOST_CHAINS, seed)}
        cases = [case for case in cases if case.id in chosen]
        predictions = [row for row in predictions if row.case_id in chosen]
    scores = score(cases, predictions, seed)
    yield f"{len(cases)} chains, each clean and with one thing changed (seed {seed})"
    for kind, result in scores.items():
        yield (
            f"  {kind}: recall {result.recall:.2f} ({result.recall_interval.low:.2f} to "
            f"{result.recall_interval.high:.2f}, {result.caught} of {result.corrupted}); precision "
            f"{result.precision:.2f} ({result.false_alarms} alarms on {result.clean} clean chains)"
        )
    if out is not None:
        write_text(out, json.dumps({kind: _numbers(result) for kind, result in scores.items()}, indent=1) + "\n")
        yield str(out)


def _numbers(result: Score) -> dict[str, object]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in result._asdict().items()}


def read_chains(path: Path) -> tuple[list[Case], list[Prediction]]:
    """Aligned cases and predictions of a file of chains; every case keeps its own reference."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; give traces.jsonl or a list of problems with their chains")
    if path.suffix == ".jsonl":
        return _aligned([(row.question, row.reference, row.thinking, row.response, row.language, row.specialty)
                         for row in read_jsonl(path, Trace) if row.accepted])  # fmt: skip
    try:
        rows = json.loads(path.read_bytes())
        taken = [
            (row["Question"], row.get("Ground-True Answer") or row["Response"], row["Complex_CoT"], row["Response"])
            for row in rows
        ]
        if not all(isinstance(text, str) and text.strip() for row in taken for text in row):
            raise ValueError("a field that is no text")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path}: not a list of objects with Question, Complex_CoT and Response") from None
    return _aligned([(*row, "zh" if has_han(row[0]) else "en", "unknown") for row in taken])


def _aligned(rows: list[tuple]) -> tuple[list[Case], list[Prediction]]:
    cases = [
        Case(id=f"chain-{number}", question=question, references=[reference], language=language, specialty=specialty)
        for number, (question, reference, _, _, language, specialty) in enumerate(rows)
    ]
    predictions = [
        Prediction(case_id=case.id, output="", thinking=row[2], response=row[3], outcome=Outcome.OK)
        for case, row in zip(cases, rows, strict=True)
    ]
    return cases, predictions
