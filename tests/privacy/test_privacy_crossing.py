"""The PHI gate is believed where a records report vouches for the file, not where a setting says so."""

import hashlib
import json
from pathlib import Path

import pytest

from clinical_r1.errors import UserError
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.privacy.crossing import CrossingPolicy, check_gate, gate_state
from clinical_r1.records.config import RecordsConfig
from clinical_r1.records.run import prepare
from clinical_r1.schema import SPLITS

DECLARED = CrossingPolicy(allow_external=True, gate_passed=True)


def prepared(folder: Path, policy: str) -> Path:
    cases = folder / "sft.jsonl"
    cases.write_text("{}\n")
    digest = hashlib.sha256(cases.read_bytes()).hexdigest()
    (folder / "report.json").write_text(json.dumps({"phi": {"policy": policy}, "hashes": {"sft.jsonl": digest}}))
    return cases


def test_the_records_report_decides(tmp_path: Path) -> None:
    cases = prepared(tmp_path, "scrub")
    assert gate_state(cases, CrossingPolicy()) == "passed"
    cases.write_text("{} \n")
    assert gate_state(cases, DECLARED) == "not passed", "not the file that the gate saw"
    assert gate_state(prepared(tmp_path, "off"), DECLARED) == "not passed", "a setting does not overrule the report"


@pytest.mark.parametrize(
    ("phi", "state"),
    [({"policy": "scrub"}, "passed"), ({"policy": "off", "off_because": "synthetic"}, "not passed")],
)
def test_what_the_records_step_writes_is_understood(phi: dict[str, str], state: str, tmp_path: Path) -> None:
    rows = [{"question": f"Cough for {n} days. What is it?", "reference": f"disease {n}"} for n in range(1, 41)]
    source = tmp_path / "cases.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    config = RecordsConfig.model_validate({"sources": [{"path": str(source)}], "phi": phi, "dedup": {"near": "off"}})
    prepare(config, tmp_path / "splits")
    for name in SPLITS:
        assert gate_state(tmp_path / "splits" / f"{name}.jsonl", DECLARED) == state


@pytest.mark.parametrize(
    ("report", "state"),
    [(None, "declared"), ('{"traces": 1}', "declared"), ("{", "not passed"), ('{"phi": {}}', "not passed")],
)
def test_without_a_records_report_the_setting_counts(report: str | None, state: str, tmp_path: Path) -> None:
    cases = tmp_path / "sft.jsonl"
    cases.write_text("{}\n")
    if report is not None:
        (tmp_path / "report.json").write_text(report)
    assert gate_state(cases, DECLARED) == state
    assert gate_state(cases, CrossingPolicy()) == "not passed"


def test_only_endpoints_inside_get_what_did_not_pass(tmp_path: Path) -> None:
    cases = prepared(tmp_path, "off")
    outside = EndpointConfig(name="e", base_url="https://h/v1", model="m", data_region="eu")
    with pytest.raises(UserError, match="did not pass the PHI gate"):
        check_gate(outside, DECLARED, cases)
    check_gate(outside.model_copy(update={"trusted": True}), DECLARED, cases)
