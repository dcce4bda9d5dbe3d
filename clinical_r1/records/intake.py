"""Rows in, checked rows out, one at a time: format, codes and specialty; everything else becomes a `Reject`."""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from clinical_r1.atomic import file_sha256
from clinical_r1.errors import UserError
from clinical_r1.records import icd10
from clinical_r1.records.config import RecordsConfig
from clinical_r1.records.readers.files import files_of
from clinical_r1.records.readers.registry import UNVERIFIED, read_source, resolved_format, source_name
from clinical_r1.records.row import Reject, Row, Wanted
from clinical_r1.records.values import number_key


@dataclass
class Account:
    """What became of one source's rows."""

    name: str
    format: str
    terms: str
    unverified: bool
    sha256: str
    """Of the source's file, or over those of its files."""
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
        mapping, codes = icd10.load_mapping(self.config.specialties), icd10.load_code_map(self.config.code_map)
        for index, source in enumerate(self.config.sources):
            kind = resolved_format(source)
            files = [file_sha256(file.path) for file in files_of(source.path)]
            digest = files[0] if len(files) == 1 else hashlib.sha256("".join(files).encode()).hexdigest()
            account = Account(source_name(source), kind, source.terms, kind in UNVERIFIED, digest)
            self.sources.append(account)
            for entry in read_source(source, wanted):
                account.read += 1
                if entry is None:
                    account.limited += 1
                    account.passed_over += 1
                elif isinstance(entry, Reject):
                    self.reject(entry, index)
                elif self.config.languages and entry.fields["language"] not in self.config.languages:
                    account.limited += 1
                else:
                    entry.source = index
                    self.lost.update(entry.lost)
                    if self._coded(entry, mapping, codes):
                        yield entry
                    else:
                        self.reject(entry.reject("icd10: not a code of ICD-10 or ICD-9"), index)

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
        yield from (row for *_, row in sorted(heap, key=lambda entry: -entry[1]))

    def _coded(self, row: Row, mapping: icd10.SpecialtyMapping, codes: dict[str, str]) -> bool:
        """Fill in code and specialty; False where the row is rejected for its code."""
        found = icd10.read(str(row.fields.get("icd10") or ""), row.icd_version)
        if found.kind != "none":
            self.codes["checked"] += 1
            if found.kind == "invalid" and self.config.icd10_invalid == "reject":
                return False
            self.codes[found.kind if found.kind != "invalid" else "cleared"] += found.kind != "who"
        foreign = map(icd10.map_key, (found.raw, number_key(found.raw), *row.other_codes))
        code = found.who or next((codes[one] for one in foreign if one in codes), "")
        self.codes["unmapped"] += not code and bool(row.other_codes)
        self.codes["mapped"] += bool(code and not found.who)
        row.fields["icd10"] = code
        row.fields["specialty"] = mapping.specialty(row.fields.get("specialty", ""), code, row.department)
        return True


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
