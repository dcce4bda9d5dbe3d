"""The LLM judge: one call at temperature 0 that sees question, reference and final answer, never the reasoning."""

from collections import Counter, deque
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from clinical_r1.asking import problem
from clinical_r1.dialects import AUTO
from clinical_r1.errors import UserError
from clinical_r1.llm.client import Completion, LLMClient
from clinical_r1.llm.prompts import Prompt, filled
from clinical_r1.llm.reply import CallFailed
from clinical_r1.reasoning import CLOSE
from clinical_r1.schema import Language, Verdict, VerdictLabel
from clinical_r1.verifier.choice import chooses
from clinical_r1.verifier.judgement import Judgement
from clinical_r1.verifier.normalise import normalise
from clinical_r1.verifier.replies import read_verdict

PROMPTS = Path(__file__).parent / "prompts"
PLAIN_ROOM, THINKING_ROOM = 256, 4096
"""Tokens of a reply: of a judge that answers at once, and of one that thinks before."""


class Judged(BaseModel):
    """The shape of the judge's reply."""

    verdict: Literal["correct", "incorrect"]

    @classmethod
    def read_reply(cls, reply: str) -> "Judged | None":
        """What `llm.parse` asks in place of its own reading: a verdict has rules that other replies do not."""
        said = read_verdict(reply)
        return cls(verdict=said) if said else None


def prompt(task: Literal["judge", "rubric"], language: Language, **blocks: Any) -> Prompt:
    """What is asked in one call."""
    return filled(PROMPTS / f"{task}_{language}.md.j2", f"{task}-{language}", **blocks)


def judge_messages(item: Judgement) -> Prompt:
    """Messages and prompt version of one judgement."""
    question = problem(item.question, item.options)
    reference = "\n".join(item.wanted) if len(item.wanted) > 1 else item.reference
    return prompt("judge", item.language, question=question, reference=reference, answer=item.answer)


class Watch:
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

        `shape` is the structure of the reply (llm.parse), where there was one.
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
        self, client: LLMClient, max_tokens: int | None = None, seed: int = 0, watch: Watch | None = None
    ) -> None:
        """`max_tokens` None gives room by the judge's kind; `watch` ends the run where too few verdicts come."""
        self.client = client
        self.name = f"llm:{client.endpoint.model}"
        self._grows = max_tokens is None
        known_to_think = client.endpoint.thinking not in (AUTO, "none")
        self._room = max_tokens or (THINKING_ROOM if known_to_think else PLAIN_ROOM)
        self._seed = seed
        self.watch = watch

    async def judge(self, item: Judgement) -> Verdict:
        """The judge's verdict."""
        if not normalise(item.answer):
            return Verdict(label=VerdictLabel.INCORRECT, judge=self.name, reason="empty")
        if item.options and (right := chooses(item)[0]) is not None:
            label = VerdictLabel.CORRECT if right else VerdictLabel.INCORRECT
            return Verdict(label=label, judge=self.name, reason="option")
        try:
            completion = await self.ask(item)
        except CallFailed as failure:
            if self.watch is not None:
                self.watch.gave_none(failure.reason, failure.shape)
            return Verdict(label=VerdictLabel.INVALID, judge=self.name, reason=failure.reason)
        if self.watch is not None:
            self.watch.gave_verdict()
        label = VerdictLabel(completion.parsed.verdict)
        return Verdict(label=label, judge=f"llm:{completion.model or self.client.endpoint.model}")

    def messages(self, item: Judgement) -> Prompt:
        """Messages and prompt version of what is asked about one item."""
        return judge_messages(item)

    async def ask(self, item: Any) -> Completion:
        """The judge's reply; one that was cut off is asked for once more with the room of a judge that thinks, which
        all later ones get as well."""
        try:
            completion = await self._call(item)
        except CallFailed as failure:
            if failure.reason != "truncated" or not self._grows or self._room >= THINKING_ROOM:
                raise
            self._room = THINKING_ROOM
            return await self._call(item)
        if self._grows and (completion.reasoning or CLOSE in completion.text):
            self._room = THINKING_ROOM
        return completion

    async def _call(self, item: Any) -> Completion:
        messages, version = self.messages(item)
        # A wrapping client may know the subject better.
        known: dict[str, Any] = {"subject": item.subject} if item.subject else {}
        return await self.client.chat(
            messages,
            prompt_version=version,
            temperature=0.0,
            max_tokens=self._room,
            seed=self._seed,
            response_model=self.shape,
            **known,
        )
