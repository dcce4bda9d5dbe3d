"""The paper's hyperparameters beside those of a run, from the resolved config.json that each training step writes."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict


class Hyperparameter(BaseModel):
    """One row of the table; empty where a run does not say."""

    model_config = ConfigDict(extra="forbid")

    stage: str
    name: str
    paper: str
    run: str


_TABLE = (
    ("SFT", "epochs", "3", "epochs"),
    ("SFT", "learning rate", "5e-6", "learning_rate"),
    ("SFT", "batch", "not stated", "batch_size"),
    ("PPO", "learning rate", "5e-7", "learning_rate"),
    ("PPO", "batch", "16", "batch_size"),
    ("PPO", "KL coefficient", "0.03", "kl_beta"),
    ("PPO", "clip range", "0.2", "clip"),
    ("PPO", "reward", "correct and reasoned 1, correct only 0.1", "reward_table"),
)
"""Stage, name, the paper's value (sections 2.2.1 and 2.2.2), and its key in the step's config."""


def hyperparameters(sft: Path | None, ppo: Path | None) -> list[Hyperparameter]:
    """The table for the configs in two step folders."""
    configs = {"SFT": _read(sft), "PPO": _read(ppo)}
    return [
        Hyperparameter(stage=stage, name=name, paper=paper, run=_format(configs[stage].get(key)))
        for stage, name, paper, key in _TABLE
    ]


def _read(folder: Path | None) -> dict[str, Any]:
    """The settings of a step's config.json, which holds them directly or under `config`."""
    path = folder / "config.json" if folder else None
    if path is None or not path.is_file():
        return {}
    data = json.loads(path.read_text(encoding="utf-8"))
    return data.get("config", data)


def _format(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return f"table “{value}”"
    if isinstance(value, float):
        return f"{value:.0e}".replace("e-0", "e-") if 0 < abs(value) < 1e-3 else f"{value:g}"
    return json.dumps(value) if isinstance(value, dict) else str(value)
