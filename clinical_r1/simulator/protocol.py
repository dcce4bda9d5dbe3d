"""The OpenAI chat protocol as far as the simulator speaks it, and how it reads a task out of a prompt.

A prompt's system message begins with `# Task: <name>` (in Chinese `# 任务：<name>`); the user message carries blocks:
<case>, <previous>, <reference>, <thinking> and <answer>, each tag on its own line.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from clinical_r1.simulator.diseases import Language

_TASK = re.compile(r"^\s*#\s*(?:Task|任务)\s*[:：]\s*([a-z_]+)")
_BLOCKS = ("case", "previous", "reference", "thinking", "answer", "criterion")


class BadRequestError(Exception):
    """The client sent what the protocol does not allow; the message goes back with HTTP 400."""


@dataclass(frozen=True)
class Request:
    """One chat request, read."""

    model: str
    task: str
    """Empty for a plain question."""
    language: Language
    blocks: dict[str, str]
    last: str
    """The last user message as it stands."""
    fingerprint: bytes
    """The messages and, when sampling, the seed: what the reply is a function of."""
    response_format: str
    max_tokens: int | None
    prompt_characters: int


def read_request(raw: bytes) -> Request:
    """Take a request apart; raises BadRequestError."""
    try:
        body: dict[str, Any] = json.loads(raw)
        messages = [(str(m["role"]), _text(m["content"])) for m in body["messages"]]
        model = str(body["model"])
        seed = int(body.get("seed") or 0)
        sampled = float(body.get("temperature", 1.0)) > 0
        max_tokens = body.get("max_completion_tokens") or body.get("max_tokens")
        form = str((body.get("response_format") or {}).get("type", "text"))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadRequestError("the body needs a model and messages with role and content") from None
    if not messages:
        raise BadRequestError("messages is empty")
    if body.get("stream"):
        raise BadRequestError("this endpoint does not stream")
    task = next((found[1] for role, text in messages if role == "system" and (found := _TASK.match(text))), "")
    last = next((text for role, text in reversed(messages) if role == "user"), "")
    everything = "\x1e".join(f"{role}\x1f{text}" for role, text in messages)
    return Request(
        model=model,
        task=task,
        language="zh" if is_chinese(last) else "en",
        blocks=read_blocks(last),
        last=last,
        fingerprint=f"{everything}\x1e{seed if sampled else 0}".encode("utf-8", "replace"),
        response_format=form,
        max_tokens=int(max_tokens) if max_tokens else None,
        prompt_characters=len(everything),
    )


def _text(content: object) -> str:
    """Message content: a string or a list of text parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part["text"]) for part in content if part.get("type") == "text")
    raise TypeError


def read_blocks(text: str) -> dict[str, str]:
    """Contents of the known blocks, from the first opening tag to the last closing one of its name."""
    blocks: dict[str, str] = {}
    for name in _BLOCKS:
        start, end = text.find(f"<{name}>"), text.rfind(f"</{name}>")
        if 0 <= start < end:
            blocks[name] = text[start + len(name) + 2 : end].strip()
    return blocks


def is_chinese(text: str) -> bool:
    """At least a seventh of the characters are Chinese (three bytes each in UTF-8)."""
    return (len(text.encode("utf-8", "replace")) - len(text)) // 2 > len(text) / 7


def count_tokens(text_length: int) -> int:
    """Tokens that the simulated endpoint bills."""
    return max(1, text_length // 4)


def reply_body(request: Request, model: str, content: str, finish_reason: str, identity: str) -> bytes:
    """A chat completion as JSON."""
    prompt, completion = count_tokens(request.prompt_characters), count_tokens(len(content))
    return json.dumps(
        {
            "id": f"chatcmpl-{identity}",
            "object": "chat.completion",
            "created": 0,
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": content},
                    "finish_reason": finish_reason,
                    "logprobs": None,
                }
            ],
            "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
        },
        ensure_ascii=False,
    ).encode()


def error_body(message: str, kind: str, code: str | None = None) -> bytes:
    """An error as the OpenAI protocol words it."""
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()
