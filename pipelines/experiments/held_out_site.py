"""held-out-site: trained without a hospital, with it, and with its test cases leaked; tested on it."""

from typing import Dict, List  # noqa: UP035

from kfp import dsl

from components.experiments.reports import report_held_out_site
from components.experiments.select import leak_cases, select_traces
from pipelines.experiments import steps
from pipelines.placement import Placement, both_forms


def _held_out_site(
    place: Placement,
    records: str,
    leak: str,
    synthesis: str,
    base_model: str,
    evaluation: str,
    arms: List[Dict[str, str]],  # noqa: UP006
    report: str,
    sources_sha256: str,
    state_dir: str,
    code_version: str,
    simulator: str,
) -> dsl.Dataset:
    """Each arm is {"name", "select", "sft", "state_dir"}."""
    told = steps.Told(place, state_dir, code_version, simulator)
    clean = steps.records(told, records, sources_sha256)
    leaking = leak_cases(config=leak, code_version=code_version, splits=clean)
    splits = place.step(leaking, "Plant a leak").outputs["leaking"]
    traces = steps.traces(told, synthesis, splits, state_dir)
    start = steps.base(told, base_model, clean, traces).outputs["model"]
    with dsl.ParallelFor(items=arms, name="arms", parallelism=2) as arm:
        chosen = select_traces(config=arm.select, code_version=code_version, splits=splits, traces=traces)
        place.step(chosen, "Select traces")
        model = steps.tuned_from(told, start, arm.sft, chosen.outputs["selected"], arm.state_dir, "Fine-tune (SFT)")
        run = steps.evaluated(told, arm.name, evaluation, clean, model, arm.state_dir)
    written = report_held_out_site(
        config=report,
        code_version=code_version,
        splits=clean,
        traces=dsl.Collected(chosen.outputs["selected"]),
        runs=dsl.Collected(run),
    )
    return place.step(written, "Write the report").outputs["report"]


held_out_site, on_cluster = both_forms(
    _held_out_site, "held-out-site", "What it costs that a model never saw the hospital that it is used in."
)
"""What `clinical-r1 run` executes, and what `compile` and `submit` hand to Kubeflow."""
