"""held-out-site: trained without a hospital, with it, and with its test cases leaked; tested on it."""

from typing import Dict, List  # noqa: UP035

from kfp import dsl

from components.experiments.reports import report_held_out_site
from components.experiments.select import leak_cases, select_traces
from pipelines.experiments import steps


@dsl.pipeline(name="held-out-site", description="What it costs that a model never saw the hospital that it is used in.")
def held_out_site(
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
    image: str = "clinical-r1-trainer-python",
) -> dsl.Dataset:
    """Each arm is {"name", "select", "sft", "state_dir"}."""
    place = steps.Place(state_dir, code_version, image)
    clean = steps.records(place, records, sources_sha256)
    leaking = leak_cases(config=leak, code_version=code_version, splits=clean)
    splits = place.put(leaking, "leak").outputs["leaking"]
    traces = steps.traces(place, synthesis, splits, state_dir)
    start = steps.base(place, base_model, clean, traces).outputs["model"]
    with dsl.ParallelFor(items=arms, name="arms", parallelism=2) as arm:
        chosen = select_traces(config=arm.select, code_version=code_version, splits=splits, traces=traces)
        place.put(chosen, "select")
        model = steps.tuned_from(place, start, base_model, arm.sft, chosen.outputs["selected"], arm.state_dir, "sft")
        run = steps.evaluated(place, arm.name, evaluation, clean, model, arm.state_dir)
    written = report_held_out_site(
        config=report,
        code_version=code_version,
        splits=clean,
        traces=dsl.Collected(chosen.outputs["selected"]),
        runs=dsl.Collected(run),
    )
    return place.put(written, "report").outputs["report"]
