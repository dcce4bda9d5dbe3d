"""Rows through the PHI gate: cases, or rows kept back. The report counts by type and holds no content."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from clinical_r1.privacy.gate import Record, open_gate
from clinical_r1.privacy.identity import load_key
from clinical_r1.progress import progress
from clinical_r1.records.config import RecordsConfig
from clinical_r1.records.row import Quarantined, Row
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


def run_gate(rows: Sequence[Row], config: RecordsConfig) -> GateResult:
    """Every row passes, or is quarantined whole for a doubt in any of its texts."""
    sites = {source.site for source in config.sources} | set(config.splits.test_sites)
    gate = open_gate(config.phi, load_key(config.phi), sites)
    result = GateResult()
    scrubbed: Counter[str] = Counter()
    doubts: Counter[str] = Counter()
    with progress("PHI gate", len(rows)) as advance:
        for row in rows:
            place = f"{row.file}:{row.line}"
            gated = gate.pass_through(Record(place, row.fields, row.patient_id, row.known, row.keep_id))
            if gated.doubts:
                kinds = sorted(set(gated.doubts))
                doubts.update(kinds)
                result.quarantined.append(Quarantined(file=row.file, line=row.line, types=kinds))
            else:
                scrubbed.update(gated.counts)
                result.passed.append(Passed(row, Case.model_validate(gated.fields)))
            advance(1)
    result.summary = {"policy": config.phi.policy, "off_because": config.phi.off_because}
    if config.phi.policy == "scrub":
        result.summary |= {
            "scrubbed": dict(sorted(scrubbed.items())),
            "quarantine_reasons": dict(sorted(doubts.items())),
            "ner_model": bool(config.phi.ner_model),
        }
    return result
