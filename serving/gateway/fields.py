"""The fields of a request that are taken without being asked for: a table, beside the models of `request.py`."""

from pathlib import Path
from typing import Any

import yaml

_TABLE = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
DROPPED = frozenset(_TABLE["dropped"])
NEUTRAL: dict[str, tuple[Any, ...]] = {field: tuple(values) for field, values in _TABLE["neutral"].items()}
TOOL_FIELDS = ("tools", "tool_choice", "parallel_tool_calls")
"""Forwarded where the configuration allows tools."""
TEXT_PARTS = ("text", "input_text", "output_text")
"""Types of content parts that are text."""
DROPPED_PARTS = ("thinking", "redacted_thinking", "reasoning")
"""Types of content parts in which clients send back what an earlier turn thought."""
