"""What a reader yields: a row that became a case, or a row that did not, with its place in the file.

Identifiers of the source system live in `Row` only; `Case` gets keyed hashes.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from clinical_r1.errors import Strict
from clinical_r1.privacy.known import Known

Kind = Literal["malformed", "unusable", "too_long", "duplicate", "near_duplicate", "contaminated", "leak", "ungrouped"]


Wanted = Callable[[str, int], bool]
"""Is the row at this place (name of the file, line) worth reading? Once it says no of a place it goes on to."""


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


class RowError(ValueError):
    """A row that is no case; the message says which key is wrong, never what it holds."""


class UnusableError(RowError):
    """A well-formed row that cannot become a case (several right options, no answer): counted apart, never
    malformed."""
