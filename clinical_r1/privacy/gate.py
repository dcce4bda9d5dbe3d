"""The gate between records with identifiers and cases without them. What it is unsure of is said, for quarantine.

Patients become keyed hashes, dates move by one keyed offset per patient, names and numbers known from structured fields
are removed wherever they stand, ages over 89 fold. In a text what is sure is replaced, what is unsure a doubt.
"""

import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any

from clinical_r1.privacy.addresses import find_addresses
from clinical_r1.privacy.config import PhiConfig, keyed, need_key, patient_hash
from clinical_r1.privacy.dates import Shift, find_dates, find_old_ages, safe_age_band, shift_iso, shifter
from clinical_r1.privacy.known import Known, KnownFinder
from clinical_r1.privacy.models import load_models
from clinical_r1.privacy.names_en import find_names_en
from clinical_r1.privacy.names_zh import find_names_zh
from clinical_r1.privacy.numbers import find_numbers, residue
from clinical_r1.privacy.spans import Span, fold, resolve

Finder = Callable[[str], Iterator[Span]]
_TEXTS = {"question", "reference", "references", "options", "source", "specialty", "problem", "turns", "rubric"}
"""The fields of a case in which text of a record may stand."""


def recognisers(shift: Shift | None) -> dict[str, Finder]:
    """All of our own, by name; dates move by `shift`, or go."""
    return {
        "numbers": find_numbers,
        "ages": find_old_ages,
        "dates": partial(find_dates, shift=shift),
        "addresses": find_addresses,
        "names_en": find_names_en,
        "names_zh": find_names_zh,
    }


@dataclass
class Scrubbed:
    """A text without what was found."""

    text: str
    counts: Counter[str] = field(default_factory=Counter)
    doubts: list[str] = field(default_factory=list)
    """Types of what was unsure; empty for a text that may leave."""


def scrub(text: str, known: KnownFinder, shift: Shift | None, model: Finder | None = None) -> Scrubbed:
    """Replace identifiers in `text`; `model` adds what a statistical recogniser finds."""
    folded = fold(text)
    finders = (known.find, *recognisers(shift).values(), *((model,) if model else ()))
    result = Scrubbed("")
    rest, position = "", 0
    for span in resolve([span for find in finders for span in find(folded.text)]):
        if span.doubt:
            result.doubts.append(span.kind.value)
        start, end = folded.back(span.start, span.end)
        result.text += text[position:start] + (span.text or f"[{span.kind.value.upper()}]")
        rest += text[position:start] + "\u25ae"  # shifted dates must not look like a residue
        position = end
        result.counts[span.kind.value] += 1
    result.text += text[position:]
    if residue(fold(rest + text[position:]).text):
        result.doubts.append("residue")
    return result


@dataclass
class Record:
    """What the gate is given: a case's fields with what is known of its patient."""

    place: str
    """`file:line`, for messages."""
    fields: Mapping[str, Any]
    """Fields of `schema.Case`."""
    patient_id: str = ""
    """Identifier of the patient in the source system."""
    known: Known = field(default_factory=Known)
    keep_id: bool = False
    """The id is a benchmark's own and identifies nobody."""


@dataclass
class Gated:
    """Fields that may leave, counts of what was removed by type, and types of what is unsure."""

    fields: dict[str, Any]
    counts: Counter[str] = field(default_factory=Counter)
    doubts: list[str] = field(default_factory=list)


class PhiGate:
    """Policy off: identifiers of the source system are hashed all the same, text is left as it is."""

    def __init__(self, config: PhiConfig, key: bytes | None) -> None:
        self._config, self._key = config, key

    def pass_through(self, record: Record) -> Gated:
        """The record's fields as a case may hold them."""
        patient = record.patient_id
        if patient:
            patient = patient_hash(need_key(self._key, self._config, record.place), patient)
        return Gated({**record.fields, "patient": patient})


class ScrubGate(PhiGate):
    """Policy scrub. `sites` are the names of sites that stay as they are."""

    def __init__(self, config: PhiConfig, key: bytes | None, sites: set[str]) -> None:
        super().__init__(config, key)
        self._sites = sites
        self._models = load_models(config.ner_models, config.ner_threshold) if config.ner_models else None

    def pass_through(self, record: Record) -> Gated:
        """Scrub every text of the record: a name stands in a reference or a source's name too.

        Raises NoteTooSlowError where that takes longer than `seconds_per_note`.
        """
        gated = super().pass_through(record)
        fields = gated.fields
        days = self._days(fields["patient"] or record.place)
        numbers = [*record.known.numbers, *([record.patient_id] if record.patient_id else [])]
        finder = KnownFinder(Known([*record.known.names, *self._config.names], numbers))
        with time_limit(self._config.seconds_per_note):
            for name in sorted(_TEXTS & fields.keys()):
                fields[name] = self._scrubbed(fields[name], finder, shifter(days) if days else None, gated, name)
        fields["recorded"] = shift_iso(fields.get("recorded", ""), days) if days else ""
        fields["age_band"] = safe_age_band(fields.get("age_band", ""))
        fields["site"] = self._site(fields.get("site", ""))
        raw = str(fields.get("id") or "")  # record numbers of the source system identify too
        if raw and not record.keep_id and not re.fullmatch(r"c-[0-9a-f]{16}", raw):
            key = need_key(self._key, self._config, record.place)
            fields["id"] = f"c-{keyed(key, 'case', raw)[:16]}"
        return gated

    def _scrubbed(self, value: Any, known: KnownFinder, shift: Shift | None, gated: Gated, name: str) -> Any:
        """The text, or each text of a list or an object, without identifiers; anything else as it is."""
        if isinstance(value, dict):
            return {key: self._scrubbed(one, known, shift, gated, name) for key, one in value.items()}
        if isinstance(value, list):
            return [self._scrubbed(one, known, shift, gated, name) for one in value]
        if not isinstance(value, str) or not value:
            return value
        # A model reads prose; in a diagnosis it sees persons where eponyms stand.
        found = scrub(value, known, shift, model=self._models if name in ("question", "turns") else None)
        gated.counts.update(found.counts)
        gated.doubts += found.doubts
        return found.text

    def _days(self, who: str) -> int:
        """Offset of a patient in days, 1..shift_days; 0 without a key (dates are removed then)."""
        return int(keyed(self._key, "dates", who)[:8], 16) % self._config.shift_days + 1 if self._key else 0

    def _site(self, site: str) -> str:
        """Sites that the configuration names stay; others become a keyed hash."""
        if not site or site in self._sites or re.fullmatch(r"s-[0-9a-f]{12}", site):
            return site
        return f"s-{keyed(self._key, 'site', site)[:12]}" if self._key else ""


def open_gate(config: PhiConfig, key: bytes | None, sites: set[str]) -> PhiGate:
    """The gate that the policy asks for."""
    return PhiGate(config, key) if config.policy == "off" else ScrubGate(config, key, sites)


class NoteTooSlowError(Exception):
    """The recognisers took longer over one note than `phi.seconds_per_note`."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise NoteTooSlowError in the body after `seconds`, also within a regular expression.

    Only the main thread of a process can be interrupted (workers of the records step run there); elsewhere, and with
    0, the body runs on. A timer that was set before goes on afterwards.
    """
    if seconds <= 0 or threading.current_thread() is not threading.main_thread():
        yield
        return

    def expired(number: int, frame: FrameType | None) -> None:
        raise NoteTooSlowError(f"longer than phi.seconds_per_note ({seconds:g} s)")

    before = signal.signal(signal.SIGALRM, expired)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, interval)
        signal.signal(signal.SIGALRM, before)
