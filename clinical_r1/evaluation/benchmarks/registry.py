"""Benchmarks by name or by file, read by the readers of `clinical_r1.records`: what a run reads, an evaluation reads.

Multiple-choice sets are asked with their options. Every row counts: a malformed one ends the evaluation with its place,
one that can have no answer (several right options, a part of the set without answers) is counted and left out.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from clinical_r1.errors import UserError
from clinical_r1.privacy.config import SYNTHETIC_KEY, PhiConfig, load_key, patient_hash
from clinical_r1.records.config import RecordsConfig, Source
from clinical_r1.records.intake import Intake
from clinical_r1.records.readers.registry import FORMS, resolved_format
from clinical_r1.records.row import Row
from clinical_r1.references import references_of
from clinical_r1.schema import Case

OPEN = (
    "the conclusion names the reference diagnosis, by a name or code that means it; a judge decides what rules cannot"
)
CLOSED = "the right option is chosen, or all right ones and no other where there are several"
RUBRIC = "no right or wrong: points of the rubric that a model says are met, over the points to be had"
RANKED = "the first of the listed diagnoses is the reference (top 1), or any of the {n} (top {n}); each is judged alone"
TOP = 5
"""Diagnoses of a list, as DiagnosisArena's publishers ask for them."""
CASES = "cases"
"""What a file of our own cases is called here; the reader's name for it is `jsonl`."""


def names() -> list[str]:
    """All known benchmarks."""
    return sorted(CASES if name == "jsonl" else name for name in FORMS)


class CaseSet(NamedTuple):
    """A benchmark's file under the name that reports use."""

    name: str
    form: str
    """A name of `names()`, with `:open`, `:closed` or `:top5` behind it where that is asked for, or `auto` where a map
    says what is what."""
    path: Path
    columns: Mapping[str, str] = {}
    """Case field -> column, for tables and JSON of any form."""

    @property
    def ranked(self) -> int:
        """Diagnoses that each open question is asked for; 0 where it is one conclusion."""
        return TOP if _split(self.form)[1] == f"top{TOP}" else 0

    def load(self) -> tuple[list[Case], list[str]]:
        """The cases, and what the figures have to say of them; UserError where there are none."""
        cases, left_out = _read(self.form, self.path, self.columns)
        notes = [f"right here: {rule}"] if (rule := rule_of(self.form, cases)) else []
        said = ", ".join(f"{n} x {reason}" for reason, n in left_out.most_common())
        return cases, notes + ([f"{left_out.total()} items of the file left out: {said}"] if said else [])


def load_benchmark(form: str, path: Path, columns: Mapping[str, str] | None = None) -> list[Case]:
    """The cases of a file (a folder, a glob) by form; UserError for a malformed row, a doubled id, or no cases."""
    return _read(form, path, columns)[0]


def rule_of(form: str, cases: Sequence[Case]) -> str:
    """What counts as right in a benchmark of this form, asked as these cases are."""
    found = FORMS.get({CASES: "jsonl"}.get(_split(form)[0], _split(form)[0]))
    if any(case.rubric and not case.references for case in cases):
        return RUBRIC
    if _split(form)[1] == f"top{TOP}":
        return RANKED.format(n=TOP)
    closed = bool(cases) and all(case.options for case in cases)
    rule = CLOSED if closed else OPEN
    return f"{rule}; {found.rule}" if found is not None and found.rule else rule


def _split(form: str) -> tuple[str, str]:
    name, _, how = form.partition(":")
    return name, how


def _check_form(form: str) -> None:
    name, how = _split(form)
    if name not in names():
        raise UserError(f"benchmark {name}: unknown; known ones are {', '.join(names())}")
    if how not in ("", "open", "closed", f"top{TOP}"):
        raise UserError(f"benchmark {form}: ask it {name}:open or {name}:closed, or for a list, {name}:top{TOP}")


def _read(form: str, path: Path, columns: Mapping[str, str] | None = None) -> tuple[list[Case], Counter[str]]:
    if form != "auto":
        _check_form(form)
    name, how = _split(form)
    source = Source(
        path=str(path), format={CASES: "jsonl"}.get(name, name), map=dict(columns or {}),
        closed=how in ("", "closed"), candidates=how == "closed",
    )  # fmt: skip
    intake = Intake(RecordsConfig(sources=[source], icd10_invalid="clear"))
    key = load_key(PhiConfig()) or SYNTHETIC_KEY
    cases = [_case(row, key) for row in intake.rows()]
    bad = next((reject for reject in intake.rejects if reject.kind == "malformed"), None)
    if bad is not None:
        raise UserError(f"{path}:{bad.line}: {bad.reason}; correct the row, or give the benchmark's original file")
    if not cases:
        raise UserError(f"{path}: no cases in it; give a file with one case a line, or a benchmark's original file")
    if len({case.id for case in cases}) < len(cases):
        raise UserError(f"{path}: some case ids occur twice; give each case its own id")
    if how == "closed" and not any(case.options for case in cases):
        raise UserError(f"{path}: no choices in it; ask it open: {name}=FILE")
    return cases, Counter(reject.reason for reject in intake.rejects)


def _case(row: Row, key: bytes) -> Case:
    fields = {name: value for name, value in row.fields.items() if name != "reference"}
    if fields.get("origin") == f"{row.file}:{row.line}":
        del fields["origin"]  # a benchmark does not depend on the order of its file
    patient = patient_hash(key, row.patient_id) if row.patient_id else ""
    references = references_of(row.fields) if fields.get("references") or not fields.get("rubric") else []
    return Case.model_validate({**fields, "references": references, "patient": patient})


def find(wanted: str, folder: Path, columns: Mapping[str, str] | None = None) -> list[CaseSet]:
    """The files that NAME (in `folder` under its usual names), NAME=FILE, or FILE (recognised) stands for."""
    name, separator, file = wanted.partition("=")
    if separator and not Path(wanted).exists():
        _check_form(name)
        return [CaseSet("-".join([Path(file).stem, *_split(name)[1:]]).rstrip("-"), name, Path(file))]
    if Path(wanted).exists():
        return [CaseSet(Path(wanted).stem, recognise(Path(wanted), columns), Path(wanted), columns or {})]
    if _split(wanted)[0] not in names():
        known = ", ".join(names())
        raise UserError(f"--benchmark {wanted}: neither a file nor a known benchmark; known ones are {known}")
    _check_form(wanted)
    name, how = _split(wanted)
    usual = FORMS[{CASES: "jsonl"}.get(name, name)].files
    found = [folder / one for one in usual if (folder / one).is_file()]
    if not found:
        said = ", ".join(usual) or "no usual file name"
        raise UserError(f"--benchmark {wanted}: not in {folder} ({said}); give --data FOLDER or {wanted}=FILE")
    return [CaseSet("-".join([path.stem, how]).rstrip("-"), wanted, path) for path in found]


def recognise(path: Path, columns: Mapping[str, str] | None = None) -> str:
    """The form that a file is of, by its first row; UserError where none knows it."""
    found = resolved_format(Source(path=str(path), map=dict(columns or {})))
    return CASES if found == "jsonl" else found if found in FORMS else "auto"
