"""ablate-rewards: reward tables against each other, several seeds each, from one SFT model."""

from typing import Dict, List  # noqa: UP035

from kfp import dsl

from pipelines.experiments import steps
from pipelines.placement import Placement, both_forms


def _ablate_rewards(
    place: Placement,
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
    simulator: str,
) -> dsl.Dataset:
    """Each arm is {"name", "ppo", "state_dir"}: one reward table and seed."""
    told = steps.Told(place, state_dir, code_version, simulator)
    shared = steps.supervised(told, records, sources_sha256, synthesis, base_model, sft, evaluation)
    return steps.compared_policies(told, shared, arms, evaluation, "ablate_rewards", report, "tables and seeds")


ablate_rewards, on_cluster = both_forms(
    _ablate_rewards, "ablate-rewards", "What the design of the reward changes, with its interval."
)
"""What `clinical-r1 run` executes, and what `compile` and `submit` hand to Kubeflow."""
