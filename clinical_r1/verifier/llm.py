"""The LLM judge: one call at temperature 0 that sees question, reference and final answer, never the reasoning."""

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jinja2
from pydantic import BaseModel

from clinical_r1.llm.client import CallFailed, LLMClient, Message
from clinical_r1.schema import Language, Verdict, VerdictLabel
from clinical_r1.verifier.conclusion import read
from clinical_r1.verifier.judgement import Judgement

PROMPTS = Path(__file__).parent / "prompts"
SEPARATOR = "=== user ===\n"
_TAG = re.compile(r"<(/?)(case|previous|reference|thinking|answer)>", re.IGNORECASE)


class Judged(BaseModel):
    """The shape of the judge's reply."""

    verdict: Literal["correct", "incorrect"]


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
    question = item.question
    if item.options and any(option not in question for option in item.options):
        question += "\n\n" + "\n".join(f"{chr(ord('A') + i)}. {option}" for i, option in enumerate(item.options))
    content = user.render(question=question, reference=item.reference, answer=item.answer).strip()
    return [{"role": "system", "content": system}, {"role": "user", "content": content}], version


class LLMVerifier:
    """A judge behind an endpoint. An empty answer is incorrect without a call; a call that fails gives INVALID."""

    def __init__(self, client: LLMClient, max_tokens: int = 200, seed: int = 0) -> None:
        self.client = client
        self.name = f"llm:{client.endpoint.model}"
        self._max_tokens = max_tokens
        self._seed = seed

    async def judge(self, item: Judgement) -> Verdict:
        """The judge's verdict."""
        if read(item.answer, lambda phrase: "").finding == "empty":
            return Verdict(label=VerdictLabel.INCORRECT, judge=self.name, reason="empty")
        messages, version = judge_messages(item)
        known: dict[str, Any] = (
            {"subject": item.subject} if item.subject else {}
        )  # a wrapping client may know it better
        try:
            completion = await self.client.chat(
                messages,
                prompt_version=version,
                temperature=0.0,
                max_tokens=self._max_tokens,
                seed=self._seed,
                response_model=Judged,
                **known,
            )
        except CallFailed as failure:
            return Verdict(label=VerdictLabel.INVALID, judge=self.name, reason=failure.reason)
        label = VerdictLabel(completion.parsed.verdict)
        return Verdict(label=label, judge=f"llm:{completion.model or self.client.endpoint.model}")
