"""ablate-rl: SFT against SFT + RL on the same cases, several seeds of RL from one SFT model."""

from typing import Dict, List  # noqa: UP035

from kfp import dsl

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
    return steps.compared_policies(place, shared, arms, evaluation, "ablate_rl", report, "seeds")
