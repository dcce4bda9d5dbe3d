"""How much of the returns' variance a critic could explain: the run's critic against one fitted offline to convergence.

Both are judged on held-out rollouts of the run's last policy, on cases that nothing was trained on. The ceiling's
critic is of the same class (the SFT model's body with a linear head), started anew and fitted to other rollouts of that
policy over and over until it gets no better; its best epoch on the held-out rollouts counts, so the ceiling is a
little too high rather than too low. Called by `benchmarks.learning`.
"""

import random
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clinical_r1.generation.decoder import Decoder
from clinical_r1.generation.load import load_model
from clinical_r1.rewards import reward_table
from clinical_r1.training.deepspeed import join_group
from clinical_r1.training.ppo.algorithm import advantages_and_returns, explained_variance, masked_mean, value_loss
from clinical_r1.training.ppo.batch import WARMUP_STREAM, Batch, load_prompts, part, put
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.ppo.engines import Critic, build_engines
from clinical_r1.training.ppo.rollout import Collector, Timer
from clinical_r1.training.ppo.saving import load_checkpoint
from clinical_r1.training.ppo.scoring import JudgeThread, Reader, Scorer

BATCH_SIZE, FIT_BATCHES, HELD_BATCHES = 256, 10, 8
"""Episodes sampled at once, and batches to fit and to judge: the noise of 2,048 held-out episodes is about 0.01."""
LEARNING_RATE, MOST_EPOCHS, UPDATE_PARTS = 1e-3, 4, 2
"""Offline: falls linearly to a twentieth over the epochs; micro-batches an update."""


class _Never:
    """In place of trainee.StopRequest, which would take SIGTERM for a request: there is no checkpoint to write here."""

    asked = False

    def anywhere(self) -> bool:
        return False


def critic_ceiling(config: PPOConfig, folder: Path) -> dict[str, Any]:
    """Explained variance of whole returns, over all tokens of the held-out rollouts.

    Args:
        config: of the run.
        folder: with sft/model, ppo-state (the run's checkpoints) and spare.jsonl (cases that nothing was trained on).
    """
    join_group()
    engines = build_engines(config, folder / "sft" / "model")
    state = load_checkpoint(engines, folder / "ppo-state")
    assert state is not None
    batches = _roll_out(config, engines, folder / "spare.jsonl", state["beta"])
    for batch in batches:
        batch.returns = advantages_and_returns(batch.rewards, batch.values, batch.mask, 1.0, 1.0)[1]
    fit, held = batches[:FIT_BATCHES], batches[FIT_BATCHES:]
    online = _explained([batch.values for batch in held], held)
    by_epoch = list(_fit_offline(folder / "sft" / "model", fit, held))
    return {"online": online, "ceiling": max(by_epoch), "offline_by_epoch": by_epoch}


def _roll_out(config: PPOConfig, engines: Any, cases: Path, beta: float) -> list[Batch]:
    """Batches of the last policy with the values of the run's critic; no case comes twice."""
    window = engines.policy.causal.config.max_position_embeddings
    prompts = load_prompts(cases, engines.tokenizer, window, config.rollout.max_new_tokens)
    total = FIT_BATCHES + HELD_BATCHES
    if len(prompts) < total * BATCH_SIZE:
        raise SystemExit(f"{cases}: {len(prompts)} cases; fit and held-out rollouts need {total * BATCH_SIZE}")
    config = config.model_copy(update={"batch_size": BATCH_SIZE})
    with JudgeThread(config.judge) as judge:
        scorer = Scorer(judge, Reader(engines.tokenizer), reward_table(config.reward_table), config.reasoning)
        decoder = Decoder(engines.policy.model, config.rollout.batch_tokens)
        collector = Collector(config, engines, decoder, scorer, prompts, _Never())
        return [collector.collect(WARMUP_STREAM, 1 + n, beta, Timer()) for n in range(total)]


def _fit_offline(model_folder: Path, fit: list[Batch], held: list[Batch]) -> Iterator[float]:
    """Explained variance on the held-out rollouts after each epoch."""
    level = statistics.fmean(float(masked_mean(batch.returns, batch.mask)) for batch in fit)
    critic = Critic(load_model(model_folder)[0].base_model, level)
    optimizer = torch.optim.AdamW(critic.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    parts = [(batch, micro) for batch in fit for micro in batch.micro_batches]
    updates, done = MOST_EPOCHS * len(parts) / UPDATE_PARTS, 0
    for epoch in range(MOST_EPOCHS):
        random.Random(epoch).shuffle(parts)
        for start in range(0, len(parts), UPDATE_PARTS):
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1.0, (done + 1) / 20) * max(0.05, 1 - done / updates)
            done += 1
            chosen = parts[start : start + UPDATE_PARTS]
            tokens = sum(float(micro.mask.sum()) for _, micro in chosen)
            for batch, micro in chosen:
                returns, mask = part(batch.returns, micro), part(batch.mask, micro)
                (value_loss(critic(micro), returns, returns, mask, None) / tokens).backward()
            torch.nn.utils.clip_grad_norm_(critic.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        now = _explained([_values(critic, batch) for batch in held], held)
        print(f"critic offline, epoch {epoch + 1}: explained variance {now:.4f}", flush=True)
        yield now


def _values(critic: Any, batch: Batch) -> Tensor:
    values = torch.zeros_like(batch.values)
    with torch.no_grad():
        for micro in batch.micro_batches:
            put(values, micro, critic(micro))
    return values


def _explained(values: list[Tensor], held: list[Batch]) -> float:
    """Over all held-out tokens together."""
    columns = zip(
        *((v.flatten(), b.returns.flatten(), b.mask.flatten()) for v, b in zip(values, held, strict=True)), strict=True
    )
    return explained_variance(*(torch.cat(column) for column in columns))
