"""Runs under torchrun: processes share the work and change nothing; kill -9 and SIGTERM lose nothing."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ppo_fixtures import _one_thread, config, sft_model, splits  # noqa: F401

from clinical_r1.charts import read_metrics
from clinical_r1.errors import UserError
from clinical_r1.generation.load import load_model
from clinical_r1.training.ppo.config import PPOConfig, PPOJob
from clinical_r1.training.ppo.run import train_ppo


def settings(**changes) -> PPOConfig:
    """Four micro-batches in a mini-batch: one, two and four processes can share them."""
    return config(**{"steps": 3, "batch_size": 16} | changes)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder)[0].state_dict()


def train(told, sft_model, splits, folder: Path) -> dict:  # noqa: F811
    return train_ppo(told, sft_model, splits["cases"], splits["validation"], folder / "out", folder / "state")


@pytest.fixture(scope="module")
def whole(sft_model, splits, tmp_path_factory) -> Path:  # noqa: F811
    folder = tmp_path_factory.mktemp("whole")
    assert train(settings(), sft_model, splits, folder)["steps"] == 3
    return folder


@pytest.fixture(scope="module")
def longer(sft_model, splits, tmp_path_factory) -> Path:  # noqa: F811
    """Enough steps for a busy machine to send a signal before the last."""
    folder = tmp_path_factory.mktemp("longer")
    train(config(steps=9, save_every=100), sft_model, splits, folder)
    return folder


@pytest.mark.parametrize(("processes", "stage"), [(2, 2), (2, 3), (4, 2)])
def test_several_processes_equal_one(processes, stage, whole, sft_model, splits, tmp_path):  # noqa: F811
    train(settings(processes=processes, deepspeed={"stage": stage}), sft_model, splits, tmp_path)
    first, second = (read_metrics(f / "out" / "metrics.jsonl") for f in (whole, tmp_path))
    for one, two in zip(first, second, strict=True):
        assert one.keys() == two.keys()
        rollout = ("train/reward", "train/length", "train/kl", "train/entropy", "validation/accuracy")
        for key in (*rollout, "critic/loss", "warmup/loss", "train/approx_kl", "train/clip_fraction"):
            assert one.get(key, 0) == pytest.approx(two.get(key, 0), abs=2e-3), key
    for name, value in weights(whole / "out" / "model").items():
        torch.testing.assert_close(value, weights(tmp_path / "out" / "model")[name], atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(("first", "then", "stage"), [(2, 1, 2), (1, 2, 2), (2, 1, 1)])
def test_a_run_goes_on_with_another_number_of_processes(first, then, stage, whole, sft_model, splits, tmp_path):  # noqa: F811
    shards = {"deepspeed": {"stage": stage}, "checkpoints": str(tmp_path / "store")}
    train(settings(steps=2, processes=first, **shards), sft_model, splits, tmp_path)
    assert len(list((tmp_path / "state").glob("step-*"))) == 1
    shutil.rmtree(tmp_path / "state")  # another disk: it goes on from the store
    assert train(settings(processes=then, **shards), sft_model, splits, tmp_path)["steps"] == 3
    for name, value in weights(whole / "out" / "model").items():
        torch.testing.assert_close(value, weights(tmp_path / "out" / "model")[name], atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_goes_on_to_the_same_weights(number, longer, sft_model, splits, tmp_path):  # noqa: F811
    told = config(steps=9, save_every=100)
    task = PPOJob(config=told, model=sft_model, **splits, out_dir=tmp_path / "out", state_dir=tmp_path / "state")
    (tmp_path / "job.json").write_text(task.model_dump_json())
    command = [sys.executable, "-m", "clinical_r1.training.ppo.run", "--config", str(tmp_path / "job.json")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if '"ppo"' in line and '"step": 1' in line:
            process.send_signal(number)
            break
    process.stdout.read()
    assert process.wait(timeout=120) == (75 if number == signal.SIGTERM else -9)
    assert not (task.state_dir / "result.json").exists()
    saved = {folder.name for folder in task.state_dir.glob("step-*")}
    assert (saved == {"step-00000000"}) == (number == signal.SIGKILL)  # SIGTERM leaves time for a checkpoint
    assert subprocess.run(command, capture_output=True, timeout=240, env=os.environ).returncode == 0
    for name, value in weights(longer / "out" / "model").items():
        assert torch.equal(value, weights(tmp_path / "out" / "model")[name]), name


def test_wrong_input_is_one_sentence(sft_model, splits, tmp_path):  # noqa: F811
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(UserError, match=r"empty\.jsonl: no cases"):
        train(config(), sft_model, splits | {"cases": empty}, tmp_path)
    with pytest.raises(UserError, match="no such file"):
        train(config(), sft_model, splits | {"validation": tmp_path / "none.jsonl"}, tmp_path)
    with pytest.raises(UserError, match="no model folder"):
        train(config(), tmp_path, splits, tmp_path)
    with pytest.raises(UserError, match="processes cannot share evenly"):
        train(config(processes=3), sft_model, splits, tmp_path)
    started = time.monotonic()
    with pytest.raises(UserError, match="window is 192"):
        train(config(rollout={"max_new_tokens": 190}), sft_model, splits, tmp_path)
    assert time.monotonic() - started < 120
