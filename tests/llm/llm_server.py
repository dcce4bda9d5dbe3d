"""What the tests of the client share: a server of the test, prompts, and hand-made replies."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from clinical_r1.llm.config import EndpointConfig
from clinical_r1.simulator.server import Endpoint

QUESTION = (
    "A 63-year-old man presents with: A chest tightness, B arm pain, C sweating. "
    "Tests: X troponin raised, Y D-dimer normal. What is the diagnosis?"
)


class Answer(BaseModel):
    """The shape of an attempt."""

    reasoning: str
    answer: str


def attempt_messages(question: str = QUESTION) -> list[dict[str, str]]:
    """A first try by the prompt convention."""
    return [
        {"role": "system", "content": "# Task: initial\nThink. Reply with JSON."},
        {"role": "user", "content": f"<case>\n{question}\n</case>"},
    ]


class Running:
    """A server of the test with its counters, and endpoint entries for it."""

    def __init__(self, base_url: str, counters: Endpoint | None) -> None:
        self.base_url = base_url
        self.counters = counters

    def entry(self, **fields: Any) -> EndpointConfig:
        """An endpoint entry with short waits."""
        defaults = {"name": "simulated", "model": "simulated-clinician", "backoff_first": 0.01, "total_timeout": 60.0}
        return EndpointConfig(base_url=self.base_url, **{**defaults, **fields})

    @property
    def replies(self) -> int:
        assert self.counters is not None
        return self.counters.counts["replies"]


Start = Callable[..., Awaitable[Running]]


def chat_reply(content: str, finish_reason: str = "stop", **fields: Any) -> web.Response:
    """A reply of the protocol, for handlers written in tests."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish_reason}
    return web.json_response({"id": "x", "object": "chat.completion", "model": "m-1", "choices": [choice], **fields})


def error_reply(status: int, message: str, code: str | None = None, **headers: str) -> web.Response:
    """An error of the protocol."""
    text = json.dumps({"error": {"message": message, "type": "e", "param": None, "code": code}})
    return web.Response(status=status, text=text, content_type="application/json", headers=headers)
