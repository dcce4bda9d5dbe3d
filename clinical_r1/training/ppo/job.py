"""What one training process is told: the settings and the folders."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from clinical_r1.atomic import file_sha256
from clinical_r1.training.checkpoints import folder_hash
from clinical_r1.training.ppo.config import PPOConfig


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
        """What determines the result: a state folder with another identity is started anew.

        Where the judge or the rollout server listens does not: a simulated endpoint has another port in every run.
        """
        config = self.config.model_dump(
            mode="json", exclude={"save_every": True, "judge": True, "rollout": {"vllm_url"}}
        )
        return {
            "config": config,
            "judge": self.config.judge.identity(),
            "model": folder_hash(self.model),
            "cases": file_sha256(self.cases),
            "validation": file_sha256(self.validation),
        }
