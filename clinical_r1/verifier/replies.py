"""The verdict in a judge's reply: one valid object or word, or the one that is clearly meant, or none.

What is only talked about is no verdict, wherever it stands: a condition ("if it matched I would say ..."), a denial
("not ..."), an example, the alternatives of the instruction ("... or ..."). A draft may stand before the verdict. Two
verdicts that disagree without such words are no verdict.
"""

import json
import re
from itertools import pairwise
from typing import Literal

Word = Literal["correct", "incorrect"]
_OBJECT = re.compile(r"""\{\s*(["'])verdict\1\s*:\s*(["'])([^"'{}]*)\2\s*(?:,[^{}]*)?\}""", re.IGNORECASE)
_WORDS: dict[str, Word] = {
    "correct": "correct", "right": "correct", "true": "correct", "正确": "correct", "对": "correct",
    "incorrect": "incorrect", "wrong": "incorrect", "false": "incorrect", "not correct": "incorrect",
    "不正确": "incorrect", "错误": "incorrect", "错": "incorrect",
}  # fmt: skip
_BARE = re.compile(
    r"(?:(?:the |my |final )*(?:verdict|answer|judge?ment|判定|判断|结论|答案)(?: is|\s*[:：=]|是|为)?\s*[:：]?\s*)?"
    rf"({'|'.join(sorted(_WORDS, key=len, reverse=True))})",
    re.IGNORECASE,
)
_AN_EXAMPLE = re.compile(
    r"\b(?:if|would|could|might|may|maybe|example|e\.g\.|format|form|instruction|template|draft|either|or|first"
    r"|initially|at first|prompt|schema"
    r"|reply with|such as)\b|如果|例|格式|要求|指令|若|草稿|最初|或",
    re.IGNORECASE,
)
_MEANT = re.compile(
    r"\b(?:my|final|so|therefore|thus|hence|verdict is|actual|actually|conclusion|no|but|correction|reply"
    r"|instead|does not|doesn't)\b|最终|因此|所以|故|我的|判定|更正|但",
    re.IGNORECASE,
)


_TALKED_ABOUT = re.compile(
    r"\b(?:if|unless|had|were|example|e\.g\.|for instance|such as|format (?:is|was)|(?:would|could|might)(?: have)?"
    r" (?:say|said|be|been|reply|give|given|answer|write|return|choose))\b"
    r"|\b(?:not|isn't|cannot|can't|never|than)(?: be)?[\s\"'(]*$"
    r"|如果|若|假如|示例|例如|比如|会说|(?:不是|并非|而非|不能是|不会是|不应为?)[\s\"'(（]*$",
    re.IGNORECASE,
)
_CONDITION_BEHIND = re.compile(r"^[\s,，`]*(?:if|unless|only if|had|were)\b|^[\s,，`]*(?:如果|的话)", re.IGNORECASE)
_BETWEEN_ALTERNATIVES = re.compile(r"[\s`,，]*(?:or|/|\||或者?|还是)[\s`]*(?:json\s*)?", re.IGNORECASE)
_SENTENCE = re.compile(r"[.!?;](?=\s)|[。！？；]|\n")


def read_verdict(reply: str) -> Word | None:
    """The verdict of a reply without its thought; None where it holds none, or two that disagree."""
    objects = [(match, word) for match in _OBJECT.finditer(reply) if (word := _WORDS.get(match[3].strip().lower()))]
    if not objects:
        return _bare(reply)
    talked = _talked_about(reply, [match for match, _ in objects])
    found = [pair for pair in objects if pair[0].start() not in talked]
    if not found:
        return None
    word = found[-1][1]
    for (earlier, other), (later, _) in pairwise(found):
        if other == word:
            continue
        before = reply[: earlier.start()].rpartition("}")[2]
        between = reply[earlier.end() : later.start()]
        if not (_AN_EXAMPLE.search(before) or _MEANT.search(between)):
            return None
    return word


def _talked_about(reply: str, objects: list[re.Match[str]]) -> set[int]:
    """Where objects begin that their own sentence does not give as the verdict."""
    found: set[int] = set()
    for place, match in enumerate(objects):
        before = reply[objects[place - 1].end() if place else 0 : match.start()]
        if place and _BETWEEN_ALTERNATIVES.fullmatch(before):
            found |= {objects[place - 1].start(), match.start()}
        lead = _SENTENCE.split(re.sub(r"`+(?:json)?", " ", before, flags=re.IGNORECASE).rstrip())[-1]
        words = list(_TALKED_ABOUT.finditer(lead))
        if (words and not _MEANT.search(lead[words[-1].end() :])) or _CONDITION_BEHIND.match(reply[match.end() :]):
            found.add(match.start())
    return found


def _bare(reply: str) -> Word | None:
    """A reply that is a verdict word and nothing else but marks, or a JSON string of it."""
    said = reply.strip()
    try:
        loaded = json.loads(said)
    except ValueError:
        loaded = said
    if not isinstance(loaded, str):
        return None
    bare = _BARE.fullmatch(re.sub(r"[*_`\"'“”#>]+", "", loaded).strip().rstrip(".。!！").strip())
    return _WORDS[bare[1].lower()] if bare else None
