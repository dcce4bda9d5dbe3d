"""A model of a few thousand weights that has learnt a format but not the answers, so that PPO has something to do."""

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from clinical_r1.charts import read_metrics
from clinical_r1.schema import Case
from clinical_r1.training.launcher import launch
from clinical_r1.training.ppo.config import PPOConfig, PPOJob

FINDINGS = {"fever and cough": "pneumonia", "dysuria": "cystitis", "headache": "migraine", "thirst": "diabetes"}
THOUGHTS = ["Okay, {f} suggests {d}. So {d} fits best.", "Hmm, {d}.", ""]


class NeverStop:
    """Stands where a training process has its StopRequest."""

    asked = False

    def anywhere(self) -> bool:
        return False


class StopAt(NeverStop):
    """Asked to stop at the n-th time that the group agrees."""

    def __init__(self, at: int) -> None:
        self.left = at

    def anywhere(self) -> bool:
        self.left -= 1
        return self.left <= 0


def cases(count: int, seed: int = 0) -> list[Case]:
    rng = random.Random(seed)
    made = []
    for index in range(count):
        finding, disease = rng.choice(list(FINDINGS.items()))
        question = f"A {rng.randrange(20, 90)} year old with {finding}. What is the diagnosis?"
        made.append(Case(id=f"case-{index}", language="en", question=question, reference=disease, specialty="x"))
    return made


def completion(tokenizer, case: Case, rng: random.Random) -> list[int]:
    from clinical_r1.generation.chat import completion_ids

    finding = next(f for f, d in FINDINGS.items() if d == case.reference)
    disease = case.reference if rng.random() < 0.4 else rng.choice(list(FINDINGS.values()))
    thought = rng.choice(THOUGHTS).format(f=finding, d=disease)
    return completion_ids(tokenizer, thought, f"Final diagnosis: {disease}")


def config(**changes) -> PPOConfig:
    """A run of seconds."""
    settings = {
        "steps": 4, "batch_size": 8, "micro_batch_size": 2, "minibatches": 2, "epochs": 1, "learning_rate": 2e-3,
        "warmup_steps": 0, "save_every": 2, "rollout": {"max_new_tokens": 48},
        "critic": {"learning_rate": 5e-3, "warmup_batches": 2, "warmup_epochs": 1, "clip": None},
        "probe": {"every": 2, "cases": 8}, "reasoning": {"min_reasoning_tokens": 4}, "keep": "last",
        "deepspeed": {"stage": 1},
    } | changes  # fmt: skip
    return PPOConfig.model_validate(settings)


def job(settings, sft_model, splits, folder: Path) -> PPOJob:
    return PPOJob(config=settings, model=sft_model, **splits, out_dir=folder / "out", state_dir=folder / "state")


def on_two_processes(jobs: list[PPOJob], folder: Path) -> None:
    """Run them all in one launch (ppo_group.py)."""
    path = folder / "jobs.json"
    path.write_text(json.dumps([job.model_dump(mode="json") for job in jobs]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        launch("ppo_group", path, processes=2, label="jobs")


def weights(folder: Path) -> dict[str, Any]:
    from clinical_r1.generation.load import load_model

    return load_model(folder)[0].state_dict()


def result(folder: Path) -> dict:
    return json.loads((folder / "state" / "result.json").read_text())


def numbers(folder: Path) -> list[dict]:
    """The rows of a run without its times."""
    timed = ("time", "train/episodes_per", "train/tokens_per", "train/mfu")
    rows = read_metrics(folder / "out" / "metrics.jsonl")
    return [{key: value for key, value in row.items() if not key.startswith(timed)} for row in rows]
