"""Benchmarks by name or by file, read by the readers of `clinical_r1.records`: what a run reads, an evaluation reads.

Multiple-choice sets are asked with their options. Every row counts: a malformed one ends the evaluation with its place,
one that can have no answer (several right options, a part of the set without answers) is counted and left out.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from clinical_r1.errors import UserError
from clinical_r1.privacy.config import PhiConfig
from clinical_r1.privacy.identity import SYNTHETIC_KEY, load_key, patient_hash
from clinical_r1.records.config import RecordsConfig, Source
from clinical_r1.records.intake import Intake
from clinical_r1.records.readers.registry import FORMS, resolved_format
from clinical_r1.records.row import Row
from clinical_r1.references import references_of
from clinical_r1.schema import Case

CASES = "cases"
"""What a file of our own cases is called here; the reader's name for it is `jsonl`."""


def names() -> list[str]:
    """All known benchmarks."""
    return sorted(CASES if name == "jsonl" else name for name in FORMS)


class CaseSet(NamedTuple):
    """A benchmark's file under the name that reports use."""

    name: str
    form: str
    """A name of `names()`, or `auto` where a map says what is what."""
    path: Path
    columns: Mapping[str, str] = {}
    """Case field -> column, for tables and JSON of any form."""

    def load(self) -> list[Case]:
        """The cases; UserError where there are none."""
        return load_benchmark(self.form, self.path, self.columns)


def load_benchmark(form: str, path: Path, columns: Mapping[str, str] | None = None) -> list[Case]:
    """The cases of a file (a folder, a glob) by form; UserError for a malformed row, a doubled id, or no cases."""
    if form != "auto" and form not in names():
        raise UserError(f"benchmark {form}: unknown; known ones are {', '.join(names())}")
    name = {CASES: "jsonl"}.get(form, form)
    source = Source(path=str(path), format=name, map=dict(columns or {}), closed=True)
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
    return cases


def _case(row: Row, key: bytes) -> Case:
    fields = {name: value for name, value in row.fields.items() if name != "reference"}
    if fields.get("origin") == f"{row.file}:{row.line}":
        del fields["origin"]  # a benchmark does not depend on the order of its file
    patient = patient_hash(key, row.patient_id) if row.patient_id else ""
    return Case.model_validate({**fields, "references": references_of(row.fields), "patient": patient})


def find(wanted: str, folder: Path, columns: Mapping[str, str] | None = None) -> list[CaseSet]:
    """The files that NAME (in `folder` under its usual names), NAME=FILE, or FILE (recognised) stands for."""
    name, separator, file = wanted.partition("=")
    if separator and not Path(wanted).exists():
        if name not in names():
            raise UserError(f"benchmark {name}: unknown; known ones are {', '.join(names())}")
        return [CaseSet(Path(file).stem, name, Path(file))]
    if Path(wanted).exists():
        return [CaseSet(Path(wanted).stem, recognise(Path(wanted), columns), Path(wanted), columns or {})]
    if wanted not in names():
        known = ", ".join(names())
        raise UserError(f"--benchmark {wanted}: neither a file nor a known benchmark; known ones are {known}")
    usual = FORMS[{CASES: "jsonl"}.get(wanted, wanted)].files
    found = [folder / one for one in usual if (folder / one).is_file()]
    if not found:
        said = ", ".join(usual) or "no usual file name"
        raise UserError(f"--benchmark {wanted}: not in {folder} ({said}); give --data FOLDER or {wanted}=FILE")
    return [CaseSet(path.stem, wanted, path) for path in found]


def recognise(path: Path, columns: Mapping[str, str] | None = None) -> str:
    """The form that a file is of, by its first row; UserError where none knows it."""
    found = resolved_format(Source(path=str(path), map=dict(columns or {})))
    return CASES if found == "jsonl" else found if found in FORMS else "auto"
