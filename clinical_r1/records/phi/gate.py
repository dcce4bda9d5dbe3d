"""The gate between rows with identifiers and cases without them. What it is unsure of goes to quarantine.

Patients become keyed hashes, dates move by one keyed offset per patient, names and numbers known from structured fields
are removed wherever they stand, ages over 89 fold. The report counts by type and holds no content.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from clinical_r1.progress import progress
from clinical_r1.records.config import PhiConfig, RecordsConfig
from clinical_r1.records.identity import keyed, need_key, patient_hash
from clinical_r1.records.phi.bands import safe_age_band
from clinical_r1.records.phi.dates import shift_iso, shifter
from clinical_r1.records.phi.known import KnownFinder
from clinical_r1.records.phi.scrub import Finder, Scrubbed, scrub
from clinical_r1.records.row import Known, Quarantined, Row
from clinical_r1.schema import Case


@dataclass
class Passed:
    """A row that passed, with its case."""

    row: Row
    case: Case


@dataclass
class GateResult:
    """What passed and what was kept back."""

    passed: list[Passed] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)


class Gate(Protocol):
    """Rows in, cases out."""

    def run(self, rows: Sequence[Row]) -> GateResult:
        """Every row passes or is quarantined."""
        ...


class OpenGate:
    """Policy off: identifiers of the source system are hashed all the same, text is left as it is."""

    def __init__(self, config: PhiConfig, key: bytes | None) -> None:
        self._config, self._key = config, key

    def run(self, rows: Sequence[Row]) -> GateResult:
        """Every row passes."""
        passed = [Passed(row, Case.model_validate({**row.fields, "patient": _patient(row, self)})) for row in rows]
        return GateResult(passed, [], {"policy": "off", "off_because": self._config.off_because})

    def key_for(self, row: Row) -> bytes:
        """The key, or a UserError that names the row."""
        return need_key(self._key, self._config, f"{row.file}:{row.line}")


class ScrubGate(OpenGate):
    """Policy scrub."""

    def __init__(self, config: PhiConfig, key: bytes | None, sites: set[str]) -> None:
        super().__init__(config, key)
        self._sites = sites
        self._extra: Finder | None = None
        if config.ner_model:
            from clinical_r1.records.phi.presidio import load_presidio

            self._extra = load_presidio(config.ner_model, config.ner_threshold)

    def run(self, rows: Sequence[Row]) -> GateResult:
        """Scrub every row; a row with a doubt in any of its texts is quarantined whole."""
        result = GateResult()
        scrubbed: Counter[str] = Counter()
        doubts: Counter[str] = Counter()
        with progress("PHI gate", len(rows)) as advance:
            for row in rows:
                fields, counts, unsure = self._scrub_row(row)
                if unsure:
                    kinds = sorted(set(unsure))
                    doubts.update(kinds)
                    result.quarantined.append(Quarantined(file=row.file, line=row.line, types=kinds))
                else:
                    scrubbed.update(counts)
                    result.passed.append(Passed(row, Case.model_validate(fields)))
                advance(1)
        result.summary = {
            "policy": "scrub",
            "off_because": "",
            "scrubbed": dict(sorted(scrubbed.items())),
            "quarantine_reasons": dict(sorted(doubts.items())),
            "ner_model": bool(self._config.ner_model),
        }
        return result

    def _scrub_row(self, row: Row) -> tuple[dict[str, Any], Counter[str], list[str]]:
        fields = dict(row.fields)
        patient = _patient(row, self)
        days = self._days(patient or f"{row.file}:{row.line}")
        known = [*row.known.numbers, *([row.patient_id] if row.patient_id else [])]
        finder = KnownFinder(Known(names=[*row.known.names, *self._config.names], numbers=known))
        shift = shifter(days) if days else None
        texts: list[Scrubbed] = [scrub(fields["question"], finder, shift, extra=self._extra)]
        fields["question"] = texts[0].text
        # A diagnosis may bear a person's name (Hodgkin lymphoma), so only sure identifiers are looked for.
        texts.append(scrub(fields["reference"], finder, shift, names=False))
        fields["reference"] = texts[1].text
        options = [scrub(option, finder, shift, names=False) for option in fields.get("options", [])]
        fields["options"] = [option.text for option in options]
        texts += options
        fields["patient"] = patient
        fields["recorded"] = shift_iso(fields.get("recorded", ""), days) if days else ""
        fields["age_band"] = safe_age_band(fields.get("age_band", ""))
        fields["site"] = self._site(fields.get("site", ""))
        if not row.keep_id and fields.get("id"):
            fields["id"] = self._id(row, str(fields["id"]))
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text.counts)
        return fields, counts, [doubt for text in texts for doubt in text.doubts]

    def _days(self, who: str) -> int:
        """Offset of a patient in days, 1..shift_days; 0 without a key (dates are removed then)."""
        return int(keyed(self._key, "dates", who)[:8], 16) % self._config.shift_days + 1 if self._key else 0

    def _site(self, site: str) -> str:
        """Sites that the configuration names stay; others become a keyed hash."""
        if not site or site in self._sites or re.fullmatch(r"s-[0-9a-f]{12}", site):
            return site
        return f"s-{keyed(self._key, 'site', site)[:12]}" if self._key else ""

    def _id(self, row: Row, raw: str) -> str:
        """Record numbers of the source system identify too."""
        if re.fullmatch(r"c-[0-9a-f]{16}", raw):
            return raw
        return f"c-{keyed(self.key_for(row), 'case', raw)[:16]}"


def _patient(row: Row, gate: OpenGate) -> str:
    return patient_hash(gate.key_for(row), row.patient_id) if row.patient_id else ""


def open_gate(config: RecordsConfig, key: bytes | None) -> Gate:
    """The gate that the policy asks for."""
    if config.phi.policy == "off":
        return OpenGate(config.phi, key)
    sites = {source.site for source in config.sources} | set(config.splits.test_sites)
    return ScrubGate(config.phi, key, sites)
