"""Expert review: a blinded, stratified queue as one HTML page (offline, keyboard, English and Chinese) and as CSV.

A reviewer sees item numbers, never models, verdicts or case ids; the key file, which stays with the organiser, maps
them back. The CSV survives a spreadsheet: quoting, line breaks, and cells that a spreadsheet would run as formulas.
"""

import csv
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from pydantic import ValidationError

from clinical_r1.atomic import write_text
from clinical_r1.errors import Strict, UserError
from clinical_r1.evaluation.inputs import read_evaluated
from clinical_r1.evaluation.measure.metrics import is_right
from clinical_r1.page import render
from clinical_r1.schema import Case, Prediction, first_problem, write_jsonl

Grade = Literal["correct", "partly", "incorrect", ""]
GRADES = ("correct", "partly", "incorrect")
COLUMNS = (
    "item",
    "language",
    "question",
    "reference",
    "thinking",
    "response",
    "grade",
    "reasoning",
    "comment",
    "reviewer",
)


class ReviewItem(Strict):
    """One answer as a reviewer sees it, with what the reviewer says."""

    item: str
    language: str
    question: str
    reference: str
    thinking: str
    response: str
    grade: Grade = ""
    """Is the diagnosis right?"""
    reasoning: Literal["sound", "flawed", "invented", ""] = ""
    """Is the thought sound; `invented`: it states what the case does not."""
    comment: str = ""
    reviewer: str = ""


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
    by_id = {case.id: case for case in cases}
    strata: dict[tuple[str, ...], list[tuple[str, Prediction]]] = defaultdict(list)
    for model, rows in predictions.items():
        for row in rows:
            case = by_id[row.case_id]
            strata[model, case.specialty, case.language, str(is_right(row))].append((model, row))
    for members in strata.values():
        members.sort(key=lambda pair: _rank(seed, pair[0], pair[1]))
    queues = [strata[key] for key in sorted(strata)]
    chosen: list[tuple[str, Prediction]] = []
    while len(chosen) < size and any(queues):
        for queue in queues:
            if queue and len(chosen) < size:
                chosen.append(queue.pop(0))
    chosen.sort(key=lambda pair: _rank(seed + 1, pair[0], pair[1]))
    items, keys = [], []
    for number, (model, row) in enumerate(chosen, 1):
        case, name = by_id[row.case_id], f"r{number:04d}"
        items.append(
            ReviewItem(
                item=name, language=case.language, question=case.problem, reference=case.reference,
                thinking=row.thinking, response=row.response,
            )
        )  # fmt: skip
        keys.append(KeyRow(item=name, model=model, case_id=row.case_id, sample=row.sample, verifier=is_right(row)))
    return items, keys


def _rank(seed: int, model: str, row: Prediction) -> str:
    return hashlib.sha256(f"{seed}:{model}:{row.case_id}:{row.sample}".encode()).hexdigest()


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
    """CSV with a byte-order mark, so that spreadsheets read Chinese."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for item in items:
        writer.writerow([_guard(getattr(item, column)) for column in COLUMNS])
    return "\ufeff" + buffer.getvalue()


def _guard(cell: str) -> str:
    """A leading apostrophe keeps a spreadsheet from running a cell as a formula; `from_csv` takes it off again."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r", "'") else cell


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
            raise UserError(
                f"{path}: row {number}: {first_problem(error)}; allowed grades: {', '.join(GRADES)}"
            ) from None
    return items


assert set(GRADES) | {""} == set(get_args(Grade))
