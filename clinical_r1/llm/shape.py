"""The structure of a reply without its text: what an error message may show of it."""

import re
from collections.abc import Iterator

KEPT = frozenset(
    ("verdict", "correct", "incorrect", "told", "true", "false", "null", "yes", "no", "json", "answer", "reasoning",
     "thinking", "response", "正确", "错误", "不正确", "是", "否")
)  # fmt: skip
"""Words that a protocol of ours may put into a reply; every other word is only counted."""
_PIECE = re.compile(
    r"(?P<tag></?\|?[a-z_]{1,16}\|?>)|(?P<fence>```)|(?P<mark>[{}\[\]:,\"])|(?P<cjk>[\u3400-\u9fff]+)|(?P<word>[^\W_]+)",
    re.IGNORECASE,
)
LONGEST = 120


def shape(text: str, cut: bool = False) -> str:
    """Tags, fences, braces and the words of our protocol as they stand, all else as counts; e.g.
    `<think> 212 words, cut off`, `9 words {"verdict": 3 words}`."""
    parts = list(_parts(text))
    if not parts:
        return "empty, cut off" if cut else "empty"
    line = re.sub(r"(?<=[{\[\"]) | (?=[}\]\":,])", "", " ".join(parts))
    if len(line) > LONGEST:
        half = LONGEST // 2
        line = f"{line[:half].rstrip()} ... {line[-half:].lstrip()}"
    return f"{line}, cut off" if cut else line


def _parts(text: str) -> Iterator[str]:
    words = characters = 0
    for found in _PIECE.finditer(text):
        piece = found.group()
        if found.lastgroup in ("word", "cjk") and piece.lower() not in KEPT:
            words += found.lastgroup == "word"
            characters += len(piece) if found.lastgroup == "cjk" else 0
            continue
        yield from _counted(words, characters)
        words = characters = 0
        yield piece.lower()
    yield from _counted(words, characters)


def _counted(words: int, characters: int) -> Iterator[str]:
    if words:
        yield f"{words} word{'s' * (words > 1)}"
    if characters:
        yield f"{characters} Chinese character{'s' * (characters > 1)}"
