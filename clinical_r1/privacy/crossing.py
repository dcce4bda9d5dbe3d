"""What may leave the security boundary: terms, region, and the PHI gate, checked before the first call of any step.

Whether the gate passed is read from the report that the records step leaves beside its splits: a setting that says so
counts only where there is no such report.
"""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from clinical_r1.atomic import file_sha256
from clinical_r1.errors import UserError
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.strict import Strict

RECORDS_REPORT = "report.json"
"""Beside the splits; its `phi.policy` says what the gate did, its `hashes` which files it vouches for."""

GateState = Literal["passed", "declared", "not passed"]


class CrossingPolicy(Strict):
    """What may leave the security boundary. The default lets nothing out."""

    allow_external: bool = False
    """May scrubbed records go to endpoints that are not declared trusted?"""
    regions: list[str] = Field(default_factory=list)
    """Regions that an external endpoint may process in; empty means any that is stated."""
    require_training_terms: bool = True
    """Refuse an endpoint as synthesizer unless its terms let its outputs train models."""
    gate_passed: bool = False
    """Were cases that no records step prepared de-identified elsewhere? A records report beside the cases overrules."""


def check_crossing(endpoint: EndpointConfig, policy: CrossingPolicy, trains: bool = False) -> None:
    """Raise UserError unless the policy lets records go to the endpoint.

    `trains` says that the endpoint's outputs will train a model (a synthesizer; a judge's outputs do not). An endpoint
    inside may leave its terms unstated, and may not state that they forbid it.
    """
    refused = endpoint.terms == "no_train" or (endpoint.terms == "unknown" and not endpoint.trusted)
    if trains and policy.require_training_terms and refused:
        raise UserError(
            f"endpoint {endpoint.name}: terms is {endpoint.terms!r}, so its outputs may not train a model; "
            "state terms: train after reading its terms of use, or set require_training_terms: false"
        )
    if endpoint.trusted:
        return
    if not policy.allow_external:
        raise UserError(
            f"endpoint {endpoint.name}: records would leave the security boundary "
            f"(data_region {endpoint.data_region!r}); "
            "set trusted: true if it is inside, or crossing.allow_external: true to allow the crossing"
        )
    if endpoint.data_region == "unknown" or (policy.regions and endpoint.data_region not in policy.regions):
        allowed = ", ".join(policy.regions) or "any stated region"
        raise UserError(f"endpoint {endpoint.name}: data_region {endpoint.data_region!r} is not allowed ({allowed})")


def gate_state(cases: Path, policy: CrossingPolicy) -> GateState:
    """What is known of a file of cases: `passed` and `not passed` by the records report beside it, else as declared.

    A file that the report does not name, or that is not what it was then, has not passed.
    """
    report = _records_report(cases.parent / RECORDS_REPORT)
    if report is None:
        return "declared" if policy.gate_passed else "not passed"
    if report["phi"].get("policy") != "scrub" or not cases.is_file():
        return "not passed"
    return "passed" if report.get("hashes", {}).get(cases.name) == file_sha256(cases) else "not passed"


def check_gate(endpoint: EndpointConfig, policy: CrossingPolicy, cases: Path) -> None:
    """Raise UserError where the endpoint is not trusted and the cases did not pass the PHI gate."""
    if endpoint.trusted or gate_state(cases, policy) != "not passed":
        return
    raise UserError(
        f"endpoint {endpoint.name} is not trusted and {cases} did not pass the PHI gate; run the records step with "
        "phi.policy: scrub, or use an endpoint inside (trusted: true)"
    )


def _records_report(path: Path) -> dict[str, Any] | None:
    """The records report, or None where the file is absent or another step's; one that nobody can read vouches for
    nothing."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return None
    except ValueError:
        return {"phi": {}}
    return report if isinstance(report, dict) and isinstance(report.get("phi"), dict) else None
