"""The LLM judge: one call at temperature 0 that sees question, reference and final answer, never the reasoning."""

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jinja2
from pydantic import BaseModel

from clinical_r1.asking import problem
from clinical_r1.dialects import AUTO
from clinical_r1.llm.client import CallFailed, Completion, LLMClient, Message
from clinical_r1.reasoning import CLOSE
from clinical_r1.schema import Language, Verdict, VerdictLabel
from clinical_r1.verifier.choice import chosen_index, read_choice
from clinical_r1.verifier.judgement import Judgement
from clinical_r1.verifier.normalise import normalise
from clinical_r1.verifier.replies import read_verdict
from clinical_r1.verifier.watch import Watch

PROMPTS = Path(__file__).parent / "prompts"
PLAIN_ROOM, THINKING_ROOM = 256, 4096
"""Tokens of a reply: of a judge that answers at once, and of one that thinks before."""
SEPARATOR = "=== user ===\n"
_TAG = re.compile(r"<(/?)(case|previous|reference|thinking|answer)>", re.IGNORECASE)


class Judged(BaseModel):
    """The shape of the judge's reply."""

    verdict: Literal["correct", "incorrect"]

    @classmethod
    def read_reply(cls, reply: str) -> "Judged | None":
        """What `llm.parse` asks in place of its own reading: a verdict has rules that other replies do not."""
        said = read_verdict(reply)
        return cls(verdict=said) if said else None


def _inert(text: str) -> str:
    """Our block tags disarmed: an answer cannot close its block and speak as the prompt."""
    return _TAG.sub(r"‹\1\2›", text.strip())


@cache
def _prompt(language: Language) -> tuple[str, jinja2.Template, str]:
    """System message, template of the user message, and the version that journal keys carry."""
    source = (PROMPTS / f"judge_{language}.md.j2").read_text(encoding="utf-8")
    system, user = source.split(SEPARATOR)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False)
    environment.filters["inert"] = _inert
    return (
        system.strip(),
        environment.from_string(user),
        f"judge-{language}-{hashlib.sha256(source.encode()).hexdigest()[:12]}",
    )


def judge_messages(item: Judgement) -> tuple[list[Message], str]:
    """Messages and prompt version of one judgement."""
    system, user, version = _prompt(item.language)
    question = problem(item.question, item.options)
    reference = "\n".join(item.wanted) if len(item.wanted) > 1 else item.reference
    content = user.render(question=question, reference=reference, answer=item.answer).strip()
    return [{"role": "system", "content": system}, {"role": "user", "content": content}], version


def _read_option(item: Judgement) -> VerdictLabel | None:
    """Right or wrong where the answer plainly chooses an option: chosen options have one reader, whoever judges."""
    chosen, right = read_choice(item.answer, item.options).index, chosen_index(item.reference, item.options)
    if chosen is None or right is None:
        return None
    return VerdictLabel.CORRECT if chosen == right else VerdictLabel.INCORRECT


class LLMVerifier:
    """A judge behind an endpoint. An empty answer is incorrect without a call, and a plainly chosen option is read
    without one; a call that fails gives INVALID."""

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
        self._watch = watch

    async def judge(self, item: Judgement) -> Verdict:
        """The judge's verdict."""
        if not normalise(item.answer):
            return Verdict(label=VerdictLabel.INCORRECT, judge=self.name, reason="empty")
        if item.options and (read := _read_option(item)) is not None:
            return Verdict(label=read, judge=self.name, reason="option")
        try:
            completion = await self._ask(item)
        except CallFailed as failure:
            if self._watch is not None:
                self._watch.gave_none(failure.reason, failure.shape)
            return Verdict(label=VerdictLabel.INVALID, judge=self.name, reason=failure.reason)
        if self._watch is not None:
            self._watch.gave_verdict()
        label = VerdictLabel(completion.parsed.verdict)
        return Verdict(label=label, judge=f"llm:{completion.model or self.client.endpoint.model}")

    async def _ask(self, item: Judgement) -> Completion:
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

    async def _call(self, item: Judgement) -> Completion:
        messages, version = judge_messages(item)
        # A wrapping client may know the subject better.
        known: dict[str, Any] = {"subject": item.subject} if item.subject else {}
        return await self.client.chat(
            messages,
            prompt_version=version,
            temperature=0.0,
            max_tokens=self._room,
            seed=self._seed,
            response_model=Judged,
            **known,
        )
