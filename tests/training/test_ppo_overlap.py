"""The critic's update beside the next rollout: the same numbers, also stopped, resumed and on two threads."""

import threading
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
import torch
from ppo_fixtures import (  # noqa: F401
    NeverStop,
    StopAt,
    _group,
    _one_thread,
    config,
    job,
    numbers,
    sft_model,
    splits,
    weights,
)

from clinical_r1.errors import UserError
from clinical_r1.training.metrics import read_metrics
from clinical_r1.training.ppo import overlap as overlap_module
from clinical_r1.training.ppo import trainer
from clinical_r1.training.ppo.engines import build_engines
from clinical_r1.training.ppo.learn import Learner
from clinical_r1.training.ppo.main import train
from clinical_r1.training.ppo.overlap import Overlap, pays
from clinical_r1.training.trainee import Stopped


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def same(one, other) -> bool:
    first, second = weights(one / "out" / "model"), weights(other / "out" / "model")
    return all(torch.equal(value, second[name]) for name, value in first.items()) and numbers(one) == numbers(other)


class Inline:
    """Stands where the pool is: the same narrow threads, one piece after the other."""

    def submit(self, work, *args):
        done = Future()
        done.set_result(work(*args))
        return done

    def shutdown(self, **_):
        pass


def test_two_threads_do_what_one_after_the_other_do(sft_model, splits, tmp_path, monkeypatch, two_threads):  # noqa: F811
    train(job(config(), sft_model, splits, tmp_path / "beside"), NeverStop())
    monkeypatch.setattr(overlap_module, "ThreadPoolExecutor", lambda *_: Inline())
    train(job(config(), sft_model, splits, tmp_path / "after"), NeverStop())
    assert same(tmp_path / "after", tmp_path / "beside")


@pytest.mark.parametrize("changes", [{}, {"lora": {"rank": 4, "alpha": 8}, "deepspeed": {"stage": 2}}])
def test_side_by_side_is_one_after_the_other(changes, sft_model, splits, tmp_path, monkeypatch):  # noqa: F811
    settings = config(**changes)
    train(job(settings, sft_model, splits, tmp_path / "after"), NeverStop())
    monkeypatch.setattr(trainer, "pays", lambda *_: True)
    train(job(settings, sft_model, splits, tmp_path / "beside"), NeverStop())
    assert same(tmp_path / "after", tmp_path / "beside")


@pytest.mark.parametrize("calls", [5, 6, 7, 11])
def test_a_stopped_run_goes_on_to_the_same_weights_on_two_threads(calls, sft_model, splits, tmp_path, two_threads):  # noqa: F811
    """Stopped in a rollout with nothing beside it (5), with an update beside it (7, 11), and between steps (6)."""
    task = job(config(), sft_model, splits, tmp_path / "stopped")
    with pytest.raises(Stopped):
        train(task, StopAt(calls))
    train(task, NeverStop())
    assert torch.get_num_threads() == 2
    train(job(config(), sft_model, splits, tmp_path / "whole"), NeverStop())
    assert same(tmp_path / "whole", tmp_path / "stopped")


def test_an_update_runs_while_the_next_rollout_does(sft_model, splits, tmp_path, monkeypatch, two_threads):  # noqa: F811
    """The first step's update waits for a token of the second step's rollout, and that token for the update's begin."""
    started, sampling, value = threading.Event(), threading.Event(), Learner.value
    on_token, train_step = trainer.Collector._on_token, trainer.Trainer._train_step
    current, began = [], []

    def noted(self, step):
        current.append(step)
        return train_step(self, step)

    def watched(self, row, token):
        if current[-1:] == [2]:
            assert started.wait(60), "no update beside the rollout"
            sampling.set()
        return on_token(self, row, token)

    def held(self, batch, stream, step, epochs):
        if threading.current_thread() is not threading.main_thread():
            began.append(step)
            started.set()
            assert sampling.wait(60), "no rollout beside the update"
        return value(self, batch, stream, step, epochs)

    monkeypatch.setattr(trainer.Trainer, "_train_step", noted)
    monkeypatch.setattr(trainer.Collector, "_on_token", watched)
    monkeypatch.setattr(Learner, "value", held)
    settings = config(steps=3, probe={"every": 0, "cases": 8}, save_every=10)
    train(job(settings, sft_model, splits, tmp_path), NeverStop())
    assert began == [1, 2, 3]
    rows = [row for row in read_metrics(tmp_path / "out" / "metrics.jsonl") if "time/step" in row]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all({"critic/loss", "time/value"} <= row.keys() for row in rows)
    assert ["time/settle" in row for row in rows] == [False, False, True]


def test_a_failing_update_ends_the_run(sft_model, splits, tmp_path, monkeypatch, two_threads):  # noqa: F811
    value = Learner.value

    def broken(self, batch, stream, step, epochs):
        if threading.current_thread() is not threading.main_thread():
            raise UserError("the critic broke")
        return value(self, batch, stream, step, epochs)

    monkeypatch.setattr(Learner, "value", broken)
    with pytest.raises(UserError, match="the critic broke"):
        train(job(config(), sft_model, splits, tmp_path), NeverStop())
    assert torch.get_num_threads() == 2


def test_where_it_pays(sft_model, monkeypatch):  # noqa: F811
    engines = build_engines(config(), sft_model)

    def answer(threads=2, **changes):
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        return pays(config(**changes), engines)

    assert answer()
    assert answer(threads=3)
    assert not answer(threads=1)
    assert not answer(threads=4)
    assert not answer(deepspeed={"stage": 3})
    assert not answer(batch_size=80_000), "steps of so many rows are shared among threads themselves"
    vllm = {"engine": "vllm", "vllm_url": "http://127.0.0.1:9/v1"}
    assert not answer(rollout=vllm)
    assert not answer(save_every=1)
    assert not answer(probe={"every": 1, "cases": 8})
    assert answer(probe={"every": 0, "cases": 8})
    with monkeypatch.context() as patch:
        patch.setattr(engines.policy.causal.config, "attention_dropout", 0.1)
        assert not answer()
    without = SimpleNamespace(critic=None, device=engines.device, policy=engines.policy)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert not pays(config(), without)


def test_what_a_pass_raises_is_raised_by_join(two_threads):
    overlap = Overlap(on=True)
    overlap.narrow()
    done = []

    def work(item):
        if item == 1:
            raise UserError("item 1")
        done.append((item, torch.get_num_threads()))

    overlap.each(work, range(4))
    with pytest.raises(UserError, match="item 1"):
        overlap.join()
    assert sorted(done) == [(0, 1), (2, 1), (3, 1)]
    assert torch.get_num_threads() == 2
    overlap.join()
    assert overlap.result() == {}
