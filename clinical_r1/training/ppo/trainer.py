"""The loop: probe, fit the critic, then step after step of rollout and updates, watched and resumable."""

import math
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clinical_r1.rewards import reward_table
from clinical_r1.schema import VerdictLabel
from clinical_r1.training.launcher import report_progress
from clinical_r1.training.metrics import METRICS_FILE, MetricsWriter
from clinical_r1.training.ppo.algorithm import (
    adapted_beta,
    advantages_and_returns,
    explained_variance,
    learning_rate_factor,
)
from clinical_r1.training.ppo.batch import Batch
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.ppo.data import TRAIN_STREAM, WARMUP_STREAM, PromptSet
from clinical_r1.training.ppo.engines import Engines, rank, set_learning_rate
from clinical_r1.training.ppo.learn import Learner
from clinical_r1.training.ppo.probe import ProbeResult, probe
from clinical_r1.training.ppo.rollout import Collector, Interrupted, Timer
from clinical_r1.training.ppo.saving import load_checkpoint, save_best, save_checkpoint
from clinical_r1.training.ppo.scoring import JudgeThread, Reader, Scorer
from clinical_r1.training.ppo.watch import Watch
from clinical_r1.training.trainee import Stopped, StopRequest


class Trainer:
    """One PPO run on engines that are ready; see `run`."""

    def __init__(
        self, config: PPOConfig, engines: Engines, sampler: Any, judge: JudgeThread, prompts: PromptSet,
        validation: PromptSet, forgetting: PromptSet | None, state_dir: Path, stop: StopRequest,
    ) -> None:  # fmt: skip
        self.config, self.engines, self.sampler, self.judge = config, engines, sampler, judge
        self.validation, self.forgetting, self.state_dir, self.stop = validation, forgetting, state_dir, stop
        scorer = Scorer(judge, Reader(engines.tokenizer), reward_table(config.reward_table), config.reasoning)
        self.collector = Collector(config, engines, sampler, scorer, prompts, stop)
        self.learner = Learner(config, engines)
        self.watch = Watch()
        self.beta = config.kl_beta
        self.step = 0
        self.saved_step = -1
        self.finished = False

    def run(self) -> None:
        """Train to the end (or to collapse) from the last checkpoint; raises Stopped where it was asked to stop."""
        state = load_checkpoint(self.engines, self.state_dir)
        if state is not None:
            self.step = self.saved_step = state["step"]
            self.beta, self.watch, self.finished = state["beta"], Watch(**state["watch"]), state["finished"]
            if not self.watch.stop_reason:  # it may have been made longer
                self.finished = self.finished and self.step >= self.config.steps
        elif rank() == 0:
            (self.state_dir / METRICS_FILE).unlink(missing_ok=True)
        self.metrics = MetricsWriter(self.state_dir, self.step) if rank() == 0 else None
        try:
            if state is None:
                self._begin()
            while not self.finished:
                self._next()
        except Interrupted:
            # Nothing of this step has touched the weights, so they are those of the step before.
            if self.saved_step < self.step:
                self._save()
            raise Stopped from None
        finally:
            if self.metrics is not None:
                self.metrics.close()

    def _begin(self) -> None:
        """The SFT model's probe, and the critic's fit on the SFT model's episodes (started anew if interrupted)."""
        self.saved_step = 0  # an interruption in here leaves no checkpoint: all of it is done again
        self._probe()
        if self.engines.critic is not None and self.config.steps:
            self._fit_critic()
        self.finished = self.config.steps == 0
        self._save()

    def _fit_critic(self) -> None:
        settings, batches = self.config.critic, []
        set_learning_rate(self.engines.critic, settings.warmup_learning_rate or self.config.critic_rate)
        total = settings.warmup_batches * settings.warmup_epochs
        for number in range(1, total + 1):
            epoch, index = divmod(number - 1, settings.warmup_batches)
            if epoch == 0:
                batches.append(self.collector.collect(WARMUP_STREAM, number, self.beta, Timer()))
            batch = batches[index]
            row = {"warmup/explained_variance": monte_carlo_variance(batch)} if epoch == 0 else {}
            row |= self._renamed(self.learner.value(batch, WARMUP_STREAM, number, 1), "warmup/")
            self._tell("critic", number, total, row)
            self._write(0, row)
            if self.stop.anywhere():
                raise Interrupted

    def _next(self) -> None:
        """One step, and what is due after it."""
        self._reseed(self.step + 1)
        row = self._train_step(self.step + 1)
        self.step += 1
        self._tell("ppo", self.step, self.config.steps, row)
        self.watch.after_step(row, self.config.stop)
        last = self.step >= self.config.steps or bool(self.watch.stop_reason)
        every = self.config.probe.every
        if last or (every and self.step % every == 0):
            self._probe()
        self.finished = last or bool(self.watch.stop_reason)
        if self.finished or self.step % self.config.save_every == 0:
            self._save()
        if not self.finished and self.stop.anywhere():
            raise Interrupted

    def _train_step(self, step: int) -> dict[str, float]:
        """Roll out and update actor and critic; nothing is learnt where no episode earned more than another: scaled to
        deviation 1, the critic's noise would become a full-size update."""
        config, timer = self.config, Timer()
        begin = time.perf_counter()
        batch = self.collector.collect(TRAIN_STREAM, step, self.beta, timer)
        now = time.perf_counter()
        factor = learning_rate_factor(step, config.steps, config.warmup_steps, config.schedule)
        set_learning_rate(self.engines.actor, config.learning_rate * factor)
        row: dict[str, float] = {}
        learns = has_spread(batch, config.rollout.episodes_per_prompt if self.engines.critic is None else 1)
        if learns:
            row = self._renamed(self.learner.policy(batch, TRAIN_STREAM, step), "train/")
        now = timer.lap("policy", now)
        if self.engines.critic is not None:
            row["critic/explained_variance"] = monte_carlo_variance(batch)
            if learns:
                row |= self._fit_to(batch, step)
            timer.lap("value", now)
        row |= describe(batch) | {"train/beta": self.beta, "train/learning_rate": config.learning_rate * factor}
        row |= {"train/updated": float(learns)} | {f"time/{phase}": spent for phase, spent in timer.seconds.items()}
        row["time/step"] = time.perf_counter() - begin
        row["train/episodes_per_s"] = config.batch_size / row["time/step"]
        self.beta = adapted_beta(self.beta, row["train/kl"], config.kl_target, len(batch.episodes))
        self._write(step, row)
        return row

    def _fit_to(self, batch: Batch, step: int) -> dict[str, float]:
        """The critic's update of a step."""
        config = self.config
        course = config.critic.schedule or config.schedule
        factor = learning_rate_factor(step, config.steps, config.warmup_steps, course)
        set_learning_rate(self.engines.critic, config.critic_rate * factor)
        return self._renamed(self.learner.value(batch, TRAIN_STREAM, step, config.critic.epochs), "critic/")

    def _probe(self) -> None:
        start = time.perf_counter()
        result = self._look(self.validation)
        row = result.row("validation")
        if self.forgetting is not None:
            row |= self._look(self.forgetting).row("forgetting")
        better = self.watch.after_probe(self.step, result, self.config.stop)
        if better and self.config.keep == "best" and self.step:
            save_best(self.engines, self.state_dir, self.step)
        self._write(self.step, row | {"time/probe": time.perf_counter() - start})
        self._tell("probe", self.step, self.config.steps, {"validation/accuracy": result.accuracy})

    def _look(self, cases: PromptSet) -> ProbeResult:
        self.engines.actor.eval()
        return probe(self.config, self.sampler, self.engines, self.judge, cases, self.config.reasoning)

    def _save(self) -> None:
        state = {"step": self.step, "beta": self.beta, "watch": self.watch.state(), "finished": self.finished}
        save_checkpoint(self.engines, self.state_dir, self.step, state)
        self.saved_step = self.step

    def _reseed(self, step: int) -> None:
        """All chance of a step comes from its number, so a resumed run repeats it."""
        seed = (self.config.seed * 1_000_003 + step) % 2**31
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)

    def _write(self, step: int, row: dict[str, float]) -> None:
        if self.metrics is not None:
            self.metrics.write(step, row)

    def _tell(self, label: str, step: int, total: int, row: dict[str, float]) -> None:
        names = ("train/reward", "train/kl", "train/length", "warmup/explained_variance", "validation/accuracy")
        if rank() == 0:
            known = {n.split("/")[1]: round(row[n], 4) for n in names if math.isfinite(row.get(n, math.nan))}
            report_progress(label, step, total, **known)

    @staticmethod
    def _renamed(numbers: dict[str, float], prefix: str) -> dict[str, float]:
        return {prefix + name.removeprefix("value_"): value for name, value in numbers.items()}


def has_spread(batch: Batch, group: int) -> bool:
    """Whether any episode earned more than another one that it is compared with: of its group, or of the batch."""
    size = group if group > 1 else len(batch.episodes)
    scores = [episode.score for episode in batch.episodes]
    parts = [{one for one in scores[start : start + size] if one is not None} for start in range(0, len(scores), size)]
    return any(len(part) > 1 for part in parts)


def monte_carlo_variance(batch: Batch) -> float:
    """How much of the whole returns' variance the values of the rollout explained."""
    returns = advantages_and_returns(batch.rewards, batch.values, batch.mask, 1.0, 1.0)[1]
    return explained_variance(batch.values, returns, batch.mask)


def describe(batch: Batch) -> dict[str, float]:
    """What the episodes of a step were like. Those without a verdict are counted and left out of what rests on one;
    a length is a length without it, so a judge that fails is no collapse."""
    kept = [episode for episode in batch.episodes if episode.score is not None]
    everything = len(batch.episodes)
    count, tokens = max(1, len(kept)), max(1.0, float(batch.mask.sum()))
    kl = float(((batch.old - batch.reference) * batch.mask).sum())
    return {
        "train/reward": sum(e.score or 0.0 for e in kept) / count,
        "train/reward_spread": max(e.score or 0.0 for e in kept) - min(e.score or 0.0 for e in kept) if kept else 0.0,
        "train/accuracy": sum(e.label is VerdictLabel.CORRECT for e in kept) / count,
        "train/reasoning_rate": sum(e.reasoned for e in batch.episodes) / everything,
        "train/reasoning_tokens": sum(e.reasoning_tokens for e in batch.episodes) / everything,
        "train/length": sum(len(e.completion) for e in batch.episodes) / everything,
        "train/cut_share": sum(not e.finished for e in batch.episodes) / everything,
        "train/masked": float(everything - len(kept)),
        "train/masked_share": (everything - len(kept)) / everything,
        "train/kl": kl / count,
        "train/kl_per_token": kl / tokens,
        "train/entropy": -float((batch.sampled * batch.mask).sum()) / tokens,
        "train/sampler_gap": float(((batch.old - batch.sampled) * batch.mask).abs().max()),
        "train/tokens": tokens,
    }
