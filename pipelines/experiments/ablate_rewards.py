"""ablate-rewards: reward tables against each other, several seeds each, from one SFT model."""

from typing import Dict, List  # noqa: UP035

from kfp import dsl

from pipelines.experiments import steps


@dsl.pipeline(name="ablate-rewards", description="What the design of the reward changes, with its interval.")
def ablate_rewards(
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
    """Each arm is {"name", "ppo", "state_dir"}: one reward table and seed."""
    place = steps.Place(state_dir, code_version, image)
    shared = steps.supervised(place, records, sources_sha256, synthesis, base_model, sft, evaluation)
    return steps.compared_policies(place, shared, arms, evaluation, "ablate_rewards", report, "tables and seeds")
