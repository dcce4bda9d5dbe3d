"""compare-synthesizers: two endpoints write traces for the same cases; everything else is equal."""

from typing import Dict, List  # noqa: UP035

from kfp import dsl

from components.experiments.chains import analyse_chains
from components.experiments.reports import report_compare_synthesizers
from pipelines.experiments import steps
from pipelines.placement import Placement, both_forms


def _compare_synthesizers(
    place: Placement,
    records: str,
    synthesis: str,
    rival_synthesis: str,
    base_model: str,
    sft: str,
    evaluation: str,
    arms: List[Dict[str, str]],  # noqa: UP006
    report: str,
    sources_sha256: str,
    state_dir: str,
    rival_state_dir: str,
    code_version: str,
    simulator: str,
) -> dsl.Dataset:
    """Each arm is {"name", "sft", "state_dir"}: one seed of a model that the rival's traces teach."""
    told = steps.Told(place, state_dir, code_version, simulator)
    shared = steps.supervised(told, records, sources_sha256, synthesis, base_model, sft, evaluation)
    rival = steps.traces(told, rival_synthesis, shared.splits, rival_state_dir, "Synthesize traces (rival)")
    chains = analyse_chains(code_version=code_version, first=shared.traces, second=rival)
    place.step(chains, "Compare the chains")
    with dsl.ParallelFor(items=arms, name="seeds", parallelism=2) as arm:
        model = steps.tuned_from(told, shared.base, arm.sft, rival, arm.state_dir, "Fine-tune on the rival's traces")
        run = steps.evaluated(
            told, arm.name, evaluation, shared.splits, model, arm.state_dir, "Evaluate the rival's model"
        )
    written = report_compare_synthesizers(
        config=report,
        code_version=code_version,
        splits=shared.splits,
        first_traces=shared.traces,
        second_traces=rival,
        chains=chains.outputs["analysis"],
        first=shared.predictions,
        runs=dsl.Collected(run),
    )
    return place.step(written, "Write the report").outputs["report"]


compare_synthesizers, on_cluster = both_forms(
    _compare_synthesizers, "compare-synthesizers", "Whose traces teach better? Two endpoints, everything else equal."
)
"""What `clinical-r1 run` executes, and what `compile` and `submit` hand to Kubeflow."""
