"""cross-language: train language x test language x base model, on patients written in both languages.

The bilingual base is the SFT model that the other experiments share; the other base knows no language. Both are tuned
on the same patients, once in each language, and tested on both versions of other patients.
"""

from typing import Dict, List  # noqa: UP035

from kfp import dsl

from components.experiments.reports import report_cross_language
from components.experiments.select import select_traces
from pipelines.experiments import steps
from pipelines.placement import Placement, both_forms


def _cross_language(
    place: Placement,
    records: str,
    synthesis: str,
    base_model: str,
    sft: str,
    evaluation: str,
    twin_records: str,
    twin_synthesis: str,
    arms_scratch: List[Dict[str, str]],  # noqa: UP006
    arms_bilingual: List[Dict[str, str]],  # noqa: UP006
    report: str,
    sources_sha256: str,
    twins_sha256: str,
    state_dir: str,
    twin_state_dir: str,
    code_version: str,
    simulator: str,
) -> dsl.Dataset:
    """Each arm is {"name", "select", "sft", "state_dir"}: the language that it is trained in."""
    told = steps.Told(place, state_dir, code_version, simulator)
    shared = steps.supervised(told, records, sources_sha256, synthesis, base_model, sft, evaluation)
    twins = steps.records(told, twin_records, twins_sha256, "Read and split the twins")
    traces = steps.traces(told, twin_synthesis, twins, twin_state_dir, "Synthesize traces of the twins")
    before = steps.evaluated(
        told, "base", evaluation, twins, shared.model, twin_state_dir, "Evaluate the bilingual base"
    )
    with dsl.ParallelFor(items=arms_scratch, name="no language known", parallelism=2) as arm:
        chosen = select_traces(config=arm.select, code_version=code_version, splits=twins, traces=traces)
        place.step(chosen, "Select traces")
        model = steps.tuned_from(
            told,
            shared.base,
            arm.sft,
            chosen.outputs["selected"],
            arm.state_dir,
            "Fine-tune from scratch",
        )
        scratch = steps.evaluated(told, arm.name, evaluation, twins, model, arm.state_dir, "Evaluate (from scratch)")
    with dsl.ParallelFor(items=arms_bilingual, name="both known", parallelism=2) as arm:
        chosen = select_traces(config=arm.select, code_version=code_version, splits=twins, traces=traces)
        place.step(chosen, "Select traces")
        model = steps.tuned_from(
            told, shared.model, arm.sft, chosen.outputs["selected"], arm.state_dir, "Fine-tune the bilingual base"
        )
        bilingual = steps.evaluated(
            told, arm.name, evaluation, twins, model, arm.state_dir, "Evaluate (from bilingual)"
        )
    written = report_cross_language(
        config=report,
        code_version=code_version,
        splits=twins,
        base=before,
        scratch=dsl.Collected(scratch),
        bilingual=dsl.Collected(bilingual),
    )
    return place.step(written, "Write the report").outputs["report"]


cross_language, on_cluster = both_forms(
    _cross_language, "cross-language", "Train language x test language x base model, on id-aligned cases."
)
"""What `clinical-r1 run` executes, and what `compile` and `submit` hand to Kubeflow."""
