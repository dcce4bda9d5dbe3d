"""The paper's open questions, one graph for all of them: a reference, arms that differ from it, one report.

    records -> traces -> base model -> reference -> its evaluation
            \\-> the arms' data -> each arm: train, evaluate -> report

What an arm is trained on and how, its settings say (clinical_r1/runs/arms.py); a step whose settings are empty has
nothing to do in that experiment. Equal settings and inputs are made once, by whichever experiment comes first.
"""

from typing import Dict, List  # noqa: UP035

from kfp import dsl

from clinical_r1.runs.config import ARMS_AT_ONCE
from components.data import prepare_records, synthesize_shard
from components.experiments import evaluate_arm, prepare_arms_data, train_arm, write_experiment_report
from components.training import base_model as provide_base_model
from pipelines.placement import Placement, both_forms

WHOLE = "0/1"
"""Experiments synthesize in one piece: a shard is a dataset of its own here."""


def _experiments(
    place: Placement,
    experiment: str,
    records: str,
    synthesis: str,
    base_model: str,
    reference_training: str,
    reference_evaluation: str,
    arms_data: str,
    arms_state_dir: str,
    arms: List[Dict[str, str]],  # noqa: UP006
    report: str,
    sources_sha256: str,
    state_dir: str,
    code_version: str,
    simulator: str,
) -> dsl.Dataset:
    """Each arm is {"name", "training", "evaluation", "state_dir"}; settings are JSON, empty where there is nothing to
    do."""
    shared = {"code_version": code_version, "simulator": simulator}
    here = {"state_dir": state_dir, **shared}
    prepared = prepare_records(config=records, sources_sha256=sources_sha256, **shared)
    prepared = place.step(prepared, "Read and split records")
    splits = place.hashes_patients(prepared).outputs["splits"]
    synthesized = synthesize_shard(config=synthesis, shard=WHOLE, splits=splits, **here)
    traces = place.calls(place.step(synthesized, "Synthesize traces")).outputs["traces"]
    arranged = prepare_arms_data(settings=arms_data, splits=splits, traces=traces, state_dir=arms_state_dir, **shared)
    data = place.hashes_patients(place.calls(place.step(arranged, "Prepare the arms' data"))).outputs
    made = {"code_version": code_version, "state_dir": state_dir, "splits": splits, "traces": traces}
    base = place.step(provide_base_model(config=base_model, **made), "Get the base model").outputs["model"]
    of_reference = {"settings": reference_training, "splits": splits, "traces": traces}
    reference = place.train(train_arm(base=base, reference=base, **of_reference, **here), "Train the reference")
    referred = reference.outputs["model"]
    asked = {"name": "reference", "settings": reference_evaluation, "splits": data["arms_splits"]}
    before = place.train(evaluate_arm(model=referred, **asked, **here), "Evaluate the reference")
    with dsl.ParallelFor(items=arms, name="Arms", parallelism=ARMS_AT_ONCE) as arm:
        own = {"splits": data["arms_splits"], "state_dir": arm.state_dir, **shared}
        started = {"base": base, "reference": referred, "traces": data["arms_traces"]}
        trained = place.train(train_arm(settings=arm.training, **started, **own), "Train the arm")
        told = {"name": arm.name, "settings": arm.evaluation, "model": trained.outputs["model"]}
        evaluated = place.train(evaluate_arm(**told, **own), "Evaluate the arm")
    for task in (reference, before, trained, evaluated):
        place.calls(task)
    written = write_experiment_report(
        experiment=experiment,
        config=report,
        code_version=code_version,
        splits=data["arms_splits"],
        traces=traces,
        arms_traces=data["arms_traces"],
        reference_trained_on=reference.outputs["trained_on"],
        reference=before.outputs["predictions"],
        trained_on=dsl.Collected(trained.outputs["trained_on"]),
        runs=dsl.Collected(evaluated.outputs["predictions"]),
    )
    return place.step(written, "Write the report").outputs["report"]


FORMS = both_forms(
    _experiments,
    "experiments",
    "One of the paper's open questions, answered with its interval.",
    unused=("client_key_secret",),
)
"""What `clinical-r1 run` executes, and what `compile` and `submit` hand to Kubeflow."""
