"""Looks at held-out cases while training: greedy accuracy, reasoning, length, and what was forgotten."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from clinical_r1.reasoning import Outcome
from clinical_r1.rewards import ReasoningRule, with_reasoning
from clinical_r1.schema import VerdictLabel
from clinical_r1.stats import wilson
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.ppo.data import PromptSet
from clinical_r1.training.ppo.engines import Engines, rank, world_size
from clinical_r1.training.ppo.rollout import gather, interleave, sampling_params
from clinical_r1.training.ppo.scoring import NO_RESULT, JudgeThread, Reader, judgement


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
