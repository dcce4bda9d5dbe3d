"""Rows in, checked rows out: format, ICD-10 code and specialty; everything else becomes a `Reject`."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clinical_r1.atomic import file_sha256
from clinical_r1.errors import UserError
from clinical_r1.records import icd10
from clinical_r1.records.config import RecordsConfig, Source
from clinical_r1.records.readers.registry import UNVERIFIED, read_source, resolved_format
from clinical_r1.records.row import Reject, Row
from clinical_r1.records.specialty import SpecialtyMapping, load_mapping


@dataclass
class Intake:
    """Everything that was read."""

    rows: list[Row] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    sources: list[dict[str, Any]] = field(default_factory=list)
    limited: int = 0

    @property
    def reject_rate(self) -> float:
        """Malformed rows over all rows."""
        total = len(self.rows) + self.limited + len(self.rejects)
        return len(self.rejects) / total if total else 0.0


def read_all(config: RecordsConfig) -> Intake:
    """Read every source, apply `limit`, and keep each patient's source whole (see `_ungrouped`)."""
    intake, mapping = Intake(), load_mapping(config.specialties)
    for source in config.sources:
        before = len(intake.rows) + len(intake.rejects)
        for entry in read_source(source):
            if isinstance(entry, Reject):
                intake.rejects.append(entry)
            else:
                _check(entry, config, mapping, intake)
        intake.sources.append(
            {
                "name": source.source or Path(source.path).stem,
                "format": resolved_format(source),
                "read": len(intake.rows) + len(intake.rejects) - before,
                "terms": source.terms,
                "unverified": resolved_format(source) in UNVERIFIED,
                "sha256": _digest(source),
            }
        )
    _limit(intake, config)
    return intake


def _digest(source: Source) -> str:
    path = Path(source.path)
    if path.is_file():
        return file_sha256(path)
    names = sorted(child for child in path.rglob("*") if child.is_file())
    return hashlib.sha256("".join(file_sha256(child) for child in names).encode()).hexdigest()


def _check(row: Row, config: RecordsConfig, mapping: SpecialtyMapping, intake: Intake) -> None:
    raw = str(row.fields.get("icd10", ""))
    code = icd10.normalise(raw) if raw else ""
    if raw:
        intake.codes["checked"] += 1
        if not code and config.icd10_invalid == "reject":
            intake.rejects.append(Reject(file=row.file, line=row.line, reason="icd10: not a code of the WHO tree"))
            return
        intake.codes["coarsened" if code else "cleared"] += code != raw
    row.fields["icd10"] = code
    row.fields["specialty"] = mapping.specialty(row.fields.get("specialty", ""), code, row.department)
    intake.rows.append(row)


def _limit(intake: Intake, config: RecordsConfig) -> None:
    if config.limit is None or len(intake.rows) <= config.limit:
        return
    intake.limited = len(intake.rows) - config.limit
    if config.limit_by == "seeded":

        def draw(index: int) -> str:
            content = f"{config.seed}\x1f{intake.rows[index].fields['question']}"
            return hashlib.sha256(content.encode()).hexdigest()

        chosen = sorted(sorted(range(len(intake.rows)), key=draw)[: config.limit])
        intake.rows = [intake.rows[index] for index in chosen]
    else:
        intake.rows = intake.rows[: config.limit]


def enforce_reject_rate(intake: Intake, config: RecordsConfig) -> None:
    """More malformed rows than `max_reject_rate` fail the step, naming the first one."""
    if not intake.rejects or intake.reject_rate <= config.max_reject_rate:
        return
    first = intake.rejects[0]
    lines = ", ".join(str(reject.line) for reject in intake.rejects[:10])
    more = ", ..." if len(intake.rejects) > 10 else ""
    raise UserError(
        f"{first.file}:{first.line}: {first.reason}; {len(intake.rejects)} rows ({intake.reject_rate:.0%}) are "
        f"malformed, more than max_reject_rate {config.max_reject_rate:.0%}: correct them (lines {lines}{more}) "
        "or raise the limit"
    )
