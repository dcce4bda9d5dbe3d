"""The main job: records -> traces -> SFT -> PPO -> evaluation -> gate -> report -> publish -> deploy.

One definition for a laptop (kfp.local, `clinical-r1 run train`) and for a cluster (`clinical-r1 compile train`), where
a first step finds out from the form what all others are told.
Configurations travel as JSON strings, one per step, so that changing a step's knob invalidates that step and what
follows, and nothing before it. `code_version` is in every step's arguments because KFP's cache key does not see the
code of the library in the image.
"""

from typing import Annotated, List, NamedTuple  # noqa: UP035

from kfp import dsl

from components.data import merge_traces, prepare_records, synthesize_shard
from components.evaluation import evaluate_model, gate_model, write_train_report
from components.publication import deploy_published, publish_model
from components.training import base_model as provide_base_model
from components.training import fine_tune, reinforce
from pipelines.placement import Placement, both_forms


class Outputs(NamedTuple):
    """What the pipeline hands out."""

    traces: dsl.Dataset
    sft_model: dsl.Model
    model: dsl.Model
    gate: dsl.Dataset
    report: dsl.Dataset


def _train(
    place: Placement,
    records: str,
    synthesis: str,
    base_model: str,
    sft: str,
    ppo: str,
    evaluation: str,
    gate: str,
    report: str,
    settings: str,
    simulator: str,
    sources_sha256: str,
    state_dir: str,
    code_version: str,
    datasets_dir: str,
    shards: List[str],  # noqa: UP006
    model_name: Annotated[str, "Name that the model is published under."] = "clinicalgpt-r1",
    models_uri: Annotated[str, "Store to publish to: s3://BUCKET/models. Empty: the chart's bucket."] = "",
    deploy: Annotated[str, "Serve the model if the gate promotes it: none, dark (probed first) or replicas."] = "none",
    nodes: Annotated[int, "Nodes of each training; more than one: a TrainJob of Kubeflow Trainer."] = 1,
    deadline_hours: Annotated[float, "Longest time of a training on several nodes, in hours."] = 168.0,
) -> Outputs:
    """Up to `report` each argument is the JSON of one section of a run configuration; `settings` are several in one,
    for the model's manifest; `simulator` is what the steps simulate beside them, empty for real endpoints.
    """
    plan = place.plan(nodes, deadline_hours)
    job = plan.outputs["job"]
    resumed = {"state_dir": state_dir, "code_version": code_version}
    simulated = {**resumed, "simulator": simulator}
    unresumed = {"code_version": code_version, "simulator": simulator}
    prepared = prepare_records(config=records, sources_sha256=sources_sha256, **unresumed)
    prepared = place.step(prepared, "Read and split records")
    splits = place.hashes_patients(prepared).outputs["splits"]
    with dsl.ParallelFor(items=shards, name="Shards of the synthesis") as shard:
        part = synthesize_shard(config=synthesis, shard=shard, splits=splits, **simulated)
        place.calls(place.step(part, "Synthesize traces"))
    parts = dsl.Collected(part.outputs["traces"])
    merged = merge_traces(config=synthesis, datasets_dir=datasets_dir, splits=splits, shards=parts, **resumed)
    traces = place.step(merged, "Merge the traces").outputs["traces"]
    provided = provide_base_model(config=base_model, splits=splits, traces=traces, **resumed)
    base = place.step(provided, "Get the base model").outputs["folder"]
    tuned = fine_tune(config=sft, traces=traces, base_model_folder=base, job=job, **resumed)
    sft_model = place.train(tuned, "Fine-tune (SFT)", plan).outputs["model"]
    reinforced = reinforce(config=ppo, splits=splits, sft_model=sft_model, job=job, **simulated)
    model = place.train(reinforced, "Reinforce (RL)", plan).outputs["model"]
    evaluated = {
        name: place.train(
            evaluate_model(name=name, config=evaluation, splits=splits, model=answering, **simulated), title
        )
        for name, answering, title in (("sft", sft_model, "Evaluate after SFT"), ("ppo", model, "Evaluate after RL"))
    }
    sft_predictions, predictions = (task.outputs["predictions"] for task in evaluated.values())
    models = {"base_model_folder": base, "model": model}
    judged = {"config": gate, "evaluation": evaluation, "predictions": predictions}
    gated = place.train(gate_model(splits=splits, **models, **judged, **simulated), "Promotion gate")
    decision = gated.outputs["decision"]
    known = {"code_version": code_version, "splits": splits, "traces": traces, "decision": decision}
    written = write_train_report(
        config=report,
        sft_model=sft_model,
        ppo_model=model,
        sft_predictions=sft_predictions,
        ppo_predictions=predictions,
        **known,
    )
    pages = place.step(written, "Write the report").outputs["report"]
    published = publish_model(
        name=model_name,
        models_uri=models_uri,
        settings=settings,
        sources_sha256=sources_sha256,
        model=model,
        predictions=predictions,
        report=pages,
        **known,
    )
    uri = place.step(published, "Publish the model").outputs["uri"]
    served = deploy_published(uri=uri, mode=deploy, code_version=code_version, splits=splits, decision=decision)
    place.asks_the_model(place.step(served, "Deploy the model")).set_caching_options(False)
    for task in (reinforced, *evaluated.values(), gated):
        place.calls(task)
    return Outputs(traces, sft_model, model, decision, pages)


FORMS = both_forms(
    _train, "train", "Records to a reasoning diagnosis model, with a report that shows whether it helped."
)
"""What `clinical-r1 run` executes, and what `compile` and `submit` hand to Kubeflow: with a form, and retries."""
