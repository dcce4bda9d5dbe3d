"""Watching a run: which weights are the best so far, and when to stop."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from clinical_r1.stats import wilson
from clinical_r1.training.ppo.config import StopConfig
from clinical_r1.training.ppo.probe import ProbeResult


@dataclass
class Watch:
    """What a run remembers about itself; travels in its checkpoints."""

    first_length: float = 0.0
    first_cut: float = 0.0
    strikes: dict[str, int] = field(default_factory=dict)
    """Steps in a row beyond a limit, by limit."""
    alike: int = 0
    """Steps in a row in which all episodes earned the same."""
    sft: dict[str, float] = field(default_factory=dict)
    """Accuracy and n of the SFT model on the validation cases."""
    below: int = 0
    """Probes in a row below the SFT model's interval."""
    best_step: int = 0
    """Step of the best validation accuracy; 0 is the SFT model."""
    best_accuracy: float = -1.0
    stop_reason: str = ""

    def state(self) -> dict[str, Any]:
        """JSON-ready; `Watch(**state)` brings it back."""
        return asdict(self)

    def after_step(self, row: dict[str, float], limits: StopConfig) -> None:
        """Look at one step's numbers; sets `stop_reason` on collapse."""
        bad = [
            name for name in ("train/reward", "train/kl", "train/grad_norm") if not math.isfinite(row.get(name, 0.0))
        ]
        if bad:
            self.stop_reason = f"not a number: {bad[0]}"
            return
        masked, spread = row["train/masked_share"], row["train/reward_spread"]
        beyond = {
            f"no verdicts: {masked:.0%} of the episodes could not be judged (limit {limits.max_masked_share:.0%}); "
            "ask the judge for its reasons": masked > limits.max_masked_share
        }
        beyond |= self._collapses(row, limits)
        self.alike = self.alike + 1 if not spread and masked < 1 else 0
        if self.alike >= limits.unpaid_steps:
            paid = f"every episode earned {row['train/reward']:g}" if row["train/reward"] else "no reward was paid"
            self.stop_reason = (
                f"nothing to learn from: {paid} in {self.alike} steps in a row; look at the verdicts, the judge and "
                "what the SFT model answers"
            )
        strikes: dict[str, int] = {}
        for reason, is_beyond in beyond.items():
            kind = reason.split(":")[0]
            strikes[kind] = self.strikes.get(kind, 0) + 1 if is_beyond else 0
            if strikes[kind] >= limits.patience and not self.stop_reason:
                self.stop_reason = f"{reason}, {strikes[kind]} steps in a row"
        self.strikes = strikes

    def _collapses(self, row: dict[str, float], limits: StopConfig) -> dict[str, bool]:
        """What the episodes of a step are checked for, by the words that a stop would be told in."""
        length, cut, kl = row["train/length"], row["train/cut_share"], row["train/kl"]
        if not self.first_length:
            self.first_length, self.first_cut = length, cut
        return {
            f"KL runaway: {kl:.1f} nats an episode (limit {limits.max_kl:g})": kl > limits.max_kl,
            f"length collapse: {length:.0f} tokens, {self.first_length:.0f} at the start": length
            < limits.min_length_ratio * self.first_length,
            f"length runaway: {cut:.0%} of the episodes cut at max_new_tokens": cut
            > max(limits.max_cut_share, self.first_cut),
        }

    def after_probe(self, step: int, result: ProbeResult, limits: StopConfig) -> bool:
        """Look at a probe; True where these weights are the best so far (ties stay with the earlier ones)."""
        if step == 0:
            self.sft = {"accuracy": result.accuracy, "n": result.n}
        low = wilson(self.sft["accuracy"] * self.sft["n"], self.sft["n"]).low
        self.below = self.below + 1 if result.n and result.accuracy < low else 0
        if limits.below_sft and self.below >= 2:
            self.stop_reason = (
                f"validation accuracy {result.accuracy:.3f} is below the SFT model's interval "
                f"({self.sft['accuracy']:.3f}, from {low:.3f}) in two probes in a row"
            )
        if result.accuracy <= self.best_accuracy:
            return False
        self.best_step, self.best_accuracy = step, result.accuracy
        return True
