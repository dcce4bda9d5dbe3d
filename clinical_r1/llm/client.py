"""Chat calls that are limited, retried, journaled and paid for once; any number of them may be in flight.

async with LLMClient(endpoint, journal, budget) as client:
    completion = await client.chat(messages, prompt_version="cot-en-1", response_model=Answer)
"""

import json
import random
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel

from clinical_r1.llm.budget import Budget
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.failures import REFUSALS, BudgetExhausted, CallFailed, EndpointUnusable
from clinical_r1.llm.journal import Journal
from clinical_r1.llm.limits import Gate, Pacer
from clinical_r1.llm.lines import Entry
from clinical_r1.llm.parse import parse_reply
from clinical_r1.llm.quirks import Quirks
from clinical_r1.llm.reply import AttemptError, estimate_tokens
from clinical_r1.llm.retrying import Attempts
from clinical_r1.llm.statistics import Statistics
from clinical_r1.llm.structured import JsonMode
from clinical_r1.recognise import Answer, Reader
from clinical_r1.sampling import NEUTRAL
from clinical_r1.schema import Usage

if TYPE_CHECKING:
    from clinical_r1.llm.transport import Transport

__all__ = ["BudgetExhausted", "CallFailed", "Completion", "EndpointUnusable", "LLMClient", "Message"]

FIRST_CALLS = 50
"""Calls that are a probe of the endpoint: where all of them fail, the step ends with the reason."""
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


class LLMClient:
    """Client of one endpoint, for use within one event loop (several in sequence are fine, each with its own `async
    with`)."""

    def __init__(self, endpoint: EndpointConfig, journal: Journal | None = None, budget: Budget | None = None) -> None:
        self.endpoint = endpoint
        self.journal = journal
        self.budget = budget
        self.statistics = Statistics(endpoint.name)
        self.reader = Reader(f"endpoint {endpoint.name}", endpoint.thinking)
        self.quirks = Quirks(endpoint)
        self.json_mode = JsonMode(endpoint.json_mode)
        self.gate = Gate(endpoint.max_concurrency)
        self.requests = Pacer(endpoint.requests_per_minute) if endpoint.requests_per_minute else None
        self.tokens = Pacer(endpoint.tokens_per_minute) if endpoint.tokens_per_minute else None
        self._transport: Transport | None = None
        if journal is not None and budget is not None:
            budget.adopt(journal)

    async def __aenter__(self) -> Self:
        from clinical_r1.llm.transport import Transport

        self._transport = Transport(self.endpoint)
        self.gate = Gate(self.endpoint.max_concurrency)
        return self

    async def __aexit__(self, *_: object) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    @property
    def transport(self) -> "Transport":
        """The open connection; a RuntimeError outside of `async with`."""
        if self._transport is None:
            raise RuntimeError("use LLMClient within `async with`")
        return self._transport

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

        `prompt_version` and `sample_index` are part of the call's identity; `subject` (patient or case id) marks its
        journal line for `forget`. `keep_truncated` takes a plain reply that was cut at `max_tokens` as it is
        (`finish_reason` says `length`) instead of asking again. Raises CallFailed after the retries that make sense,
        BudgetExhausted where nothing
        may be spent any more, EndpointUnusable where the endpoint as a whole does not work.
        """
        self._check_first_calls()
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
        told = body if keep_truncated else {name: value for name, value in body.items() if name != "max_tokens"}
        identity = _canonical(told).encode("utf-8", "replace")
        attempts = Attempts(self, body, response_model, keep_truncated)
        if self.journal is None:
            key = blake2b(identity + f"\x1f{prompt_version}\x1f{sample_index}".encode(), digest_size=16).hexdigest()
            entry, cached = await self._call(attempts, key, prompt_version), False
        else:
            key = self.journal.call_key(identity, prompt_version, sample_index)
            entry, cached = await self.journal.once(key, subject, lambda: self._call(attempts, key, prompt_version))
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
        try:
            reply = await attempts.run(key)
        except BaseException:
            # Paid attempts count towards the budget even where nothing came of them.
            if self.journal is not None and attempts.usage.calls:
                await self.journal.append_waste(attempts.usage)
            raise
        if reply.refused:  # kept as what it is, so that no later run pays for it again
            return Entry("", reply.model, reply.refused, attempts.usage, prompt_version)
        return Entry(reply.text, reply.model, reply.finish_reason, attempts.usage, prompt_version,
                     reply.reasoning, reply.reasoning_tokens)  # fmt: skip

    async def check(self) -> list[str]:
        """See that the endpoint lives before a long run begins; returns the models that it lists (none if it lists
        none).

        Raises EndpointUnusable where it cannot be reached, or refuses the key.
        """
        try:
            return await self.transport.models()
        except AttemptError as error:
            if error.reason in ("timeout", "connection"):
                raise EndpointUnusable(
                    f"endpoint {self.endpoint.name}: no answer from {self.endpoint.base_url} ({error.reason}); "
                    "start the server, or correct base_url"
                ) from None
            if error.status in (401, 403):
                raise self.refused(error.status) from None
            return []

    def refused(self, status: int) -> EndpointUnusable:
        """The error for a key that is not accepted."""
        place = self.endpoint.api_key_env or "api_key_env (none is set)"
        return EndpointUnusable(f"endpoint {self.endpoint.name}: HTTP {status}, the key is not accepted; check {place}")

    def _check_first_calls(self) -> None:
        """Raise EndpointUnusable where none of the first calls gave anything."""
        failed = self.statistics.failures.total()
        if failed >= FIRST_CALLS and not self.statistics.answered:
            raise EndpointUnusable(
                f"endpoint {self.endpoint.name}: none of the first {failed} calls gave anything usable; "
                f"most often {self.statistics.told()}"
            )

    def pace(self, body: dict[str, Any]) -> tuple[float, int]:
        """Reserve one request and its tokens; returns (seconds to wait, tokens reserved)."""
        wait = self.requests.reserve(1) if self.requests else 0.0
        if self.tokens is None:
            return wait, 0
        expected = sum(estimate_tokens(message["content"]) for message in body["messages"])
        expected += min(int(body["max_tokens"]), self.statistics.usual_completion_tokens())
        return max(wait, self.tokens.reserve(expected)), expected

    def charge(self, usage: Usage) -> None:
        """Count what one attempt consumed."""
        self.statistics.charged(usage)
        if self.budget is not None:
            self.budget.charge(usage)

    def jitter(self, key: str, attempt: int) -> random.Random:
        """Randomness of a wait: the same in every run."""
        return random.Random(f"{key}-{attempt}")
