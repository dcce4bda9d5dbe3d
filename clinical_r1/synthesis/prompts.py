"""The prompts of synthesis: one Jinja file a task and language, written natively in each."""

from pathlib import Path
from typing import Any

from clinical_r1.llm.prompts import Prompt, filled, version_of
from clinical_r1.schema import Language

FOLDER = Path(__file__).parent / "prompts"
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


def _file(task: str, language: Language) -> tuple[Path, str]:
    return FOLDER / language / f"{task}.md.j2", f"{task}-{language}"


def render(task: str, language: Language, **blocks: Any) -> Prompt:
    """The messages of one call; `case` is `Case.problem`."""
    return filled(*_file(task, language), **blocks)


def versions() -> dict[str, str]:
    """All prompt versions, for the dataset card and the report."""
    return {f"{task}/{language}": version_of(*_file(task, language)) for language in ("en", "zh") for task in TASKS}
