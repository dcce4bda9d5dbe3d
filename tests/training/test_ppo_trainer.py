"""Whole runs in this process: outputs, resume, masking, stopping, choice of weights."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ppo_fixtures import NeverStop, StopAt, config, job, numbers, result, weights

from clinical_r1.charts import read_metrics
from clinical_r1.errors import UserError
from clinical_r1.schema import Verdict, VerdictLabel
from clinical_r1.training.launcher import MARK, Stopped
from clinical_r1.training.ppo import scoring
from clinical_r1.training.ppo.run import train

pytestmark = pytest.mark.usefixtures("group_of_one")


@pytest.fixture(scope="module")
def whole(sft_model, splits, tmp_path_factory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    train(job(config(), sft_model, splits, folder), NeverStop())
    return folder


def test_a_run_leaves_model_config_metrics_and_curves(whole, sft_model):
    out = whole / "out"
    assert {"model", "config.json", "metrics.jsonl", "curves.svg"} <= {path.name for path in out.iterdir()}
    rows = read_metrics(out / "metrics.jsonl")
    steps = [row for row in rows if "train/reward" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4]
    assert [row["step"] for row in rows if "validation/accuracy" in row] == [0, 2, 4]
    assert all(row["train/sampler_gap"] < 1e-4 for row in steps)
    assert steps[0]["train/kl"] == pytest.approx(0, abs=1e-3)
    assert all({"train/entropy", "time/rollout"} <= row.keys() for row in steps)
    # No update where every episode earned the same.
    assert all(
        ("train/clip_fraction" in row) == bool(row["train/reward_spread"]) == row["train/updated"] for row in steps
    )
    # Not in a step whose rewards are all alike: there is no variance to explain.
    assert any("critic/explained_variance" in row for row in steps)
    summary = result(whole)
    assert summary["steps"] == 4
    assert summary["stop_reason"] == ""
    assert summary["steps_updated"] == sum(row["train/updated"] for row in steps)
    assert summary["kept_step"] == 4  # keep: last
    assert any(not torch.equal(value, weights(sft_model)[name]) for name, value in weights(out / "model").items())
    assert len(list((whole / "state").glob("step-*"))) == 2


def test_a_run_keeps_some_completions_with_what_they_earned(whole):
    path = whole / "out" / "samples.jsonl"
    assert path.stat().st_mode & 0o077 == 0
    rows = read_metrics(path)
    assert [row["step"] for row in rows] == [step for step in (1, 2, 3, 4) for _ in range(4)]
    assert all(row["outcome"] and row["verdict"] and row["tokens"] > 0 and row["reference"] for row in rows)
    assert any(row["response"] for row in rows)
    by_step = {
        row["step"]: row["train/reward"]
        for row in read_metrics(whole / "out" / "metrics.jsonl")
        if "train/reward" in row
    }
    assert all(0 <= row["reward"] <= 1 for row in rows)
    assert set(by_step) == {row["step"] for row in rows}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(whole / "out" / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    table = events.Tensors("samples/text_summary")
    assert [one.step for one in table] == [1, 2, 3, 4]
    assert "| case_id | outcome | verdict | reward |" in table[0].tensor_proto.string_val[0].decode()


def test_the_preflight_knows_what_a_checkpoint_takes(whole, sft_model):
    from clinical_r1.training.preflight import Geometry, estimate

    taken = [sum(f.stat().st_size for f in step.rglob("*") if f.is_file()) for step in (whole / "state").glob("step-*")]
    assert len(taken) == 2
    assert estimate(config(), Geometry.of(sft_model)).disk["checkpoints"] / 3 == pytest.approx(taken[0], rel=0.25)


def test_samples_without_text_or_none_at_all(sft_model, splits, tmp_path):
    told = {"steps": 1, "probe": {"every": 0, "cases": 4}}
    train(job(config(samples={"text": "none"}, **told), sft_model, splits, tmp_path / "a"), NeverStop())
    rows = read_metrics(tmp_path / "a" / "out" / "samples.jsonl")
    assert len(rows) == 4
    assert not {"thinking", "response", "reference"} & set().union(*rows)
    train(job(config(samples={"per_step": 0}, **told), sft_model, splits, tmp_path / "b"), NeverStop())
    assert not read_metrics(tmp_path / "b" / "out" / "samples.jsonl")


@pytest.mark.parametrize("calls", [1, 3, 5, 6, 7, 9])
def test_a_stopped_run_goes_on_to_the_same_weights(calls, whole, sft_model, splits, tmp_path):
    """Stopped while the critic is fitted, in a rollout, and between steps; with a mixed case between checkpoints."""
    task = job(config(), sft_model, splits, tmp_path)
    with pytest.raises(Stopped):
        train(task, StopAt(calls))
    assert not (tmp_path / "out" / "model").exists()
    train(task, NeverStop())
    for name, value in weights(whole / "out" / "model").items():
        assert torch.equal(value, weights(tmp_path / "out" / "model")[name]), name
    assert numbers(whole) == numbers(tmp_path)
    assert read_metrics(whole / "out" / "samples.jsonl") == read_metrics(tmp_path / "out" / "samples.jsonl")


@pytest.fixture(scope="module")
def warmed(sft_model, splits, tmp_path_factory) -> Path:
    """An uninterrupted run whose critic passes twice over two batches."""
    folder = tmp_path_factory.mktemp("warmed")
    train(job(config(**WARMED), sft_model, splits, folder), NeverStop())
    return folder


WARMED = {"steps": 1, "critic": {"learning_rate": 5e-3, "warmup_batches": 2, "warmup_epochs": 2}}


@pytest.mark.parametrize(("calls", "done"), [(1, 0), (3, 1), (4, 2), (5, 3), (6, 4)])
def test_stopped_in_the_warm_up_a_run_goes_on_there(calls, done, warmed, sft_model, splits, tmp_path, capfd):
    """Stopped in the first and second rollout, after it, in the second pass, and after the last fit."""
    task = job(config(**WARMED), sft_model, splits, tmp_path)
    with pytest.raises(Stopped):
        train(task, StopAt(calls))
    capfd.readouterr()
    train(task, NeverStop())
    lines = [line.removeprefix(MARK) for line in capfd.readouterr().out.splitlines() if line.startswith(MARK)]
    fits = [told["step"] for told in map(json.loads, lines) if told["label"] == "critic"]
    assert fits == list(range(done + 1, 5))
    assert numbers(warmed) == numbers(tmp_path)
    for name, value in weights(warmed / "out" / "model").items():
        assert torch.equal(value, weights(tmp_path / "out" / "model")[name]), name
    critic = "state/step-00000001/critic/engine/mp_rank_00_model_states.pt"
    ours, theirs = (torch.load(folder / critic, weights_only=False)["module"] for folder in (warmed, tmp_path))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


class Killed(StopAt):
    """Nobody asks: the process is gone."""

    def anywhere(self) -> bool:
        if super().anywhere():
            raise RuntimeError("killed")
        return False


def test_killed_between_two_checkpoints_of_the_warm_up_no_row_stands_twice(warmed, sft_model, splits, tmp_path):
    """The third fit is done again, and so is its row: all of the warm-up is step 0."""
    task = job(config(**WARMED), sft_model, splits, tmp_path)
    with pytest.raises(RuntimeError, match="killed"):
        train(task, Killed(5))
    assert (tmp_path / "state" / "step-00000000").is_dir()
    train(task, NeverStop())
    assert numbers(warmed) == numbers(tmp_path)


def test_a_checkpoint_of_the_warm_up_is_not_written_again_in_the_rollout_after_it(warmed, sft_model, splits, tmp_path):
    """To write it again, the whole one goes first: a pod may be gone before the new one is whole."""
    changes = WARMED | {"save_every": 1}
    task = job(config(**changes), sft_model, splits, tmp_path)
    with pytest.raises(Stopped):
        train(task, StopAt(3))  # in the second rollout, after the first fit
    folder = tmp_path / "state" / "step-00000000"
    before = folder.stat().st_ino, (folder / "complete.json").stat().st_mtime_ns
    with pytest.raises(Stopped):
        train(task, StopAt(1))
    assert (folder.stat().st_ino, (folder / "complete.json").stat().st_mtime_ns) == before


def test_a_finished_run_is_not_trained_again(whole, sft_model, splits):
    before = weights(whole / "out" / "model")
    train(job(config(), sft_model, splits, whole), StopAt(1))
    assert all(torch.equal(value, before[name]) for name, value in weights(whole / "out" / "model").items())


def test_failed_judgements_are_masked_out_and_counted(sft_model, splits, tmp_path, monkeypatch):
    class Failing:
        name = "failing"

        async def judge(self, item):
            return Verdict(label=VerdictLabel.INVALID, judge="failing")

    monkeypatch.setattr(scoring, "build_verifier", lambda *_: Failing())
    table = {"reasoning_correct": 1, "reasoning_incorrect": 0, "plain_correct": 0, "plain_incorrect": 0, "no_result": 0}
    settings = config(steps=1, reward_table=table, probe={"every": 0, "cases": 4}, judge_probe={"calls": 0})
    train(job(settings, sft_model, splits, tmp_path), NeverStop())
    row = next(row for row in read_metrics(tmp_path / "out" / "metrics.jsonl") if "train/masked" in row)
    assert row["train/masked"] > 0
    assert row["train/reward"] == 0
    assert result(tmp_path)["masked_judgements"] == row["train/masked"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"learning_rate": 0.3, "stop": {"max_kl": 3, "patience": 1}}, "KL runaway"),
        ({"rollout": {"max_new_tokens": 2}, "stop": {"max_cut_share": 0.5, "patience": 1}}, ""),
    ],
)
def test_collapse_stops_the_run_with_a_reason(changes, reason, sft_model, splits, tmp_path):
    settings = config(**changes, keep="best", steps=5)
    train(job(settings, sft_model, splits, tmp_path), NeverStop())
    summary = result(tmp_path)
    assert summary["stop_reason"].startswith(reason)
    assert (summary["steps"] < 5) == bool(reason)


def test_reward_rises(sft_model, splits, tmp_path):
    settings = config(
        steps=70, batch_size=32, micro_batch_size=16, minibatches=2, learning_rate=2e-3, kl_beta=0.01,
        probe={"every": 0, "cases": 16}, save_every=100, keep="best",
    )  # fmt: skip
    train(job(settings, sft_model, splits, tmp_path), NeverStop())
    summary = result(tmp_path)
    assert summary["reward_last"] > summary["reward_first"] + 0.1, summary


def test_episodes_of_another_engine_are_weighed_and_forgetting_is_probed(sft_model, splits, tmp_path, monkeypatch):
    """The same decoder stands for the server: its probabilities agree, so the weights are 1 and nothing is cut."""
    from clinical_r1.generation.decoder import Decoder
    from clinical_r1.training.ppo import vllm_rollout

    monkeypatch.setattr(vllm_rollout, "VLLMSampler", lambda _c, engines, _s: Decoder(engines.policy.model))
    rollout = {"max_new_tokens": 48, "engine": "vllm", "vllm_url": "http://127.0.0.1:9/v1"}
    probe = {"every": 0, "cases": 4, "forgetting_cases": str(splits["validation"]), "forgetting_limit": 3}
    train(job(config(steps=2, rollout=rollout, probe=probe), sft_model, splits, tmp_path), NeverStop())
    rows = read_metrics(tmp_path / "out" / "metrics.jsonl")
    assert all(row["train/sampler_gap"] < 1e-4 for row in rows if "train/reward" in row)
    assert [row["forgetting/n"] for row in rows if "forgetting/n" in row] == [3, 3]
    assert "forgetting_accuracy_before" in result(tmp_path)


def test_an_engine_with_other_weights_ends_the_run(sft_model, splits, tmp_path, monkeypatch):
    from clinical_r1.generation.decoder import Decoder
    from clinical_r1.training.ppo import vllm_rollout

    def stale(_config, engines, _state):
        decoder = Decoder(engines.policy.model)
        generate = decoder.generate

        def off(*args, **kwargs):
            rollouts = generate(*args, **kwargs)
            return [replace(one, logprobs=[value - 0.3 for value in one.logprobs]) for one in rollouts]

        decoder.generate = off
        return decoder

    monkeypatch.setattr(vllm_rollout, "VLLMSampler", stale)
    rollout = {"max_new_tokens": 48, "engine": "vllm", "vllm_url": "http://127.0.0.1:9/v1"}
    with pytest.raises(UserError, match=r"off by 0\.30 nats a token"):
        train(job(config(steps=1, rollout=rollout), sft_model, splits, tmp_path), NeverStop())


class Judge:
    """Says the same of everything."""

    name = "constant"

    def __init__(self, label: VerdictLabel) -> None:
        self.label = label

    async def judge(self, item):
        return Verdict(label=self.label, judge=self.name)


@pytest.mark.parametrize("label", [VerdictLabel.INCORRECT, VerdictLabel.CORRECT, VerdictLabel.INVALID])
def test_a_judge_that_misjudges_known_answers_pays_nothing(label, sft_model, splits, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "build_verifier", lambda *_: Judge(label))
    wrong = 20 if label is VerdictLabel.INVALID else 10
    with pytest.raises(UserError, match=rf"ppo\.judge: {wrong} of 20 answers whose truth is known were misjudged"):
        train(job(config(), sft_model, splits, tmp_path), NeverStop())


def test_the_judge_is_probed_and_its_error_rate_told(whole):
    assert result(whole)["judge_error_rate"] == 0
    assert result(whole)["judge_probe_n"] == 20


def test_answers_are_judged_while_others_are_still_sampled(sft_model, splits, tmp_path, monkeypatch):
    import time
    from concurrent.futures import wait

    from clinical_r1.generation.decoder import Decoder

    judged, sampled = [], []
    generate = Decoder.generate

    class Noting(Judge):
        async def judge(self, item):
            judged.append((time.monotonic(), item.answer))
            return await super().judge(item)

    def timed(self, *args, **kwargs):
        start = time.monotonic()
        found = generate(self, *args, **kwargs)
        sampled.append((start, time.monotonic()))
        return found

    submit = scoring.JudgeThread.submit

    def at_once(self, items):  # or a busy machine judges later what was submitted in time
        future = submit(self, items)
        wait([future])
        return future

    monkeypatch.setattr(scoring, "build_verifier", lambda *_: Noting(VerdictLabel.CORRECT))
    monkeypatch.setattr(scoring.JudgeThread, "submit", at_once)
    monkeypatch.setattr(Decoder, "generate", timed)
    told = {"steps": 1, "critic": {"warmup_batches": 0}, "probe": {"every": 0, "cases": 4}, "judge_probe": {"calls": 0}}
    train(job(config(**told), sft_model, splits, tmp_path), NeverStop())
    start, end = sampled[1]  # after the probe's
    during = [answer for at, answer in judged if start < at < end]
    after = [answer for at, answer in judged if end <= at < sampled[2][0]]
    assert len(during) >= 4  # of eight: all but those that end last
    assert len(during) + len(after) <= 8  # and none twice


@pytest.mark.parametrize("label", [VerdictLabel.INCORRECT, VerdictLabel.CORRECT])
def test_a_run_in_which_all_earn_the_same_learns_nothing_and_stops(label, sft_model, splits, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "build_verifier", lambda *_: Judge(label))
    table = {"reasoning_correct": 1, "reasoning_incorrect": 0, "plain_correct": 1, "plain_incorrect": 0, "no_result": 0}
    rule = {"judge_probe": {"calls": 0}, "reward_table": table | {"no_result": float(label is VerdictLabel.CORRECT)}}
    settings = config(steps=9, keep="last", stop={"unpaid_steps": 3}, probe={"every": 0, "cases": 4}, **rule)
    train(job(settings, sft_model, splits, tmp_path), NeverStop())
    summary = result(tmp_path)
    assert summary["steps"] == 3
    words = "no reward was paid" if label is VerdictLabel.INCORRECT else "every episode earned 1"
    assert f"{words} in 3 steps in a row" in summary["stop_reason"]
    assert (summary["steps_updated"], summary["kept_step"]) == (0, 3)
    assert all(torch.equal(v, weights(sft_model)[name]) for name, v in weights(tmp_path / "out" / "model").items())


def test_judgements_that_fail_are_the_reason_and_no_collapse_of_lengths(sft_model, splits, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "build_verifier", lambda *_: Judge(VerdictLabel.INVALID))
    table = {"reasoning_correct": 1, "reasoning_incorrect": 0, "plain_correct": 0, "plain_incorrect": 0, "no_result": 0}
    settings = config(
        steps=9, reward_table=table, probe={"every": 0, "cases": 4}, stop={"patience": 2}, judge_probe={"calls": 0}
    )
    monkeypatch.setattr("clinical_r1.training.ppo.scoring.NO_RESULT", frozenset())
    train(job(settings, sft_model, splits, tmp_path), NeverStop())
    assert result(tmp_path)["stop_reason"].startswith("no verdicts: 100%")
    assert result(tmp_path)["steps"] == 2


def test_a_tie_keeps_the_sft_model():
    from clinical_r1.training.ppo.config import StopConfig
    from clinical_r1.training.ppo.probe import CollapseWatch, ProbeResult

    def look(accuracy: float) -> ProbeResult:
        return ProbeResult(accuracy, 100, 0, 0, 1.0, 10.0, 20.0, {})

    watch = CollapseWatch()
    assert watch.after_probe(0, look(0.5), StopConfig())
    assert not watch.after_probe(20, look(0.5), StopConfig())
    assert watch.best_step == 0
    assert watch.after_probe(40, look(0.51), StopConfig())
    assert not watch.after_probe(60, look(0.51), StopConfig())
    assert watch.best_step == 40
