"""One step's experience: sample episodes, judge them, and run the frozen forward passes while the judge works."""

import time
from dataclasses import dataclass, field
from typing import Any

import torch

from clinical_r1.errors import UserError
from clinical_r1.generation.decoder import Rollout, SamplingParams
from clinical_r1.training.group import StopRequest, gather, interleave, rank, world_size
from clinical_r1.training.ppo import algorithm
from clinical_r1.training.ppo.batch import (
    RESAMPLE_STREAM,
    Batch,
    Episode,
    PromptSet,
    draw_order,
    has_spread,
    put,
    split_groups,
    stream_seeds,
)
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.ppo.engines import Engines, shared
from clinical_r1.training.ppo.scoring import Scorer


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


def critic_state(batch: Batch) -> dict[str, Any]:
    """What a later pass of the critic over a batch needs, for a checkpoint: numbers and tensors alone."""
    told = [(episode.case, episode.completion) for episode in batch.episodes]
    return {"episodes": told, "mask": batch.mask, "values": batch.values, "returns": batch.returns}


class Collector:
    """Samples batches with the current actor and turns them into training data."""

    def __init__(
        self, config: PPOConfig, engines: Engines, sampler: Any, scorer: Scorer, prompts: PromptSet, stop: StopRequest
    ) -> None:
        """`sampler` is a generation.Decoder or VLLMSampler."""
        self.config, self.engines, self.sampler, self.scorer = config, engines, sampler, scorer
        self.prompts, self.stop = prompts, stop
        self.groups = config.batch_size // config.group_size

    def collect(self, stream: int, step: int, beta: float, timer: Timer) -> Batch:
        """Roll out step `step` (1-based) of a stream of prompts; the same on every process.

        Raises Interrupted on all processes where one was asked to stop while sampling.
        """
        now = time.perf_counter()
        self.sampler.refresh()
        drawn = episodes = self._sample(stream, step, self.groups)
        now = timer.lap("rollout", now)
        judging = self._judge(episodes)
        if self.config.group.resample_rounds and not self.config.has_critic:
            self._settle(judging, episodes)
            episodes = self._with_spread(episodes, step)
            now = timer.lap("resample", now)
        batch = self._batch_of(episodes)
        self._forward(batch, first=step == 1)
        now = timer.lap("forward", now)
        if episodes is drawn:
            self._settle(judging, episodes)
        timer.lap("verify", now)
        batch.drawn = drawn
        self._finish(batch, beta)
        return batch

    def _batch_of(self, episodes: list[Episode]) -> Batch:
        engines = self.engines
        return Batch(episodes, self.config.micro_batch_size, engines.tokenizer.pad_token_id, engines.device)

    def critic_batch(self, saved: dict[str, Any]) -> Batch:
        """The batch of `critic_state`; it has nothing that the policy would learn from."""
        prompts = self.prompts.prompts
        batch = self._batch_of([Episode(case, prompts[case], said, [], True) for case, said in saved["episodes"]])
        batch.mask, batch.values, batch.returns = saved["mask"], saved["values"], saved["returns"]
        return batch

    def _judge(self, episodes: list[Episode]) -> Any:
        """Start the judgements of this process's share of the episodes."""
        return self.scorer.start(episodes[rank() :: world_size()], self.prompts.cases)

    def _settle(self, judging: Any, episodes: list[Episode]) -> None:
        """Wait for the judgements and give every process those of all; collective."""
        own = episodes[rank() :: world_size()]
        self.scorer.finish(own, judging)
        if world_size() > 1:
            facts = [(e.outcome, e.label, e.score, e.signals, e.reasoning_tokens, e.reasoned) for e in own]
            for e, fact in zip(episodes, interleave(gather(facts)), strict=True):
                e.outcome, e.label, e.score, e.signals, e.reasoning_tokens, e.reasoned = fact

    def _with_spread(self, episodes: list[Episode], step: int) -> list[Episode]:
        """As many episodes; groups that all earned the same make room for fresh ones that did not (DAPO)."""
        groups = split_groups(episodes, self.config.group_size)
        for number in range(self.config.group.resample_rounds):
            flat = [index for index, group in enumerate(groups) if not has_spread(group)]
            if not flat:
                break
            fresh = self._sample(RESAMPLE_STREAM + number, step, len(flat))
            self._settle(self._judge(fresh), fresh)
            useful = filter(has_spread, split_groups(fresh, self.config.group_size))
            for index, group in zip(flat, useful, strict=False):
                groups[index] = group
        return [episode for group in groups for episode in group]

    def _sample(self, stream: int, step: int, groups: int) -> list[Episode]:
        """Answers to the step's next prompts of a stream; this process samples every n-th, the others get them."""
        config, prompts = self.config, self.prompts
        drawn = draw_order(len(prompts), config.seed, stream, (step - 1) * self.groups, groups)
        cases = [case for case in drawn for _ in range(config.group_size)]
        seeds = stream_seeds(config.seed, stream, step, len(cases))
        mine = range(rank(), len(cases), world_size())
        params = sampling_params(config, self.engines, config.rollout.temperature)
        said: list[list[int]] = [[] for _ in mine]

        def on_token(index: int, token: int) -> bool:
            """Judge an answer as it ends. A long rollout ends at once on SIGTERM: all rows stop, and the group agrees
            right after it."""
            said[index].append(token)
            if token in self.engines.ends:
                case = cases[mine[index]]
                self.scorer.ahead(case, prompts.cases[case], said[index])
            return self.stop.asked

        asked = [prompts.prompts[cases[row]] for row in mine]
        rollouts: list[Rollout] = self.sampler.generate(asked, params, on_token, [seeds[row] for row in mine])
        if self.stop.anywhere():
            raise Interrupted
        episodes = [
            Episode(cases[row], prompt, r.token_ids, r.logprobs, r.finished)
            for row, prompt, r in zip(mine, asked, rollouts, strict=True)
        ]
        return interleave(gather(episodes))

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
        if first or self.config.rollout.engine != "local":
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
        if tensors[-1] is batch.old:
            check_sampler(batch, self.config.rollout.engine)

    def _finish(self, batch: Batch, beta: float) -> None:
        """Rewards, advantages and returns; failed judgements are masked out."""
        config = self.config
        kept = torch.tensor([float(episode.score is not None) for episode in batch.episodes])
        scores = torch.tensor([episode.score or 0.0 for episode in batch.episodes])
        batch.mask = batch.mask * kept[:, None]
        kl = (batch.old - batch.reference) * batch.mask
        batch.rewards = algorithm.token_rewards(scores, kl, batch.lengths, beta)
        if not config.has_critic:
            earned = scores - beta * kl.sum(1) if config.algorithm == "rloo" else scores
            of_episode = algorithm.group_advantages(
                earned, kept, config.group_size, config.algorithm, config.group.scale
            )
            batch.advantages = of_episode[:, None] * batch.mask
        else:
            told = batch.rewards, batch.values, batch.mask, config.gamma
            batch.advantages, batch.returns = algorithm.advantages_and_returns(*told, config.gae_lambda)
            target = config.critic.target_lambda
            if target is not None and target != config.gae_lambda:
                batch.returns = algorithm.advantages_and_returns(*told, target)[1]
            if config.whiten:
                batch.advantages = algorithm.whiten(batch.advantages, batch.mask)
        if config.rollout.engine != "local":
            batch.weights = algorithm.importance_weights(batch.old, batch.sampled, config.rollout.importance_cap)


MOST_GAP = 0.1
"""Nats a token, mean: kernels and bfloat16 make some .01; more is a server that runs other weights."""


def check_sampler(batch: Batch, engine: str) -> None:
    """UserError where the sampler's log-probabilities are not those of the actor: weights would only hide it."""
    gap = float(algorithm.masked_mean((batch.old - batch.sampled).abs(), batch.mask))
    if gap <= MOST_GAP:
        return
    if engine == "local":
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
    room, pad = config.rollout.max_new_tokens, engines.tokenizer.pad_token_id
    return SamplingParams(room, temperature, seed=config.seed, eos_token_ids=engines.ends, pad_token_id=pad)
