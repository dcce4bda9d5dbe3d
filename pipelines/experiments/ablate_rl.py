"""ablate-rl: SFT against SFT + RL on the same cases, several seeds of RL from one SFT model."""

from typing import Dict, List  # noqa: UP035

from kfp import dsl

from components.experiments.reports import report_ablate_rl
from components.ppo import reinforce
from pipelines.experiments import steps


@dsl.pipeline(name="ablate-rl", description="What reinforcement learning adds to fine-tuning, with its interval.")
def ablate_rl(
    records: str,
    synthesis: str,
    base_model: str,
    sft: str,
    evaluation: str,
    arms: List[Dict[str, str]],  # noqa: UP006
    report: str,
    sources_sha256: str,
    state_dir: str,
    code_version: str,
    image: str = "clinical-r1-trainer-python",
) -> dsl.Dataset:
    """Each arm is {"name", "ppo", "state_dir"}: one seed."""
    place = steps.Place(state_dir, code_version, image)
    shared = steps.supervised(place, records, sources_sha256, synthesis, base_model, sft, evaluation)
    with dsl.ParallelFor(items=arms, name="seeds", parallelism=2) as arm:
        policy = reinforce(
            config=arm.ppo,
            state_dir=arm.state_dir,
            code_version=code_version,
            splits=shared.splits,
            sft_model=shared.model,
        )
        place.put(policy, "ppo")
        run = steps.evaluated(
            place, arm.name, evaluation, shared.splits, policy.outputs["model"], arm.state_dir, "evaluate ppo"
        )
    written = report_ablate_rl(
        config=report,
        code_version=code_version,
        splits=shared.splits,
        sft=shared.predictions,
        runs=dsl.Collected(run),
    )
    return place.put(written, "report").outputs["report"]
