"""The steps that experiments share. Called inside of a pipeline function; each call adds its tasks to that pipeline.

Equal settings give equal cache keys in whichever pipeline they stand, as long as the shared steps are the first use of
their component there (kfp numbers the later ones, and the number is part of the key). So one SFT serves all.
"""

from typing import Any, NamedTuple

from kfp import dsl

from components.base_model import base_model as provide_base_model
from components.evaluate import evaluate_model
from components.experiments.reports import report_policies
from components.experiments.tune import fine_tune_further
from components.ppo import reinforce
from components.records import prepare_records
from components.sft import fine_tune
from components.synthesize import synthesize_shard
from pipelines.placement import Placement

WHOLE = "0/1"
"""Experiments synthesize in one piece: a shard is a dataset of its own here."""


class Told(NamedTuple):
    """What every step is told besides its settings."""

    place: Placement
    state_dir: Any
    code_version: Any
    simulator: Any
    """What the steps simulate beside them; empty for real endpoints."""


class Supervised(NamedTuple):
    """Outputs of the shared steps."""

    splits: Any
    traces: Any
    base: Any
    model: Any
    predictions: Any


def records(told: Told, config: Any, sources_sha256: Any, title: str = "Read and split records") -> Any:
    """Splits of a source."""
    task = prepare_records(
        config=config, sources_sha256=sources_sha256, code_version=told.code_version, simulator=told.simulator
    )
    return told.place.hashes_patients(told.place.step(task, title)).outputs["splits"]


def traces(told: Told, config: Any, splits: Any, state_dir: Any, title: str = "Synthesize traces") -> Any:
    """Verified traces of the `sft` split."""
    task = synthesize_shard(
        config=config,
        shard=WHOLE,
        state_dir=state_dir,
        code_version=told.code_version,
        splits=splits,
        simulator=told.simulator,
    )
    return told.place.calls(told.place.step(task, title)).outputs["traces"]


def base(told: Told, config: Any, splits: Any, made_of: Any) -> dsl.PipelineTask:
    """The base model (outputs `folder`, `model`), in the state folder; a tiny one learns its tokens from the traces."""
    task = provide_base_model(
        config=config, code_version=told.code_version, state_dir=told.state_dir, splits=splits, traces=made_of
    )
    return told.place.step(task, "Get the base model")


def tuned_from(told: Told, start: Any, config: Any, made_of: Any, state_dir: Any, title: str) -> Any:
    """A model fine-tuned from the model that an earlier step made or found."""
    task = fine_tune_further(
        config=config, state_dir=state_dir, code_version=told.code_version, traces=made_of, start=start
    )
    return told.place.train(task, title).outputs["model"]


def evaluated(
    told: Told, name: Any, config: Any, splits: Any, model: Any, state_dir: Any, title: str = "Evaluate"
) -> Any:
    """Judged predictions on the `test` split."""
    task = evaluate_model(
        name=name,
        config=config,
        state_dir=state_dir,
        code_version=told.code_version,
        splits=splits,
        model=model,
        simulator=told.simulator,
    )
    return told.place.calls(told.place.train(task, title)).outputs["predictions"]


def supervised(
    told: Told,
    records_config: Any,
    sources_sha256: Any,
    synthesis: Any,
    base_model: Any,
    sft: Any,
    evaluation: Any,
) -> Supervised:
    """Records -> traces -> SFT -> evaluation: what ablate-rl, ablate-rewards, compare-synthesizers and cross-language
    start from. In every one of them these are the first tasks."""
    splits = records(told, records_config, sources_sha256)
    made = traces(told, synthesis, splits, told.state_dir)
    start = base(told, base_model, splits, made)
    task = fine_tune(
        config=sft,
        state_dir=told.state_dir,
        code_version=told.code_version,
        traces=made,
        base_model_folder=start.outputs["folder"],
    )
    model = told.place.train(task, "Fine-tune (SFT)").outputs["model"]
    predictions = evaluated(told, "sft", evaluation, splits, model, told.state_dir, "Evaluate after SFT")
    return Supervised(splits, made, start.outputs["model"], model, predictions)


def compared_policies(
    told: Told, shared: Supervised, arms: Any, evaluation: Any, experiment: str, report: Any, title: str
) -> Any:
    """PPO from the one SFT model for each arm {"name", "ppo", "state_dir"}, judged, then the report of `experiment`."""
    with dsl.ParallelFor(items=arms, name=title, parallelism=2) as arm:
        policy = reinforce(
            config=arm.ppo,
            state_dir=arm.state_dir,
            code_version=told.code_version,
            splits=shared.splits,
            sft_model=shared.model,
            simulator=told.simulator,
        )
        told.place.calls(told.place.train(policy, "Reinforce (RL)"))
        run = evaluated(
            told, arm.name, evaluation, shared.splits, policy.outputs["model"], arm.state_dir, "Evaluate after RL"
        )
    written = report_policies(
        experiment=experiment,
        config=report,
        code_version=told.code_version,
        splits=shared.splits,
        sft=shared.predictions,
        runs=dsl.Collected(run),
    )
    return told.place.step(written, "Write the report").outputs["report"]
