"""The dialects of thinking, as data: where a thought begins and ends in what a model or an endpoint sends back.

One row of `dialects.yaml` a form. `reasoning.py` takes outputs apart by a row; `recognise.py` finds out which row an
answer, an endpoint or a model folder needs.
"""

import re
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from clinical_r1.atomic import read_table

OPEN = "<think>"
CLOSE = "</think>"
Kind = Literal["open", "close", "drop"]


@dataclass(frozen=True)
class Dialect:
    """How a model marks its thoughts: where a thought begins and ends, and what is dropped as mere marking."""

    name: str
    opens: tuple[str, ...] = field(default=(), repr=False)
    closes: tuple[str, ...] = field(default=(), repr=False)
    drops: tuple[str, ...] = field(default=(), repr=False)
    """Markers that belong to neither part, such as those around the answer."""
    opened: bool = False
    """The prompt (the chat template) already holds the opening marker."""
    strict: bool = False
    """Letter for letter, and a stray marker is an error: the form that we train and reward."""
    special: bool = False
    """Markers are special tokens: a decoder has to keep them."""
    once: bool = False
    """Markers count once: the first at the very beginning of the output, the second where the answer begins."""
    lines: bool = False
    """Markers are whole lines."""
    ending: str = field(default="", repr=False)
    """What closes a thought from outside; empty: the closing marker in the place of the opening one."""

    def closing(self, opening: str = "") -> str:
        """Text that ends a thought which began with the marker `opening` (empty: in the prompt), for an answer to
        follow."""
        names = [self.fold(marker) for marker in self.opens]
        at = names.index(self.fold(opening)) * len(self.closes) // len(self.opens) if opening else 0
        mark = (self.ending or self.closes[at]).strip()
        return mark if self.special else f"\n{mark}\n\n"

    def fold(self, text: str) -> str:
        """The text as markers are compared: of the same length, Latin letters small unless `strict`."""
        return text if self.strict else text.translate(_SMALL)

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        kinds: dict[str, Kind] = dict.fromkeys(map(self.fold, self.drops), "drop")
        kinds |= dict.fromkeys(map(self.fold, self.opens), "open")
        return kinds | dict.fromkeys(map(self.fold, self.closes), "close")

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Any marker, in folded text; of several the longest."""
        return re.compile("|".join(map(re.escape, sorted(self.kinds, key=len, reverse=True))) or "(?!)")

    @cached_property
    def beginnings(self) -> frozenset[str]:
        """All that a marker can begin with, itself left out; folded."""
        return frozenset(marker[:end] for marker in self.kinds for end in range(1, len(marker)))

    @cached_property
    def longest(self) -> int:
        return max(map(len, self.kinds), default=0)


_SMALL = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_TABLE: dict[str, Any] = read_table(Path(__file__).with_suffix(".yaml"))
SIGNS: dict[str, list[str]] = _TABLE["signs"]


def _dialect(name: str, row: dict[str, Any]) -> Dialect:
    tags = row.pop("tags", ())
    row["opens"] = [f"<{tag}>" for tag in tags] + row.get("opens", [])
    row["closes"] = [f"</{tag}>" for tag in tags] + row.get("closes", [])
    for marks, heads in (("opens", "open_heads"), ("closes", "close_heads")):
        headings = (form.format(word) for word in row.pop(heads, ()) for form in _TABLE["heads"])
        row[marks] += [heading + end for heading in headings for end in ("\n", "\r\n", " \n")]
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    return Dialect(name, **fields)


DIALECTS = {name: _dialect(name, row) for name, row in _TABLE["dialects"].items()}
"""Every dialect by its name in configurations; see docs/serving.md."""
THINK, TAGS = DIALECTS["think"], DIALECTS["tags"]
AUTO = "auto"
"""In configurations: found out by the chat template or by a probe, and told in the log."""


@cache
def opened_form(dialect: Dialect) -> Dialect:
    """The dialect where the prompt already holds the opening marker."""
    return DIALECTS["opened"] if dialect is TAGS else replace(dialect, opened=True)


def checked_name(name: str) -> str:
    """The name of a dialect in a configuration, or `auto`; ValueError for another."""
    if name != AUTO and name not in DIALECTS:
        raise ValueError(f"{name!r} is no dialect; use {AUTO} or one of {', '.join(DIALECTS)}")
    return name
