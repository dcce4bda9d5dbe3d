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
        # no verdict
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
