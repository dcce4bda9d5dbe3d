"""One step's experience: sample episodes, judge them, and run the frozen forward passes while the judge works."""

import time
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from clinical_r1.errors import UserError
from clinical_r1.generation.sampling import Rollout, SamplingParams
from clinical_r1.training.ppo.algorithm import (
    advantages_and_returns,
    baseline_advantages,
    importance_weights,
    masked_mean,
    token_rewards,
    whiten,
)
from clinical_r1.training.ppo.batch import Batch, Episode, new_batch, put
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.ppo.data import PromptSet, draw_order, stream_seeds
from clinical_r1.training.ppo.engines import Engines, rank, shared, world_size
from clinical_r1.training.ppo.scoring import Scorer
from clinical_r1.training.trainee import StopRequest


class Interrupted(Exception):  # noqa: N818 (no error: a request)
    """The process was asked to stop in the middle of a rollout."""


@dataclass
class Timer:
    """Seconds by phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    def lap(self, phase: str, start: float) -> float:
        """Add the time since `start` to a phase; returns now."""
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - start
        return now


class Collector:
    """Samples batches with the current actor and turns them into training data."""

    def __init__(
        self, config: PPOConfig, engines: Engines, sampler: Any, scorer: Scorer, prompts: PromptSet, stop: StopRequest
    ) -> None:
        """`sampler` is a generation.Decoder or VLLMSampler."""
        self.config, self.engines, self.sampler, self.scorer = config, engines, sampler, scorer
        self.prompts, self.stop = prompts, stop
        self.pad = engines.tokenizer.pad_token_id

    def collect(self, stream: int, step: int, beta: float, timer: Timer) -> Batch:
        """Roll out step `step` (1-based) of a stream of prompts; the same on every process.

        Raises Interrupted on all processes where one was asked to stop while sampling.
        """
        now = time.perf_counter()
        episodes = self._sample(stream, step)
        now = timer.lap("rollout", now)
        own = episodes[rank() :: world_size()]
        judging = self.scorer.start(own, self.prompts.cases)
        batch = new_batch(episodes, self.config.micro_batch_size, self.pad, self.engines.device)
        self._forward(batch, first=step == 1)
        now = timer.lap("forward", now)
        self.scorer.finish(own, judging)
        timer.lap("verify", now)
        _exchange(batch, own)
        self._finish(batch, beta)
        return batch

    def _sample(self, stream: int, step: int) -> list[Episode]:
        """All episodes of the step; this process samples every n-th and the group exchanges them."""
        config, group = self.config, self.config.rollout.episodes_per_prompt
        count = config.batch_size // group
        drawn = draw_order(len(self.prompts), config.seed, stream, (step - 1) * count, count)
        cases = [case for case in drawn for _ in range(group)]
        seeds = stream_seeds(config.seed, stream, step, len(cases))
        mine = range(rank(), len(cases), world_size())
        self.sampler.refresh()
        params = sampling_params(config, self.engines, config.rollout.temperature)
        rollouts: list[Rollout] = self.sampler.generate(
            [self.prompts.prompts[cases[row]] for row in mine], params, self._on_token, [seeds[row] for row in mine]
        )
        if self.stop.anywhere():
            raise Interrupted
        episodes = [
            Episode(cases[row], self.prompts.prompts[cases[row]], r.token_ids, r.logprobs, r.finished)
            for row, r in zip(mine, rollouts, strict=True)
        ]
        return interleave(gather(episodes))

    def _on_token(self, _row: int, _token: int) -> bool:
        """A long rollout ends at once on SIGTERM: all rows stop, and the group agrees right after it."""
        return self.stop.asked

    @torch.no_grad()
    def _forward(self, batch: Batch, first: bool) -> None:
        """Reference log-probabilities and values; the actor's own too where another engine sampled, or in the first
        step: an architecture whose logits this trainer takes otherwise than its decoder does is found there."""
        engines, own = self.engines, shared(batch.micro_batches)
        tensors = [batch.reference]
        with engines.as_reference() as scores:
            for micro in own:
                put(batch.reference, micro, scores(micro)[0])
        if engines.critic is not None:
            engines.critic.eval()
            tensors.append(batch.values)
            for micro in own:
                put(batch.values, micro, engines.critic(micro))
        other = self.config.rollout.engine != "static"
        if other or first:
            engines.actor.eval()
            tensors.append(batch.old)
            for micro in own:
                put(batch.old, micro, engines.actor(micro)[0])
        if world_size() > 1:
            for owner, parts in enumerate(gather([t[m.rows, : m.time] for m in own for t in tensors])):
                numbers = iter(parts)
                for micro in batch.micro_batches[owner :: world_size()]:
                    for tensor in tensors:
                        tensor[micro.rows, : micro.time] = next(numbers)
        if other or first:
            check_sampler(batch, self.config.rollout.engine)

    def _finish(self, batch: Batch, beta: float) -> None:
        """Rewards, advantages and returns; failed judgements are masked out."""
        config = self.config
        kept = torch.tensor([float(episode.score is not None) for episode in batch.episodes])
        scores = torch.tensor([episode.score or 0.0 for episode in batch.episodes])
        batch.mask = batch.mask * kept[:, None]
        kl = (batch.old - batch.reference) * batch.mask
        batch.rewards = token_rewards(scores, kl, batch.lengths, beta)
        if self.engines.critic is None:
            group = config.rollout.episodes_per_prompt
            batch.advantages = baseline_advantages(batch.rewards, scores, kept, batch.mask, group)
            batch.returns = batch.advantages.clone()
        else:
            batch.advantages, batch.returns = advantages_and_returns(
                batch.rewards, batch.values, batch.mask, config.gamma, config.gae_lambda
            )
            target = config.critic.target_lambda
            if target is not None and target != config.gae_lambda:
                batch.returns = advantages_and_returns(batch.rewards, batch.values, batch.mask, config.gamma, target)[1]
        if config.whiten:
            batch.advantages = whiten(batch.advantages, batch.mask)
        if config.rollout.engine != "static":
            batch.weights = importance_weights(batch.old, batch.sampled, config.rollout.importance_cap)


MOST_GAP = 0.1
"""Nats a token, mean: kernels and bfloat16 make some .01; more is a server that runs other weights."""


def check_sampler(batch: Batch, engine: str) -> None:
    """UserError where the sampler's log-probabilities are not those of the actor: weights would only hide it."""
    gap = float(masked_mean((batch.old - batch.sampled).abs(), batch.mask))
    if gap <= MOST_GAP:
        return
    if engine == "static":
        raise UserError(
            f"the trainer's log-probabilities and the decoder's are {gap:.2f} nats a token apart, so this architecture "
            "computes its logits in a way that PPO does not know; take another base model, or report it"
        )
    raise UserError(
        f"ppo.rollout.vllm_url: the server's log-probabilities are off by {gap:.2f} nats a token on average, so it "
        "does not run the actor's weights; start a vLLM of 0.32 or later on this run's SFT model, with "
        "--logprobs-mode processed_logprobs"
    )


def sampling_params(config: PPOConfig, engines: Engines, temperature: float) -> SamplingParams:
    """How rollouts (and, at temperature 0, probes) are decoded."""
    return SamplingParams(
        max_new_tokens=config.rollout.max_new_tokens,
        temperature=temperature,
        seed=config.seed,
        eos_token_ids=engines.ends,
        pad_token_id=engines.tokenizer.pad_token_id,
    )


def gather(mine: list[Any]) -> list[list[Any]]:
    """Every process's list, by rank; collective."""
    if world_size() == 1:
        return [mine]
    everyone: list[Any] = [None] * world_size()
    dist.all_gather_object(everyone, mine)
    return everyone


def interleave(parts: list[list[Any]]) -> list[Any]:
    """Undo `items[rank::world_size]`."""
    whole: list[Any] = [None] * sum(map(len, parts))
    for index, part in enumerate(parts):
        whole[index :: len(parts)] = part
    return whole


def _exchange(batch: Batch, own: list[Episode]) -> None:
    """Give every process the verdicts of all."""
    if world_size() > 1:
        facts = [(e.outcome, e.label, e.score, e.reasoning_tokens, e.reasoned) for e in own]
        for episode, fact in zip(batch.episodes, interleave(gather(facts)), strict=True):
            episode.outcome, episode.label, episode.score, episode.reasoning_tokens, episode.reasoned = fact
