"""The prompts of synthesis: one Jinja file a task and language, written natively in each, versioned by content.

A file holds the system message, a line `=== user ===` and the user message. The version (`initial-en-1f3a...`) is part
of every journal key, so an edited prompt is asked anew and an unchanged one is never paid twice.
"""

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from clinical_r1.schema import Language

FOLDER = Path(__file__).parent / "prompts"
SEPARATOR = "=== user ===\n"
TASKS = (
    "initial",
    "exploring_new_paths",
    "backtracking",
    "verification",
    "corrections",
    "guided",
    "natural",
    "response",
    "told",
)

Message = dict[str, str]


class Prompt(NamedTuple):
    """What one call sends, and the version that its journal key carries."""

    messages: list[Message]
    version: str


class _Template(NamedTuple):
    system: str
    user: jinja2.Template
    version: str


_BLOCK_TAG = re.compile(r"<(/?)(case|previous|reference|thinking|answer)>", re.IGNORECASE)


def inert(text: str) -> str:
    """Text of a record or a model with our block tags disarmed: none can close its block and speak as the prompt."""
    return _BLOCK_TAG.sub(r"‹\1\2›", text.strip())


@cache
def _template(task: str, language: Language) -> _Template:
    source = (FOLDER / language / f"{task}.md.j2").read_text(encoding="utf-8")
    system, user = source.split(SEPARATOR)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False)
    environment.filters["inert"] = inert
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    return _Template(system.strip(), environment.from_string(user), f"{task}-{language}-{digest}")


def render(task: str, language: Language, **blocks: Any) -> Prompt:
    """The messages of one call; `case` is `Case.problem`. A block that the template lacks is an error."""
    template = _template(task, language)
    messages = [
        {"role": "system", "content": template.system},
        {"role": "user", "content": template.user.render(**blocks).strip()},
    ]
    return Prompt(messages, template.version)


def versions() -> dict[str, str]:
    """All prompt versions, for the dataset card and the report."""
    return {f"{task}/{language}": _template(task, language).version for language in ("en", "zh") for task in TASKS}
