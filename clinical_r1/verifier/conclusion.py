"""What an answer concludes: the diagnosis it asserts, told apart from those that it denies, doubts or merely lists.

Works on the wording alone, in English and Chinese, and prefers to find nothing over finding too much: a rule that
accepts a wrong answer teaches it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from clinical_r1.verifier import cues
from clinical_r1.verifier.normalise import fold, normalise

Finding = Literal["asserted", "empty", "no_conclusion", "negated", "hedged", "several", "different"]
Match = Callable[[str], str]
"""Says why a phrase is the reference (`equal`, `synonym`, ...), or "" where it is not."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How an answer relates to the reference; `reason` says why an asserted phrase matched."""

    finding: Finding
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Sentence:
    text: str
    item: bool
    asks: bool = False
    bare: bool = False
    """A short line of its own that says nothing: in a list without bullets, another diagnosis."""


def read(answer: str, matches: Match) -> Reading:
    """Read an answer against one reference, given as the function that recognises it."""
    text = cues.WRAPPED.sub(r"\n\1\n", cues.STRUCK.sub("\n", fold(answer)))
    text = cues.MARKUP.sub("", text).strip()
    if not normalise(text):
        return Reading("empty")
    if cues.NO_ANSWER.match(text):
        return Reading("no_conclusion")
    if reason := matches(text.strip(" .。")):
        return Reading("hedged") if "?" in text else Reading("asserted", reason)
    sentences = _sentences(text)
    if reason := _whole_remainder(text, matches):
        return Reading("asserted", reason)
    concluding = _concluding(sentences)
    if not concluding:
        return Reading("several" if sum(sentence.item for sentence in sentences) > 1 else "no_conclusion")
    readings = [_assess(sentences[index], start, matches) for index, start in concluding]
    refused = next((reading for reading in readings if reading.finding != "asserted"), None)
    if refused is not None:
        both = any(reading.finding == "asserted" for reading in readings) and refused.finding == "different"
        return Reading("several") if both else refused
    last = concluding[-1][0]
    if last + 1 < len(sentences) and sentences[last].item and sentences[last + 1].item:
        return Reading("several")
    if last + 1 < len(sentences) and sentences[last + 1].bare:
        return Reading("no_conclusion")
    stated = {index for index, _ in concluding}
    for index, sentence in enumerate(sentences):
        if index not in stated and (objection := _objects(sentence.text, index > last, matches)):
            return Reading(objection)
    return readings[-1]


def _whole_remainder(text: str, matches: Match) -> str:
    """Is the reference several sentences long, and restated by all that follows the first cue?"""
    cue = cues.STRONG.search(text)
    if cue is None or "?" in text[cue.end() :] or len(_sentences(text[cue.end() :])) < 2:
        return ""
    reason = matches(text[cue.end() :].strip(" .。"))
    before = _sentences(text[: cue.end()])
    if not reason or not before or _refused_head(before[-1].text):
        return ""
    return "" if any(_objects(sentence.text, False, matches) for sentence in before[:-1]) else reason


def _sentences(text: str) -> list[_Sentence]:
    """Sentences in order; a heading such as `Diagnosis:` joins what follows it."""
    found: list[_Sentence] = []
    for line in text.splitlines():
        item = bool(cues.BULLET.match(line))
        rest = cues.BULLET.sub("", line)
        while rest:
            end = cues.END.search(rest)
            part, mark = (rest[: end.start()], end.group()) if end else (rest, "")
            rest = rest[end.end() :] if end else ""
            if not part.strip():
                continue
            asks = "?" in mark
            if found and found[-1].text.rstrip().endswith((":", "=")):
                heading = found.pop()
                part, item, asks = f"{heading.text} {part.strip()}", heading.item or item, heading.asks or asks
            elif cues.HEADING.match(part.strip()) and not mark:
                part += ":"
            bare = part == line and not mark and not cues.SAYS.search(part) and len(part) <= 60
            found.append(_Sentence(part.strip(), item, asks, bare))
    return found


def _concluding(sentences: list[_Sentence]) -> list[tuple[int, int]]:
    """(index, start of the conclusion) of the sentences that conclude; the whole of a single sentence if none does."""
    strong = [
        (index, found[-1].end())
        for index, sentence in enumerate(sentences)
        if (found := list(cues.STRONG.finditer(sentence.text)))
        and not cues.DIFFERENTIAL.search(sentence.text)
        and normalise(sentence.text[found[-1].end() :])
    ]
    if strong:
        final = next((at for at, (index, _) in enumerate(strong) if cues.FINAL.search(sentences[index].text)), 0)
        return strong[final:]
    for index in range(len(sentences) - 1, -1, -1):
        found = list(cues.WEAK.finditer(sentences[index].text))
        if found and not cues.DIFFERENTIAL.search(sentences[index].text):
            return [(index, found[-1].end())]
    return [(0, 0)] if len(sentences) == 1 else []


def _assess(sentence: _Sentence, start: int, matches: Match) -> Reading:
    """One concluding sentence: is what stands after its cue the reference, alone and affirmed?"""
    text = sentence.text
    lead = cues.LEAD.match(text[start:])
    start += lead.end() if lead else 0
    said, before = text[start:].rstrip(" .。\"'”"), text[:start]
    hit, reason = _name(said, matches)
    if hit is None:
        return Reading(_why_not(before, said))
    refused = "hedged" if sentence.asks else _refused_head(before) or _tail(said[len(hit) :])
    if refused is None and _states_another(before, matches):
        return Reading("different")
    return Reading(refused or "asserted", reason)


def _refused_head(before: str) -> Finding | None:
    """Does the sentence deny or doubt, before it names the diagnosis?"""
    head = _neutral(before)
    if cues.HEDGE.search(head):
        return "hedged"
    head = cues.SET_ASIDE.sub("", head)
    return "negated" if cues.NEGATION.search(head) or cues.BYGONE.search(head) else None


def _states_another(before: str, matches: Match) -> bool:
    """Does an earlier cue of the same sentence name something else?"""
    found = list(cues.STRONG.finditer(before))
    for cue, following in pairwise(found):
        said = before[cue.end() : following.start()].strip(" ,，;；")
        if normalise(cues.LEAD.sub("", said)) and _name(said, matches)[0] is None:
            return True
    return False


def _name(said: str, matches: Match) -> tuple[str | None, str]:
    """The beginning of `said` that is the reference: all of it, or up to a place where an explanation may begin."""
    if reason := matches(said):
        return said, reason
    clauses = sorted({found.start() for found in cues.CLAUSE.finditer(said)}, reverse=True)
    predicates = [
        found.start() for found in cues.PREDICATE.finditer(said) if cues.AFFIRMED.match(said[found.start() :])
    ]
    for end in (*clauses, *predicates):
        name = said[:end].strip()
        if name and not cues.OPEN_END.search(name) and (reason := matches(name)):
            return said[:end], reason
    return None, ""


def _why_not(before: str, said: str) -> Finding:
    """Reason to refuse a conclusion that is not the reference as it stands."""
    whole = _neutral(before) + said
    if cues.HEDGE.search(whole):
        return "hedged"
    if cues.NEGATION.search(whole):
        return "negated"
    return "several" if cues.LISTED.search(said) else "different"


def _tail(tail: str) -> Finding | None:
    """What follows the name within its sentence: an explanation, or a second diagnosis, a doubt, a denial."""
    if not tail.strip() or cues.CONTRAST.match(tail):
        return None
    clause = cues.REASON.split(tail, maxsplit=1)
    own = clause[0]
    if re.search(r"(?:\b(?:it|this|that|which)\b|其|该)", tail) and (
        cues.HEDGE.search(tail) or cues.NEGATION.search(tail)
    ):
        return "negated"
    if cues.HEDGE.search(own):
        return "hedged"
    if cues.NEGATION.search(own):
        return "negated"
    listed = cues.SEVERAL.match(own)
    if listed and (rest := own[listed.end() :].strip()) and not cues.EXPLAINS.match(rest):
        return "several"
    if own.strip().startswith(("(", "（")) and re.search(r"\bor\b|\band\b|/|、|或|和", own):
        return "several"
    return "several" if cues.BESIDE.search(own) else None


def _objects(sentence: str, later: bool, matches: Match) -> Finding | None:
    """Does a sentence beside the conclusion deny it, doubt it, or put another diagnosis beside it?"""
    denies, doubts = cues.NEGATION.search(sentence), cues.HEDGE.search(sentence)
    if (denies or doubts) and _mentions(sentence, matches):
        return "negated" if denies else "hedged"
    if not later:
        return None
    if cues.TURN.match(sentence):
        return "several"
    if (denies or doubts) and cues.BACK.search(sentence):
        return "negated" if denies else "hedged"
    return "several" if cues.BESIDE.search(sentence) else None


def _mentions(sentence: str, matches: Match) -> bool:
    """Does the reference stand somewhere in the sentence (any run of words, or of characters in Chinese)?"""
    words = re.findall(r"[a-z0-9']+", sentence)[:60]
    if any(matches(" ".join(words[i:j])) for i in range(len(words)) for j in range(i + 1, min(i + 7, len(words) + 1))):
        return True
    runs = (
        re.findall(r"[\u3400-\u4dbf\u4e00-\u9fff0-9a-z-]+", sentence) if re.search(r"[\u4e00-\u9fff]", sentence) else []
    )
    return any(
        matches(run[i:j]) for run in runs for i in range(len(run)) for j in range(i + 2, min(i + 17, len(run) + 1))
    )


def _neutral(text: str) -> str:
    """Text in front of a conclusion without the words that affirm it."""
    return cues.AFFIRMING.sub("", text)
