"""The loop: probe, fit the critic, then step after step of rollout and updates, watched and resumable."""

import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinical_r1.rewards import reward_table
from clinical_r1.training.checkpoints import Remote
from clinical_r1.training.group import StopRequest, rank, summed, world_size
from clinical_r1.training.launcher import Stopped, report_progress
from clinical_r1.training.metrics import METRICS_FILE, MetricsWriter, Tracker, open_trackers, scrubbed, utilisation
from clinical_r1.training.ppo.algorithm import (
    adapted_beta,
    advantages_and_returns,
    explained_variance,
    learning_rate_factor,
    policy_loss,
    reference_kl,
    value_loss,
)
from clinical_r1.training.ppo.batch import (
    TRAIN_STREAM,
    WARMUP_STREAM,
    Batch,
    MicroBatch,
    PromptSet,
    critic_state,
    describe,
    has_spread,
    micro_order,
    part,
    put,
    split_groups,
)
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.ppo.engines import Engines, set_learning_rate, shared, update
from clinical_r1.training.ppo.probe import ProbeResult, Watch, probe
from clinical_r1.training.ppo.rollout import Collector, Interrupted, Timer
from clinical_r1.training.ppo.saving import load_checkpoint, save_best, save_checkpoint
from clinical_r1.training.ppo.scoring import JudgeThread, Reader, Scorer


class Learner:
    """Optimizer steps on actor and critic.

    A loss is a sum over tokens divided by a constant of the step (the batch's tokens per mini-batch): a mean over
    each length-sorted micro-batch would let short episodes weigh more.
    """

    def __init__(self, config: PPOConfig, engines: Engines) -> None:
        self.config, self.engines = config, engines

    def policy(self, batch: Batch, stream: int, step: int, beta: float) -> dict[str, float]:
        """Epochs on the actor; means over all tokens and the gradient norm. `beta`: weight of GRPO's KL penalty."""
        engine = self.engines.actor
        engine.train()
        sums = torch.zeros(4)
        norms: list[float | None] = []
        for epoch in range(self.config.epochs):
            for number, micros in enumerate(self._minibatches(batch, stream, step, epoch)):
                losses = self._policy_losses(batch, micros, sums, beta, first=epoch == number == 0)
                norms.append(update(engine, losses))
        clipped, approx_kl, entropy, tokens = summed(sums, self.engines.device).tolist()
        tokens = max(tokens, 1.0)
        return {
            "clip_fraction": clipped / tokens,
            "approx_kl": approx_kl / tokens,
            **_largest("grad_norm", norms),
            **({"policy_entropy": entropy / tokens} if self.config.entropy_bonus else {}),
        }

    def value(self, batch: Batch, stream: int, step: int, epochs: int) -> dict[str, float]:
        """Epochs on the critic."""
        engine = self.engines.critic
        assert engine is not None
        engine.train()
        norms: list[float | None] = []
        total = torch.zeros(1)
        for epoch in range(epochs):
            for micros in self._minibatches(batch, stream, step, epoch + 1000):
                norms.append(update(engine, self._value_losses(batch, micros, total)))
        loss = float(summed(total, self.engines.device)) / (epochs * self.config.minibatches)
        return {"value_loss": loss} | _largest("value_grad_norm", norms)

    def _minibatches(self, batch: Batch, stream: int, step: int, epoch: int) -> Iterator[list[MicroBatch]]:
        """This process's micro-batches of each mini-batch.

        Mini-batches are drawn among all micro-batches by seed, so that they are the same for any number of processes.
        """
        order = micro_order(self.config.seed, stream, step, epoch, len(batch.micro_batches))
        size = len(order) // self.config.minibatches
        for start in range(0, len(order), size):
            yield shared([batch.micro_batches[index] for index in order[start : start + size]])

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
            mask = part(batch.mask, micro)
            weights = part(batch.weights, micro) if batch.weights is not None else None
            old, advantages = part(batch.old, micro), part(batch.advantages, micro)
            terms = policy_loss(logprobs, old, advantages, mask, config.clip, weights, config.clip_high)
            total_entropy = (entropy * mask).sum()
            sums += torch.stack([terms.clipped, terms.approx_kl, total_entropy.detach(), terms.tokens]).cpu()
            loss = terms.loss - config.entropy_bonus * total_entropy
            if config.algorithm == "grpo" and beta:
                loss = loss + beta * reference_kl(logprobs, part(batch.reference, micro), mask)
            yield loss / constant

    def _value_losses(self, batch: Batch, micros: list[MicroBatch], total: Tensor) -> Iterator[Tensor]:
        assert self.engines.critic is not None
        constant = self._constant(batch)
        for micro in micros:
            values = self.engines.critic(micro)
            old, returns, mask = (part(tensor, micro) for tensor in (batch.values, batch.returns, batch.mask))
            loss = value_loss(values, old, returns, mask, self.config.critic.clip) / constant
            total += loss.detach().cpu()
            yield loss


def _largest(name: str, norms: list[float | None]) -> dict[str, float]:
    """The largest of the known norms; infinite where one is not a number, so that the watch sees it."""
    known = [norm for norm in norms if norm is not None]
    if not known:
        return {}
    return {name: float("inf") if any(norm != norm for norm in known) else max(known)}


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
        self.remote: Remote | None = None
        self.beta = config.kl_beta
        self.step = 0
        self.saved: tuple[int, int | None] = (-1, None)
        """Step and fits of the newest checkpoint."""
        self.metrics: MetricsWriter | None = None
        """Of the first process."""
        self.fitted: int | None = None
        """Fits of the critic that are done, while it is fitted alone; None before and after."""
        self.warmup: list[Batch] = []
        """What it is fitted to, where there is a further pass over it."""
        self.finished = False

    def run(self) -> None:
        """Train to the end (or to collapse) from the last checkpoint; raises Stopped where it was asked to stop."""
        state = load_checkpoint(self.engines, self.state_dir)
        if state is not None:
            self.step, self.fitted = self.saved = state["step"], state["fitted"]
            self.beta, self.watch, self.finished = state["beta"], Watch(**state["watch"]), state["finished"]
            if not self.watch.stop_reason:  # it may have been made longer
                self.finished = self.finished and self.step >= self.config.steps
            self.warmup = [self.collector.critic_batch(saved) for saved in state["warmup"]]
        elif rank() == 0:
            (self.state_dir / METRICS_FILE).unlink(missing_ok=True)
        if rank() == 0:
            rows = state["rows"] if state else 0
            self.metrics = MetricsWriter(self.state_dir, self.step, trackers=self._trackers(), resume_rows=rows)
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

    def _trackers(self) -> list[Tracker]:
        return open_trackers(self.config.tracking, self.state_dir, self.config.model_dump(mode="json"))

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
        set_learning_rate(self.engines.critic, settings.warmup_learning_rate or self.config.critic_rate)
        total = settings.warmup_batches * settings.warmup_epochs
        for number in range((self.fitted or 0) + 1, total + 1):
            epoch, index = divmod(number - 1, settings.warmup_batches)
            if epoch == 0:
                batch = self.collector.collect(WARMUP_STREAM, number, self.beta, Timer())
                if settings.warmup_epochs > 1:
                    self.warmup.append(batch)
            else:
                batch = self.warmup[index]
            row = {"warmup/explained_variance": monte_carlo_variance(batch)} if epoch == 0 else {}
            row |= self._renamed(self.learner.value(batch, WARMUP_STREAM, number, 1), "warmup/")
            self.fitted = number
            self._tell("critic", number, total, row)
            self._write(0, row)
            if number % self.config.save_every == 0 and number < total:
                self._save()
            if self.stop.anywhere():
                raise Interrupted

    def _next(self) -> None:
        """One step, and what is due after it."""
        self._reseed(self.step + 1)
        row = self._train_step(self.step + 1)
        self.step += 1
        self._tell(self.config.algorithm, self.step, self.config.steps, row)
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
        compared = [batch.episodes] if config.has_critic else split_groups(batch.episodes, config.group_size)
        learns = any(map(has_spread, compared))
        if learns:
            row = self._renamed(self.learner.policy(batch, TRAIN_STREAM, step, self.beta), "train/")
        now = timer.lap("policy", now)
        if self.engines.critic is not None:
            row["critic/explained_variance"] = monte_carlo_variance(batch)
            if learns:
                row |= self._fit_to(batch, step)
            timer.lap("value", now)
        row |= describe(batch) | {"train/beta": self.beta, "train/learning_rate": config.learning_rate * factor}
        if not config.has_critic:
            row["train/flat_groups"] = sum(not has_spread(group) for group in compared) / len(compared)
        row |= {"train/updated": float(learns)} | {f"time/{phase}": spent for phase, spent in timer.seconds.items()}
        row["time/step"] = time.perf_counter() - begin
        row["train/tokens_per_s"] = row["train/tokens"] / row["time/step"]
        if learns:
            trained = row["train/tokens"] * config.epochs / max(timer.seconds["policy"], 1e-9)
            parameters = sum(getattr(p, "ds_numel", p.numel()) for p in self.engines.policy.model.parameters())
            used = utilisation(parameters, trained, world_size())
            row |= {"train/mfu": used} if used is not None else {}
        row["train/episodes_per_s"] = config.batch_size / row["time/step"]
        self.beta = adapted_beta(self.beta, row["train/kl"], config.kl_target, len(batch.episodes))
        self._write(step, row)
        self._show(step, batch)
        return row

    def _show(self, step: int, batch: Batch) -> None:
        """Keep a few completions for people to read, spread over what was drawn (over its groups)."""
        told = self.config.samples
        if self.metrics is None or not told.per_step:
            return
        stride = max(1, len(batch.drawn) // told.per_step)
        reader, cases = self.collector.scorer.reader, self.collector.prompts.cases
        rows = []
        for episode in batch.drawn[::stride][: told.per_step]:
            row: dict[str, Any] = {
                "case_id": cases[episode.case].id,
                "outcome": episode.outcome.value,
                "verdict": episode.label.value,
            }
            row |= {"reward": episode.score, "reasoned": episode.reasoned, "reasoning_tokens": episode.reasoning_tokens}
            row |= {"tokens": len(episode.completion), "finished": episode.finished}
            if told.text == "scrubbed":
                parts = reader.read(episode.completion, episode.finished)[0]
                row |= {"reference": cases[episode.case].reference, "thinking": scrubbed(parts.thinking)}
                row |= {"response": scrubbed(parts.response)}
            rows.append(row)
        self.metrics.show(step, rows)

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
        state |= {"fitted": self.fitted, "warmup": list(map(critic_state, self.warmup))}
        state |= {"rows": self.metrics.rows if self.metrics else 0}
        save_checkpoint(self.engines, self.state_dir, self.step, state, self.config.keep_checkpoints, self.remote)
        self.saved = (self.step, self.fitted)

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


def monte_carlo_variance(batch: Batch) -> float:
    """How much of the whole returns' variance the values of the rollout explained."""
    returns = advantages_and_returns(batch.rewards, batch.values, batch.mask, 1.0, 1.0)[1]
    return explained_variance(batch.values, returns, batch.mask)
