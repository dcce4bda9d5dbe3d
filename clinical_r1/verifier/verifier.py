"""Build the verifier that a config names, and the ensemble of rule and judge."""

from typing import TypeVar

from clinical_r1.errors import UserError
from clinical_r1.llm.client import LLMClient
from clinical_r1.schema import Verdict, VerdictLabel
from clinical_r1.verifier.config import VerifierConfig
from clinical_r1.verifier.judgement import Judgement, Verifier
from clinical_r1.verifier.llm import LLMVerifier, Watch
from clinical_r1.verifier.names import load_names
from clinical_r1.verifier.rubric import RubricJudge
from clinical_r1.verifier.rule import RuleVerifier

JudgeT = TypeVar("JudgeT", bound=LLMVerifier)


class EnsembleVerifier:
    """Rule and judge together.

    `cascade`: what the rules decide costs nothing; the judge decides the rest. `all`: correct only where both say so;
    undecided where the rules cannot read what the judge accepts; INVALID where the judge fails.
    """

    name = "ensemble"

    def __init__(self, rule: RuleVerifier, llm: Verifier, mode: str = "cascade") -> None:
        self._rule = rule
        self._llm = llm
        self._mode = mode

    async def judge(self, item: Judgement) -> Verdict:
        """The joint verdict; its reason begins with who decided."""
        rule = self._rule.judge_sync(item)
        if rule.label is VerdictLabel.INCORRECT or (self._mode == "cascade" and rule.label is VerdictLabel.CORRECT):
            return self._verdict(rule.label, f"rule:{rule.reason}")
        llm = await self._llm.judge(item)
        if self._mode == "all" and llm.label is VerdictLabel.CORRECT and rule.label is not VerdictLabel.CORRECT:
            return self._verdict(rule.label, f"rule:{rule.reason}")
        return self._verdict(llm.label, f"{llm.judge}:{llm.reason}".rstrip(":"))

    def _verdict(self, label: VerdictLabel, reason: str) -> Verdict:
        return Verdict(label=label, judge=self.name, reason=reason)


def build_verifier(config: VerifierConfig, client: LLMClient | None = None) -> Verifier:
    """The verifier of a config; raises UserError where it needs an endpoint and gets none."""
    rule = RuleVerifier(config.icd_level, load_names(config.synonyms, config.terminology), config.grading)
    if config.kind == "rule":
        return rule
    llm = _judge(LLMVerifier, config, client)
    return llm if config.kind == "llm" else EnsembleVerifier(rule, llm, config.ensemble)


def build_rubric_judge(config: VerifierConfig, client: LLMClient | None) -> RubricJudge:
    """The judge of rubrics; raises UserError where no model is to judge."""
    if config.kind == "rule":
        raise UserError(
            "these cases have rubrics, which a model grades: set the judge's verifier.kind to llm and name its endpoint"
        )
    return _judge(RubricJudge, config, client)


def _judge(kind: type[JudgeT], config: VerifierConfig, client: LLMClient | None) -> JudgeT:
    if client is None:
        raise UserError(f"verifier: kind {config.kind!r} needs a judge endpoint; set one, or kind: rule")
    watch = Watch(client.endpoint.name, config.max_invalid_share, config.invalid_window)
    return kind(client, config.max_tokens, config.seed, watch)
