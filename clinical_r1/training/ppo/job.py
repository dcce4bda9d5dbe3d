"""What one training process is told: the settings and the folders."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from clinical_r1.atomic import file_sha256
from clinical_r1.folders import identity
from clinical_r1.training.ppo.config import PPOConfig

LAYOUT: dict[str, Any] = {
    **dict.fromkeys(
        ("micro_batch_size", "logits_chunk", "processes", "save_every", "deepspeed", "probe", "judge"), True
    ),
    **dict.fromkeys(("activation_checkpointing", "attention", "stop"), True),
    "rollout": {"vllm_url", "batch_tokens"},
}
"""Settings that change how a run is computed or watched and not what: they may change when it goes on."""


class PPOJob(BaseModel):
    """A run with its places; the JSON that `python -m clinical_r1.training.ppo.main --config` reads."""

    model_config = ConfigDict(extra="forbid")

    config: PPOConfig
    """The settings."""
    model: Path
    """SFT model folder: the start of actor and critic, and the reference."""
    cases: Path
    """rl.jsonl: schema.Case, one a line."""
    validation: Path
    """validation.jsonl: probes and choice of weights."""
    out_dir: Path
    """Gets model/, config.json, metrics.jsonl, curves.svg."""
    state_dir: Path
    """Checkpoints and metrics while training; outlives the step (and is shared by all nodes)."""

    def identity(self) -> dict[str, Any]:
        """What determines the result: a state folder with another identity is another run's.

        How it is computed does not (LAYOUT), nor where the judge or the rollout server listens: a simulated endpoint
        has another port in every run. A run with constant rates may be made longer.
        """
        left_out = LAYOUT
        if self.config.schedule == "constant" and self.config.critic.schedule in (None, "constant"):
            left_out = LAYOUT | {"steps": True}
        return {
            "config": self.config.model_dump(mode="json", exclude=left_out),
            "judge": self.config.judge.identity(),
            "model": identity(self.model),
            "cases": file_sha256(self.cases),
            "validation": file_sha256(self.validation),
        }
