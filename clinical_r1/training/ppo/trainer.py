"""The loop: probe, fit the critic, then step after step of rollout and updates, watched and resumable."""

import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinical_r1.rewards import reward_table
from clinical_r1.training.checkpoints import Remote
from clinical_r1.training.group import StopRequest, rank, summed, world_size
from clinical_r1.training.launcher import Stopped, report_progress
from clinical_r1.training.metrics import METRICS_FILE, MetricsWriter, open_trackers, scrubbed, utilisation
from clinical_r1.training.ppo import algorithm
from clinical_r1.training.ppo import engines as models
from clinical_r1.training.ppo.batch import (
    TRAIN_STREAM,
    WARMUP_STREAM,
    Batch,
    MicroBatch,
    PromptSet,
    describe,
    has_spread,
    part,
    put,
    split_groups,
)
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.ppo.probe import CollapseWatch, probe
from clinical_r1.training.ppo.rollout import Collector, Interrupted, Timer, critic_state
from clinical_r1.training.ppo.scoring import JudgeThread, Reader, Scorer


class Learner:
    """Optimizer steps on actor and critic.

    A loss is a sum over tokens divided by a constant of the step (the batch's tokens per mini-batch): a mean over
    each length-sorted micro-batch would let short episodes weigh more.
    """

    def __init__(self, config: PPOConfig, engines: models.Engines) -> None:
        self.config, self.engines = config, engines

    def policy(self, batch: Batch, stream: int, step: int, beta: float) -> dict[str, float]:
        """Epochs on the actor; means over all tokens and the gradient norm. `beta`: weight of GRPO's KL penalty."""
        engine = self.engines.actor
        engine.train()
        sums = torch.zeros(4)
        norms = []
        for epoch in range(self.config.epochs):
            for number, micros in enumerate(self._minibatches(batch, stream, step, epoch)):
                losses = self._policy_losses(batch, micros, sums, beta, first=epoch == number == 0)
                norms.append(models.update(engine, losses))
        clipped, approx_kl, entropy, tokens = summed(sums, self.engines.device).tolist()
        tokens = max(tokens, 1.0)
        found = {"clip_fraction": clipped / tokens, "approx_kl": approx_kl / tokens} | _largest(norms)
        return found | ({"policy_entropy": entropy / tokens} if self.config.entropy_bonus else {})

    def value(self, batch: Batch, stream: int, step: int, epochs: int) -> dict[str, float]:
        """Epochs on the critic."""
        critic = self.engines.critic
        assert critic is not None
        critic.train()
        norms = []
        total = torch.zeros(1)
        for epoch in range(epochs):
            for micros in self._minibatches(batch, stream, step, epoch + 1000):
                norms.append(models.update(critic, self._value_losses(critic, batch, micros, total)))
        loss = float(summed(total, self.engines.device)) / (epochs * self.config.minibatches)
        return {"loss": loss} | _largest(norms)

    def _minibatches(self, batch: Batch, stream: int, step: int, epoch: int) -> Iterator[list[MicroBatch]]:
        """This process's micro-batches of each mini-batch.

        Mini-batches are drawn among all micro-batches by seed, so that they are the same for any number of processes.
        """
        count = len(batch.micro_batches)
        order = np.random.default_rng([self.config.seed, stream, step, epoch, 7]).permutation(count).tolist()
        size = count // self.config.minibatches
        for start in range(0, count, size):
            yield models.shared([batch.micro_batches[index] for index in order[start : start + size]])

    def _constant(self, batch: Batch) -> float:
        return max(1.0, float(batch.mask.sum())) / self.config.minibatches

    def _policy_losses(
        self, batch: Batch, micros: list[MicroBatch], sums: Tensor, beta: float, first: bool
    ) -> Iterator[Tensor]:
        config, constant = self.config, self._constant(batch)
        for micro in micros:
            logprobs, entropy = self.engines.actor(micro, config.entropy_bonus > 0)
            if first:
                # The weights are still the rollout's: the trainer's own numbers make the ratio exactly 1.
                put(batch.old, micro, logprobs)
            old, advantages, mask = (part(tensor, micro) for tensor in (batch.old, batch.advantages, batch.mask))
            weights = part(batch.weights, micro) if batch.weights is not None else None
            loss, clipped, approx_kl = algorithm.policy_loss(
                logprobs, old, advantages, mask, config.clip, weights, config.clip_high
            )
            total_entropy = (entropy * mask).sum()
            sums += torch.stack([clipped, approx_kl, total_entropy.detach(), mask.sum()]).cpu()
            loss = loss - config.entropy_bonus * total_entropy
            if config.algorithm == "grpo" and beta:
                loss = loss + beta * algorithm.reference_kl(logprobs, part(batch.reference, micro), mask)
            yield loss / constant

    def _value_losses(self, critic: Any, batch: Batch, micros: list[MicroBatch], total: Tensor) -> Iterator[Tensor]:
        constant = self._constant(batch)
        for micro in micros:
            values = critic(micro)
            old, returns, mask = (part(tensor, micro) for tensor in (batch.values, batch.returns, batch.mask))
            loss = algorithm.value_loss(values, old, returns, mask, self.config.critic.clip) / constant
            total += loss.detach().cpu()
            yield loss


def _largest(norms: list[float | None]) -> dict[str, float]:
    """The largest of the known norms; not a number where one is none, so that the watch sees it."""
    known = [norm for norm in norms if norm is not None]
    return {"grad_norm": float(torch.tensor(known, dtype=torch.float64).max())} if known else {}


class Trainer:
    """One PPO run on engines that are ready; see `run`."""

    def __init__(
        self, config: PPOConfig, engines: models.Engines, sampler: Any, judge: JudgeThread, prompts: PromptSet,
        validation: PromptSet, forgetting: PromptSet | None, state_dir: Path, stop: StopRequest, remote: Remote | None,
    ) -> None:  # fmt: skip
        self.config, self.engines, self.sampler, self.judge = config, engines, sampler, judge
        self.validation, self.forgetting, self.state_dir = validation, forgetting, state_dir
        self.stop, self.remote = stop, remote
        scorer = Scorer(judge, Reader(engines.tokenizer), reward_table(config.reward_table), config.reasoning)
        self.collector = Collector(config, engines, sampler, scorer, prompts, stop)
        self.learner = Learner(config, engines)
        self.watch = CollapseWatch()
        self.beta, self.step, self.finished = config.kl_beta, 0, False
        self.saved: tuple[int, int | None] = (-1, None)
        """Step and fits of the newest checkpoint."""
        self.metrics: MetricsWriter | None = None
        """Of the first process."""
        self.fitted: int | None = None
        """Fits of the critic that are done, while it is fitted alone; None before and after."""
        self.warmup: list[Batch] = []
        """What it is fitted to, where there is a further pass over it."""

    def run(self) -> None:
        """Train to the end (or to collapse) from the last checkpoint; raises Stopped where it was asked to stop."""
        state = models.load_checkpoint(self.engines, self.state_dir)
        if state is not None:
            self.step, self.fitted = self.saved = state["step"], state["fitted"]
            self.beta, self.watch, self.finished = state["beta"], CollapseWatch(**state["watch"]), state["finished"]
            if not self.watch.stop_reason:  # it may have been made longer
                self.finished = self.finished and self.step >= self.config.steps
            self.warmup = [self.collector.critic_batch(saved) for saved in state["warmup"]]
        elif rank() == 0:
            (self.state_dir / METRICS_FILE).unlink(missing_ok=True)
        if rank() == 0:
            trackers = open_trackers(self.config.tracking, self.state_dir, self.config.model_dump(mode="json"))
            rows = state["rows"] if state else 0
            self.metrics = MetricsWriter(self.state_dir, self.step, trackers=trackers, resume_rows=rows)
        try:
            if state is None:
                self._begin()
            if self.fitted is not None:
                self._fit_critic()
                self.fitted, self.warmup = None, []
                self._save()
            while not self.finished:
                self._next()
        except Interrupted:
            # Nothing of this step has touched the weights, so they are those of the step before.
            if self.saved != (self.step, self.fitted or None):
                self._save()
            raise Stopped from None
        finally:
            if self.metrics is not None:
                self.metrics.close()

    def _begin(self) -> None:
        """The SFT model's probe; interrupted before the critic's first fit it is done again."""
        self.saved = (0, None)
        self._probe()
        self.finished = self.config.steps == 0
        if self.engines.critic is not None and not self.finished:
            self.fitted = 0
        else:
            self._save()

    def _fit_critic(self) -> None:
        """The critic's fit on the SFT model's episodes, from the last one that a checkpoint holds."""
        settings = self.config.critic
        models.set_learning_rate(self.engines.critic, settings.warmup_learning_rate or self.config.critic_rate)
        total = settings.warmup_batches * settings.warmup_epochs
        for number in range((self.fitted or 0) + 1, total + 1):
            epoch, index = divmod(number - 1, settings.warmup_batches)
            row: dict[str, float] = {}
            if epoch == 0:
                batch = self.collector.collect(WARMUP_STREAM, number, self.beta, Timer())
                row["warmup/explained_variance"] = monte_carlo_variance(batch)
                if settings.warmup_epochs > 1:
                    self.warmup.append(batch)
            else:
                batch = self.warmup[index]
            row |= _prefixed("warmup", self.learner.value(batch, WARMUP_STREAM, number, 1))
            self.fitted = number
            self._tell("critic", number, total, row)
            self._write(0, row)
            if number % self.config.save_every == 0 and number < total:
                self._save()
            if self.stop.anywhere():
                raise Interrupted

    def _next(self) -> None:
        """One step, and what is due after it. All chance of a step comes from its number: a resumed run repeats it."""
        config, seed = self.config, (self.config.seed * 1_000_003 + self.step + 1) % 2**31
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        row = self._train_step(self.step + 1)
        self.step += 1
        self._tell(config.algorithm, self.step, config.steps, row)
        self.watch.after_step(row, config.stop)
        last = self.step >= config.steps or bool(self.watch.stop_reason)
        if last or (config.probe.every and self.step % config.probe.every == 0):
            self._probe()
        self.finished = last or bool(self.watch.stop_reason)
        if self.finished or self.step % config.save_every == 0:
            self._save()
        if not self.finished and self.stop.anywhere():
            raise Interrupted

    def _train_step(self, step: int) -> dict[str, float]:
        """Roll out and update actor and critic; nothing is learnt where no episode earned more than another: scaled to
        deviation 1, the critic's noise would become a full-size update."""
        config, critic, timer = self.config, self.config.critic, Timer()
        begin = time.perf_counter()
        batch = self.collector.collect(TRAIN_STREAM, step, self.beta, timer)
        now = time.perf_counter()

        def set_rate(engine: Any, peak: float, schedule: str) -> float:
            rate = peak * algorithm.learning_rate_factor(step, config.steps, config.warmup_steps, schedule)
            models.set_learning_rate(engine, rate)
            return rate

        rate = set_rate(self.engines.actor, config.learning_rate, config.schedule)
        row: dict[str, float] = {}
        compared = [batch.episodes] if config.has_critic else split_groups(batch.episodes, config.group_size)
        learns = any(map(has_spread, compared))
        if learns:
            row = _prefixed("train", self.learner.policy(batch, TRAIN_STREAM, step, self.beta))
        now = timer.lap("policy", now)
        if self.engines.critic is not None:
            row["critic/explained_variance"] = monte_carlo_variance(batch)
            if learns:
                set_rate(self.engines.critic, config.critic_rate, critic.schedule or config.schedule)
                row |= _prefixed("critic", self.learner.value(batch, TRAIN_STREAM, step, critic.epochs))
            timer.lap("value", now)
        row |= describe(batch) | {"train/beta": self.beta, "train/learning_rate": rate}
        if not config.has_critic:
            row["train/flat_groups"] = sum(not has_spread(group) for group in compared) / len(compared)
        row |= {"train/updated": float(learns)} | _prefixed("time", timer.seconds)
        row["time/step"] = time.perf_counter() - begin
        row["train/tokens_per_s"] = row["train/tokens"] / row["time/step"]
        if learns:
            trained = row["train/tokens"] * config.epochs / max(timer.seconds["policy"], 1e-9)
            parameters = sum(getattr(p, "ds_numel", p.numel()) for p in self.engines.policy.model.parameters())
            used = utilisation(parameters, trained, world_size())
            row |= {"train/mfu": used} if used is not None else {}
        row["train/episodes_per_s"] = config.batch_size / row["time/step"]
        self.beta = algorithm.adapted_beta(self.beta, row["train/kl"], config.kl_target, len(batch.episodes))
        self._write(step, row)
        self._show(step, batch)
        return row

    def _show(self, step: int, batch: Batch) -> None:
        """Keep a few completions for people to read, spread over what was drawn (over its groups)."""
        told = self.config.samples
        if self.metrics is None or not told.per_step:
            return
        stride = max(1, len(batch.drawn) // told.per_step)
        rows = []
        for episode in batch.drawn[::stride][: told.per_step]:
            case = self.collector.prompts.cases[episode.case]
            row: dict[str, Any] = {"case_id": case.id, "outcome": episode.outcome, "verdict": episode.label}
            row |= {"reward": episode.score, "reasoned": episode.reasoned, "reasoning_tokens": episode.reasoning_tokens}
            row |= {"tokens": len(episode.completion), "finished": episode.finished}
            if told.text == "scrubbed":
                parts = self.collector.scorer.reader.read(episode.completion, episode.finished)[0]
                row |= {"reference": case.reference, "thinking": scrubbed(parts.thinking)}
                row |= {"response": scrubbed(parts.response)}
            rows.append(row)
        self.metrics.show(step, rows)

    def _probe(self) -> None:
        start = time.perf_counter()
        self.engines.actor.eval()
        looks = {
            name: probe(self.config, self.sampler, self.engines, self.judge, cases)
            for name, cases in (("validation", self.validation), ("forgetting", self.forgetting))
            if cases is not None
        }
        row = {key: value for name, look in looks.items() for key, value in look.row(name).items()}
        result = looks["validation"]
        better = self.watch.after_probe(self.step, result, self.config.stop)
        if better and self.config.keep == "best" and self.step:
            models.write_model(self.engines, models.best_folder(self.state_dir, self.step))
        self._write(self.step, row | {"time/probe": time.perf_counter() - start})
        self._tell("probe", self.step, self.config.steps, {"validation/accuracy": result.accuracy})

    def _save(self) -> None:
        state = {"step": self.step, "beta": self.beta, "watch": asdict(self.watch), "finished": self.finished}
        state |= {"fitted": self.fitted, "warmup": list(map(critic_state, self.warmup))}
        state |= {"rows": self.metrics.rows if self.metrics else 0}
        keep = self.config.keep_checkpoints
        models.save_checkpoint(self.engines, self.state_dir, self.step, state, keep, self.remote)
        self.saved = (self.step, self.fitted)

    def _write(self, step: int, row: dict[str, float]) -> None:
        if self.metrics is not None:
            self.metrics.write(step, row)

    def _tell(self, label: str, step: int, total: int, row: dict[str, float]) -> None:
        names = ("train/reward", "train/kl", "train/length", "warmup/explained_variance", "validation/accuracy")
        if rank() == 0:
            known = {n.split("/")[1]: round(row[n], 4) for n in names if math.isfinite(row.get(n, math.nan))}
            report_progress(label, step, total, **known)


def _prefixed(name: str, numbers: dict[str, float]) -> dict[str, float]:
    return {f"{name}/{key}": value for key, value in numbers.items()}


def monte_carlo_variance(batch: Batch) -> float:
    """How much of the whole returns' variance the values of the rollout explained."""
    returns = algorithm.advantages_and_returns(batch.rewards, batch.values, batch.mask, 1.0, 1.0)[1]
    return algorithm.explained_variance(batch.values, returns, batch.mask)
