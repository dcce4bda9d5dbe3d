"""Structured replies out of what models write."""

import pytest
from llm_server import Answer

from clinical_r1.llm.reply import parse_reply

GOOD = '{"reasoning": "r", "answer": "a"}'


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"  {GOOD}\n",
        f"```json\n{GOOD}\n```",
        f"```\n{GOOD}\n```\nHope this helps!",
        f"Here is the result:\n{GOOD}\nAnything else?",
        f"<think>maybe {{x}}</think>\n{GOOD}",
        '{"reasoning": "r", "answer": "a",}',
        '{"note": 1} and then ' + GOOD,
    ],
)
def test_what_can_be_read(text: str) -> None:
    assert parse_reply(text, Answer) == Answer(reasoning="r", answer="a")


def test_raw_newlines_and_braces_within_strings() -> None:
    reply = parse_reply('Sure: {"reasoning": "one\ntwo } \\" {", "answer": "a"}', Answer)
    assert reply is not None and reply.reasoning == 'one\ntwo } " {'


@pytest.mark.parametrize(
    "text",
    ["", "no object", GOOD[:-1], GOOD[:-6], '{"reasoning": "r"}', '{"reasoning": "r", "answer": 3}', "[1, 2]", "null",
     GOOD.replace('"', "", 3)],
)  # fmt: skip
def test_nothing_is_invented(text: str) -> None:
    assert parse_reply(text, Answer) is None


@pytest.mark.parametrize(
    "text",
    [
        'Draft {"reasoning": "x", "answer": "b"}. No.\n</think>\n' + GOOD,
        '<thinking>Maybe {"reasoning": "x", "answer": "b"}?</thinking>\n' + GOOD,
        'For example {"reasoning": "x", "answer": "b"}. Mine: ' + GOOD,
        'Example:\n```json\n{"reasoning": "x", "answer": "b"}\n```\nMine:\n```json\n' + GOOD + "\n```",
        "The set {a, b does not fit.\n</think>\n" + GOOD,
        "The set {a, b does not fit. " + GOOD,
        "{'reasoning': 'r', 'answer': 'a'}",
        f"[{GOOD}]",
    ],
)
def test_what_comes_last_and_outside_of_the_thought_is_meant(text: str) -> None:
    assert parse_reply(text, Answer) == Answer(reasoning="r", answer="a")
