"""One normal form of text for comparison: NFKC, case-folded, Latin words and single Han characters as tokens."""

import re
import unicodedata

_TOKEN = re.compile(r"[a-z0-9]+|[\u3400-\u9fff]")


def tokens(text: str) -> list[str]:
    """Tokens of `text` for shingles and exact comparison; punctuation and spacing do not count."""
    return _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())


def normal_form(text: str) -> str:
    """The text as its tokens joined by spaces: equal for texts that differ in case, width and punctuation only."""
    return " ".join(tokens(text))


def shingles(words: list[str], size: int) -> set[int]:
    """Hashes of all runs of `size` tokens (of the whole text where it is shorter). Stable within one process only."""
    if len(words) <= size:
        return {hash(tuple(words))} if words else set()
    return {hash(tuple(words[i : i + size])) for i in range(len(words) - size + 1)}
