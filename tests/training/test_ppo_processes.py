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
from ppo_fixtures import NeverStop, config, job, on_two_processes, result, weights

from clinical_r1.charts import read_metrics
from clinical_r1.errors import UserError
from clinical_r1.training.ppo.config import PPOConfig, PPOJob
from clinical_r1.training.ppo.run import train, train_ppo

pytestmark = pytest.mark.usefixtures("group_of_one")


def settings(**changes) -> PPOConfig:
    """Four micro-batches in a mini-batch: one, two and four processes can share them."""
    return config(**{"steps": 3, "batch_size": 16} | changes)


def launched(told, sft_model, splits, folder: Path) -> dict:
    return train_ppo(told, sft_model, splits["cases"], splits["validation"], folder / "out", folder / "state")


@pytest.fixture(scope="module")
def whole(sft_model, splits, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(job(settings(), sft_model, splits, folder), NeverStop())
    return folder


@pytest.fixture(scope="module")
def longer(sft_model, splits, tmp_path_factory) -> Path:
    """Enough steps for a busy machine to send a signal before the last."""
    folder = tmp_path_factory.mktemp("longer")
    assert launched(config(steps=9, save_every=100), sft_model, splits, folder)["steps"] == 9
    return folder


def assert_same_run(whole: Path, folder: Path) -> None:
    first, second = (read_metrics(f / "out" / "metrics.jsonl") for f in (whole, folder))
    for one, two in zip(first, second, strict=True):
        assert one.keys() == two.keys()
        rollout = ("train/reward", "train/length", "train/kl", "train/entropy", "validation/accuracy")
        for key in (*rollout, "critic/loss", "warmup/loss", "train/approx_kl", "train/clip_fraction"):
            assert one.get(key, 0) == pytest.approx(two.get(key, 0), abs=2e-3), (folder, key)
    assert_same_weights(whole, folder)


def assert_same_weights(whole: Path, folder: Path) -> None:
    ours = weights(folder / "out" / "model")
    for name, value in weights(whole / "out" / "model").items():
        torch.testing.assert_close(value, ours[name], atol=2e-3, rtol=1e-3, msg=f"{folder}: {name}")


def test_four_processes_equal_one(whole, sft_model, splits, tmp_path):
    told = settings(processes=4, deepspeed={"stage": 2})
    assert launched(told, sft_model, splits, tmp_path)["steps"] == 3
    assert_same_run(whole, tmp_path)


def test_two_processes_equal_one_and_each_goes_on_where_the_other_left_off(whole, sft_model, splits, tmp_path):
    def task(name: str, **changes) -> PPOJob:
        return job(settings(**changes), sft_model, splits, tmp_path / name)

    def part(processes: int, stage: int, name: str, **changes) -> PPOJob:
        store = str(tmp_path / name / "store")
        return task(name, processes=processes, deepspeed={"stage": stage}, checkpoints=store, **changes)

    def lose_disk(name: str) -> None:
        assert len(list((tmp_path / name / "state").glob("step-*"))) == 1
        shutil.rmtree(tmp_path / name / "state")  # it goes on from the store

    train(part(1, 2, "grown", steps=2), NeverStop())
    lose_disk("grown")
    whole_runs = [task(f"stage-{stage}", processes=2, deepspeed={"stage": stage}) for stage in (2, 3)]
    begun = [part(2, stage, f"shrunk-{stage}", steps=2) for stage in (2, 1)]
    on_two_processes([*whole_runs, *begun, part(2, 2, "grown")], tmp_path)
    for stage in (2, 1):
        lose_disk(f"shrunk-{stage}")
        train(part(1, stage, f"shrunk-{stage}"), NeverStop())
    for name in ("grown", "shrunk-2", "shrunk-1"):
        assert result(tmp_path / name)["steps"] == 3
        assert_same_weights(whole, tmp_path / name)
    for stage in (2, 3):
        assert_same_run(whole, tmp_path / f"stage-{stage}")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_goes_on_to_the_same_weights(number, longer, sft_model, splits, tmp_path):
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


def test_wrong_input_is_one_sentence(sft_model, splits, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(UserError, match=r"empty\.jsonl: no cases"):
        launched(config(), sft_model, splits | {"cases": empty}, tmp_path)
    with pytest.raises(UserError, match="no such file"):
        launched(config(), sft_model, splits | {"validation": tmp_path / "none.jsonl"}, tmp_path)
    with pytest.raises(UserError, match="no model folder"):
        launched(config(), tmp_path, splits, tmp_path)
    with pytest.raises(UserError, match="processes cannot share evenly"):
        launched(config(processes=3), sft_model, splits, tmp_path)
    started = time.monotonic()
    with pytest.raises(UserError, match="window is 192"):
        launched(config(rollout={"max_new_tokens": 190}), sft_model, splits, tmp_path)
    assert time.monotonic() - started < 120
