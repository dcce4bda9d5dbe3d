"""A critic must explain a reward that anyone can read off the completion: else values and returns are misaligned."""

import statistics

import pytest
from ppo_fixtures import NeverStop, config
from test_ppo_trainer import job

from clinical_r1.charts import read_metrics
from clinical_r1.training.ppo.run import train

pytestmark = pytest.mark.usefixtures("group_of_one")


@pytest.mark.parametrize(
    "critic", [{"learning_rate": 5e-3}, {"learning_rate": 5e-3, "epochs": 2, "schedule": "linear"}]
)
def test_a_reward_that_the_first_tokens_decide_is_explained(critic, sft_model, splits, tmp_path):
    """Any thought is paid and an empty one is not; the policy stands still, micro-batches are sorted by length."""
    table = {"reasoning_correct": 1, "reasoning_incorrect": 1, "plain_correct": 0, "plain_incorrect": 0, "no_result": 0}
    settings = config(
        steps=6, batch_size=32, micro_batch_size=4, learning_rate=1e-9, reward_table=table, save_every=100,
        critic={"warmup_batches": 4, "warmup_epochs": 2, "clip": None} | critic, probe={"every": 0, "cases": 4},
        deepspeed={"stage": 0},
    )  # fmt: skip
    train(job(settings, sft_model, splits, tmp_path), NeverStop())
    rows = [row for row in read_metrics(tmp_path / "out" / "metrics.jsonl") if "train/reward" in row]
    explained = [row["critic/explained_variance"] for row in rows]
    rewards = [row["train/reward"] for row in rows]
    assert 0.2 < statistics.fmean(rewards) < 0.9, rewards
    assert statistics.fmean(explained[-3:]) > 0.5, explained
