"""audit-verifier: several judges on labelled answers, and one model's accuracy corrected for each one's errors."""

from typing import Dict, List  # noqa: UP035

from kfp import dsl

from components.experiments.audit import audit_one_judge, evaluate_endpoint
from components.experiments.reports import report_audit_verifier
from pipelines.experiments import steps
from pipelines.placement import Placement, both_forms


def _audit_verifier(
    place: Placement,
    records: str,
    endpoint: str,
    labelled: str,
    arms: List[Dict[str, str]],  # noqa: UP006
    report: str,
    sources_sha256: str,
    labelled_sha256: str,
    state_dir: str,
    code_version: str,
    simulator: str,
) -> dsl.Dataset:
    """Each arm is {"name", "judge", "evaluation", "state_dir"}: one judge. `labelled` is a JSONL file of graded
    answers, `endpoint` the model whose accuracy is corrected."""
    told = steps.Told(place, state_dir, code_version, simulator)
    splits = steps.records(told, records, sources_sha256)
    with dsl.ParallelFor(items=arms, name="judges", parallelism=2) as arm:
        audit = audit_one_judge(
            judge=arm.judge,
            labelled=labelled,
            labelled_sha256=labelled_sha256,
            state_dir=arm.state_dir,
            code_version=code_version,
            simulator=simulator,
        )
        place.calls(place.step(audit, "Audit the judge"))
        run = evaluate_endpoint(
            endpoint=endpoint,
            config=arm.evaluation,
            state_dir=arm.state_dir,
            code_version=code_version,
            splits=splits,
            simulator=simulator,
        )
        place.calls(place.step(run, "Evaluate the endpoint"))
    written = report_audit_verifier(
        config=report,
        code_version=code_version,
        splits=splits,
        audits=dsl.Collected(audit.outputs["audit"]),
        runs=dsl.Collected(run.outputs["predictions"]),
    )
    return place.step(written, "Write the report").outputs["report"]


audit_verifier, on_cluster = both_forms(
    _audit_verifier, "audit-verifier", "How far the judges can be trusted, and what their errors do."
)
"""What `clinical-r1 run` executes, and what `compile` and `submit` hand to Kubeflow."""
