"""The gate between rows with identifiers and cases without them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.records.config import PhiConfig, RecordsConfig
from clinical_r1.records.identity import need_key, patient_hash
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


class OpenGate:
    """Policy off: identifiers of the source system are hashed all the same, text is left as it is."""

    def __init__(self, config: PhiConfig, key: bytes | None) -> None:
        self._config, self._key = config, key

    def run(self, rows: Sequence[Row]) -> GateResult:
        """Every row passes."""
        passed = [Passed(row, Case.model_validate({**row.fields, "patient": self._patient(row)})) for row in rows]
        return GateResult(passed, [], {"policy": "off", "off_because": self._config.off_because})

    def _patient(self, row: Row) -> str:
        if not row.patient_id:
            return ""
        return patient_hash(need_key(self._key, self._config, f"{row.file}:{row.line}"), row.patient_id)


def open_gate(config: RecordsConfig, key: bytes | None) -> OpenGate:
    """The gate that the policy asks for."""
    if config.phi.policy == "off":
        return OpenGate(config.phi, key)
    raise UserError("phi.policy: only `off` (with off_because) is available in this version")
