"""Looks at held-out cases while training (accuracy, reasoning, length, what was forgotten); the best weights so far,
and when to stop."""

import hashlib
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.reasoning import Outcome, with_conclusion
from clinical_r1.rewards import with_reasoning
from clinical_r1.schema import Case, VerdictLabel
from clinical_r1.stats import wilson
from clinical_r1.training.group import gather, interleave, rank, world_size
from clinical_r1.training.ppo.batch import PromptSet
from clinical_r1.training.ppo.config import PPOConfig, StopConfig
from clinical_r1.training.ppo.engines import Engines
from clinical_r1.training.ppo.rollout import sampling_params
from clinical_r1.training.ppo.scoring import NO_RESULT, JudgeThread, Reader
from clinical_r1.verifier.judgement import Judgement
from clinical_r1.verifier.normalise import normalise


@dataclass(frozen=True)
class ProbeResult:
    """One look; shares are of all cases, accuracy of those whose judgement did not fail."""

    accuracy: float
    """A lower bound where answers are undecided: these count as not right."""
    n: int
    invalid: int
    """Judgements that failed."""
    undecided: int
    """Answers that the rules could not read, with no judge to ask."""
    reasoning_rate: float
    mean_reasoning_tokens: float
    mean_length: float
    outcomes: dict[str, int]

    def row(self, prefix: str) -> dict[str, float]:
        """Flat numbers for metrics.jsonl, with Wilson's 95% interval of the accuracy."""
        low, high = wilson(self.accuracy * self.n, self.n)
        asked = max(1, self.n + self.invalid)
        numbers = {
            "accuracy": self.accuracy, "accuracy_low": low, "accuracy_high": high, "n": self.n, "invalid": self.invalid,
            "undecided_share": self.undecided / asked, "reasoning_rate": self.reasoning_rate,
            "reasoning_tokens": self.mean_reasoning_tokens, "length": self.mean_length,
        }  # fmt: skip
        numbers |= {f"outcome_{name}": count / asked for name, count in self.outcomes.items()}
        return {f"{prefix}/{key}": float(value) for key, value in numbers.items()}


def probe(config: PPOConfig, sampler: Any, engines: Engines, judge: JudgeThread, prompts: PromptSet) -> ProbeResult:
    """Answer the cases greedily and have them judged; collective, every process gets the result."""
    reader = Reader(engines.tokenizer)
    sampler.refresh()
    mine = range(rank(), len(prompts), world_size())
    rollouts = sampler.generate([prompts.prompts[row] for row in mine], sampling_params(config, engines, 0.0))
    read = [reader.read(rollout.token_ids, rollout.finished) for rollout in rollouts]
    items = [
        None if parts.outcome in NO_RESULT else Judgement.of(prompts.cases[row], parts.response)
        for row, (parts, _) in zip(mine, read, strict=True)
    ]
    facts = []
    for (parts, tokens), verdict, rollout in zip(read, judge.submit(items).result(), rollouts, strict=True):
        thought = with_reasoning(parts.outcome, tokens, parts.thinking, config.reasoning)
        facts.append((parts.outcome, verdict.label, tokens, thought, len(rollout.token_ids)))
    outcomes, labels, reasoning_tokens, reasoned, lengths = zip(*interleave(gather(facts)), strict=True)
    found, total = Counter(labels), len(labels)
    judged = total - found[VerdictLabel.INVALID]  # a failed judgement is not a wrong answer
    return ProbeResult(
        accuracy=found[VerdictLabel.CORRECT] / judged if judged else 0.0,
        n=judged,
        invalid=found[VerdictLabel.INVALID],
        undecided=found[VerdictLabel.UNDECIDED],
        reasoning_rate=sum(reasoned) / total,
        mean_reasoning_tokens=sum(reasoning_tokens) / total,
        mean_length=sum(lengths) / total,
        outcomes={outcome.value: outcomes.count(outcome) for outcome in Outcome},
    )


def probe_judge(config: PPOConfig, judge: JudgeThread, cases: list[Case]) -> dict[str, float]:
    """Ask the judge about answers whose truth is known: a case's own reference, and that of a case with another one.

    Returns:
        {"judge_probe_n", "judge_error_rate", "judge_undecided_share"}; empty where nothing was asked.

    Raises:
        UserError: more errors than `judge_probe.max_error`; undecided ones (rules alone leave some) are none.
    """
    wanted = config.judge_probe.calls // 2
    own = sorted(cases, key=lambda case: hashlib.sha256(case.id.encode()).digest())[:wanted]
    asked = [(case, case.reference, VerdictLabel.CORRECT) for case in own]
    for index, case in enumerate(own):
        names = {normalise(one) for one in case.references}
        for step in range(len(cases)):
            other = cases[(index * 7919 + step) % len(cases)]
            said = normalise(other.reference)
            # One name that is part of the other a judge may rightly accept.
            if other.language == case.language and not any(name in said or said in name for name in names):
                asked.append((case, other.reference, VerdictLabel.INCORRECT))
                break
    if not asked:
        return {}
    items = [Judgement.of(case, with_conclusion("", answer, case.language, case.asks_for)) for case, answer, _ in asked]
    found = [verdict.label for verdict in judge.submit(list(items)).result()]
    undecided = found.count(VerdictLabel.UNDECIDED) / len(asked)
    right = sum(label is truth for label, (_, _, truth) in zip(found, asked, strict=True))
    wrong = len(asked) - right - found.count(VerdictLabel.UNDECIDED)
    rate = wrong / len(asked)
    print(f"judge: {wrong} of {len(asked)} known answers misjudged, {undecided:.0%} undecided", flush=True)
    if rate > config.judge_probe.max_error:
        raise UserError(
            f"ppo.judge: {wrong} of {len(asked)} answers whose truth is known were misjudged or not judged "
            f"({found.count(VerdictLabel.INVALID)} failed), more than judge_probe.max_error "
            f"{config.judge_probe.max_error:g}: such a judge pays for the wrong answers; take another model, or mend "
            "its endpoint"
        )
    return {"judge_probe_n": float(len(asked)), "judge_error_rate": rate, "judge_undecided_share": undecided}


@dataclass
class CollapseWatch:
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

    def after_step(self, row: dict[str, float], limits: StopConfig) -> None:
        """Look at one step's numbers; sets `stop_reason` on collapse."""
        for name in ("train/reward", "train/kl", "train/grad_norm"):
            if not math.isfinite(row.get(name, 0.0)):
                self.stop_reason = f"not a number: {name}"
                return
        kl, length, cut = row["train/kl"], row["train/length"], row["train/cut_share"]
        masked = row["train/masked_share"]
        if not self.first_length:
            self.first_length, self.first_cut = length, cut
        beyond = {
            f"KL runaway: {kl:.1f} nats an episode (limit {limits.max_kl:g})": kl > limits.max_kl,
            f"length collapse: {length:.0f} tokens, {self.first_length:.0f} at the start": length
            < limits.min_length_ratio * self.first_length,
            f"length runaway: {cut:.0%} of the episodes cut at max_new_tokens": cut
            > max(limits.max_cut_share, self.first_cut),
            # The last: a policy that has collapsed says what nobody can judge, and the collapse is the reason.
            f"no verdicts: {masked:.0%} of the episodes could not be judged (limit {limits.max_masked_share:.0%}); "
            "ask the judge for its reasons": masked > limits.max_masked_share,
        }
        self.alike = self.alike + 1 if not row["train/reward_spread"] and masked < 1 else 0
        if self.alike >= limits.unpaid_steps:
            paid = f"every episode earned {row['train/reward']:g}" if row["train/reward"] else "no reward was paid"
            self.stop_reason = (
                f"nothing to learn from: {paid} in {self.alike} steps in a row; look at the verdicts, the judge and "
                "what the SFT model answers"
            )
        for reason, is_beyond in beyond.items():
            kind = reason.split(":")[0]
            self.strikes[kind] = self.strikes.get(kind, 0) + 1 if is_beyond else 0
            if self.strikes[kind] >= limits.patience and not self.stop_reason:
                self.stop_reason = f"{reason}, {self.strikes[kind]} steps in a row"

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
