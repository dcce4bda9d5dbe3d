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
    resumed = {"state_dir": state_dir, "code_version": code_version}
    simulated = {**resumed, "simulator": simulator}
    prepared = place.step(
        prepare_records(config=records, sources_sha256=sources_sha256, code_version=code_version, simulator=simulator),
        "Read and split records",
    )
    place.hashes_patients(prepared)
    splits = prepared.outputs["splits"]
    with dsl.ParallelFor(items=shards, name="Shards of the synthesis") as shard:
        part = synthesize_shard(config=synthesis, shard=shard, splits=splits, **simulated)
        place.calls(place.step(part, "Synthesize traces"))
    synthesized = place.step(
        merge_traces(
            config=synthesis,
            datasets_dir=datasets_dir,
            splits=splits,
            shards=dsl.Collected(part.outputs["traces"]),
            **resumed,
        ),
        "Merge the traces",
    )
    traces = synthesized.outputs["traces"]
    base = place.step(
        provide_base_model(config=base_model, splits=splits, traces=traces, **resumed),
        "Get the base model",
    )
    tuned = place.train(
        fine_tune(
            config=sft,
            traces=traces,
            base_model_folder=base.outputs["folder"],
            job=plan.outputs["job"],
            **resumed,
        ),
        "Fine-tune (SFT)",
        plan,
    )
    reinforced = place.train(
        reinforce(
            config=ppo,
            splits=splits,
            sft_model=tuned.outputs["model"],
            job=plan.outputs["job"],
            **simulated,
        ),
        "Reinforce (RL)",
        plan,
    )
    evaluated = {
        name: place.train(
            evaluate_model(name=name, config=evaluation, splits=splits, model=task.outputs["model"], **simulated),
            title,
        )
        for name, task, title in (("sft", tuned, "Evaluate after SFT"), ("ppo", reinforced, "Evaluate after RL"))
    }
    gated = place.train(
        gate_model(
            config=gate,
            evaluation=evaluation,
            base_model_folder=base.outputs["folder"],
            splits=splits,
            model=reinforced.outputs["model"],
            predictions=evaluated["ppo"].outputs["predictions"],
            **simulated,
        ),
        "Promotion gate",
    )
    written = place.step(
        write_train_report(
            config=report,
            code_version=code_version,
            splits=splits,
            traces=traces,
            sft_model=tuned.outputs["model"],
            ppo_model=reinforced.outputs["model"],
            sft_predictions=evaluated["sft"].outputs["predictions"],
            ppo_predictions=evaluated["ppo"].outputs["predictions"],
            decision=gated.outputs["decision"],
        ),
        "Write the report",
    )
    published = place.step(
        publish_model(
            name=model_name,
            models_uri=models_uri,
            settings=settings,
            code_version=code_version,
            sources_sha256=sources_sha256,
            splits=splits,
            traces=traces,
            model=reinforced.outputs["model"],
            predictions=evaluated["ppo"].outputs["predictions"],
            decision=gated.outputs["decision"],
            report=written.outputs["report"],
        ),
        "Publish the model",
    )
    served = deploy_published(
        uri=published.outputs["uri"],
        mode=deploy,
        code_version=code_version,
        splits=splits,
        decision=gated.outputs["decision"],
    )
    place.asks_the_model(place.step(served, "Deploy the model")).set_caching_options(False)
    for task in (reinforced, *evaluated.values(), gated):
        place.calls(task)
    outputs = tuned.outputs["model"], reinforced.outputs["model"], gated.outputs["decision"], written.outputs["report"]
    return Outputs(traces, *outputs)


FORMS = both_forms(
    _train, "train", "Records to a reasoning diagnosis model, with a report that shows whether it helped."
)
"""What `clinical-r1 run` executes, and what `compile` and `submit` hand to Kubeflow: with a form, and retries."""
