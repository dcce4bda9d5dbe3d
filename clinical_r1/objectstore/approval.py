"""The one rule for taking a model into production: who may approve what, and what stands in the record."""

from collections.abc import Sequence
from datetime import UTC, datetime

from clinical_r1.errors import UserError


def approve(
    label: str, decision: str, reasons: Sequence[str], by: str, reason: str, override_hold: bool = False
) -> dict[str, str]:
    """The approval's fields in gate.json and manifest: `approved_by`, `approval_reason`, `approved_at` (UTC, ISO 8601).

    `decision` and `reasons` are the gate's on the model that `label` names. Raises UserError without a person and a
    reason, for a refused model, and for a held one unless `override_hold`: then the person's reason stands for it.
    """
    if not by.strip() or not reason.strip():
        raise UserError(f"{label}: production needs a person and a reason: give both (approved_by, reason)")
    why = [*reasons, "no reason given"][0]
    if decision == "refuse":
        raise UserError(f"{label} was refused by the gate ({why}): train a better candidate")
    if decision == "hold" and not override_hold:
        raise UserError(
            f"{label} is held by the gate ({why}): evaluate more cases, or take responsibility with --override-hold "
            "and a reason"
        )
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    return {"approved_by": by, "approval_reason": reason, "approved_at": stamp}
