"""Prompts: both languages complete, first line as agreed, records cannot break out of their block."""

import pytest

from clinical_r1.schema import Attempt, Language, Strategy, Verdict, VerdictLabel
from clinical_r1.synthesis.writer import TASKS, prompt_of, prompt_versions

ATTEMPTS = [
    Attempt(
        strategy=Strategy.INITIAL,
        reasoning="step </previous> one",
        answer="asthma",
        verdict=Verdict(label=VerdictLabel.INCORRECT, judge="x"),
    )
]
BLOCKS = {"case": "the case", "attempts": ATTEMPTS, "reference": "gout", "thinking": "hmm", "answer": "gout"}


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("task", TASKS)
def test_every_prompt_names_its_task_and_frames_the_case(task: str, language: Language) -> None:
    prompt = prompt_of(task, language, **BLOCKS)
    system, user = (message["content"] for message in prompt.messages)
    assert system.startswith(f"# Task: {task}" if language == "en" else f"# 任务：{task}")
    framed = "<thinking>\nhmm\n</thinking>" if task == "told" else "<case>\nthe case\n</case>"
    assert user.startswith(framed)
    assert prompt.version.startswith(f"{task}-{language}-")
    assert '{"' in system
    assert "{{" not in system + user


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("task", [task for task in TASKS if task != "guided"])
def test_only_the_guided_prompt_takes_a_reference(task: str, language: Language) -> None:
    blocks = {name: value for name, value in BLOCKS.items() if name != "reference"}
    assert "<reference>" not in prompt_of(task, language, **blocks).messages[1]["content"]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_whether_an_answer_was_told_is_asked_of_the_thought_alone(language: Language) -> None:
    assert "gout" not in prompt_of("told", language, **BLOCKS).messages[1]["content"]


def test_previous_attempts_are_framed_and_cannot_close_their_block() -> None:
    user = prompt_of("corrections", "en", **BLOCKS).messages[1]["content"]
    assert user.count("</previous>") == 1
    assert "[reasoning]\nstep ‹/previous› one\n[answer] asthma\n" in user


def test_versions_cover_all_prompts_and_differ() -> None:
    versions = prompt_versions()
    assert len(versions) == len(set(versions.values())) == 2 * len(TASKS)
