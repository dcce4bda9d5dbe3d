"""The attempts of one call: what is tried again, after how long, and when to stop."""

import asyncio
import random
from typing import Any

from pydantic import BaseModel

from clinical_r1.llm.channel import Channel
from clinical_r1.llm.failures import CallFailed, EndpointUnusable
from clinical_r1.llm.limits import backoff
from clinical_r1.llm.parse import parse_reply, shape
from clinical_r1.llm.quirks import ADVICE, reason_of, said
from clinical_r1.llm.reply import AttemptError, Reply, estimate_tokens
from clinical_r1.llm.structured import Mode
from clinical_r1.schema import Usage

SENT_OTHERWISE = "sent_otherwise"
"""Reason of an attempt that repeats a call in a form that the endpoint takes."""
MOST_REFORMS = 12
SALT = 1_000_003
"""Distance between the seeds of resamples."""


class Attempts:
    """State of one call while it is being made. All decisions are functions of the call and of what the endpoint says.

    Each attempt states its number (`x-stainless-retry-count`, the SDK's own header) and the call's keyed hash
    (`Idempotency-Key`), for endpoints and proxies that use them.
    """

    def __init__(
        self,
        channel: Channel,
        body: dict[str, Any],
        response_model: type[BaseModel] | None,
        keep_truncated: bool = False,
    ) -> None:
        self.channel = channel
        self.key = ""
        self.body = body
        self.response_model = response_model
        self.keep_truncated = keep_truncated
        self.parsed: BaseModel | None = None
        self.usage = Usage()
        self.number = 0
        self._errors = self._reforms = 0
        self._resamples = 0

    async def run(self, key: str) -> Reply:
        """The first usable reply to the call of this key; raises CallFailed, BudgetExhausted or EndpointUnusable."""
        self.key = key
        endpoint = self.channel.endpoint
        while True:
            try:
                reply = await self._attempt()
            except AttemptError as error:
                if error.filtered:
                    self.channel.statistics.said["content_filter"] = said(error, self.body["messages"])
                    return Reply("", self.channel.endpoint.model, "content_filter", 0, 0)
                if await self._recover(error):
                    continue
                raise self._failed(reason_of(error)) from None
            defect = self._defect(reply)
            if defect is None or reply.refused:  # asked again, it would refuse again
                return reply
            self._resamples += 1
            if self._resamples > endpoint.max_resamples:
                raise self._failed(defect, shape(reply.text, cut=defect == "truncated"))
            self._again(defect)
            if defect == "unparseable":
                self.channel.statistics.useless += 1
            self._vary(defect)

    async def _attempt(self) -> Reply:
        channel = self.channel
        headers = {"x-stainless-retry-count": str(self.number), "Idempotency-Key": self.key}
        async with channel.gate:
            channel.check_first_calls()
            if channel.budget is not None:
                channel.budget.check()
            wait, reserved = channel.pace(self.body)
            if wait:
                await asyncio.sleep(wait)
            mode = channel.json_mode.mode
            request = self._request()
            try:
                reply = await channel.transport.post(request, headers)
            except AttemptError as error:
                channel.gate.report(error.throttled)
                if self._sent_otherwise(error, request, mode):
                    error.code = SENT_OTHERWISE
                raise
            finally:
                channel.statistics.attempts += 1
            channel.gate.report(False)
            if self.response_model is not None and mode != channel.endpoint.json_mode:
                channel.quirks.tell(f"json_mode: {mode}")
        self._charge(reply, reserved)
        return reply

    def _request(self) -> dict[str, Any]:
        """The body in the form that the endpoint takes, as far as is known by now."""
        return self.channel.quirks.fields({**self.body, **self.channel.json_mode.fields(self.response_model)})

    def _sent_otherwise(self, error: AttemptError, request: dict[str, Any], mode: Mode) -> bool:
        """Whether the endpoint refused the form of the request, and another form is left to try."""
        if error.filtered:
            return False
        quirks, json_mode = self.channel.quirks, self.channel.json_mode
        if self.response_model is not None and json_mode.refused(error.status, error.message, mode):
            return True
        if quirks.learn(error, request):
            return True
        refused = error.status in (400, 422)
        parameters = error.status == 404 and "parameter" in error.message  # OpenRouter: no provider takes them all
        if not (refused or parameters) or reason_of(error) != error.reason:
            return False
        if self._request() != request:  # it was on its way when another one learnt better
            return True
        if self.channel.statistics.calls:
            return False
        # The first refusals, and without a reason: what is not OpenAI's goes first, then the JSON mode.
        return quirks.drop_unusual(request) or (refused and "response_format" in request and json_mode.weaken(mode))

    def _charge(self, reply: Reply, reserved: int) -> None:
        channel = self.channel
        prompt = reply.prompt_tokens or sum(estimate_tokens(m["content"]) for m in self.body["messages"])
        usage = Usage(
            calls=1,
            prompt_tokens=prompt,
            completion_tokens=reply.completion_tokens,
            cost=channel.endpoint.cost(prompt, reply.completion_tokens),
        )
        self.usage = usage if self.usage.calls == 0 else self.usage + usage
        channel.charge(usage)
        channel.statistics.models[reply.model] += 1
        channel.statistics.succeeded()
        channel.statistics.replies += 1
        if reply.answer.cut:
            channel.statistics.cut[int(self.body["max_tokens"])] += 1
        if channel.tokens is not None:
            channel.tokens.refund(reserved - prompt - reply.completion_tokens)

    async def _recover(self, error: AttemptError) -> bool:
        """Wait and say True where another attempt is worth it; raises where the endpoint as a whole is unusable."""
        channel, endpoint = self.channel, self.channel.endpoint
        if error.code == SENT_OTHERWISE:  # remembered by the channel
            self._reforms += 1
            self._again(SENT_OTHERWISE)
            return self._reforms <= MOST_REFORMS
        channel.statistics.said[reason_of(error)] = said(error, self.body["messages"])
        if error.status in (401, 403):
            raise channel.refused(error.status) from None
        if error.reason == "certificate":
            raise EndpointUnusable(f"endpoint {endpoint.name}: {ADVICE['certificate']}") from None
        if error.reason == "redirected":
            raise EndpointUnusable(
                f"endpoint {endpoint.name}: {endpoint.base_url} redirects elsewhere (HTTP {error.status}), and records "
                "follow no redirect; set base_url to the address that answers itself"
            ) from None
        if error.status == 402:
            raise EndpointUnusable(
                f"endpoint {endpoint.name}: the account's quota is used up; finished calls are kept: "
                "add credit and run the same command again"
            ) from None
        if error.status == 404:
            raise EndpointUnusable(
                f"endpoint {endpoint.name}: HTTP 404 from {endpoint.base_url} for model {endpoint.model!r}"
                f"{_quoted(channel.statistics.said[error.reason])}; correct base_url, model or query (api-version)"
            ) from None
        if not error.retryable:
            return False
        if channel.statistics.failed() > endpoint.give_up_after:
            raise EndpointUnusable(
                f"endpoint {endpoint.name}: no good reply from {endpoint.base_url} for {endpoint.give_up_after:.0f} s "
                f"(last: {error.reason}); finished calls are kept: run the same command again when it is back"
            ) from None
        self._errors += 1
        if self._errors > endpoint.max_retries:
            return False
        self._again(error.reason)
        rng = random.Random(f"{self.key}-{self.number}")  # the same wait in every run
        await asyncio.sleep(backoff(self._errors - 1, endpoint.backoff_first, endpoint.backoff_max, error.wait, rng))
        return True

    def _again(self, reason: str) -> None:
        self.number += 1
        self.channel.statistics.retries[reason] += 1

    def _failed(self, reason: str, shape: str = "") -> CallFailed:
        self.channel.statistics.gave_up(reason)
        return CallFailed(reason, self.number + 1, self.usage, shape)

    def _defect(self, reply: Reply) -> str | None:
        if reply.answer.cut and not (self.keep_truncated and self.response_model is None):
            return "truncated"
        if self.response_model is not None:
            reader = self.channel.reader
            reader.read(reply.answer)
            self.parsed = parse_reply(reply.text, self.response_model, reader.dialect if reader.fixed else None)
            return "unparseable" if self.parsed is None else None
        return None

    def _vary(self, defect: str) -> None:
        """What another attempt changes: always the seed (the same one would give the same reply, paid twice), and the
        room of a reply that was cut off."""
        if "seed" in self.body:
            self.body = {**self.body, "seed": (self.body["seed"] + SALT) % 2**31}
        if defect == "truncated":
            self.body = {**self.body, "max_tokens": 2 * int(self.body["max_tokens"])}


def _quoted(words: str) -> str:
    return f' ("{words}")' if words else ""
