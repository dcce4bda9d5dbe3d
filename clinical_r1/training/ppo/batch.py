"""The cases in an order that only seed and step decide; episodes, and the micro-batches that one step trains on."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clinical_r1.errors import UserError
from clinical_r1.generation.chat import prompt_ids
from clinical_r1.reasoning import Outcome
from clinical_r1.rewards import Level, Signal
from clinical_r1.schema import Case, VerdictLabel, read_jsonl
from clinical_r1.training.ppo.algorithm import length_mask


@dataclass
class Episode:
    """One sampled completion of one case, and what it earned."""

    case: int
    """Index among the run's cases."""
    prompt: list[int]
    completion: list[int]
    """At least one token; the end of the turn included where the model produced it."""
    logprobs: list[float]
    """Of the completion's tokens, by the engine that sampled them."""
    finished: bool
    """False: cut at max_new_tokens."""
    outcome: Outcome = Outcome.ABORTED
    label: VerdictLabel = VerdictLabel.INVALID
    score: float | None = None
    """The reward; None where the judgement failed: masked out."""
    level: Level | None = None
    """ICD-10 level that the answer shares with the reference; only where the reward table is graded."""
    signals: dict[Signal, float | None] = field(default_factory=dict)
    """What the reward table mixes in besides the verdict, from 0 to 1; None where the judgement failed."""
    reasoning_tokens: int = 0
    reasoned: bool = False

    @property
    def length(self) -> int:
        """Tokens of prompt and completion."""
        return len(self.prompt) + len(self.completion)


@dataclass
class MicroBatch:
    """Rows that go through a model together: right-padded, so that causal attention needs no mask."""

    rows: list[int]
    """Which episodes of the batch."""
    ids: Tensor
    """(rows, longest) prompt and completion."""
    positions: Tensor
    """(rows, time) the position whose output predicts each completion token."""
    mask: Tensor
    """(rows, time) 1.0 on completion tokens, by length."""

    @property
    def targets(self) -> Tensor:
        """(rows, time) the completion's tokens."""
        return self.ids.gather(1, self.positions + 1)

    @property
    def kept(self) -> Tensor:
        """The same positions as places in the flattened ids, those on padding left out."""
        starts = torch.arange(len(self.ids), device=self.ids.device)[:, None] * self.ids.shape[1]
        return (starts + self.positions)[self.mask.bool()]

    @property
    def time(self) -> int:
        """Longest completion among the rows."""
        return self.positions.shape[1]


def micro_batches(episodes: list[Episode], size: int, pad: int, device: torch.device | str = "cpu") -> list[MicroBatch]:
    """Cut the batch into rows of similar length; composition is fixed for the step, so its numbers are reproducible."""
    order = sorted(range(len(episodes)), key=lambda row: (episodes[row].length, row))
    found = []
    for rows in (order[start : start + size] for start in range(0, len(order), size)):
        chosen = [episodes[row] for row in rows]
        longest = chosen[-1].length
        ids = torch.tensor([e.prompt + e.completion + [pad] * (longest - e.length) for e in chosen])
        starts = torch.tensor([len(e.prompt) for e in chosen])
        lengths = torch.tensor([len(e.completion) for e in chosen])
        time = int(lengths.max())
        positions = (starts[:, None] - 1 + torch.arange(time)).clamp(max=longest - 2)
        found.append(MicroBatch(rows, ids.to(device), positions.to(device), length_mask(lengths, time).to(device)))
    return found


class Batch:
    """All episodes of a step with their tensors; every process holds the whole, only the forward passes are shared.

    Tensors are (episodes, longest completion).
    """

    def __init__(self, episodes: list[Episode], size: int, pad: int, device: torch.device | str = "cpu") -> None:
        """Of a fresh rollout, in micro-batches of `size`."""
        self.episodes = self.drawn = episodes
        """What is trained on, and what was drawn: others where groups without spread were sampled anew."""
        self.micro_batches = micro_batches(episodes, size, pad, device)
        self.lengths = torch.tensor([len(e.completion) for e in episodes])
        longest = int(self.lengths.max())
        self.mask = length_mask(self.lengths, longest)
        """1.0 on completion tokens; rows of failed judgements are 0 once scored."""
        self.sampled = torch.tensor([e.logprobs + [0.0] * (longest - len(e.logprobs)) for e in episodes])
        """Log-probabilities by the engine that sampled."""
        self.old = self.sampled.clone()
        """Log-probabilities before the first update, that ratios refer to."""
        self.reference, self.values = torch.zeros_like(self.sampled), torch.zeros_like(self.sampled)
        self.rewards, self.advantages, self.returns = (torch.zeros_like(self.sampled) for _ in range(3))
        self.weights: Tensor | None = None
        """Importance weights of tokens that another engine sampled."""


def split_groups(episodes: list[Episode], size: int) -> list[list[Episode]]:
    """The episodes of each prompt, which stand together."""
    return [episodes[start : start + size] for start in range(0, len(episodes), size)]


def has_spread(episodes: list[Episode]) -> bool:
    """Whether any of them earned more than another one."""
    return len({episode.score for episode in episodes if episode.score is not None}) > 1


def describe(batch: Batch) -> dict[str, float]:
    """What the episodes of a step were like. Those without a verdict are counted and left out of what rests on one;
    a length is a length without it, so a judge that fails is no collapse. Reward and accuracy are of the episodes as
    they were drawn: those chosen for their spread would flatter or belie the policy."""
    everyone = batch.episodes
    count = len(everyone)
    scores = [episode.score for episode in everyone if episode.score is not None]
    drawn = [episode for episode in batch.drawn if episode.score is not None]
    tokens = max(1.0, float(batch.mask.sum()))
    every = length_mask(batch.lengths, batch.old.shape[1])  # a policy is far from its start whether or not it is judged
    kl = float(((batch.old - batch.reference) * every).sum())
    return {
        "train/reward": sum(e.score or 0.0 for e in drawn) / max(1, len(drawn)),
        "train/reward_spread": max(scores) - min(scores) if scores else 0.0,
        "train/accuracy": sum(e.label is VerdictLabel.CORRECT for e in drawn) / max(1, len(drawn)),
        "train/reasoning_rate": sum(e.reasoned for e in everyone) / count,
        "train/reasoning_tokens": sum(e.reasoning_tokens for e in everyone) / count,
        "train/length": sum(len(e.completion) for e in everyone) / count,
        "train/cut_share": sum(not e.finished for e in everyone) / count,
        "train/masked": float(count - len(scores)),
        "train/masked_share": (count - len(scores)) / count,
        "train/kl": kl / count,
        "train/kl_per_token": kl / float(every.sum()),
        "train/entropy": -float((batch.sampled * batch.mask).sum()) / tokens,
        "train/sampler_gap": float(((batch.old - batch.sampled) * batch.mask).abs().max()),
        "train/tokens": tokens,
        **signal_means(batch.drawn),
    }


def signal_means(episodes: list[Episode]) -> dict[str, float]:
    """The mean of each signal that the reward mixes in besides the verdict, and how often its judgement failed."""
    found: dict[str, float] = {}
    for name in sorted({name for episode in episodes for name in episode.signals}):
        values = [episode.signals[name] for episode in episodes if name in episode.signals]
        known = [value for value in values if value is not None]
        found[f"train/signal_{name}"] = sum(known) / max(1, len(known))
        found[f"train/signal_{name}_failed"] = float(len(values) - len(known))
    return found


def part(tensor: Tensor, micro: MicroBatch) -> Tensor:
    """The rows and times of a (episodes, longest) tensor that a micro-batch covers, on its device."""
    return tensor[micro.rows, : micro.time].to(micro.ids.device)


def put(tensor: Tensor, micro: MicroBatch, values: Tensor) -> None:
    """Write a micro-batch's values into a (episodes, longest) tensor."""
    tensor[micro.rows, : micro.time] = (values.detach().float() * micro.mask).cpu()


TRAIN_STREAM, WARMUP_STREAM, RESAMPLE_STREAM = 0, 1, 2
"""Streams of prompts; from the last one on there is one for each round of resampling."""


@dataclass(frozen=True)
class PromptSet:
    """Cases with their prompts' tokens."""

    cases: list[Case]
    prompts: list[list[int]]
    too_long: int
    """Cases left out because prompt and max_new_tokens exceed the model's window."""

    def __len__(self) -> int:
        return len(self.cases)


def load_prompts(path: Path, tokenizer: Any, window: int, max_new_tokens: int, limit: int | None = None) -> PromptSet:
    """Read and tokenise; UserError where the file has no case, or none that fits the window."""
    cases = read_jsonl(path, Case)[:limit]
    if not cases:
        raise UserError(f"{path}: no cases in it; PPO needs at least one (check the sizes of the splits)")
    prompts = [prompt_ids(tokenizer, case.prompt) for case in cases]
    kept = [index for index, prompt in enumerate(prompts) if len(prompt) + max_new_tokens <= window]
    if not kept:
        raise UserError(
            f"{path}: no prompt fits: the model's window is {window} tokens and rollout.max_new_tokens is "
            f"{max_new_tokens}; lower max_new_tokens"
        )
    return PromptSet([cases[i] for i in kept], [prompts[i] for i in kept], len(cases) - len(kept))


def draw_order(count: int, seed: int, stream: int, first: int, size: int) -> list[int]:
    """Positions first..first+size of an endless stream of shuffled passes over `count` cases."""
    order: list[int] = []
    while len(order) < size:
        epoch, offset = divmod(first + len(order), count)
        shuffled = np.random.default_rng([seed, stream, epoch]).permutation(count)
        order += shuffled[offset : offset + size - len(order)].tolist()
    return order


def stream_seeds(seed: int, stream: int, step: int, rows: int) -> list[int]:
    """One sampling stream an episode, the same for any number of processes."""
    return np.random.SeedSequence([seed, stream, step]).generate_state(rows, np.uint64).tolist()
