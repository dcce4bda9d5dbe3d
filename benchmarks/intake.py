"""Inputs of the kinds that hospitals have, each against its right value: `make bench NAME=intake`.

    python -m benchmarks.intake [--cases ../shared/cases]

Reads every file of records/, fhir/ and phi/ in the folder of handed cases (skipped, and said, where it is absent) as
the records step would, gate on, and compares what comes out with the table below. `wrong` counts what differs and
`wrong_list` names it: file, and what is wrong. A file that the table does not know has to be read without an exception
other than a UserError. The last line is one JSON object.
"""

import argparse
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from clinical_r1.errors import UserError
from clinical_r1.privacy.config import PhiConfig
from clinical_r1.privacy.gate import Gate, Record, open_gate
from clinical_r1.privacy.known import Known
from clinical_r1.records.config import RecordsConfig, Source
from clinical_r1.records.row import Reject
from clinical_r1.records.run import taken_cases
from clinical_r1.schema import Case
from clinical_r1.text import has_han, without_accents

SHARED = Path(__file__).parents[1] / "../shared/cases"
MAP = {"question": "note", "reference": "dx", "age": "age", "sex": "sex", "patient": "pid", "icd10": "code"}
MAP |= {"name": "name", "phone": "phone", "identifier": "mrn", "id": "id"}
KEY = b"a key of the bench, no secret"


class Outcome:
    """What the records step made of a source: cases, rejects, or the sentence with which it refused."""

    def __init__(self, *paths: Path, columns: dict[str, str] | None = None) -> None:
        self.cases: list[Case] = []
        self.rejects: list[Reject] = []
        self.held = 0
        self.refused = ""
        sources = [Source(path=str(path), map=columns or {}) for path in paths]
        config = RecordsConfig(sources=sources, group_by=[], leakage="keep")
        config.dedup.exact, config.dedup.near = False, "off"
        try:
            with taken_cases(config, None, strict=False) as taken:
                self.cases = [taken.case(facts) for facts in taken.policies.kept]
                self.rejects, self.held = taken.intake.rejects, len(taken.quarantined)
        except UserError as error:
            self.refused = str(error)


def table(path: Path) -> Outcome:
    """A table of records/, under those columns of the usual map that it has."""
    raw = path.read_bytes()
    text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", errors="replace")
    head = next(line for line in text.splitlines() if not line.startswith("sep="))
    names = set(re.split(r"[,;\t]", head.lstrip("\ufeff"))) if path.suffix == ".csv" else set(json.loads(head))
    columns = {field: column for field, column in MAP.items() if column in names}
    return Outcome(path, columns=columns if {"question", "reference"} <= set(columns) else None)


def holds(condition: bool, what: str) -> Iterator[str]:
    """`what` where the condition does not hold."""
    if not condition:
        yield what


def read_rows(count: int, rejected: int = 0) -> Callable[[Path], Iterator[str]]:
    """So many cases, so many rejects, none held back."""

    def check(path: Path) -> Iterator[str]:
        out = table(path)
        got = (len(out.cases), len(out.rejects), out.held)
        yield from holds(got == (count, rejected, 0), f"(cases, rejects, quarantined) are {got}; {out.refused}")

    return check


def refuses(word: str) -> Callable[[Path], Iterator[str]]:
    """A UserError that names `word`."""
    return lambda path: holds(word in table(path).refused, f"no refusal that names {word}")


AGES = re.findall(r"\S+", "40-49 40-49 60-69 60-69 0-9 0-9 0-9 0-9 - 40-49 - 90+ 0-9 90+ 0-9 40-49 0-9 - -")


def ages(path: Path) -> Iterator[str]:
    out = table(path)
    wanted = ["" if band == "-" else band for band in AGES]
    found = [case.age_band for case in out.cases]
    yield from holds(found == wanted, f"bands {found}")


def sexes(path: Path) -> Iterator[str]:
    found = [case.sex for case in table(path).cases]
    yield from holds(found == [*["female"] * 8, "", "male", "male"], f"sexes {found}")


def codes(path: Path) -> Iterator[str]:
    out = table(path)
    wanted = ["S72.0", "J18.9", "T81.4", "E11.9", "", "F32"] * 10
    found = [case.icd10 for case in out.cases]
    yield from holds(not out.rejects and found == wanted, f"codes {found[:6]}, {len(out.rejects)} rejects")


def empty_references(path: Path) -> Iterator[str]:
    out = table(path)
    good = not out.cases and all(reject.reason.startswith("reference: empty") for reject in out.rejects)
    yield from holds(good and len(out.rejects) == 11, f"{len(out.cases)} cases, {len(out.rejects)} rejects")


def placeholders(path: Path) -> Iterator[str]:
    out = table(path)
    texts = [
        "Cause unknown; allergies: none. Fever for 3 days.",
        "The patient took a test: none positive. Patient coughs.",
    ]
    yield from holds([case.question for case in out.cases][:2] == texts, "a placeholder was scrubbed from the text")
    yield from holds([bool(case.patient) for case in out.cases] == [False, True, False], "`unknown` is a patient")


def words_stay(path: Path) -> Iterator[str]:
    texts = [case.question for case in table(path).cases]
    wanted = ["Fever and rash since 2024; BP 120/80; green sputum.", "A young male with a cold and cough."]
    yield from holds(texts == wanted, "a word of the text went with an identity column that holds a word")


def known_lines(path: Path) -> Iterator[str]:
    gate = _gate()
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        row = json.loads(line)
        fields = {"language": "en", "question": row["text"], "references": ["gout"]}
        gated = gate.pass_through(Record(f"{path.name}:{number}", fields, "", Known(names=[row["name_field"]])))
        left = row["must_not_remain"] in gated.fields["question"] and not gated.doubts
        yield from holds(not left, f"line {number}: the known name stays")


def question_has(*texts: str, without: tuple[str, ...] = ()) -> Callable[[Path], Iterator[str]]:
    """The one case's question holds these texts and lacks those."""

    def check(path: Path) -> Iterator[str]:
        out = table(path) if path.parent.name == "records" else Outcome(path)
        asked = " ".join(case.question for case in out.cases)
        for text in texts:
            yield from holds(text in asked, f"the question lacks {text!r}; {out.refused}")
        for text in without:
            yield from holds(text not in asked, f"the question has {text!r}")

    return check


def diagnosis(*names: str, cases: int = 1) -> Callable[[Path], Iterator[str]]:
    """So many cases, and the reference is one of `names`; without names: no case at all."""

    def check(path: Path) -> Iterator[str]:
        out = Outcome(path)
        found = [case.reference for case in out.cases]
        if not names:
            yield from holds(not found and bool(out.rejects or out.refused), f"references {found}")
        else:
            good = len(found) == cases and set(found) <= set(names)
            yield from holds(good, f"references {found}; {out.refused or [r.reason for r in out.rejects][:1]}")

    return check


def one_patient(path: Path) -> Iterator[str]:
    out = Outcome(path, path.with_name("b.jsonl"), columns={"question": "note", "reference": "dx", "patient": "pid"})
    yield from holds(len({case.patient for case in out.cases}) == 1 == len(out.cases) - 1, "12345 and 12345.0 are two")


def both(*checks: Callable[[Path], Iterator[str]]) -> Callable[[Path], Iterator[str]]:
    """All of these."""
    return lambda path: (found for check in checks for found in check(path))


PNEUMONIA = diagnosis("Pneumonia")
RIGHT: dict[str, Callable[[Path], Iterator[str]]] = {
    "records/ages.csv": ages,
    "records/sex.csv": sexes,
    "records/icd10cm.csv": codes,
    "records/placeholder_reference.csv": empty_references,
    "records/placeholder_identity.csv": placeholders,
    "records/word_identity.csv": words_stay,
    "records/known_names.jsonl": known_lines,
    "records/a.jsonl": one_patient,
    "records/b.jsonl": read_rows(1),
    "records/pandas_null.jsonl": read_rows(40),
    "records/int_ids.jsonl": read_rows(40),
    "records/nan.jsonl": read_rows(5, 1),
    "records/surrogate.jsonl": read_rows(1, 1),
    "records/lines.json": read_rows(2),
    "records/wrapped.json": refuses("data"),
    "records/by_split.json": refuses("train"),
    "records/semicolon.csv": read_rows(1),
    "records/sep_line.csv": read_rows(1),
    "records/dup_header.csv": refuses("note"),
    "records/dup_ids.csv": read_rows(3),
    "records/bom_crlf.csv": both(read_rows(1), question_has("line one\nline two")),
    "records/excel_unicode.txt.csv": read_rows(1),
    "records/gb18030.csv": both(read_rows(1), question_has("咳嗽发热三天")),
    "records/inch_quote.csv": both(read_rows(2), question_has("5'6\" tall man")),
    "records/nul.csv": both(read_rows(1), question_has("cough")),
    "records/open_quote.csv": read_rows(2, 1),
    "records/trailing_comma.csv": read_rows(1),
    "records/leak.csv": read_rows(2),
    "records/decomposed.csv": question_has("coughs", "½ dose", "😷", without=("Jose", "José", "Nu")),
    "records/unicode.csv": question_has("咳嗽", "has cough", without=("小明", "محمد", "Müller", "777", "QQ998877")),
    "records/medqa_cn.jsonl": read_rows(1),
    "records/medqa_list_options.jsonl": read_rows(1),
    "records/medqa_lower_idx.jsonl": read_rows(1),
    "fhir/plain.json": PNEUMONIA,
    "fhir/bulk": PNEUMONIA,
    "fhir/synthea": PNEUMONIA,
    "fhir/fullurl_only.json": PNEUMONIA,
    "fhir/versioned_reference.json": PNEUMONIA,
    "fhir/absolute_reference.json": PNEUMONIA,
    "fhir/encounter_diagnosis.json": PNEUMONIA,
    "fhir/refuted_condition.json": PNEUMONIA,
    "fhir/bundle_list.json": PNEUMONIA,
    "fhir/partial_birth.json": PNEUMONIA,
    "fhir/r5.json": PNEUMONIA,
    "fhir/entered_in_error_only.json": diagnosis(),
    "fhir/no_encounter.json": diagnosis(),
    "fhir/diagnosis_rank.json": diagnosis("Acute appendicitis"),
    "fhir/social_condition_first.json": diagnosis("Viral sinusitis"),
    "fhir/observations.json": question_has(
        "Troponin I <0.01", "Systolic 182", "Diastolic 110", "Pain score 7", "Pregnant", "1:64", "15.2", "High",
        without=("9.9", "Wrong patient"),
    ),
    "fhir/base64_lines.json": question_has("Crackles at the right base"),
    "fhir/html_note.json": question_has("Cough", without=("<p>",)),
    "fhir/charset.json": question_has("Fièvre"),
    "fhir/note_entered_in_error.json": question_has("38.9", without=("wrong patient",)),
    "fhir/binary_url.json": diagnosis("Pneumonia"),
}  # fmt: skip


def unchanged(path: Path) -> Iterator[str]:
    """Lines without identifiers stay as they are and pass."""
    gate = _gate()
    for number, line in _lines(path):
        text, doubts = _through(gate, line, f"{path.name}:{number}")
        yield from holds(text == line and not doubts, f"line {number}: {'held back' if doubts else 'changed'}")


def removed(path: Path) -> Iterator[str]:
    """What is marked `{{type|secret}}` is not left, or the line is held back."""
    gate = _gate()
    for number, line in _lines(path):
        kind, _, body = line.partition("\t")
        secrets = re.findall(r"\{\{(?:\w+)\|(.*?)\}\}", body)
        text, doubts = _through(
            gate, re.sub(r"\{\{\w+\|(.*?)\}\}", r"\1", body).replace("\\n", "\n"), f"{path.name}:{number}"
        )
        around = re.sub(r"\{\{\w+\|.*?\}\}", " ", body)
        left = [secret for secret in secrets if _survives(secret, text, around)]
        yield from holds(not left or bool(doubts), f"line {number}: {kind} stays")


def _survives(secret: str, text: str, around: str) -> bool:
    """Is the secret, or a part of it of two characters or more that is a word of its own and stands nowhere else in the
    line, still there?"""
    parts = [part for part in re.split(r"[\s,.·]+", secret) if len(part) > 1] if not re.search(r"\d", secret) else []
    words = [rf"(?<!\w){re.escape(part)}(?!\w)" for part in parts]
    return secret in text or any(re.search(word, text) and not re.search(word, around) for word in words)


def known_table(path: Path) -> Iterator[str]:
    """Names of the identity columns are gone from notes, in every spelling; laboratory values that look alike stay."""
    columns = {"question": "note", "reference": "dx", "patient": "mrn", "name": "patient_name", "phone": "phone",
               "address": "address", "birth_date": "dob", "site": "hosp", "department": "dept"}  # fmt: skip
    import csv

    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    out = Outcome(path, columns=columns)
    by_line = {int(case.origin.rpartition(":")[2]): case for case in out.cases}
    for number, row in enumerate(rows, 2):
        if number not in by_line:
            continue
        said = _plain(by_line[number].question)
        for part in re.findall(r"[^\W\d_]{3,}", row["patient_name"].replace("-", " ").replace("·", " ")):
            for form in {_plain(part), _plain(part).replace("u", "ue", 1) if "ü" in part else _plain(part)}:
                yield from holds(form not in said, f"line {number}: a part of the known name stays")
        if row["patient_name"] == "Li Na":
            yield from holds("na is 128 mmol/l" in said, f"line {number}: the sodium is gone")


def _plain(text: str) -> str:
    return without_accents(text.replace("ß", "ss")).casefold()


def _gate() -> Gate:
    return open_gate(PhiConfig(), KEY, set())


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            yield number, line


def _through(gate: Gate, text: str, place: str) -> tuple[str, list[str]]:
    fields = {"language": "zh" if has_han(text) else "en", "question": text, "references": ["x"]}
    gated = gate.pass_through(Record(place, fields))
    return gated.fields["question"], gated.doubts


def check_of(name: str) -> Callable[[Path], Iterator[str]]:
    """The check of a file by its place; for one that the table does not know, that it is read."""
    if name in RIGHT:
        return RIGHT[name]
    if name.startswith("phi/known/"):
        return known_table
    if name.startswith("phi/"):
        return removed if "corpus" in name else unchanged
    return lambda path: (Outcome(path) and None) or iter(())


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
    inputs += sorted((folder / "phi").glob("known/*"))
    wrong: list[str] = []
    checked = 0
    for path in inputs:
        name = str(path.relative_to(folder))
        if path.is_dir() and name.startswith("phi"):
            continue
        checked += 1
        try:
            wrong += [f"{name}: {what}" for what in check_of(name)(path)]
        except Exception as error:
            wrong.append(f"{name}: an exception that is no UserError ({type(error).__name__})")
    for line in wrong:
        print(line)
    rooms = {room: sum(line.startswith(room) for line in wrong) for room in ("records", "fhir", "phi")}
    print(
        json.dumps(
            {"inputs": checked, "wrong": len(wrong), "wrong_by_room": rooms, "wrong_list": wrong}, ensure_ascii=False
        )
    )


if __name__ == "__main__":
    main()
