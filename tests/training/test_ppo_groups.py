"""GRPO and RLOO on PPO's engine: against TRL's trainers, whole runs, resumed runs, several processes."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from ppo_fixtures import NeverStop, StopAt, config, job, numbers, on_two_processes, result, weights

from clinical_r1.charts import read_metrics
from clinical_r1.training.launcher import MARK, Stopped
from clinical_r1.training.ppo.algorithm import group_advantages
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.ppo.run import train

pytestmark = pytest.mark.usefixtures("group_of_one")

FOUR = {"max_new_tokens": 48, "episodes_per_prompt": 4}


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_advantages_are_those_of_trls_trainers(algorithm, scale, sft_model, tmp_path, monkeypatch):
    """One step of TRL's own trainer on our model; some of its rewards are None, as where a judgement failed."""
    if algorithm == "rloo" and scale != "group":
        pytest.skip("RLOO has no scale")
    import trl
    from datasets import Dataset

    name = algorithm.upper()
    scored: list[float | None] = []
    seen: list[torch.Tensor] = []

    def earned(prompts, completions, **_):
        generator = torch.Generator().manual_seed(1)
        drawn = torch.rand(len(completions), generator=generator).tolist()
        scored[:] = [None if index in (2, 9) else round(value, 1) for index, value in enumerate(drawn)]
        return scored

    settings = {
        "output_dir": str(tmp_path), "per_device_train_batch_size": 16, "num_generations": 4, "max_steps": 1,
        "max_completion_length": 4, "use_cpu": True, "bf16": False, "beta": 0.0, "report_to": [], "disable_tqdm": True,
        "save_strategy": "no", "logging_strategy": "no",
    }  # fmt: skip
    if algorithm == "grpo":
        settings["scale_rewards"] = scale
    trainer_class = getattr(trl, f"{name}Trainer")
    original = trainer_class._generate_and_score_completions

    def spied(self, inputs):
        found = original(self, inputs)
        seen.append(found["advantages"].clone())
        return found

    monkeypatch.setattr(trainer_class, "_generate_and_score_completions", spied)
    data = Dataset.from_dict({"prompt": [f"A {age} year old with thirst." for age in range(20, 28)]})
    trainer_class(
        model=str(sft_model), reward_funcs=earned, args=getattr(trl, f"{name}Config")(**settings), train_dataset=data
    ).train()
    kept = torch.tensor([float(score is not None) for score in scored])
    scores = torch.tensor([score or 0.0 for score in scored])
    ours = group_advantages(scores, kept, 4, algorithm, scale)
    torch.testing.assert_close(ours, seen[0], atol=1e-5, rtol=1e-4)
    assert ours.abs().max() > 0.1


@pytest.fixture(scope="module")
def run(sft_model, splits, tmp_path_factory):
    """By algorithm the folder of an uninterrupted run with two rounds of resampling."""

    @cache
    def folder_of(algorithm: str) -> Path:
        folder = tmp_path_factory.mktemp(algorithm)
        train(job(told(algorithm), sft_model, splits, folder), NeverStop())
        return folder

    return folder_of


@pytest.fixture(params=["grpo", "rloo"])
def whole(request, run):
    """(algorithm, folder) of such a run."""
    return request.param, run(request.param)


def told(algorithm: str, **changes) -> PPOConfig:
    return config(**{"algorithm": algorithm, "rollout": FOUR, "batch_size": 16, "steps": 3, "warmup_steps": 0,
                     "group": {"resample_rounds": 2}, "clip_high": 0.28} | changes)  # fmt: skip


def test_a_run_has_no_critic_and_says_its_algorithm(whole, sft_model):
    algorithm, folder = whole
    steps = [row for row in read_metrics(folder / "out" / "metrics.jsonl") if "train/reward" in row]
    assert len(steps) == 3
    assert not any(name.startswith(("critic/", "warmup/")) for row in steps for name in row)
    assert all(0 <= row["train/flat_groups"] <= 1 and "time/resample" in row for row in steps)
    assert any(row["train/updated"] for row in steps)
    assert result(folder)["algorithm"] == algorithm
    assert not list(folder.glob("state/step-*/critic"))
    assert any(not torch.equal(v, weights(sft_model)[name]) for name, v in weights(folder / "out" / "model").items())


def test_resampling_leaves_fewer_groups_without_spread(whole, sft_model, splits, tmp_path):
    algorithm, folder = whole
    if algorithm == "rloo":
        pytest.skip("the same code")
    train(job(told(algorithm, group={}), sft_model, splits, tmp_path), NeverStop())
    first, plain = (
        next(row for row in read_metrics(one / "out" / "metrics.jsonl") if "train/flat_groups" in row)
        for one in (folder, tmp_path)
    )
    assert plain["train/flat_groups"] > first["train/flat_groups"]
    assert plain["train/reward"] == first["train/reward"]  # of what was drawn first


def test_a_stopped_run_goes_on_to_the_same_weights(whole, sft_model, splits, tmp_path, capfd):
    algorithm, folder = whole
    with pytest.raises(Stopped):
        train(job(told(algorithm), sft_model, splits, tmp_path), StopAt(5))
    train(job(told(algorithm), sft_model, splits, tmp_path), NeverStop())
    assert numbers(folder) == numbers(tmp_path)
    lines = capfd.readouterr().out.splitlines()
    shown = [json.loads(line.removeprefix(MARK)) for line in lines if line.startswith(MARK)]
    assert {one["label"] for one in shown} == {"probe", algorithm}  # a progress line names what runs
    for name, value in weights(folder / "out" / "model").items():
        assert torch.equal(value, weights(tmp_path / "out" / "model")[name]), name


def test_two_processes_equal_one(run, sft_model, splits, tmp_path):
    runs = {(name, stage): tmp_path / f"{name}-{stage}" for name in ("grpo", "rloo") for stage in (1, 3)}
    on_two_processes(
        [
            job(told(name, processes=2, deepspeed={"stage": stage}), sft_model, splits, folder)
            for (name, stage), folder in runs.items()
        ],
        tmp_path,
    )
    for (algorithm, _), folder in runs.items():
        whole = run(algorithm)
        for one, other in zip(numbers(whole), numbers(folder), strict=True):
            for key in ("train/reward", "train/length", "train/kl", "train/flat_groups", "validation/accuracy"):
                assert one.get(key, 0) == pytest.approx(other.get(key, 0), abs=2e-3), (folder, key)
        ours = weights(folder / "out" / "model")
        for name, value in weights(whole / "out" / "model").items():
            torch.testing.assert_close(value, ours[name], atol=2e-3, rtol=1e-3, msg=f"{folder}: {name}")


def test_reward_rises(sft_model, splits, tmp_path):
    settings = told(
        "grpo", steps=70, batch_size=32, micro_batch_size=16, learning_rate=1e-3, kl_beta=0.01, group={},
        rollout=FOUR | {"episodes_per_prompt": 8}, probe={"every": 0, "cases": 16}, save_every=100, keep="best",
    )  # fmt: skip
    train(job(settings, sft_model, splits, tmp_path), NeverStop())
    summary = result(tmp_path)
    assert summary["reward_last"] > summary["reward_first"] + 0.1, summary


def test_settings_that_make_no_group_are_refused():
    assert config(algorithm="grpo", batch_size=16).group_size == 4
    with pytest.raises(ValueError, match=r"rloo compares .* set rollout.episodes_per_prompt to 2 or more"):
        config(algorithm="rloo", rollout={"episodes_per_prompt": 1})
    with pytest.raises(ValueError, match=r"multiple of rollout\.episodes_per_prompt 3"):
        config(algorithm="grpo", rollout={"episodes_per_prompt": 3})
