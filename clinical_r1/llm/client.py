"""Chat calls that are limited, retried, journaled and paid for once; any number of them may be in flight.

async with LLMClient(endpoint, journal, budget) as client:
    completion = await client.chat(messages, prompt_version="cot-en-1", response_model=Answer)
"""

import asyncio
import gc
import json
import random
from collections.abc import Coroutine
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Self, TypeVar

import uvloop
from pydantic import BaseModel

from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.journal import Entry, Journal
from clinical_r1.llm.limits import Budget, Channel, backoff
from clinical_r1.llm.quirks import Mode, said
from clinical_r1.llm.reply import REFUSALS, WORDS, AttemptError, CallFailed, Reply, estimate_tokens, parse_reply, shape
from clinical_r1.recognise import Answer
from clinical_r1.sampling import NEUTRAL
from clinical_r1.schema import Usage

Message = dict[str, str]
"""{"role": "system" | "user" | "assistant", "content": text}"""
SENT_OTHERWISE = "sent_otherwise"
"""Reason of an attempt that repeats a call in a form that the endpoint takes."""
MOST_REFORMS = 12
SALT = 1_000_003
"""Distance between the seeds of resamples."""

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
    reasoning: str | None = None  # the thought, where the endpoint gives it in a field of its own
    reasoning_tokens: int | None = None  # as the endpoint states them

    @property
    def answer(self) -> Answer:
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
        body: dict[str, Any] = {"model": self.endpoint.model, "messages": messages, **NEUTRAL}
        body |= {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, **self.endpoint.extra_body}
        if seed is not None:
            body["seed"] = seed
        # A whole reply is the same in any larger room: another max_tokens pays only for what was cut or never came.
        identity = _canonical({name: body[name] for name in body if name != "max_tokens"}).encode("utf-8", "replace")
        keep_cut = keep_truncated and response_model is None
        if self.journal is None:
            key = blake2b(identity + f"\x1f{prompt_version}\x1f{sample_index}".encode(), digest_size=16).hexdigest()
            attempts = _Attempts(self, key, body, response_model, keep_cut)
            entry, cached = await self._call(attempts, prompt_version), False
        else:
            key = self.journal.call_key(identity, prompt_version, sample_index)
            attempts = _Attempts(self, key, body, response_model, keep_cut)
            entry, cached = await self.journal.once(
                key,
                subject,
                lambda: self._call(attempts, prompt_version),
                lambda kept: kept.fits(int(body["max_tokens"]), keep_cut),
            )
        if entry.finish_reason in REFUSALS:
            self.statistics.gave_up(entry.finish_reason)
            raise CallFailed(entry.finish_reason, attempts.number + 1, entry.usage)
        parsed = attempts.parsed
        if response_model is not None and parsed is None:
            parsed = self.parse(entry.text, response_model)
            if parsed is None:  # journaled under a schema that has changed since
                raise CallFailed("unparseable", 0)
        self.statistics.cached += cached
        self.statistics.calls += not cached
        return Completion(entry.text, parsed, entry.model, entry.usage, cached, entry.finish_reason,
                          entry.reasoning, entry.reasoning_tokens)  # fmt: skip

    async def _call(self, attempts: "_Attempts", prompt_version: str) -> Entry:
        if self.journal is not None:  # a dead endpoint ends a run at once, not after minutes of retries
            self._alive = self._alive or asyncio.create_task(self.check())
            await asyncio.shield(self._alive)
        try:
            reply = await attempts.run()
        except BaseException:
            # Paid attempts count towards the budget even where nothing came of them.
            if self.journal is not None:
                await self.journal.append_waste(attempts.usage)
            raise
        if reply.refused:  # kept as what it is, so that no later run pays for it again
            return Entry("", reply.model, reply.refused, attempts.usage, prompt_version)
        return Entry(reply.text, reply.model, reply.finish_reason, attempts.usage, prompt_version, reply.reasoning,
                     reply.reasoning_tokens, int(attempts.body["max_tokens"]))  # fmt: skip

    def parse(self, text: str, model: type[BaseModel]) -> BaseModel | None:
        """A structured reply, its thought in the dialect that is set."""
        return parse_reply(text, model, self.reader.dialect if self.reader.fixed else None)


class _Attempts:
    """The attempts of one call: what is tried again, after how long, and when to stop. All decisions are functions of
    the call and of what the endpoint says.

    Each attempt states its number (`x-stainless-retry-count`, the SDK's own header) and the call's keyed hash
    (`Idempotency-Key`), for endpoints and proxies that use them.
    """

    def __init__(
        self, client: LLMClient, key: str, body: dict[str, Any], model: type[BaseModel] | None, keep_cut: bool
    ) -> None:
        self.client, self.key, self.body, self.model, self.keep_cut = client, key, body, model, keep_cut
        self.parsed: BaseModel | None = None
        self.usage = Usage()
        self.number = 0
        self._errors = self._reforms = self._resamples = 0

    async def run(self) -> Reply:
        """The first usable reply; raises CallFailed, BudgetExhausted or EndpointUnusable."""
        statistics = self.client.statistics
        while True:
            try:
                reply = await self._attempt()
            except AttemptError as error:
                if error.filtered:
                    statistics.said["content_filter"] = said(error, self.body["messages"])
                    return Reply("", self.client.endpoint.model, "content_filter", 0, 0)
                if await self._recover(error):
                    continue
                raise self._failed(error.reason) from None
            defect = self._defect(reply)
            if not defect or reply.refused:  # asked again, it would refuse again
                return reply
            self._resamples += 1
            if self._resamples > self.client.endpoint.max_resamples:
                raise self._failed(defect, shape(reply.text, cut=defect == "truncated"))
            self._again(defect)
            # What another attempt changes: always the seed (the same one would give the same reply, paid twice), and
            # the room of a reply that was cut off.
            if "seed" in self.body:
                self.body = {**self.body, "seed": (self.body["seed"] + SALT) % 2**31}
            if defect == "truncated":
                self.body = {**self.body, "max_tokens": 2 * int(self.body["max_tokens"])}
            else:
                statistics.useless += 1

    async def _attempt(self) -> Reply:
        client, quirks = self.client, self.client.quirks
        headers = {"x-stainless-retry-count": str(self.number), "Idempotency-Key": self.key}
        async with client.gate:
            client.check_spending()
            wait, reserved = client.pace(self.body)
            if wait:
                await asyncio.sleep(wait)
            mode = quirks.json_mode
            request = quirks.request(self.body, self.model)
            try:
                reply = await client.transport.post(request, headers)
            except AttemptError as error:
                client.gate.report(error.status in (429, 503))
                if self._sent_otherwise(error, request, mode):
                    error.code = SENT_OTHERWISE
                raise
            finally:
                client.statistics.attempts += 1
            client.gate.report(False)
            if self.model is not None and mode != client.endpoint.json_mode:
                quirks.tell(f"json_mode: {mode}")
        self._charge(reply, reserved)
        return reply

    def _sent_otherwise(self, error: AttemptError, request: dict[str, Any], mode: Mode) -> bool:
        """Whether the endpoint refused the form of the request, and another form is left to try."""
        quirks = self.client.quirks
        if error.filtered:
            return False
        if (self.model is not None and quirks.learn_form(error, mode)) or quirks.learn(error, request):
            return True
        refused = error.status in (400, 422)
        parameters = error.status == 404 and "parameter" in error.message  # OpenRouter: no provider takes them all
        if not (refused or parameters) or error.reason == "too_long":
            return False
        if quirks.request(self.body, self.model) != request:  # it was on its way when another one learnt better
            return True
        if self.client.statistics.calls:
            return False
        # The first refusals, and without a reason: what is not OpenAI's goes first, then the JSON mode.
        return quirks.drop_unusual(request) or (refused and "response_format" in request and quirks.weaken(mode))

    def _charge(self, reply: Reply, reserved: int) -> None:
        client, statistics = self.client, self.client.statistics
        prompt = reply.prompt_tokens or sum(estimate_tokens(m["content"]) for m in self.body["messages"])
        cost = client.endpoint.cost(prompt, reply.completion_tokens)
        usage = Usage(calls=1, prompt_tokens=prompt, completion_tokens=reply.completion_tokens, cost=cost)
        self.usage = self.usage + usage
        statistics.charged(usage)
        statistics.models[reply.model] += 1
        if reply.answer.cut:
            statistics.cut[int(self.body["max_tokens"])] += 1
        if client.budget is not None:
            client.budget.charge(usage)
        if client.tokens is not None:
            client.tokens.refund(reserved - prompt - reply.completion_tokens)

    async def _recover(self, error: AttemptError) -> bool:
        """Wait and say True where another attempt is worth it; raises where the endpoint as a whole is unusable."""
        client, endpoint, statistics = self.client, self.client.endpoint, self.client.statistics
        if error.code == SENT_OTHERWISE:  # remembered by the client
            self._reforms += 1
            self._again(SENT_OTHERWISE)
            return self._reforms <= MOST_REFORMS
        words = statistics.said[error.reason] = said(error, self.body["messages"])
        if error.reason in WORDS["unusable"]:
            quoted = f' ("{words}")' if words else ""
            raise client.unusable(error.reason, status=error.status, quoted=quoted) from None
        if not error.retryable:
            return False
        if statistics.failed() > endpoint.give_up_after:
            raise client.unusable("down", reason=error.reason) from None
        self._errors += 1
        if self._errors > endpoint.max_retries:
            return False
        self._again(error.reason)
        rng = random.Random(f"{self.key}-{self.number}")  # the same wait in every run
        await asyncio.sleep(backoff(self._errors - 1, endpoint.backoff_first, endpoint.backoff_max, error.wait, rng))
        return True

    def _again(self, reason: str) -> None:
        self.number += 1
        self.client.statistics.retries[reason] += 1

    def _failed(self, reason: str, shape: str = "") -> CallFailed:
        self.client.statistics.gave_up(reason)
        return CallFailed(reason, self.number + 1, self.usage, shape)

    def _defect(self, reply: Reply) -> str:
        if reply.answer.cut and not self.keep_cut:
            return "truncated"
        if self.model is None:
            return ""
        self.client.reader.read(reply.answer)
        self.parsed = self.client.parse(reply.text, self.model)
        return "unparseable" if self.parsed is None else ""


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
