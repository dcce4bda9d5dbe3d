"""cross-language: train language x test language x base model, on patients written in both languages.

The bilingual base is the SFT model that the other experiments share; the other base knows no language. Both are tuned
on the same patients, once in each language, and tested on both versions of other patients.
"""

from typing import Dict, List  # noqa: UP035

from kfp import dsl

from components.experiments.reports import report_cross_language
from components.experiments.select import select_traces
from pipelines.experiments import steps


@dsl.pipeline(name="cross-language", description="Train language x test language x base model, on id-aligned cases.")
def cross_language(
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
    image: str = "clinical-r1-trainer-python",
) -> dsl.Dataset:
    """Each arm is {"name", "select", "sft", "state_dir"}: the language that it is trained in."""
    place = steps.Place(state_dir, code_version, image)
    shared = steps.supervised(place, records, sources_sha256, synthesis, base_model, sft, evaluation)
    twins = steps.records(place, twin_records, twins_sha256, "records (twins)")
    traces = steps.traces(place, twin_synthesis, twins, twin_state_dir, "synthesize (twins)")
    before = steps.evaluated(place, "base", evaluation, twins, shared.model, twin_state_dir, "evaluate bilingual base")
    with dsl.ParallelFor(items=arms_scratch, name="no language known", parallelism=2) as arm:
        chosen = select_traces(config=arm.select, code_version=code_version, splits=twins, traces=traces)
        place.put(chosen, "select")
        model = steps.tuned_from(
            place,
            shared.base,
            base_model,
            arm.sft,
            chosen.outputs["selected"],
            arm.state_dir,
            "sft (from scratch)",
        )
        scratch = steps.evaluated(place, arm.name, evaluation, twins, model, arm.state_dir, "evaluate (from scratch)")
    with dsl.ParallelFor(items=arms_bilingual, name="both known", parallelism=2) as arm:
        chosen = select_traces(config=arm.select, code_version=code_version, splits=twins, traces=traces)
        place.put(chosen, "select")
        model = steps.tuned_from(
            place, shared.model, "{}", arm.sft, chosen.outputs["selected"], arm.state_dir, "sft (from bilingual)"
        )
        bilingual = steps.evaluated(
            place, arm.name, evaluation, twins, model, arm.state_dir, "evaluate (from bilingual)"
        )
    written = report_cross_language(
        config=report,
        code_version=code_version,
        splits=twins,
        base=before,
        scratch=dsl.Collected(scratch),
        bilingual=dsl.Collected(bilingual),
    )
    return place.put(written, "report").outputs["report"]
