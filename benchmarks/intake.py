"""Inputs of the kinds that hospitals have, each against its right value: `make bench NAME=intake`.

    python -m benchmarks.intake [--cases ../shared/cases]

Reads every file of records/, fhir/ and phi/ in the folder of handed cases (skipped, and said, where it is absent) as
the records step would, gate on, and compares what comes out with intake.yaml; lines of phi/ have their right value in
them. `wrong` counts what differs and `wrong_list` names it: file, and what is wrong. A file that the table does not
know has to be read without an exception other than a UserError. The last line is one JSON object.
"""

import argparse
import csv
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clinical_r1.atomic import read_table
from clinical_r1.errors import UserError
from clinical_r1.privacy.config import PhiConfig
from clinical_r1.privacy.gate import Record, open_gate
from clinical_r1.privacy.known import Known
from clinical_r1.records.config import RecordsConfig, Source
from clinical_r1.records.row import Reject
from clinical_r1.records.run import taken_cases
from clinical_r1.schema import Case
from clinical_r1.text import has_han, without_accents

SHARED = Path(__file__).parents[1] / "../shared/cases"
RIGHT = read_table(Path(__file__).with_suffix(".yaml"))
MAP = {"question": "note", "reference": "dx", "age": "age", "sex": "sex", "patient": "pid", "icd10": "code"}
MAP |= {"name": "name", "phone": "phone", "identifier": "mrn", "id": "id"}
WARD = {"question": "note", "reference": "dx", "patient": "mrn", "name": "patient_name", "phone": "phone"}
WARD |= {"address": "address", "birth_date": "dob", "site": "hosp", "department": "dept"}
KEY = b"a key of the bench, no secret"


def read(paths: list[Path], columns: dict[str, str]) -> tuple[list[Case], list[Reject], int, str]:
    """What the records step makes of a source: cases, rejects, how many are held back, the sentence of a refusal."""
    sources = [Source(path=str(path), map=columns) for path in paths]
    config = RecordsConfig(sources=sources, group_by=[], leakage="keep")
    config.dedup.exact, config.dedup.near = False, "off"
    try:
        with taken_cases(config, None, strict=False) as taken:
            cases = [taken.case(facts) for facts in taken.kept]
            return cases, taken.intake.rejects, len(taken.quarantined), ""
    except UserError as error:
        return [], [], 0, str(error)


def columns_of(path: Path) -> dict[str, str]:
    """Those columns of the usual map that a table of records/ has, where question and reference are among them."""
    raw = path.read_bytes()
    text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", errors="replace")
    head = next(line for line in text.splitlines() if not line.startswith("sep="))
    names = set(re.split(r"[,;\t]", head.lstrip("\ufeff"))) if path.suffix == ".csv" else set(json.loads(head))
    found = {field: column for field, column in MAP.items() if column in names}
    return found if {"question", "reference"} <= set(found) else {}


def differs(path: Path, right: dict[str, Any]) -> Iterator[str]:
    """What comes out of a file against its entry in intake.yaml."""
    paths = [path, path.with_name(right["with"])] if "with" in right else [path]
    cases, rejects, held, refused = read(paths, columns_of(path) if path.parent.name == "records" else {})
    got, wanted = (len(cases), len(rejects), held), (right.get("rows"), right.get("rejects", 0), 0)
    if "rows" in right and got != wanted:
        yield f"(cases, rejects, quarantined) are {got}; {refused}"
    if right.get("refuses", "") not in refused:
        yield f"no refusal that names {right['refuses']}"
    if not all(reject.reason.startswith(right.get("reason", "")) for reject in rejects):
        yield f"a reject that is not {right['reason']}"
    if "references" in right:
        found = [case.reference for case in cases]
        none = not found and bool(rejects or refused)
        if not (len(found) == 1 and found[0] in right["references"] if right["references"] else none):
            yield f"references {found}; {refused or [reject.reason for reject in rejects][:1]}"
    for field, values in right.get("fields", {}).items():
        found = [getattr(case, field) for case in cases]
        found = [bool(value) for value in found] if isinstance(values[0], bool) else found
        if found != values * max(1, len(found) // len(values)):
            yield f"{field}: {found}"
    if "same" in right and len({getattr(case, right["same"]) for case in cases}) != 1:
        yield f"more than one {right['same']}"
    asked = " ".join(case.question for case in cases)
    yield from (f"the question lacks {text!r}; {refused}" for text in right.get("has", ()) if text not in asked)
    yield from (f"the question has {text!r}" for text in right.get("lacks", ()) if text in asked)


def gated(place: str, text: str, known: Known | None = None) -> tuple[str, list[str]]:
    """The text as the gate leaves it, and its doubts."""
    fields = {"language": "zh" if has_han(text) else "en", "question": text, "references": ["gout"]}
    found = open_gate(PhiConfig(), KEY, set()).pass_through(Record(place, fields, "", known or Known()))
    return found.fields["question"], found.doubts


def line_differs(path: Path, line: str, place: str) -> str:
    """What the gate does wrong with a line of phi/, or with a known name; "" for nothing.

    Of a corpus what is marked `{{type|secret}}` must be gone, or the line held back; other lines stay and pass.
    """
    if path.name == "known_names.jsonl":
        row = json.loads(line)
        text, doubts = gated(place, row["text"], Known(names=[row["name_field"]]))
        return "the known name stays" if row["must_not_remain"] in text and not doubts else ""
    if "corpus" not in path.name:
        text, doubts = gated(place, line)
        return "" if text == line and not doubts else "held back" if doubts else "changed"
    kind, _, body = line.partition("\t")
    mark = r"\{\{\w+\|(.*?)\}\}"
    text, doubts = gated(place, re.sub(mark, r"\1", body).replace("\\n", "\n"))
    around = re.sub(mark, " ", body)
    left = any(survives(secret, text, around) for secret in re.findall(mark, body))
    return f"{kind} stays" if left and not doubts else ""


def survives(secret: str, text: str, around: str) -> bool:
    """Is the secret, or a part of it of two characters or more that is a word of its own and stands nowhere else in the
    line, still there?"""
    parts = [part for part in re.split(r"[\s,.·]+", secret) if len(part) > 1] if not re.search(r"\d", secret) else []
    words = [rf"(?<!\w){re.escape(part)}(?!\w)" for part in parts]
    return secret in text or any(re.search(word, text) and not re.search(word, around) for word in words)


def known_table(path: Path) -> Iterator[str]:
    """Names of the identity columns are gone from notes, in every spelling; laboratory values that look alike stay."""
    by_line = {int(case.origin.rpartition(":")[2]): folded(case.question) for case in read([path], WARD)[0]}
    for number, row in enumerate(csv.DictReader(path.open(encoding="utf-8")), 2):
        said = by_line.get(number)
        if said is None:
            continue
        for part in re.findall(r"[^\W\d_]{3,}", row["patient_name"].replace("-", " ").replace("·", " ")):
            form = folded(part)
            if form in said or ("ü" in part and form.replace("u", "ue", 1) in said):
                yield f"line {number}: a part of the known name stays"
        if row["patient_name"] == "Li Na" and "na is 128 mmol/l" not in said:
            yield f"line {number}: the sodium is gone"


def folded(text: str) -> str:
    """Without case and accents."""
    return without_accents(text.replace("ß", "ss")).casefold()


def check(path: Path, name: str) -> Iterator[str]:
    """What is wrong with what becomes of a file."""
    if name in RIGHT:
        yield from differs(path, RIGHT[name])
    elif name.startswith("phi/known/"):
        yield from known_table(path)
    elif name.startswith("phi/") or name == "records/known_names.jsonl":
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if line.strip() and not line.startswith("#"):
                found = line_differs(path, line, f"{path.name}:{number}")
                yield from [f"line {number}: {found}"] if found else []
    else:
        read([path], {})


def main() -> None:
    """Check every input; print what is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=Path, default=SHARED)
    folder = parser.parse_args().cases
    if not folder.is_dir():
        print(json.dumps({"skipped": "../shared/cases is not beside the repository"}))
        return
    os.environ["CLINICAL_R1_PATIENT_KEY"] = KEY.decode()
    inputs = [path for room in ("records", "fhir", "phi") for path in sorted((folder / room).glob("*"))]
    inputs = [path for path in inputs if path.parent.name != "phi" or path.is_file()]
    inputs += sorted((folder / "phi").glob("known/*"))
    wrong: list[str] = []
    for path in inputs:
        name = str(path.relative_to(folder))
        try:
            wrong += [f"{name}: {what}" for what in check(path, name)]
        except Exception as error:
            wrong.append(f"{name}: an exception that is no UserError ({type(error).__name__})")
    print("".join(f"{line}\n" for line in wrong), end="")
    rooms = {room: sum(line.startswith(room) for line in wrong) for room in ("records", "fhir", "phi")}
    result = {"inputs": len(inputs), "wrong": len(wrong), "wrong_by_room": rooms, "wrong_list": wrong}
    print(json.dumps(result, ensure_ascii=False))


if __name__ == "__main__":
    main()
