"""A row on its way: what a reader yields, with its place in the file, and what is known of the case that became of it.

Identifiers of the source system live in `Row` only; `Case` gets keyed hashes. Texts wait on disk (20,000 notes of 8,000
characters are 160 MB and as much again in shingles); the little that policies and splits must know is in memory.
"""

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clinical_r1.errors import UserError
from clinical_r1.privacy.known import Known
from clinical_r1.records.icd10 import chapter
from clinical_r1.records.values import NotText
from clinical_r1.strict import Strict

Kind = Literal["malformed", "unusable", "too_long", "duplicate", "near_duplicate", "contaminated", "leak", "ungrouped"]
Wanted = Callable[[str, int], bool]
"""Is the row at this place (name of the file, line) worth reading? Once it says no of a place it goes on to."""


class RowError(ValueError):
    """A row that is no case; the message says which key is wrong, never what it holds."""


class UnusableError(RowError):
    """A well-formed row that can be no case (several right options, no answer): counted apart, never malformed."""


class Reject(Strict):
    """One line of rejects.jsonl. Never holds text of the record."""

    file: str
    line: int
    """1-based line of a text file, 1-based index of the item in a JSON list or table, of the encounter in a bundle."""
    reason: str
    kind: Kind = "malformed"


class Quarantined(Strict):
    """One line of quarantine.jsonl: where the record lies and what kept it back; its text stays in its file."""

    file: str
    line: int
    types: list[str]


def reject_of(error: Exception, file: str, line: int, otherwise: str = "cannot be read") -> Reject:
    """What a fault of one row becomes. Of an exception that is not ours its kind is told alone: its text may be the
    record's. A UserError is not one row's."""
    if isinstance(error, UserError):
        raise error
    reason = str(error) if isinstance(error, RowError | NotText) else f"{otherwise} ({type(error).__name__})"
    return Reject(
        file=file, line=line, reason=reason, kind="unusable" if isinstance(error, UnusableError) else "malformed"
    )


@dataclass
class Row:
    """A well-formed row on its way to a Case."""

    fields: dict[str, Any]
    """Input of `schema.Case` (a `reference` text may still be a list), with identifiers in the text."""
    file: str = ""
    """What the file may be called (`readers.files`), not its path."""
    line: int = 0
    source: int = 0
    """Which source of the configuration."""
    problem: str = ""
    """Key of one problem in several languages; its versions stay in one split."""
    patient_id: str = ""
    """Identifier of the patient in the source system."""
    department: str = ""
    """For the specialty mapping; not part of the question."""
    icd_version: str = ""
    """9 or 10 where the source says it, beside codes that could be either."""
    other_codes: list[str] = field(default_factory=list)
    """Codes of ICD-9 or SNOMED CT, for the user's `code_map`."""
    lost: Counter[str] = field(default_factory=Counter)
    """What the record had and the case does not, by kind."""
    known: Known = field(default_factory=Known)
    keep_id: bool = False
    """The id is a benchmark's own and identifies nobody."""

    def reject(self, reason: str, kind: Kind = "malformed") -> Reject:
        """The line of rejects.jsonl that this row becomes."""
        return Reject(file=self.file, line=self.line, reason=reason, kind=kind)


@dataclass(slots=True)
class Facts:
    """What is known of one case without its text."""

    file: str
    line: int
    source: int
    id: str
    language: str
    specialty: str
    icd10: str
    patient: str
    site: str
    """As the case carries it."""
    test_only: bool
    """Its site, as the source names it, is one of `splits.test_sites`."""
    keys: list[Hashable]
    """Cases that share any key stay in one split."""
    case_key: int
    """Hash of question and references."""
    block: int
    """Hash of language and principal reference: near-duplicates are looked for within it."""
    leak: bool
    contaminated: bool
    renamed: bool = False
    """The id was numbered; the stored text still has the old one."""
    text_at: tuple[int, int] = (0, 0)
    shingles_at: tuple[int, int] = (0, 0)
    """Start and length in the spool, bytes."""

    @property
    def icd10_chapter(self) -> str:
        """Roman number; "" for none."""
        return chapter(self.icd10)


class Spool:
    """A private file that is gone when it is closed: case texts, and their shingles."""

    def __init__(self, file: int) -> None:
        self._file = file

    def add(self, data: bytes) -> tuple[int, int]:
        """Append; the place."""
        start, done = os.lseek(self._file, 0, os.SEEK_END), 0
        while done < len(data):
            done += os.write(self._file, data[done:])
        return start, len(data)

    def text(self, facts: Facts) -> bytes:
        """The case as one JSON object."""
        start, size = facts.text_at
        return os.pread(self._file, size, start)

    def shingles(self, facts: Facts) -> np.ndarray:
        """Distinct shingles of its question, uint64."""
        start, size = facts.shingles_at
        return np.frombuffer(os.pread(self._file, size, start), np.uint64)


@contextmanager
def spool_beside(folder: Path | None) -> Iterator[Spool]:
    """A spool on the file system of `folder` (/tmp may be memory), or of the system's temporary folder."""
    places = (folder, *folder.parents) if folder is not None else ()
    where = next((place for place in places if place.is_dir()), None)
    with tempfile.TemporaryFile(dir=where if where is not None and os.access(where, os.W_OK) else None) as file:
        yield Spool(file.fileno())
