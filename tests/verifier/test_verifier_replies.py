"""The judge's reply: which verdict stands in it, if any."""

import pytest

from clinical_r1.llm.parse import parse_reply
from clinical_r1.verifier.llm import Judged

RIGHT, WRONG = '{"verdict": "correct"}', '{"verdict": "incorrect"}'


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (RIGHT, "correct"),
        (f"```json\n{WRONG}\n```", "incorrect"),
        ('{"Verdict": "INCORRECT"}', "incorrect"),
        ("{'verdict': 'correct', 'why': 'same'}", "correct"),
        ("Incorrect.", "incorrect"),
        ("**correct**", "correct"),
        ("Verdict: incorrect", "incorrect"),
        ("不正确", "incorrect"),
        ("判定：正确。", "correct"),
        # drafts, examples and conditions before the verdict
        (f"A first draft: {RIGHT}. But the site differs.\n</think>\n{WRONG}", "incorrect"),
        (f"<thinking>{RIGHT}? No.</thinking>\n{WRONG}", "incorrect"),
        (f"If the side agreed it would be {RIGHT}. It does not: {WRONG}", "incorrect"),
        (f"The format is {RIGHT} or {WRONG}.\n\n{WRONG}", "incorrect"),
        (f"The set {{a, b is open.\n</think>\n{WRONG}", "incorrect"),
        (f"{RIGHT}\n{RIGHT}", "correct"),
        # what is only talked about stands behind the verdict too
        (f"My verdict: {WRONG}. But if the stage matched I would say {RIGHT}.", "incorrect"),
        (f"{WRONG}, not {RIGHT}.", "incorrect"),
        (f"判定：{WRONG}。若分期一致则为{RIGHT}。", "incorrect"),
        (f"{WRONG}而不是{RIGHT}", "incorrect"),
        (f"I was asked for {WRONG} or {RIGHT}; my verdict: {RIGHT}", "correct"),
        (f"If in doubt choose {WRONG}. Here there is none: {RIGHT}", "correct"),
        (f"Here is the verdict in the requested format:\n```json\n{RIGHT}\n```", "correct"),
        # no verdict
        (f"I would say {RIGHT} if it matched, but it does not.", None),
        (f"Reply with {WRONG} or {RIGHT}.", None),
        (f"The format is {RIGHT}. I cannot tell.", None),
        (f"This cannot be {RIGHT}.", None),
        (f"这不是{RIGHT}", None),
        (f"{RIGHT}{WRONG}", None),
        (f"{WRONG}\n{RIGHT}", None),
        ("It is correct in part.", None),
        ("correct or incorrect", None),
        ('{"verdict": "unsure"}', None),
        ('{"verdict": "correct" or "incorrect"}', None),
        ('{"verdict": "corr', None),
        (f"{RIGHT}</think>", None),
        ("", None),
    ],
)
def test_verdict_of_a_reply(reply: str, verdict: str | None) -> None:
    parsed = parse_reply(reply, Judged)
    assert (parsed and parsed.verdict) == verdict
