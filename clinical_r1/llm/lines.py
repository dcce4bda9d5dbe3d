"""Lines of a journal: one JSON object each, with fields at fixed places in front (key, subject tag, usage), so that
opening a journal is a scan without parsing."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from clinical_r1.schema import Usage

HEAD = re.compile(rb'\{"k":"([0-9a-f]{32})","s":"([0-9a-f]{16})?","u":\[(\d+),(\d+),(\d+),([0-9.e+-]+)\],')
WASTE = "0" * 32
"""Key of lines that only account for attempts without a usable reply."""
_CHUNK = 1 << 14


@dataclass(frozen=True, slots=True)
class Entry:
    """A finished call as it is kept."""

    text: str
    model: str
    finish_reason: str
    usage: Usage
    prompt_version: str = ""
    reasoning: str | None = None
    """The thought, where it came in a field of its own."""
    reasoning_tokens: int | None = None
    """As usage stated them."""


def line_at(file: int, offset: int) -> bytes:
    """The line that begins at an offset of an open file, without its end; leaves the file's position alone."""
    parts: list[bytes] = []
    while part := os.pread(file, _CHUNK, offset):
        end = part.find(b"\n")
        if end >= 0:
            parts.append(part[:end])
            break
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def journaled_keys(path: str | os.PathLike[str]) -> Iterator[str]:
    """Keys of the finished calls of a journal that nobody needs to have open; a torn last line is passed over."""
    with open(path, "rb") as handle:
        for line in handle:
            head = HEAD.match(line)
            if head is not None and line.endswith(b"}\n") and (key := head[1].decode()) != WASTE:
                yield key


def usage_of(head: re.Match[bytes]) -> Usage:
    """What a line's call consumed, from its matched head."""
    calls, prompt, completion, cost = head.group(3, 4, 5, 6)
    return Usage(calls=int(calls), prompt_tokens=int(prompt), completion_tokens=int(completion), cost=float(cost))


def entry_line(key: str, tag: str, entry: Entry) -> bytes:
    """The line of a finished call; `tag` is the keyed hash of whom it is about, or empty."""
    usage = entry.usage
    numbers = f"{usage.calls},{usage.prompt_tokens},{usage.completion_tokens},{usage.cost:.9g}"
    head = f'{{"k":"{key}","s":"{tag}","u":[{numbers}],'
    rest: dict[str, object] = {"m": entry.model, "v": entry.prompt_version, "f": entry.finish_reason, "t": entry.text}
    if entry.reasoning is not None or entry.reasoning_tokens is not None:
        rest |= {"r": entry.reasoning, "n": entry.reasoning_tokens}
    return (head + json.dumps(rest, ensure_ascii=False, separators=(",", ":"))[1:] + "\n").encode("utf-8", "replace")


def parse_entry(line: bytes) -> Entry | None:
    """The finished call of a line; None for a line that is none."""
    try:
        row = json.loads(line)
        calls, prompt, completion, cost = row["u"]
        usage = Usage(calls=calls, prompt_tokens=prompt, completion_tokens=completion, cost=cost)
        return Entry(row["t"], row["m"], row["f"], usage, row["v"], row.get("r"), row.get("n"))
    except (ValueError, KeyError, TypeError):
        return None
