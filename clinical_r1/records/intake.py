"""Rows in, checked rows out, one at a time: format, codes and specialty; everything else becomes a `Reject`."""

import csv
import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from clinical_r1.atomic import file_sha256
from clinical_r1.errors import UserError
from clinical_r1.records import icd10
from clinical_r1.records.config import RecordsConfig, Source
from clinical_r1.records.readers.files import files_of
from clinical_r1.records.readers.registry import UNVERIFIED, read_source, resolved_format, source_name
from clinical_r1.records.row import Reject, Row, Wanted
from clinical_r1.records.specialty import SpecialtyMapping, load_mapping
from clinical_r1.records.values import number_key


@dataclass
class Account:
    """What became of one source's rows."""

    name: str
    format: str
    terms: str
    unverified: bool
    sha256: str
    read: int = 0
    kept: int = 0
    quarantined: int = 0
    limited: int = 0
    passed_over: int = 0
    """Those of `limited` that were not looked at: a draw reads only what it may take."""
    rejected: Counter[str] = field(default_factory=Counter)
    """By kind: malformed, unusable, duplicate, leak, ..."""


@dataclass
class Intake:
    """Accounts of what is read; complete when `rows` has ended."""

    config: RecordsConfig
    sources: list[Account] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)

    @property
    def read(self) -> int:
        """Rows met, well-formed or not."""
        return sum(source.read for source in self.sources)

    @property
    def limited(self) -> int:
        """Rows that were left out by `limit` or `languages`."""
        return sum(source.limited for source in self.sources)

    @property
    def malformed(self) -> int:
        """Rows that are no records."""
        return sum(source.rejected["malformed"] for source in self.sources)

    @property
    def reject_rate(self) -> float:
        """Malformed rows over all rows that were looked at."""
        seen = self.read - sum(source.passed_over for source in self.sources)
        return self.malformed / seen if seen else 0.0

    def reject(self, reject: Reject, source: int) -> None:
        """Book a reject."""
        self.rejects.append(reject)
        self.sources[source].rejected[reject.kind] += 1

    def rows(self) -> Iterator[Row]:
        """Checked rows of every source, in file order; under `limit` as many as it says and no more."""
        limit = self.config.limit
        if limit is not None and self.config.limit_by == "seeded":
            yield from self._drawn(limit)
            return
        for number, row in enumerate(self._checked(), 1):
            yield row
            if number == limit:
                return

    def _checked(self, wanted: Wanted | None = None) -> Iterator[Row]:
        mapping, codes = load_mapping(self.config.specialties), load_code_map(self.config.code_map)
        for index, source in enumerate(self.config.sources):
            self.sources.append(_account(source))
            for entry in read_source(source, wanted):
                self.sources[index].read += 1
                if entry is None:
                    self.sources[index].limited += 1
                    self.sources[index].passed_over += 1
                    continue
                if isinstance(entry, Reject):
                    self.reject(entry, index)
                    continue
                entry.source = index
                if self.config.languages and entry.fields["language"] not in self.config.languages:
                    self.sources[index].limited += 1
                    continue
                self.lost.update(entry.lost)
                if problem := self._code(entry, mapping, codes):
                    self.reject(Reject(file=entry.file, line=entry.line, reason=problem), index)
                else:
                    yield entry

    def _drawn(self, limit: int) -> Iterator[Row]:
        """A seeded draw of `limit` rows by their places; no more than so many are held, and rows that cannot be among
        them any more are passed over unread."""
        heap: list[tuple[int, int, Row]] = []

        def draw(file: str, line: int) -> int:
            place = f"{self.config.seed}\x1f{len(self.sources)}\x1f{file}\x1f{line}"
            return int.from_bytes(hashlib.blake2b(place.encode(), digest_size=8).digest())

        def wanted(file: str, line: int) -> bool:
            return len(heap) < limit or draw(file, line) < -heap[0][0]

        for number, row in enumerate(self._checked(wanted)):
            entry = (-draw(row.file, row.line), -number, row)
            if len(heap) < limit:
                heapq.heappush(heap, entry)
            else:
                self.sources[heapq.heappushpop(heap, entry)[2].source].limited += 1
        heap.sort(key=lambda entry: -entry[1])
        for entry in heap:
            yield entry[2]

    def _code(self, row: Row, mapping: SpecialtyMapping, codes: dict[str, str]) -> str:
        """Fill in code and specialty; what is wrong where the row is rejected for its code."""
        found = icd10.read(str(row.fields.get("icd10") or ""), row.icd_version)
        if found.kind != "none":
            self.codes["checked"] += 1
            if found.kind == "invalid" and self.config.icd10_invalid == "reject":
                return "icd10: not a code of ICD-10 or ICD-9"
            self.codes[found.kind if found.kind != "invalid" else "cleared"] += found.kind != "who"
        foreign = [_key(code) for code in (found.raw, number_key(found.raw), *row.other_codes)]
        code = found.who or next((codes[one] for one in foreign if one in codes), "")
        if not found.who and not code and row.other_codes:
            self.codes["unmapped"] += 1
        self.codes["mapped"] += bool(code and not found.who)
        row.fields["icd10"] = code
        row.fields["specialty"] = mapping.specialty(row.fields.get("specialty", ""), code, row.department)
        return ""


def _account(source: Source) -> Account:
    kind = resolved_format(source)
    return Account(source_name(source), kind, source.terms, kind in UNVERIFIED, digest_of(source))


def digest_of(source: Source) -> str:
    """SHA-256 of the source's file, or over those of its files."""
    files = [file_sha256(file.path) for file in files_of(source.path, source.encoding)]
    return files[0] if len(files) == 1 else hashlib.sha256("".join(files).encode()).hexdigest()


def _key(code: str) -> str:
    return code.strip().upper().replace(".", "")


def load_code_map(path: str) -> dict[str, str]:
    """Foreign code (without dots) -> WHO code, from the user's table; UserError names a line that is none."""
    if not path:
        return {}
    file = Path(path)
    if not file.is_file():
        raise UserError(f"records.code_map: {path}: no such file; give a CSV or TSV with the columns code and icd10")
    text = file.read_text(encoding="utf-8-sig", errors="replace")
    rows = list(csv.reader(text.splitlines(), delimiter="\t" if "\t" in text.split("\n", 1)[0] else ","))
    found: dict[str, str] = {}
    for number, cells in enumerate(rows, 1):
        if len(cells) < 2 or not cells[0].strip():
            continue
        who = icd10.normalise(cells[1])
        if who:
            found[_key(cells[0])] = who
        elif number > 1:
            raise UserError(f"{path}:{number}: the second column is no WHO ICD-10 code; correct the table")
    return found


def enforce_reject_rate(intake: Intake) -> None:
    """More malformed rows than `max_reject_rate` fail the step, naming the first one."""
    limit = intake.config.max_reject_rate
    malformed = [reject for reject in intake.rejects if reject.kind == "malformed"]
    if not malformed or intake.reject_rate <= limit:
        return
    first = malformed[0]
    lines = ", ".join(str(reject.line) for reject in malformed[:10])
    more = ", ..." if len(malformed) > 10 else ""
    raise UserError(
        f"{first.file}:{first.line}: {first.reason}; {len(malformed)} rows ({intake.reject_rate:.0%}) are "
        f"malformed, more than max_reject_rate {limit:.0%}: correct them (lines {lines}{more}) or raise the limit"
    )
