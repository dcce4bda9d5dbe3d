"""How long a question may be so that every later step can hold it: told to the records step, before traces are paid.

A question goes through the base model's window four times: with a trace in SFT, with a completion in PPO, with an
answer in evaluation and in the gate. The narrowest decides, and its setting is what the advice names.
"""

import json
from pathlib import Path
from typing import NamedTuple

from clinical_r1.evaluation.answer import answer_room
from clinical_r1.folders import ModelFolder
from clinical_r1.runs.config import RunConfig


class Room(NamedTuple):
    """Room for a question."""

    tokens: int
    """0 where the base model's window is not known here (a model in a store)."""
    advice: str


def with_window(config: RunConfig) -> RunConfig:
    """The configuration with `records.window.tokens` filled in, unless the user has set it."""
    window = config.records.window
    if window.tokens:
        return config
    room, folder = question_room(config), config.base_model.folder
    tokenizer = folder if folder and (Path(folder) / "tokenizer.json").is_file() else ""
    told = window.model_copy(
        update={"tokens": room.tokens, "advice": room.advice, "tokenizer": window.tokenizer or tokenizer}
    )
    return config.model_copy(update={"records": config.records.model_copy(update={"window": told})})


def question_room(config: RunConfig) -> Room:
    """The narrowest room that a step leaves for a question, and what widens it."""
    window = base_window(config)
    if not window:
        return Room(0, "")
    rollout = config.ppo.rollout.max_new_tokens
    answer = answer_room(config.evaluation.max_new_tokens, window)
    trace = min(rollout, answer)  # a trace is about as long as the answers that are learned from it
    rooms = [
        Room(window - rollout, f"lower ppo.rollout.max_new_tokens ({rollout})"),
        Room(window - answer, f"lower evaluation.max_new_tokens ({config.evaluation.max_new_tokens})"),
        Room((config.sft.max_length or window) - trace, f"raise sft.max_length ({config.sft.max_length})"),
    ]
    narrowest = min(rooms, key=lambda room: room.tokens)
    base = "base_model.folder" if config.base_model.folder else f"base_model.tiny.window ({window})"
    return Room(max(1, narrowest.tokens), f"{narrowest.advice}, take a wider base model ({base})")


def base_window(config: RunConfig) -> int:
    """Tokens of the base model's window; 0 where it is not known before the model is fetched."""
    if not config.base_model.folder:
        return config.base_model.tiny.window
    file = Path(config.base_model.folder) / "config.json"
    if not file.is_file():
        return 0
    return ModelFolder(file.parent, json.loads(file.read_text(encoding="utf-8")), 0).window
