"""Answers in the words of their question: `The neurotransmitter released at the node is X`, `X is classified as ...`.

A sentence is an echo where all that stands beside the name was asked (or says nothing), in the order of the question,
with the question's own denials and no other. What adds a word of its own is not read here. English only.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from clinical_r1.verifier import frames
from clinical_r1.verifier.normalise import CJK, plain, words

_FILLER = frozenset(words(
    "this that these those it its his her their the patient patients case scenario setting context situation condition"
    " presentation described presented presenting symptoms symptom observed findings most likely probable typically"
    " usually commonly generally specifically primarily heavily clearly therefore responsible for of in at on to with"
    " from by and as is are was were be been being has have had would will can does do did which who what where when"
    " used use called known termed named referred associated appropriate particular specific"
)) | {"a", "s", "response", "there"}  # fmt: skip
"""Words that say nothing of their own about which thing is meant."""
_THINGS = frozenset(("condition", "symptom", "finding", "presentation"))
"""Of these, what may itself be asked for."""
_PERSONS = frozenset(("man", "woman", "girl", "boy", "infant", "newborn", "male", "female"))
_ASKS = re.compile(r"\b(?:what|which|identify|name)\b", re.I)
_HEAD_START = re.compile(
    r"\b(?:what|which|identify|name)\s+(?:(?:is|are|was|would be)\s+)?(?:(?:the|an?|one)\s+)?"
    r"(?:(?:name|term|type|kind) (?:of|for|used to describe) )?(?:(?:the|an?)\s+)?",
    re.I,
)
_HEAD_END = re.compile(
    r"[,?.]|\s(?:is|are|was|were|can|cannot|does|do|has|have|would|should|will|of|for|in|at|on|to|with|from|by|that"
    r"|which|who|where|when|after|during|associated|responsible|involved|used|released|known|innervated"
    r"|\w+ing|\w+ly released)\b",
    re.I,
)
_COPULA = re.compile(
    r"\s(?:is|are|would be)(?: (?:most likely|likely|typically|usually|therefore|indeed|clearly|most commonly))*"
    r"(?: (?:called|known as|termed|named|referred to as|(?:most )?(?:closely |commonly )?associated with))?\s+",
    re.I,
)
_LEAD = re.compile(r"(?:in|for|to|during|based on|given|considering|according to|after|when|among)\b", re.I)
_FREE_LEAD = re.compile(r"(?:based on|given|considering)\b", re.I)
_PLACED = re.compile(
    r" (?:located|situated) (?:under|in|on|at|near|behind|above|below) (?:the )?\w+(?: \w+)?(?= (?:in|of|from)\b)", re.I
)
_SUPERLATIVE = frozenset(words("most least best first next last preferred greatest highest lowest earliest only main"))
_ASIDE = re.compile(
    r", (?:(?:particularly|especially) )?(?:given|considering|characterized by|based on) [^;:.]*?,(?= )"
)
_CORE_END = re.compile(r" (?:while|considering|given|based on)\b", re.I)
_OTHER_CASE = re.compile(
    r"\b(?:contrast|unlike|other|another|different|than|second\w*|third|alternativ\w+|outdated|old|former\w*)\b", re.I
)
_POLAR = re.compile(rf"{frames.AGAINST.pattern}|{frames.HYPOTHETICAL.pattern}|\b(?:except|least|fails?|lacks?)\b", re.I)


@dataclass(frozen=True, slots=True)
class Question:
    """What an open question asks, as the words that an answer may repeat."""

    asked: tuple[str, ...]
    """Content words of what is asked, in their order."""
    superlative: frozenset[str]
    """`most`, `first`, `best`: what the answer must say too."""
    head: frozenset[str]
    """What is asked for: `the pelvic diameter`."""
    sentence: frozenset[str]
    """All words of the sentence that asks, and what the question calls the patient."""
    known: frozenset[str]
    """All words of the question."""
    polar: tuple[str, ...]
    """Its denials and conditions, sorted."""


def ask(question: str) -> Question | None:
    """The question as `Question`; None where it is not a plain English one."""
    text = plain(question).strip()
    sentences = [part for part in re.split(r"(?<=[.?!])\s+", text) if _ASKS.search(part)]
    if CJK.search(text) or not sentences:
        return None
    sentence = sentences[-1]
    start = list(_HEAD_START.finditer(sentence))[-1]
    rest = sentence[start.end() :]
    end = _HEAD_END.search(rest)
    head = frozenset(words(rest[: end.start()] if end else rest))
    head = (head - _FILLER) | (_THINGS & head)
    if not head:
        return None
    core = _PLACED.sub("", _ASIDE.sub("", _CORE_END.split(sentence[start.end() :])[0]))
    known = frozenset(words(text))
    return Question(
        _content(core),
        _SUPERLATIVE & set(words(core)),
        head,
        frozenset(words(sentence)) | (_PERSONS & known),
        known,
        _polar(sentence),
    )


def statements(sentence: str, question: Question) -> Iterator[tuple[int, str]]:
    """(start of what is named, form) of the places where a sentence may name what was asked: `is` or `first`."""
    for start in _starts(sentence, question):
        body = sentence[start:]
        for copula in _COPULA.finditer(body):
            if _frames(body[: copula.start()], copula.group(), question):
                yield start + copula.end(), "is"
        yield start, "first"


def predicate_end(tail: str, question: Question) -> int | None:
    """Where the predicate behind a name in front ends: it says all that was asked, in the question's order."""
    for end in [len(tail), *(found.start() for found in reversed(list(re.finditer(",", tail))))]:
        said = tail[:end]
        rest = [word for word in question.asked if word not in question.head]
        content = _content(said)
        if (
            re.match(r"\s*(?:is|are|can|cannot|would be|does|do)\b", said)
            and (len(content) >= 2 or set(content) == set(rest))
            and _run_of(content, question.asked)
            and question.superlative <= set(words(said))
            and len(set(content) & set(rest)) >= 0.6 * len(set(rest))
            and set(words(said)) <= question.sentence | _FILLER
            and _polar(said) == question.polar
        ):
            return end
    return None


def also_says(sentence: str, question: Question, matches: Callable[[str], bool]) -> bool:
    """Does a sentence state something else in answer to the question (a second candidate)?"""
    for start, form in statements(sentence, question):
        if form == "is" and not matches(sentence[start:]):
            return True
        for copula in re.finditer(r"\s(?:is|are|can|would be|does|do)\s", sentence[start:]):
            tail = sentence[start + copula.start() :]
            said = set(_content(tail)) & set(question.asked)
            if not question.superlative <= set(words(tail)):
                continue
            subject = sentence[start : start + copula.start()]
            kind = bool(said and question.superlative) and not question.head.isdisjoint(words(subject)[-1:])
            if (kind or len(said) >= 0.5 * len(question.asked)) and not matches(subject):
                return True
    return False


def denies_as_asked(clause: str, question: Question) -> bool:
    """Does a clause deny just what the question denies (`which does not form X?`: `it does not form X`)?"""
    shared = {word for word in _content(clause) if word in question.asked}
    return bool(question.polar) and _polar(clause) == question.polar and len(shared) >= 2


def _starts(sentence: str, question: Question) -> list[int]:
    """Where the statement may begin: behind an opener and an adverbial that only repeats the question."""
    opener = re.match(frames.OPENERS, sentence, re.I)
    first = opener.end() if opener else 0
    found = [first]
    if _LEAD.match(sentence[first:]):
        for comma in re.finditer(r", ", sentence[first:]):
            lead = sentence[first : first + comma.start()]
            content = [word for word in words(lead) if word not in _FILLER]
            fits = sum(word in question.known for word in content) >= 0.5 * len(content)
            new_number = any(word not in question.known for word in content if any(c.isdigit() for c in word))
            if _OTHER_CASE.search(lead) or set(_polar(lead)) - set(question.polar) or new_number:
                continue
            if fits or _FREE_LEAD.match(lead):
                found.append(first + comma.end())
    return found


def _frames(subject: str, copula: str, question: Question) -> bool:
    """Is the subject what was asked, in the question's words?"""
    subject = _ASIDE.sub("", subject + " ").rstrip(" ,")
    end = _HEAD_END.search(subject)
    head = set(words(subject[: end.start()] if end else subject))
    content = _content(subject)
    if set(words(subject)) - question.sentence - _FILLER or _polar(subject + copula) != question.polar:
        return False
    if not question.superlative <= set(words(subject + copula)):
        return False
    if "associated with" in copula:  # holds in either direction
        return len(set(content) & set(question.asked)) >= 0.5 * len(set(question.asked))
    inside = [word for word in content if word in question.asked]
    begins = not inside or inside[0] == question.asked[0]
    return not question.head.isdisjoint(head) and begins and _run_of(inside, question.asked)


def _content(text: str) -> tuple[str, ...]:
    return tuple(word for word in words(text) if word not in _FILLER)


def _polar(text: str) -> tuple[str, ...]:
    found = (match.group().lower() for match in _POLAR.finditer(text))
    return tuple(sorted("not" if word in ("cannot", "can't", "isn't") else word for word in found))


def _run_of(said: list[str] | tuple[str, ...], asked: tuple[str, ...]) -> bool:
    """Do the words stand in the question in this order and without a gap? What is left out may make it another one."""
    length = len(said)
    return any(tuple(said) == asked[at : at + length] for at in range(len(asked) - length + 1))
