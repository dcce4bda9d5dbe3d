"""The judge's reply: which verdict stands in it, if any."""

import pytest

from clinical_r1.llm.reply import parse_reply
from clinical_r1.verifier.verifier import Judged

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
        # a sentence that is over does not govern the next one; the schema of the instruction is no verdict
        (f'The schema is {{"verdict": "correct" | "incorrect"}}.\n{WRONG}', "incorrect"),
        (f"If the sides agreed, that would do.\n{WRONG}", "incorrect"),
        (f"Allowed: {RIGHT}, {WRONG}\nMine: {WRONG}", "incorrect"),
        # words that mark a draft or its revision, and what takes an object back from behind
        (f"Tentatively {RIGHT}. The stages compared: {WRONG}", "incorrect"),
        (f"初步：{RIGHT}\n复核：{WRONG}", "incorrect"),
        (f"Is that {RIGHT}? The type differs: {WRONG}", "incorrect"),
        (f"{WRONG}\n{RIGHT} would need the same type.", "incorrect"),
        (f"与其{RIGHT}，不如{WRONG}", "incorrect"),
        # other spellings of an object: braces in its texts, curly quotes, full width, no quotes, no text
        ('As asked: {"reason": "not {acute}, so no", "verdict": "incorrect"}', "incorrect"),
        ('{"draft": "{\\"verdict\\": \\"correct\\"}", "verdict": "incorrect"}', "incorrect"),
        ("{“verdict”：“correct”}", "correct"),
        ("｛＂verdict＂：＂incorrect＂｝", "incorrect"),
        ("{verdict: Incorrect.}", "incorrect"),
        ('{"verdict": false}', "incorrect"),
        ("最终判定：错误", "incorrect"),
        # what follows the last thought
        (f"No.\n</think>\n{RIGHT}\n</think>\n{WRONG}", "incorrect"),
        # no verdict
        (f"Is it {RIGHT}?", None),
        (f"I refuse to say {RIGHT}.", None),
        (f"Do not output {RIGHT}", None),
        (f"很难判为{RIGHT}", None),
        (f"不应输出{RIGHT}", None),
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
