"""Expert review: a blinded, stratified queue as one HTML page (offline, keyboard, English and Chinese) and as CSV, and
what the experts' grades say: agreement among them and with the verifier, and labelled answers for its audit.

A reviewer sees item numbers, never models, verdicts or case ids; the key file, which stays with the organiser, maps
them back. The CSV survives a spreadsheet: quoting, line breaks, and cells that a spreadsheet would run as formulas.
"""

import csv
import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.evaluation.inputs import read_evaluated
from clinical_r1.evaluation.judging.audit import LabelledJudgement
from clinical_r1.evaluation.measure.metrics import is_right
from clinical_r1.evaluation.measure.resampling import kappa_interval
from clinical_r1.page import render
from clinical_r1.schema import Case, Prediction, first_problem, read_jsonl, write_jsonl
from clinical_r1.stats import Interval
from clinical_r1.strict import Strict

VERIFIER = "verifier"
"""How the reward judge is called among the raters."""


class ReviewItem(Strict):
    """One answer as a reviewer sees it, with what the reviewer says."""

    item: str
    language: str
    question: str
    reference: str
    thinking: str
    response: str
    grade: Literal["correct", "partly", "incorrect", ""] = ""
    """Is the diagnosis right?"""
    reasoning: Literal["sound", "flawed", "invented", ""] = ""
    """Is the thought sound; `invented`: it states what the case does not."""
    comment: str = ""
    reviewer: str = ""


COLUMNS = tuple(ReviewItem.model_fields)


class KeyRow(Strict):
    """What an item number stands for; stays with the organiser."""

    item: str
    model: str
    case_id: str
    sample: int
    verifier: bool | None
    """The reward judge's verdict; None where it failed."""


def read_answers(folders: Sequence[Path]) -> tuple[list[Case], dict[str, list[Prediction]]]:
    """Cases and answers of finished evaluations, by "model, benchmark". UserError where two of them go by one name, or
    where one case id stands for two cases."""
    cases: dict[str, Case] = {}
    predictions: dict[str, list[Prediction]] = {}
    for folder in folders:
        one = read_evaluated(folder)
        name = f"{one.name}, {one.config.benchmark}"
        if name in predictions:
            raise UserError(f"{folder}: a second evaluation of {name}; give one, or evaluate with another --name")
        predictions[name] = one.predictions
        other = next((case.id for case in one.cases if cases.get(case.id, case) != case), None)
        if other is not None:
            raise UserError(f"{folder}: case {other} is another one in a folder before; make a queue of each")
        cases |= {case.id: case for case in one.cases}
    return list(cases.values()), predictions


def build_queue(
    cases: Sequence[Case], predictions: Mapping[str, Sequence[Prediction]], size: int, seed: int = 0
) -> tuple[list[ReviewItem], list[KeyRow]]:
    """`size` answers, spread evenly over model x specialty x language x verdict, in a random but reproducible order."""

    def rank(seed: int, model: str, row: Prediction) -> str:
        return hashlib.sha256(f"{seed}:{model}:{row.case_id}:{row.sample}".encode()).hexdigest()

    by_id = {case.id: case for case in cases}
    strata: dict[tuple[str, ...], list[tuple[str, Prediction]]] = defaultdict(list)
    for model, row in sorted(((model, row) for model, rows in predictions.items() for row in rows),
                             key=lambda pair: rank(seed, *pair)):  # fmt: skip
        case = by_id[row.case_id]
        strata[model, case.specialty, case.language, str(is_right(row))].append((model, row))
    # In turn: every stratum's first, every stratum's second, ...
    turns = [(place, key) for key, members in strata.items() for place in range(len(members))]
    chosen = [strata[key][place] for place, key in sorted(turns)[:size]]
    items, keys = [], []
    for number, (model, row) in enumerate(sorted(chosen, key=lambda pair: rank(seed + 1, *pair)), 1):
        case, name = by_id[row.case_id], f"r{number:04d}"
        items.append(
            ReviewItem(
                item=name, language=case.language, question=case.problem, reference=case.reference,
                thinking=row.thinking, response=row.response,
            )
        )  # fmt: skip
        keys.append(KeyRow(item=name, model=model, case_id=row.case_id, sample=row.sample, verifier=is_right(row)))
    return items, keys


def write_queue(items: Sequence[ReviewItem], keys: Sequence[KeyRow], out_dir: Path) -> None:
    """review.html and review.csv for the reviewers, key.jsonl for the organiser alone."""
    out_dir = Path(out_dir)
    # "<" is escaped so that no record text can end the script element.
    data = json.dumps([item.model_dump() for item in items], ensure_ascii=False).replace("<", "\\u003c")
    # Names what the browser keeps: two queues opened from one folder must not share their grades.
    queue = hashlib.sha256(data.encode()).hexdigest()[:16]
    page = render("review.html.j2", title="Expert review", data=data, columns=list(COLUMNS), queue=queue)
    write_text(out_dir / "review.html", page, private=True)
    write_text(out_dir / "review.csv", to_csv(items), private=True)
    write_jsonl(out_dir / "key.jsonl", keys)


def to_csv(items: Sequence[ReviewItem]) -> str:
    """CSV with a byte-order mark, so that spreadsheets read Chinese. A leading apostrophe keeps a spreadsheet from
    running a cell as a formula; `from_csv` takes it off again."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for item in items:
        cells = item.model_dump().values()
        writer.writerow([f"'{cell}" if cell[:1] in {*"=+-@\t\r'"} else cell for cell in cells])
    return "\ufeff" + buffer.getvalue()


def from_csv(path: Path) -> list[ReviewItem]:
    """Reviewed items of a CSV (ours, the page's export, or a spreadsheet's). UserError names file, row and column."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the CSV that the expert saved") from None
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path}: cannot be read as UTF-8 CSV; export it again as CSV UTF-8") from None
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # else a thought beyond 131,072 characters is refused
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = set(COLUMNS) - set(reader.fieldnames or ())
    if missing:
        raise UserError(f"{path}: column {sorted(missing)[0]} is missing; keep the columns of the queue")
    items = []
    for number, row in enumerate(reader, 2):
        try:
            cells = {column: (row[column] or "").removeprefix("'") for column in COLUMNS}
            items.append(ReviewItem.model_validate(cells))
        except ValidationError as error:
            said = f"{first_problem(error)}; allowed grades: correct, partly, incorrect"
            raise UserError(f"{path}: row {number}: {said}") from None
    return items


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
    found = agreements(reviews, key)
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
    grades: dict[str, list[ReviewItem]] = defaultdict(list)
    for review in reviews:
        if review.grade:
            grades[review.item].append(review)
    rows = []
    for name, votes in grades.items():
        case, balance = cases.get(key[name].case_id), sum(1 if one.grade == "correct" else -1 for one in votes)
        if case is not None and balance:
            rows.append(
                LabelledJudgement(
                    question=case.question, reference=case.reference, answer=votes[-1].response, language=case.language,
                    correct=balance > 0, icd10=case.icd10, options=case.options, patient=case.patient,
                )
            )  # fmt: skip
    return rows


def agreements(reviews: Sequence[ReviewItem], key: Mapping[str, KeyRow]) -> list[Agreement]:
    """Agreement of every two reviewers, and of each with the verifier."""
    grades: dict[str, dict[str, bool]] = defaultdict(dict)
    for review in reviews:
        if review.grade:
            grades[review.reviewer][review.item] = review.grade == "correct"
    if judged := {item: row.verifier for item, row in key.items() if row.verifier is not None}:
        grades[VERIFIER] = judged
    found = []
    for first, second in combinations(sorted(grades, key=lambda name: (name == VERIFIER, name)), 2):
        items = sorted(grades[first].keys() & grades[second].keys())
        pairs = [(grades[first][item], grades[second][item]) for item in items]
        # Answers to one case are drawn together for the interval.
        kappa, interval = kappa_interval(pairs, [key[item].case_id for item in items])
        agreed = sum(a == b for a, b in pairs) / len(pairs) if pairs else 0.0
        found.append(
            Agreement(first=first, second=second, n=len(pairs), agreed=agreed, kappa=kappa, kappa_interval=interval)
        )
    return found
