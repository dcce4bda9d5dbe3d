"""Prompts as Jinja files: the system message, a line `=== user ===` and the user message, versioned by content.

The version (`initial-en-1f3a...`) is part of every journal key, so an edited prompt is asked anew and an unchanged one
is never paid twice.
"""

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from clinical_r1.llm.client import Message

SEPARATOR = "=== user ===\n"
_BLOCK_TAG = re.compile(r"<(/?)(case|previous|reference|thinking|answer|criterion)>", re.IGNORECASE)


class Prompt(NamedTuple):
    """What one call sends, and the version that its journal key carries."""

    messages: list[Message]
    version: str


def inert(text: str) -> str:
    """Text of a record or a model with our block tags disarmed: none can close its block and speak as the prompt."""
    return _BLOCK_TAG.sub(r"‹\1\2›", text.strip())


@cache
def _template(file: Path, name: str) -> tuple[str, jinja2.Template, str]:
    """(system message, template of the user's, version)."""
    source = file.read_text(encoding="utf-8")
    system, user = source.split(SEPARATOR)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False)
    environment.filters["inert"] = inert
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    return system.strip(), environment.from_string(user), f"{name}-{digest}"


def filled(file: Path, name: str, **blocks: Any) -> Prompt:
    """The messages of one call; `name` begins the version. A block that the template lacks is an error."""
    system, template, version = _template(file, name)
    user = template.render(**blocks).strip()
    return Prompt([{"role": "system", "content": system}, {"role": "user", "content": user}], version)


def version_of(file: Path, name: str) -> str:
    return _template(file, name)[2]
