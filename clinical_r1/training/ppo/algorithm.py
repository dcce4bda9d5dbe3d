"""The arithmetic of PPO, GRPO and RLOO on padded batches: rewards, advantages, losses. Pure torch, no models.

Schulman et al. 2017 (arXiv 1707.06347) for the clipped losses, 2016 (1506.02438) for GAE; PPO's KL penalty sits in the
reward (Ziegler et al. 2019, 1909.08593). Tensors are (episodes, longest completion); `mask` is 1.0 on completion
tokens that count and 0.0 on padding and on episodes whose judgement failed.
"""

import math

import torch
from torch import Tensor


def length_mask(lengths: Tensor, longest: int) -> Tensor:
    """1.0 where a completion has a token: by length and never by token id, so that pad == eos is safe."""
    return (torch.arange(longest, device=lengths.device)[None] < lengths[:, None]).float()


def token_rewards(scores: Tensor, kl: Tensor, lengths: Tensor, beta: float) -> Tensor:
    """-beta x KL on every token, plus the episode's reward on its last real token.

    Args:
        scores: (episodes,) from the reward table.
        kl: (episodes, time) log p_actor - log p_reference of the sampled tokens, 0 on padding.
        lengths: (episodes,) completion lengths, at least 1.
    """
    rewards = -beta * kl
    rewards[torch.arange(len(scores), device=scores.device), lengths - 1] += scores
    return rewards


def advantages_and_returns(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lambda_: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates and lambda-returns; an episode ends at its last token, without bootstrapping."""
    values = values * mask
    advantage = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[:, 0])
    following = torch.zeros_like(running)
    for time in reversed(range(rewards.shape[1])):
        delta = rewards[:, time] + gamma * following - values[:, time]
        running = (delta + gamma * lambda_ * running) * mask[:, time]
        advantage[:, time] = running
        following = values[:, time]
    return advantage, advantage + values


def group_advantages(
    scores: Tensor, kept: Tensor, group: int, algorithm: str, scale: str = "group", floor: float = 1e-4
) -> Tensor:
    """Of each episode, against the kept episodes of its prompt, which stand together; 0 where fewer than two are left.

    `grpo` (Shao et al. 2024, arXiv 2402.03300, section 4.1): less the group's mean, in standard deviations (with n - 1,
    as TRL's) of the `scale`. `rloo` (Ahmadian et al. 2024, 2402.14740): less the mean of the others.

    Args:
        scores: (episodes,) what each earned; for rloo with its KL penalty.
        kept: (episodes,) 1.0 where the judgement held.
    """
    grouped, weight = scores.view(-1, group), kept.view(-1, group)
    count = weight.sum(1, keepdim=True)
    total = (grouped * weight).sum(1, keepdim=True)
    if algorithm == "rloo":
        advantage = grouped - (total - grouped) / (count - 1).clamp(min=1)
    else:
        advantage = grouped - total / count.clamp(min=1)
        if scale == "group":
            variance = (advantage**2 * weight).sum(1, keepdim=True) / (count - 1).clamp(min=1)
            advantage = advantage / (variance.sqrt() + floor)
        elif scale == "batch":
            advantage = advantage / (scores[kept > 0].std() + floor)
    return (advantage * weight * (count > 1)).flatten()


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 over the tokens that count; 0 elsewhere."""
    mean = masked_mean(values, mask)
    deviation = masked_mean((values - mean) ** 2, mask).sqrt()
    return (values - mean) / (deviation + 1e-6) * mask


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens that count; 0 where there are none."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - (unexplained / total) variance of the returns: 1 is a perfect critic, 0 one that knows only the mean.

    NaN where all returns are the same (every episode earned nothing, say): there is nothing to explain.
    """
    spread = masked_mean((returns - masked_mean(returns, mask)) ** 2, mask)
    missed = masked_mean((returns - values) ** 2, mask)
    return float(1 - missed / spread) if spread > 1e-6 else float("nan")


def policy_loss(
    logprobs: Tensor,
    old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip: float,
    weights: Tensor | None = None,
    clip_high: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Clipped surrogate, summed over tokens (the caller divides by a constant, so that short episodes weigh no more).

    `weights` corrects for episodes sampled by another engine than the one that computed `old`; the ratio stays between
    1 - `clip` and 1 + `clip_high` (None: `clip`).

    Returns:
        the loss, how many ratios were clipped, and the k3 estimate of KL(old, new) summed over tokens.
    """
    log_ratio = (logprobs - old) * mask
    ratio = log_ratio.exp()
    low, high = 1 - clip, 1 + (clip if clip_high is None else clip_high)
    surrogate = torch.min(ratio * advantages, ratio.clamp(low, high) * advantages)
    if weights is not None:
        surrogate = surrogate * weights
    with torch.no_grad():
        clipped = (((ratio < low) | (ratio > high)) * mask).sum()
        approx_kl = ((ratio - 1 - log_ratio) * mask).sum()
    return -(surrogate * mask).sum(), clipped, approx_kl


def reference_kl(logprobs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """GRPO's penalty: the k3 estimate of KL(policy, reference), summed over tokens; with a gradient."""
    difference = (reference - logprobs) * mask
    return (difference.exp() - difference - 1).sum()


def value_loss(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float | None) -> Tensor:
    """Half the squared error, summed over tokens; with `clip` the worse of the free and the clipped error counts."""
    error = (values - returns) ** 2
    if clip is not None:
        near = old + (values - old).clamp(-clip, clip)
        error = torch.max(error, (near - returns) ** 2)
    return 0.5 * (error * mask).sum()


def importance_weights(trainer: Tensor, sampler: Tensor, cap: float) -> Tensor:
    """Truncated token-level weights p_trainer / p_sampler for rollouts of another engine (Yao et al. 2025)."""
    return (trainer - sampler).exp().clamp(max=cap)


def adapted_beta(beta: float, kl: float, target: float | None, episodes: int, horizon: int = 10_000) -> float:
    """Ziegler et al.'s controller: beta rises while the KL per episode is above its target, falls below it."""
    error = max(-0.2, min(0.2, kl / target - 1)) if target is not None else 0.0
    return beta * (1 + error * episodes / horizon)


def learning_rate_factor(step: int, steps: int, warmup: int, schedule: str) -> float:
    """Share of the peak learning rate at a step (1-based)."""
    if step <= warmup:
        return step / warmup
    done = (step - warmup) / max(1, steps - warmup)
    if schedule == "linear":
        return 1 - 0.9 * done
    if schedule == "cosine":
        return 0.55 + 0.45 * math.cos(math.pi * done)
    return 1.0
