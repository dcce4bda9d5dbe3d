"""Answers in the words of their question. English only.

A sentence answers an open question where all that stands beside the name was asked (or says nothing), in the order of
the question, with the question's own denials and superlatives and no other. Where the name may stand:

| claim | question | answer |
|---|---|---|
| is | which nerve is injured in X | the nerve injured in X is NAME |
| first | which drug cannot be used for X | NAME cannot be used for X |
| last | what mode does the wire belong to | the wire belongs to the NAME mode |
| to do | which test is most appropriate | it would be most appropriate to order NAME |
| made | what is the least likely cause | this makes NAME the least likely cause |

What adds a word of its own, leaves a gap or replaces a word is not read: it may answer another question.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clinical_r1.atomic import read_table
from clinical_r1.lexicon import wordings
from clinical_r1.text import has_han
from clinical_r1.verifier.normalise import plain, words

RULE = wordings(Path(__file__).with_name("wordings.yaml"))
_SAID = {name: frozenset(text.split()) for name, text in read_table(Path(__file__).with_suffix(".yaml")).items()}
_FILLER, _CHOICE = _SAID["filler"], _SAID["choice"]


@dataclass(frozen=True, slots=True)
class Question:
    """What an open question asks, as the words that an answer may repeat."""

    asked: tuple[str, ...]
    """Content words of what is asked, in their order."""
    superlative: frozenset[str]
    """`most`, `first`, `best`: what the answer must say too."""
    head: frozenset[str]
    """What is asked for: `the pelvic diameter`."""
    subject: str
    """Where the question is inverted, the first word of who or what does it; else ""."""
    sentence: frozenset[str]
    """All words of the sentence that asks, and what the question calls the patient."""
    known: frozenset[str]
    """All words of the question."""
    polar: tuple[str, ...]
    """Denials and conditions of what is asked, sorted."""
    around: frozenset[str]
    """Those of the whole sentence, and whom of the family the question names."""

    def chooses(self) -> bool:
        """Does it ask what is best to do?"""
        return not _CHOICE.isdisjoint(self.sentence)

    def superlative_in(self, text: str) -> bool:
        """Does a text say the question's superlative, or another word for the best choice?"""
        said, wanted = set(words(text)), self.superlative
        if self.chooses() and said & _CHOICE:
            wanted = wanted - _CHOICE - {"most"}
        return wanted <= said


def ask(question: str) -> Question | None:
    """The question as `Question`; None where it is not a plain English one."""
    text = plain(question).strip()
    sentences = [part for part in re.split(r"(?<=[.?!])\s+", text) if RULE["question_word"].search(part)]
    if has_han(text) or not sentences:
        return None
    sentence = sentences[-1]
    heads = list(RULE["head_start"].finditer(sentence))
    if not heads:
        return None
    rest = sentence[heads[-1].end() :]
    end, inverted = RULE["head_end"].search(rest), RULE["inverted"].search(rest)
    head = frozenset(words(rest[: end.start()] if end else rest))
    head = (head - _FILLER) | (_SAID["things"] & head)
    if not head:
        return None
    core = RULE["placed"].sub("", RULE["aside"].sub("", RULE["core_end"].split(rest)[0]))
    known = frozenset(words(text))
    return Question(
        asked=_content(core),
        superlative=frozenset(_SAID["superlative"] & set(words(re.sub(r"\bto last\b", "", core)))),
        head=head,
        subject=next((w for w in words(rest[inverted.end() :]) if w not in ("this", "that", "these")), "")
        if inverted
        else "",
        sentence=frozenset(words(sentence)) | (_SAID["persons"] & known),
        known=known,
        polar=_polar(core),
        around=frozenset(_polar(sentence)) | (_SAID["kin"] & known),
    )


def claims(sentence: str, question: Question) -> Iterator[tuple[str, str | None]]:
    """What a sentence may say in answer: (the name, what stands behind its claim), or (a text that begins with the
    name, None)."""
    for start in _starts(sentence, question):
        lead, body = sentence[:start], sentence[start:]
        for copula in RULE["copula"].finditer(body):
            if _is_asked(body[: copula.start()], copula.group(), question):
                yield body[copula.end() :], None
        for copula in RULE["predicate"].finditer(body):
            end = _predicate_end(body[copula.start() :], lead, question)
            if end is not None:
                yield body[: copula.start()], body[copula.start() + end :]
        if question.subject and question.subject in words(body)[:3]:
            for slot in RULE["slot"].finditer(body):
                if _only_asked(re.sub(r"\bis considered\b", "is", body[: slot.end()]), question):
                    said = body[slot.end() :]
                    yield said, None
                    name, of, rest = said.partition(" of ")
                    known = [word in question.sentence for word in _content(rest)]
                    if of and known and sum(known) >= 0.5 * len(known) and not _polar(rest):
                        yield name, ""  # the window period of hepatitis B
        if question.chooses() and (found := RULE["to_do"].match(body)):
            yield body[found.end() :], None
        if (found := RULE["made"].search(body)) and question.superlative_in(body[found.end() :]):
            behind, denied = words(body[found.end() :]), RULE["polar_wide"].search(sentence[: start + found.start()])
            if not denied and not question.head.isdisjoint(behind) and set(behind) <= question.sentence | _FILLER:
                yield found["name"], ""


def also_says(sentence: str, question: Question, matches: Callable[[str], bool]) -> bool:
    """Does a sentence state something else in answer to the question (a second candidate)?"""
    for said, tail in claims(sentence, question):
        if tail is None and not matches(said):
            return True
    for start in _starts(sentence, question):
        for copula in re.finditer(r"\s(?:is|are|can|would be|does|do)\s", sentence[start:]):
            tail = sentence[start + copula.start() :]
            shared = set(_content(tail)) & set(question.asked)
            if not question.superlative_in(tail):
                continue
            subject = sentence[start : start + copula.start()]
            kind = bool(shared and question.superlative) and not question.head.isdisjoint(words(subject)[-1:])
            if subject.rpartition(",")[2].strip().lower() in ("it", "this", "that", "they", "these"):
                continue
            if re.match(r"(?:while|although|though)\b[^,]*$", subject, re.I):
                continue  # concedes something
            if (kind or len(shared) >= 0.5 * len(question.asked)) and not matches(subject):
                return True
    return False


def denies_as_asked(clause: str, question: Question) -> bool:
    """Does a clause deny just what the question denies (`which does not form X?`: `it does not form X`), or
    what it asks for as the least likely?"""
    if "least" in question.polar:
        return True  # what is denied is least likely
    shared = {word for word in _content(clause) if word in question.asked}
    return bool(question.polar) and _polar(clause) == question.polar and len(shared) >= 2


def denies_of(sentence: str, question: Question) -> bool:
    """Does a sentence go on to deny something of what was asked, where the question denies too (`which finding is not
    associated with X?`: `this does not go with X`)?"""
    return "not" in question.polar and not {*_content(sentence)}.isdisjoint({*question.asked} - {"not"})


def _starts(sentence: str, question: Question) -> list[int]:
    """Where the statement may begin: behind an opener and an adverbial that only repeats the question."""
    opener = RULE["openers"].match(sentence)
    first = opener.end() if opener else 0
    found = [first]
    if RULE["adverbial"].match(sentence[first:]):
        for comma in re.finditer(r", ", sentence[first:]):
            lead = sentence[first : first + comma.start()]
            content = [word for word in words(lead) if word not in _FILLER]
            fits = sum(word in question.known for word in content) >= 0.5 * len(content)
            new_number = any(word not in question.known for word in content if any(c.isdigit() for c in word))
            other = any(found.group().lower() not in question.known for found in RULE["other_case"].finditer(lead))
            if other or set(_polar(lead)) - question.around or new_number:
                continue
            if fits or RULE["free_adverbial"].match(lead):
                found.append(first + comma.end())
    return found


def _is_asked(subject: str, copula: str, question: Question) -> bool:
    """Is the subject what was asked, in the question's words?"""
    subject = RULE["among"].sub("", RULE["aside"].sub("", subject + " ").rstrip(" ,"))
    end = RULE["head_end"].search(subject)
    head = set(words(subject[: end.start()] if end else subject))
    content = _content(subject)
    if not _only_asked(subject, question) or _polar(subject + copula) != question.polar:
        return False
    if not question.superlative_in(subject + copula):
        return False
    if "associated with" in copula:  # holds in either direction
        return len(set(content) & set(question.asked)) >= 0.5 * len(set(question.asked))
    inside = [word for word in content if word in question.asked and word not in _CHOICE]
    asked = [word for word in question.asked if word not in _CHOICE]
    begins = not inside or inside[0] == asked[0]
    return not question.head.isdisjoint(head) and begins and _run_of(inside, asked)


def _only_asked(text: str, question: Question) -> bool:
    chosen = _CHOICE if question.chooses() else frozenset()
    return set(words(text)) <= question.sentence | _FILLER | chosen


def _predicate_end(tail: str, lead: str, question: Question) -> int | None:
    """Where the predicate behind a name in front ends: it says all that was asked, in the question's order."""
    asked = [word for word in question.asked if word not in _CHOICE]
    rest = {word for word in asked if word not in question.head}
    led = set(_content(lead)) & rest
    for end in [len(tail), *(found.start() for found in reversed(list(re.finditer(",", tail))))]:
        said = tail[:end]
        content = [word for word in _content(said) if word not in _CHOICE]
        if (
            (len(content) >= 2 or set(content) - question.head == rest)
            and _run_of(content, asked)
            and question.superlative_in(said)
            and len(set(content) & rest | led) >= 0.6 * len(rest)
            and _only_asked(said, question)
            and _polar(said) == question.polar
        ):
            return end
    return None


def _content(text: str) -> tuple[str, ...]:
    return tuple(word for word in words(text) if word not in _FILLER)


def _polar(text: str) -> tuple[str, ...]:
    found = (match.group().lower() for match in RULE["polar"].finditer(text))
    return tuple(sorted("not" if word in ("cannot", "can't", "isn't") else word for word in found))


def _run_of(said: list[str] | tuple[str, ...], asked: list[str] | tuple[str, ...]) -> bool:
    """Do the words stand in the question in this order and without a gap? What is left out may make it another one."""
    length = len(said)
    return any(tuple(said) == tuple(asked[at : at + length]) for at in range(len(asked) - length + 1))
