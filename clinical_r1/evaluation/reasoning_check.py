"""Check the thinking of an evaluation against its cases, and measure how well that check does."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.evaluation.corruptions import Score, score
from clinical_r1.evaluation.hallucination import check
from clinical_r1.evaluation.inputs import read_evaluated
from clinical_r1.evaluation.sampling import sample_of
from clinical_r1.reasoning import Outcome
from clinical_r1.schema import Case, Prediction, Trace, read_jsonl, write_jsonl
from clinical_r1.stats import wilson

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
    return _aligned(
        [(*row, "zh" if any("\u4e00" <= c <= "\u9fff" for c in row[0]) else "en", "unknown") for row in taken]
    )


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
