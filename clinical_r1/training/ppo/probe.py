"""Looks at held-out cases while training (accuracy, reasoning, length, what was forgotten); the best weights so far,
and when to stop."""

import hashlib
import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.reasoning import Outcome, with_conclusion
from clinical_r1.rewards import ReasoningRule, with_reasoning
from clinical_r1.schema import Case, VerdictLabel
from clinical_r1.stats import wilson
from clinical_r1.training.group import gather, interleave, rank, world_size
from clinical_r1.training.ppo.batch import PromptSet
from clinical_r1.training.ppo.config import PPOConfig, StopConfig
from clinical_r1.training.ppo.engines import Engines
from clinical_r1.training.ppo.rollout import sampling_params
from clinical_r1.training.ppo.scoring import NO_RESULT, JudgeThread, Reader, judgement
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

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the accuracy."""
        return wilson(self.accuracy * self.n, self.n)

    def row(self, prefix: str) -> dict[str, float]:
        """Flat numbers for metrics.jsonl."""
        low, high = self.interval
        numbers = {
            "accuracy": self.accuracy, "accuracy_low": low, "accuracy_high": high, "n": self.n, "invalid": self.invalid,
            "undecided_share": self.undecided / max(1, self.n + self.invalid),
            "reasoning_rate": self.reasoning_rate, "reasoning_tokens": self.mean_reasoning_tokens,
            "length": self.mean_length,
        }  # fmt: skip
        numbers |= {f"outcome_{name}": count / max(1, self.n + self.invalid) for name, count in self.outcomes.items()}
        return {f"{prefix}/{key}": float(value) for key, value in numbers.items()}


def probe(
    config: PPOConfig, sampler: Any, engines: Engines, judge: JudgeThread, prompts: PromptSet, rule: ReasoningRule
) -> ProbeResult:
    """Answer the cases greedily and have them judged; collective, every process gets the result."""
    reader = Reader(engines.tokenizer)
    sampler.refresh()
    mine = range(rank(), len(prompts), world_size())
    params = sampling_params(config, engines, 0.0)
    rollouts = sampler.generate([prompts.prompts[row] for row in mine], params)
    read = [reader.read(rollout.token_ids, rollout.finished) for rollout in rollouts]
    verdicts = judge.submit(
        [
            None if parts.outcome in NO_RESULT else judgement(prompts.cases[row], parts.response)
            for row, (parts, _) in zip(mine, read, strict=True)
        ]
    ).result()
    facts = [
        (parts.outcome, verdict.label, tokens, with_reasoning(parts.outcome, tokens, parts.thinking, rule), length)
        for (parts, tokens), verdict, length in zip(
            read, verdicts, [len(rollout.token_ids) for rollout in rollouts], strict=True
        )
    ]
    return summarize(interleave(gather(facts)))


def summarize(facts: list[tuple[Outcome, VerdictLabel, int, bool, int]]) -> ProbeResult:
    """Of (outcome, label, reasoning tokens, counts as reasoning, length); a failed judgement is not a wrong answer."""
    labels = Counter(fact[1] for fact in facts)
    judged = len(facts) - labels[VerdictLabel.INVALID]
    total = max(1, len(facts))
    return ProbeResult(
        accuracy=labels[VerdictLabel.CORRECT] / judged if judged else 0.0,
        n=judged,
        invalid=labels[VerdictLabel.INVALID],
        undecided=labels[VerdictLabel.UNDECIDED],
        reasoning_rate=sum(fact[3] for fact in facts) / total,
        mean_reasoning_tokens=sum(fact[2] for fact in facts) / total,
        mean_length=sum(fact[4] for fact in facts) / total,
        outcomes={outcome.value: sum(fact[0] is outcome for fact in facts) for outcome in Outcome},
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
        others = (cases[(index * 7919 + step) % len(cases)] for step in range(len(cases)))
        same = (other for other in others if other.language == case.language)
        strange = next((o.reference for o in same if not _overlap(names, normalise(o.reference))), None)
        if strange is not None:
            asked.append((case, strange, VerdictLabel.INCORRECT))
    if not asked:
        return {}
    items = [judgement(case, with_conclusion("", answer, case.language, case.asks_for)) for case, answer, _ in asked]
    found = [verdict.label for verdict in judge.submit(list(items)).result()]
    known = (VerdictLabel.UNDECIDED,)
    wrong = sum(label is not truth and label not in known for label, (_, _, truth) in zip(found, asked, strict=True))
    rate, undecided = wrong / len(asked), found.count(VerdictLabel.UNDECIDED) / len(asked)
    print(f"judge: {wrong} of {len(asked)} known answers misjudged, {undecided:.0%} undecided", flush=True)
    if rate > config.judge_probe.max_error:
        raise UserError(
            f"ppo.judge: {wrong} of {len(asked)} answers whose truth is known were misjudged or not judged "
            f"({found.count(VerdictLabel.INVALID)} failed), more than judge_probe.max_error "
            f"{config.judge_probe.max_error:g}: such a judge pays for the wrong answers; take another model, or mend "
            "its endpoint"
        )
    return {"judge_probe_n": float(len(asked)), "judge_error_rate": rate, "judge_undecided_share": undecided}


def _overlap(names: set[str], other: str) -> bool:
    """Whether one name is part of the other: then a judge may rightly accept it."""
    return any(name in other or other in name for name in names)


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
        # A policy that has collapsed says what nobody can judge: the collapse is the reason.
        beyond = self._collapses(row, limits)
        beyond |= {
            f"no verdicts: {masked:.0%} of the episodes could not be judged (limit {limits.max_masked_share:.0%}); "
            "ask the judge for its reasons": masked > limits.max_masked_share
        }
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
