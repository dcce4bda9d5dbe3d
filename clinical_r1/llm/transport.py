"""One HTTP exchange with an endpoint, through the openai SDK on its aiohttp transport.

The SDK's own retries are off (ours know the journal and the budget), its connection pool has no limit (the gate sets
how many are in flight), and the reply is taken as it came: building the SDK's typed objects costs more CPU than all
of our own work.
"""

import asyncio
import json
from typing import Any

import httpx2
from openai import APIConnectionError, APIStatusError, APITimeoutError, AsyncOpenAI, DefaultAioHttpClient

from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.limits import retry_after
from clinical_r1.llm.reply import AttemptError, Reply, read_reply


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
        return read_reply(response.content)

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
