"""The updates of one step: policy and value passes over the micro-batches of a batch."""

from collections.abc import Iterator

import torch
from torch import Tensor

from clinical_r1.training.ppo.algorithm import policy_loss, value_loss
from clinical_r1.training.ppo.batch import Batch, MicroBatch, part, put
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.ppo.data import micro_order
from clinical_r1.training.ppo.engines import Engines, shared, summed, update


class Learner:
    """Optimizer steps on actor and critic.

    A loss is a sum over tokens divided by a constant of the step (the batch's tokens per mini-batch): a mean over
    each length-sorted micro-batch would let short episodes weigh more.
    """

    def __init__(self, config: PPOConfig, engines: Engines) -> None:
        self.config, self.engines = config, engines

    def policy(self, batch: Batch, stream: int, step: int) -> dict[str, float]:
        """PPO epochs on the actor; means over all tokens and the gradient norm."""
        engine = self.engines.actor
        engine.train()
        sums = torch.zeros(4)
        norms: list[float | None] = []
        for epoch in range(self.config.epochs):
            for number, micros in enumerate(self._minibatches(batch, stream, step, epoch)):
                losses = self._policy_losses(batch, micros, sums, first=epoch == number == 0)
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

    def _policy_losses(self, batch: Batch, micros: list[MicroBatch], sums: Tensor, first: bool) -> Iterator[Tensor]:
        config, constant = self.config, self._constant(batch)
        for micro in micros:
            logprobs, entropy = self.engines.actor(micro, config.entropy_bonus > 0)
            if first:
                # The weights are still the rollout's: the trainer's own numbers make the ratio exactly 1.
                put(batch.old, micro, logprobs)
            mask = part(batch.mask, micro)
            weights = part(batch.weights, micro) if batch.weights is not None else None
            old, advantages = part(batch.old, micro), part(batch.advantages, micro)
            terms = policy_loss(logprobs, old, advantages, mask, config.clip, weights)
            total_entropy = (entropy * mask).sum()
            sums += torch.stack([terms.clipped, terms.approx_kl, total_entropy.detach(), terms.tokens]).cpu()
            yield (terms.loss - config.entropy_bonus * total_entropy) / constant

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
