"""What `make bench NAME=learning` makes of its finished stages: hours of training are worth nothing if this breaks."""

import json

import pytest

from benchmarks.learning import NEEDED, seed_row, summary


def test_finished_stages_become_a_line_a_seed_and_one_summary(tmp_path):
    def look(accuracy):
        return {
            "n": 100, "accuracy": accuracy, "reasoning_tokens": 50.0, "careful": 0.5, "within_careful": 0.9,
            "stage_seconds": 1.0,
        }  # fmt: skip

    rows = []
    for seed, ppo in enumerate((0.8, 0.9)):
        stages = {
            "bayes": {"accuracy": 1.0}, "look-sft": look(0.6), "look-ppo": look(ppo), "look-grpo": look(0.7),
            "look-at-once": look(0.3), "ceiling": {"online": 0.02, "ceiling": 0.04},
        }  # fmt: skip
        assert set(stages) == set(NEEDED)
        folder = tmp_path / str(seed)
        folder.mkdir()
        for name, stage in stages.items():
            (folder / f"{name}.json").write_text(json.dumps(stage))
        rows.append(seed_row(folder, seed))
    told = summary(rows)
    assert told["gap_closed"] == pytest.approx((0.5 + 0.75) / 2)
    assert told["gap_closed_grpo"] == pytest.approx(0.25) and told["grpo_accuracy"] == pytest.approx(0.7)
    assert told["ppo_over_grpo"] == pytest.approx(0.15) and told["ev_of_ceiling"] == pytest.approx(0.5)
    assert told["seeds"] == 2 and told["one_more_epoch_points"] is None
