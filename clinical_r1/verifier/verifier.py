"""Verifiers that ask a model: the judge, alone or behind the rules, and the judge of rubrics; what builds them.

The judge is asked once at temperature 0 and sees question, reference and final answer, never the reasoning. Rubrics
have HealthBench's form (arXiv 2505.08775): criteria with positive or negative points, one call each, the score is
points earned over points to be had. The prompt is our own, so figures are near those of the set's authors, not theirs.
"""

import asyncio
from collections import Counter, deque
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from clinical_r1.asking import problem
from clinical_r1.dialects import AUTO
from clinical_r1.errors import UserError
from clinical_r1.llm.client import Completion, LLMClient
from clinical_r1.llm.prompts import Prompt, filled
from clinical_r1.llm.reply import CallFailed
from clinical_r1.reasoning import CLOSE
from clinical_r1.schema import Case, Language, RubricScore, Verdict, VerdictLabel
from clinical_r1.verifier.choice import chooses
from clinical_r1.verifier.config import VerifierConfig
from clinical_r1.verifier.judgement import Judgement, Verifier
from clinical_r1.verifier.names import load_names
from clinical_r1.verifier.normalise import normalise
from clinical_r1.verifier.replies import read_verdict
from clinical_r1.verifier.rule import RuleVerifier

PROMPTS = Path(__file__).parent / "prompts"
PLAIN_ROOM, THINKING_ROOM = 256, 4096
"""Tokens of a reply: of a judge that answers at once, and of one that thinks before."""
JudgeT = TypeVar("JudgeT", bound="LLMVerifier")


class Judged(BaseModel):
    """The shape of the judge's reply."""

    verdict: Literal["correct", "incorrect"]

    @classmethod
    def read_reply(cls, reply: str) -> "Judged | None":
        """What `llm.reply` asks in place of its own reading: a verdict has rules that other replies do not."""
        said = read_verdict(reply)
        return cls(verdict=said) if said else None


class Met(BaseModel):
    """The shape of a reply on one criterion of a rubric."""

    met: bool


def _prompt(task: Literal["judge", "rubric"], language: Language, **blocks: Any) -> Prompt:
    return filled(PROMPTS / f"{task}_{language}.md.j2", f"{task}-{language}", **blocks)


def judge_messages(item: Judgement) -> Prompt:
    """Messages and prompt version of one judgement."""
    question = problem(item.question, item.options)
    reference = "\n".join(item.wanted) if len(item.wanted) > 1 else item.reference
    return _prompt("judge", item.language, question=question, reference=reference, answer=item.answer)


class JudgeWatch:
    """The last judgements of one judge. Not for judgements that were decided without it."""

    def __init__(self, judge: str, limit: float, window: int) -> None:
        self._judge, self._limit = judge, limit
        self._last: deque[str] = deque(maxlen=window)
        """Why each had no verdict; "" where it had one."""
        self._shapes: deque[str] = deque(maxlen=3)

    def gave_verdict(self) -> None:
        """One more judgement with a verdict."""
        self._last.append("")

    def gave_none(self, reason: str, shape: str = "") -> None:
        """One more without; raises UserError where they are more than the limit of a full window.

        `shape` is the structure of the reply (llm.reply), where there was one.
        """
        self._last.append(reason)
        if shape and shape not in self._shapes:
            self._shapes.append(shape)
        reasons = Counter(one for one in self._last if one)
        if len(self._last) < (self._last.maxlen or 0) or reasons.total() <= self._limit * len(self._last):
            return
        why = ", ".join(f"{name} {count}" for name, count in reasons.most_common())
        shown = f"; its replies look like: {' | '.join(self._shapes)}" if self._shapes else ""
        raise UserError(
            f"judge {self._judge}: no verdict in {reasons.total()} of its last {len(self._last)} judgements ({why}; "
            f"most allowed: {self._limit:.0%}){shown}. Nothing is concluded from this: give the judge more room "
            "(verifier.max_tokens) or another json_mode, or name another judge, and run the same command again"
        )


class LLMVerifier:
    """A judge behind an endpoint. An empty answer is incorrect without a call, and a plainly chosen option is read
    without one; a call that fails gives INVALID."""

    shape: type[BaseModel] = Judged

    def __init__(
        self, client: LLMClient, max_tokens: int | None = None, seed: int = 0, watch: JudgeWatch | None = None
    ) -> None:
        """`max_tokens` None gives room by the judge's kind; `watch` ends the run where too few verdicts come."""
        self.client = client
        self.name = f"llm:{client.endpoint.model}"
        self._grows = max_tokens is None
        known_to_think = client.endpoint.thinking not in (AUTO, "none")
        self._room = max_tokens or (THINKING_ROOM if known_to_think else PLAIN_ROOM)
        self._seed, self._watch = seed, watch

    async def judge(self, item: Judgement) -> Verdict:
        """The judge's verdict."""
        if not normalise(item.answer):
            return Verdict(label=VerdictLabel.INCORRECT, judge=self.name, reason="empty")
        if item.options and (right := chooses(item)[0]) is not None:
            label = VerdictLabel.CORRECT if right else VerdictLabel.INCORRECT
            return Verdict(label=label, judge=self.name, reason="option")
        said = await self._ask(judge_messages(item), item.subject)
        if isinstance(said, CallFailed):
            return Verdict(label=VerdictLabel.INVALID, judge=self.name, reason=said.reason)
        label = VerdictLabel(said.parsed.verdict)
        return Verdict(label=label, judge=f"llm:{said.model or self.client.endpoint.model}")

    async def _ask(self, asked: Prompt, subject: str) -> Completion | CallFailed:
        """The judge's reply, or why there is none. One that was cut off is asked for once more with the room of a judge
        that thinks, which all later ones get as well."""
        try:
            try:
                said = await self._call(asked, subject)
            except CallFailed as failure:
                if failure.reason != "truncated" or not self._grows or self._room >= THINKING_ROOM:
                    raise
                self._room = THINKING_ROOM
                said = await self._call(asked, subject)
        except CallFailed as failure:
            if self._watch is not None:
                self._watch.gave_none(failure.reason, failure.shape)
            return failure
        if self._grows and (said.reasoning or CLOSE in said.text):
            self._room = THINKING_ROOM
        if self._watch is not None:
            self._watch.gave_verdict()
        return said

    async def _call(self, asked: Prompt, subject: str) -> Completion:
        messages, version = asked
        # A wrapping client may know the subject better.
        known: dict[str, Any] = {"subject": subject} if subject else {}
        return await self.client.chat(
            messages,
            prompt_version=version,
            temperature=0.0,
            max_tokens=self._room,
            seed=self._seed,
            response_model=self.shape,
            **known,
        )


class RubricJudge(LLMVerifier):
    """Says of each criterion of a case's rubric whether an answer meets it; points follow from that."""

    shape = Met

    async def score(self, case: Case, answer: str) -> RubricScore:
        """Which criteria the answer meets; None where a judgement failed. An empty answer meets nothing."""
        if not normalise(answer):
            return RubricScore(met=[False] * len(case.rubric), judge=self.name)
        said = [f"{turn.role.upper()}: {turn.content}" for turn in case.turns]
        conversation = "\n\n".join([*said, f"USER: {case.problem}"] if said else [case.problem])

        async def met(criterion: str) -> bool | None:
            asked = _prompt("rubric", case.language, question=conversation, answer=answer, criterion=criterion)
            reply = await self._ask(asked, case.patient or case.id)
            return None if isinstance(reply, CallFailed) else bool(reply.parsed.met)

        return RubricScore(met=list(await asyncio.gather(*(met(item.text) for item in case.rubric))), judge=self.name)


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
    watch = JudgeWatch(client.endpoint.name, config.max_invalid_share, config.invalid_window)
    return kind(client, config.max_tokens, config.seed, watch)
