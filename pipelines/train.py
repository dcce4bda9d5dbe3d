"""The main job: records -> traces -> SFT -> PPO -> evaluation -> gate -> report -> publish.

One definition for a laptop (kfp.local, `clinical-r1 run train`) and for a cluster (`clinical-r1 compile train`).
Configurations travel as JSON strings, one per step, so that changing a step's knob invalidates that step and what
follows, and nothing before it. `code_version` is in every step's arguments because KFP's cache key does not see the
code of the library in the image.
"""

from typing import List, NamedTuple  # noqa: UP035

from kfp import dsl

from components.base_model import base_model as provide_base_model
from components.evaluate import evaluate_model
from components.gate import gate_model
from components.ppo import reinforce
from components.publish import publish_model
from components.records import prepare_records
from components.report import write_train_report
from components.sft import fine_tune
from components.synthesize import merge_traces, synthesize_shard
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
    sources_sha256: str,
    state_dir: str,
    code_version: str,
    datasets_dir: str = "",
    models_uri: str = "",
    model_name: str = "clinicalgpt-r1",
    shards: List[str] = ["0/1"],  # noqa: B006, UP006  (kfp copies defaults into the YAML)
    nodes: int = 1,
    deadline_hours: float = 168.0,
) -> Outputs:
    """Every argument up to `report` is the JSON of one section of a run configuration (pipelines/configs).

    `datasets_dir` gets the traces at an immutable address, traces/<name>/<hash>; empty for the artifact only.
    `models_uri` is where the model is published; empty for s3://BUCKET/models of the chart. `nodes` and
    `deadline_hours` matter on a cluster only: docs/runs.md.
    """
    volume = place.volume()
    plan = place.plan(nodes, deadline_hours)
    prepared = place.step(
        prepare_records(config=records, sources_sha256=sources_sha256, code_version=code_version), "records"
    ).after(volume)
    place.hashes_patients(prepared)
    splits = prepared.outputs["splits"]
    with dsl.ParallelFor(items=shards, name="synthesis shards") as shard:
        part = synthesize_shard(
            config=synthesis, shard=shard, state_dir=state_dir, code_version=code_version, splits=splits
        )
        place.calls(place.step(part, "synthesize"))
    synthesized = place.step(
        merge_traces(
            config=synthesis,
            state_dir=state_dir,
            datasets_dir=datasets_dir,
            code_version=code_version,
            splits=splits,
            shards=dsl.Collected(part.outputs["traces"]),
        ),
        "merge traces",
    )
    traces = synthesized.outputs["traces"]
    base = place.step(
        provide_base_model(
            config=base_model, code_version=code_version, state_dir=state_dir, splits=splits, traces=traces
        ),
        "base model",
    )
    tuned = place.train(
        fine_tune(
            config=sft,
            state_dir=state_dir,
            code_version=code_version,
            traces=traces,
            base_model_folder=base.outputs["folder"],
            job=plan.outputs["job"],
        ),
        "sft",
        plan,
    )
    reinforced = place.train(
        reinforce(
            config=ppo,
            state_dir=state_dir,
            code_version=code_version,
            splits=splits,
            sft_model=tuned.outputs["model"],
            job=plan.outputs["job"],
        ),
        "ppo",
        plan,
    )
    evaluated = {
        name: place.train(
            evaluate_model(
                name=name,
                config=evaluation,
                state_dir=state_dir,
                code_version=code_version,
                splits=splits,
                model=task.outputs["model"],
            ),
            f"evaluate {name}",
        )
        for name, task in (("sft", tuned), ("ppo", reinforced))
    }
    gated = place.train(
        gate_model(
            config=gate,
            evaluation=evaluation,
            base_model_folder=base.outputs["folder"],
            state_dir=state_dir,
            code_version=code_version,
            splits=splits,
            model=reinforced.outputs["model"],
            predictions=evaluated["ppo"].outputs["predictions"],
        ),
        "gate",
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
        "report",
    )
    place.step(
        publish_model(
            name=model_name,
            models_uri=models_uri,
            settings=f'{{"base_model": {base_model}, "synthesis": {synthesis}, "sft": {sft}, "ppo": {ppo}, '
            f'"evaluation": {evaluation}, "gate": {gate}}}',
            code_version=code_version,
            sources_sha256=sources_sha256,
            splits=splits,
            traces=traces,
            model=reinforced.outputs["model"],
            predictions=evaluated["ppo"].outputs["predictions"],
            decision=gated.outputs["decision"],
            report=written.outputs["report"],
        ),
        "publish",
    )
    for task in (reinforced, *evaluated.values(), gated):
        place.calls(task)
    outputs = tuned.outputs["model"], reinforced.outputs["model"], gated.outputs["decision"], written.outputs["report"]
    return Outputs(traces, *outputs)


_DESCRIPTION = "Records to a reasoning diagnosis model, with a report that shows whether it helped."
train, on_cluster = both_forms(_train, "train", _DESCRIPTION)
"""What `clinical-r1 run` executes, and what `compile` and `submit` hand to Kubeflow: with retries, a failure report."""
