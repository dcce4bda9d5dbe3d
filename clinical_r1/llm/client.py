"""Chat calls that are limited, retried, journaled and paid for once; any number of them may be in flight.

async with LLMClient(endpoint, journal, budget) as client:
    completion = await client.chat(messages, prompt_version="cot-en-1", response_model=Answer)
"""

import asyncio
import gc
import json
from collections.abc import Coroutine
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Self, TypeVar

import uvloop
from pydantic import BaseModel

from clinical_r1.llm.channel import Channel
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.failures import REFUSALS, BudgetExhausted, CallFailed, EndpointUnusable
from clinical_r1.llm.journal import Entry, Journal
from clinical_r1.llm.limits import Budget
from clinical_r1.llm.parse import parse_reply
from clinical_r1.llm.retrying import Attempts
from clinical_r1.recognise import Answer
from clinical_r1.sampling import NEUTRAL
from clinical_r1.schema import Usage

__all__ = ["BudgetExhausted", "CallFailed", "Completion", "EndpointUnusable", "LLMClient", "Message"]

Message = dict[str, str]
"""{"role": "system" | "user" | "assistant", "content": text}"""


_canonical = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


@dataclass(frozen=True, slots=True)
class Completion:
    """One reply. `parsed` is set where a response_model was asked for; `usage` includes attempts that had to be
    repeated."""

    text: str
    parsed: Any
    model: str
    usage: Usage
    cached: bool
    finish_reason: str
    reasoning: str | None = None
    """The thought, where the endpoint gives it in a field of its own."""
    reasoning_tokens: int | None = None
    """As the endpoint states them."""

    @property
    def answer(self) -> Answer:
        """As the dialects read it."""
        return Answer(self.text, self.reasoning, self.finish_reason, self.reasoning_tokens)


class LLMClient(Channel):
    """Client of one endpoint: its calls, from the journal where it holds them."""

    def __init__(self, endpoint: EndpointConfig, journal: Journal | None = None, budget: Budget | None = None) -> None:
        super().__init__(endpoint, budget)
        self.journal = journal
        self._alive: asyncio.Task[list[str]] | None = None
        if journal is not None and budget is not None:
            budget.adopt(journal)

    async def __aenter__(self) -> Self:
        self._alive = None
        return await super().__aenter__()

    async def chat(
        self,
        messages: list[Message],
        prompt_version: str = "",
        sample_index: int = 0,
        temperature: float = 0.7,
        top_p: float = 1.0,
        max_tokens: int = 2048,
        seed: int | None = None,
        response_model: type[BaseModel] | None = None,
        subject: str = "",
        keep_truncated: bool = False,
    ) -> Completion:
        """One chat completion, from the journal where it holds it.

        `prompt_version` and `sample_index` are part of the call's identity, `max_tokens` is not; `subject` (patient or
        case id) marks its journal row for `forget`. `keep_truncated` takes a plain reply that was cut at `max_tokens`
        as it is (`finish_reason` says `length`) instead of asking again. Raises CallFailed after the retries that make
        sense, BudgetExhausted where nothing may be spent any more, EndpointUnusable where the endpoint as a whole does
        not work.
        """
        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "messages": messages,
            **NEUTRAL,
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": max_tokens,
            **self.endpoint.extra_body,
        }
        if seed is not None:
            body["seed"] = seed
        # A whole reply is the same in any larger room: another max_tokens pays only for what was cut or never came.
        identity = _canonical({name: body[name] for name in body if name != "max_tokens"}).encode("utf-8", "replace")
        attempts = Attempts(self, body, response_model, keep_truncated)
        if self.journal is None:
            key = blake2b(identity + f"\x1f{prompt_version}\x1f{sample_index}".encode(), digest_size=16).hexdigest()
            entry, cached = await self._call(attempts, key, prompt_version), False
        else:
            key = self.journal.call_key(identity, prompt_version, sample_index)
            room = int(body["max_tokens"])
            entry, cached = await self.journal.once(
                key,
                subject,
                lambda: self._call(attempts, key, prompt_version),
                lambda kept: kept.fits(room, keep_truncated and response_model is None),
            )
        if entry.finish_reason in REFUSALS:
            self.statistics.gave_up(entry.finish_reason)
            raise CallFailed(entry.finish_reason, attempts.number + 1, entry.usage)
        parsed = attempts.parsed
        if response_model is not None and parsed is None:
            parsed = parse_reply(entry.text, response_model, self.reader.dialect if self.reader.fixed else None)
            if parsed is None:  # journaled under a schema that has changed since
                raise CallFailed("unparseable", 0)
        self.statistics.finished(cached)
        return Completion(entry.text, parsed, entry.model, entry.usage, cached, entry.finish_reason,
                          entry.reasoning, entry.reasoning_tokens)  # fmt: skip

    async def _call(self, attempts: Attempts, key: str, prompt_version: str) -> Entry:
        if self.journal is not None:  # a dead endpoint ends a run at once, not after minutes of retries
            self._alive = self._alive or asyncio.create_task(self.check())
            await asyncio.shield(self._alive)
        try:
            reply = await attempts.run(key)
        except BaseException:
            # Paid attempts count towards the budget even where nothing came of them.
            if self.journal is not None and attempts.usage.calls:
                await self.journal.append_waste(attempts.usage)
            raise
        if reply.refused:  # kept as what it is, so that no later run pays for it again
            return Entry("", reply.model, reply.refused, attempts.usage, prompt_version)
        return Entry(reply.text, reply.model, reply.finish_reason, attempts.usage, prompt_version, reply.reasoning,
                     reply.reasoning_tokens, int(attempts.body["max_tokens"]))  # fmt: skip


T = TypeVar("T")

YOUNG_OBJECTS = 50_000
"""Allocations between two collections: calls in flight free their objects by reference count, so there is little to
find, and with Python's 700 the collector walks all loaded modules again and again (docs/log.md)."""


def run_calls(work: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop, with a garbage collector that leaves alone what was loaded before and looks less often."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *before[1:])
    try:
        return uvloop.run(work)
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
