"""One HTTP exchange with an endpoint, through the openai SDK on its aiohttp transport.

The SDK's own retries are off (ours know the journal and the budget), its connection pool has no limit (the gate sets
how many are in flight), and the reply is taken as it came: building the SDK's typed objects costs more CPU than all
of our own work.
"""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import httpx2
from openai import APIConnectionError, APIStatusError, APITimeoutError, AsyncOpenAI, DefaultAioHttpClient

from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.limits import retry_after

THROTTLED = (429, 503)
RETRIED_STATUS = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529))


@dataclass(frozen=True, slots=True)
class Reply:
    """A well-formed reply of the chat protocol."""

    text: str
    model: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


class AttemptError(Exception):
    """One attempt failed. `message` is the endpoint's own error text: for decisions, never for logs."""

    def __init__(
        self, reason: str, status: int = 0, wait: float | None = None, message: str = "", code: str = ""
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.wait = wait
        self.message = message
        self.code = code

    @property
    def retryable(self) -> bool:
        """May the same request succeed later?"""
        return (self.status == 0 or self.status in RETRIED_STATUS) and self.code != "insufficient_quota"

    @property
    def throttled(self) -> bool:
        """Did the endpoint say that it is too much?"""
        return self.status in THROTTLED


class Transport:
    """The SDK's client for one endpoint. Use within one event loop."""

    def __init__(self, endpoint: EndpointConfig) -> None:
        self._total = endpoint.total_timeout
        timeout = httpx2.Timeout(
            endpoint.total_timeout,
            connect=endpoint.connect_timeout,
            read=endpoint.read_timeout,
            pool=endpoint.total_timeout,
        )
        self._sdk = AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key=endpoint.api_key(),
            max_retries=0,
            timeout=timeout,
            # 0 is aiohttp's word for no limit
            http_client=DefaultAioHttpClient(limits=httpx2.Limits(max_connections=0), timeout=timeout),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._sdk.close()

    async def post(self, body: dict[str, Any], headers: dict[str, str]) -> Reply:
        """One attempt at a chat completion; raises AttemptError. Ends within `total_timeout`, come what may."""
        response = await self._exchange("post", "/chat/completions", body=body, options={"headers": headers})
        return _read_reply(response.content)

    async def models(self) -> list[str]:
        """Ids of the models that the endpoint lists; raises AttemptError."""
        response = await self._exchange("get", "/models")
        try:
            return [str(row["id"]) for row in json.loads(response.content)["data"]]
        except (ValueError, KeyError, TypeError):
            raise AttemptError("bad_reply") from None

    async def _exchange(self, method: str, path: str, **options: Any) -> httpx2.Response:
        try:
            async with asyncio.timeout(self._total):
                return await getattr(self._sdk, method)(path, cast_to=httpx2.Response, **options)
        except (TimeoutError, APITimeoutError):
            raise AttemptError("timeout") from None
        except APIStatusError as error:
            raise _status_error(error) from None
        except (APIConnectionError, httpx2.HTTPError, OSError):
            raise AttemptError("connection") from None


def _status_error(error: APIStatusError) -> AttemptError:
    status = error.status_code
    reason = "rate_limited" if status == 429 else f"http_{status}"
    return AttemptError(reason, status, retry_after(error.response.headers), str(error.message), str(error.code or ""))


def _read_reply(content: bytes) -> Reply:
    """The first choice of a chat completion; raises AttemptError("bad_reply") where it is none."""
    try:
        row = json.loads(content)
        choice = row["choices"][0]
        text = choice["message"].get("content") or ""
        usage = row.get("usage") or {}
        return Reply(
            text=text,
            model=str(row.get("model") or ""),
            finish_reason=str(choice.get("finish_reason") or ""),
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0) or estimate_tokens(text),
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise AttemptError("bad_reply") from None


def estimate_tokens(text: str) -> int:
    """A rough count for endpoints that report none: four Latin letters or one and a half other characters a token."""
    latin = len(text.encode("ascii", "ignore"))
    return latin // 4 + (len(text) - latin) * 2 // 3
