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

WHOLE = "0/1"
"""Experiments synthesize in one piece: a shard is a dataset of its own here."""


class Place(NamedTuple):
    """What every step is told besides its settings."""

    state_dir: Any
    code_version: Any
    image: Any

    def put(self, task: dsl.PipelineTask, title: str) -> dsl.PipelineTask:
        """Image and title of a task."""
        return task.set_container_image(self.image).set_display_name(title)


class Supervised(NamedTuple):
    """Outputs of the shared steps."""

    splits: Any
    traces: Any
    base: Any
    model: Any
    predictions: Any


def records(place: Place, config: Any, sources_sha256: Any, title: str = "records") -> Any:
    """Splits of a source."""
    task = prepare_records(config=config, sources_sha256=sources_sha256, code_version=place.code_version)
    return place.put(task, title).outputs["splits"]


def traces(place: Place, config: Any, splits: Any, state_dir: Any, title: str = "synthesize") -> Any:
    """Verified traces of the `sft` split."""
    task = synthesize_shard(
        config=config, shard=WHOLE, state_dir=state_dir, code_version=place.code_version, splits=splits
    )
    return place.put(task, title).outputs["traces"]


def base(place: Place, config: Any, splits: Any, made_of: Any) -> dsl.PipelineTask:
    """The base model (outputs `folder`, `model`); a tiny one's tokenizer learns from the traces."""
    task = provide_base_model(config=config, code_version=place.code_version, splits=splits, traces=made_of)
    return place.put(task, "base model")


def tuned_from(place: Place, start: Any, base_model: Any, config: Any, made_of: Any, state_dir: Any, title: str) -> Any:
    """A model fine-tuned from the base that `base_model` configures, or where that is empty from the model `start`."""
    task = fine_tune_further(
        config=config,
        base_model=base_model,
        state_dir=state_dir,
        code_version=place.code_version,
        traces=made_of,
        start=start,
    )
    return place.put(task, title).outputs["model"]


def evaluated(
    place: Place, name: Any, config: Any, splits: Any, model: Any, state_dir: Any, title: str = "evaluate"
) -> Any:
    """Judged predictions on the `test` split."""
    task = evaluate_model(
        name=name, config=config, state_dir=state_dir, code_version=place.code_version, splits=splits, model=model
    )
    return place.put(task, title).outputs["predictions"]


def supervised(
    place: Place,
    records_config: Any,
    sources_sha256: Any,
    synthesis: Any,
    base_model: Any,
    sft: Any,
    evaluation: Any,
) -> Supervised:
    """Records -> traces -> SFT -> evaluation: what ablate-rl, ablate-rewards, compare-synthesizers and cross-language
    start from. In every one of them these are the first tasks."""
    splits = records(place, records_config, sources_sha256)
    made = traces(place, synthesis, splits, place.state_dir)
    start = base(place, base_model, splits, made)
    task = fine_tune(
        config=sft,
        state_dir=place.state_dir,
        code_version=place.code_version,
        traces=made,
        base_model_folder=start.outputs["folder"],
    )
    model = place.put(task, "sft").outputs["model"]
    predictions = evaluated(place, "sft", evaluation, splits, model, place.state_dir, "evaluate sft")
    return Supervised(splits, made, start.outputs["model"], model, predictions)


def compared_policies(
    place: Place, shared: Supervised, arms: Any, evaluation: Any, experiment: str, report: Any, title: str
) -> Any:
    """PPO from the one SFT model for each arm {"name", "ppo", "state_dir"}, judged, then the report of `experiment`."""
    with dsl.ParallelFor(items=arms, name=title, parallelism=2) as arm:
        policy = reinforce(
            config=arm.ppo,
            state_dir=arm.state_dir,
            code_version=place.code_version,
            splits=shared.splits,
            sft_model=shared.model,
        )
        place.put(policy, "ppo")
        run = evaluated(
            place, arm.name, evaluation, shared.splits, policy.outputs["model"], arm.state_dir, "evaluate ppo"
        )
    written = report_policies(
        experiment=experiment,
        config=report,
        code_version=place.code_version,
        splits=shared.splits,
        sft=shared.predictions,
        runs=dsl.Collected(run),
    )
    return place.put(written, "report").outputs["report"]
