"""What the experts' grades say: agreement among them and with the verifier, and labelled answers for its audit."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from clinical_r1.atomic import write_text
from clinical_r1.errors import Strict, UserError
from clinical_r1.evaluation.inputs import PREDICTIONS
from clinical_r1.evaluation.judging.audit import Audit, LabelledJudgement
from clinical_r1.evaluation.judging.review import KeyRow, ReviewItem, from_csv
from clinical_r1.evaluation.measure.resampling import kappa_interval
from clinical_r1.schema import Case, Prediction, VerdictLabel, iter_jsonl, read_jsonl, write_jsonl
from clinical_r1.stats import Interval

VERIFIER = "verifier"
"""How the reward judge is called among the raters."""


class Agreement(Strict):
    """Agreement of two raters on the items that both graded (partly counts as incorrect)."""

    first: str
    second: str
    n: int
    agreed: float
    kappa: float
    kappa_interval: Interval


def import_reviews(
    files: Sequence[Path], key_file: Path, out_dir: Path, cases: Mapping[str, Case] | None = None
) -> list[Agreement]:
    """Read the experts' CSV files; write agreement.json, grades.jsonl (all that they said) and, where the cases are
    given, labelled.jsonl (answers with the majority's grade, ties left out) for `audit-verifier`.

    A file given twice counts once. Raises UserError for a row that is none of the queue, for two words of one expert on
    one item, and where nothing is graded.
    """
    reviews = _read_reviews(files)
    key = {row.item: row for row in read_jsonl(key_file, KeyRow)}
    stranger = next((row.item for row in reviews if row.item not in key), None)
    if stranger is not None:
        raise UserError(f"{key_file}: no item {stranger}; give the key of the queue that the experts graded")
    if not any(row.grade for row in reviews):
        raise UserError(f"{files[0]}: no item is graded; save the CSV after grading")
    found = agreements(reviews, key_file)
    write_jsonl(Path(out_dir) / "grades.jsonl", reviews)
    table = [row.model_dump(mode="json") for row in found]
    write_text(Path(out_dir) / "agreement.json", json.dumps(table, ensure_ascii=False, indent=1) + "\n")
    if cases:
        write_jsonl(Path(out_dir) / "labelled.jsonl", labelled(reviews, key, cases))
    return found


def _read_reviews(files: Sequence[Path]) -> list[ReviewItem]:
    """What each expert says of each item, once: in two files of one expert what is graded in one of them."""
    said: dict[tuple[str, str], ReviewItem] = {}
    distinct = {Path(file).resolve(): file for file in files}
    stems = Counter(path.stem for path in distinct)
    for path, file in distinct.items():
        # Two experts who gave no name must not become one: the page saves every review under the same name.
        unnamed = path.stem if stems[path.stem] == 1 else f"{path.parent.name}/{path.stem}"
        for row in from_csv(file):
            name = row.reviewer or unnamed
            if name == VERIFIER:
                raise UserError(f"{file}: an expert called '{VERIFIER}'; that is what the report calls the judge")
            before = said.get((name, row.item))
            if before and before.grade and row.grade and before.grade != row.grade:
                raise UserError(f"{file}: {name} graded item {row.item} twice, differently; keep one of the two rows")
            if before is None or not before.grade:
                said[name, row.item] = row.model_copy(update={"reviewer": name})
    return list(said.values())


def labelled(
    reviews: Sequence[ReviewItem], key: Mapping[str, KeyRow], cases: Mapping[str, Case]
) -> list[LabelledJudgement]:
    """Graded answers with what most experts said; ties and cases that are not given are left out."""
    grades: dict[str, list[bool]] = defaultdict(list)
    items = {}
    for review in reviews:
        if review.grade:
            grades[review.item].append(review.grade == "correct")
            items[review.item] = review
    rows = []
    for name, votes in grades.items():
        case = cases.get(key[name].case_id)
        if case is None or 2 * sum(votes) == len(votes):
            continue
        rows.append(
            LabelledJudgement(
                question=case.question, reference=case.reference, answer=items[name].response, language=case.language,
                correct=2 * sum(votes) > len(votes), icd10=case.icd10, options=case.options, patient=case.patient,
            )
        )  # fmt: skip
    return rows


def agreements(reviews: Sequence[ReviewItem], key_file: Path) -> list[Agreement]:
    """Agreement of every two reviewers, and of each with the verifier."""
    grades: dict[str, dict[str, bool]] = defaultdict(dict)
    for review in reviews:
        if review.grade:
            grades[review.reviewer or "reviewer"][review.item] = review.grade == "correct"
    key = read_jsonl(key_file, KeyRow)
    for row in key:
        if row.verifier is not None:
            grades[VERIFIER][row.item] = row.verifier
    case_of = {row.item: row.case_id for row in key}
    names = sorted(grades, key=lambda name: (name == VERIFIER, name))
    return [_agreement((first, second), grades, case_of) for first, second in combinations(names, 2)]


def _agreement(names: tuple[str, str], grades: Mapping[str, dict[str, bool]], case_of: Mapping[str, str]) -> Agreement:
    """Answers to one case are drawn together for the interval."""
    left, right = (grades[name] for name in names)
    items = sorted(left.keys() & right.keys())
    pairs = [(left[item], right[item]) for item in items]
    kappa, interval = kappa_interval(pairs, [case_of[item] for item in items])
    agreed = sum(a == b for a, b in pairs) / len(pairs) if pairs else 0.0
    return Agreement(first=names[0], second=names[1], n=len(pairs), agreed=agreed, kappa=kappa, kappa_interval=interval)


class Confusion(NamedTuple):
    """Counts; rows are the truth (or the first judge), columns what is held against it."""

    categories: list[str]
    rows: list[list[int]]


def of_audit(audit: Audit) -> Confusion:
    """Labelled answers against what the judge says of them."""
    counts = audit.confusion
    kinds = [("true_accept", "false_reject"), ("false_accept", "true_reject")]
    return Confusion(["right", "wrong"], [[counts[kind] for kind in row] for row in kinds])


def of_judges(evaluated: Path) -> Confusion | None:
    """The independent judge (rows) against the reward judge on the same answers; None where there is one judge only."""
    pairs: Counter[tuple[str, str]] = Counter()
    for row in iter_jsonl(Path(evaluated) / PREDICTIONS, Prediction):
        if row.verdict and row.independent:
            pairs[row.independent.label.value, row.verdict.label.value] += 1
    labels = [label.value for label in VerdictLabel if any(label.value in pair for pair in pairs)]
    return Confusion(labels, [[pairs[row, column] for column in labels] for row in labels]) if pairs else None


def show(matrix: Confusion | None, artifact: Any) -> None:
    """Put the counts into a KFP `ClassificationMetrics` artifact, as metadata for the dashboard and as its file.

    Without the file kfp.local takes the artifact for lost, and a finished step is never reused.
    """
    if matrix:
        artifact.log_confusion_matrix(matrix.categories, matrix.rows)
    write_text(artifact.path, json.dumps(matrix._asdict() if matrix else {}) + "\n")
