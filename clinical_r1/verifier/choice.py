"""Which option of a multiple-choice item an answer chooses: by letter, by text or by both, English and Chinese.

Commitments are looked for from the most to the least formal: the conclusion line (`Final answer: C`, `最终答案：C`), a
box, `the answer is C`, `C is correct`, `故选C`, an answer that begins with its option. The most formal kind decides;
where it commits to two different options, or letter and text contradict each other, nothing is decided. Of an item with
several right options the whole set is right and nothing beside it, as the examinations behind CMB and CMExam grade it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from clinical_r1.lexicon import wordings
from clinical_r1.reasoning import conclusion_line
from clinical_r1.text import HAN, has_han
from clinical_r1.verifier.judgement import Judgement
from clinical_r1.verifier.normalise import normalise, plain

Problem = Literal["", "empty", "no_choice", "several"]


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen option's index, or why none could be read."""

    index: int | None
    problem: Problem = ""


RULE = wordings(Path(__file__).with_suffix(".yaml"))
_KEPT = re.compile(rf"[^a-z0-9{HAN}<>=≥≤↑↓→+%±.]+|\.(?!\d)|(?<!\d)\.")


@dataclass(frozen=True)
class _Options:
    """The options of an item in comparable form."""

    texts: tuple[str, ...]
    forms: tuple[str, ...]
    """Each option's letters and digits only, lower case: what a text begins with is compared in this form."""

    def letter(self, letter: str) -> int | None:
        place = ord(letter.upper()) - ord("A")
        return place if place < len(self.texts) else None

    def begins(self, text: str) -> list[int]:
        """Options that a text begins with, the longest only (`aspirin plus heparin` is not `aspirin`)."""
        form, options = _compact(text), enumerate(self.forms)
        return self._longest([i for i, o in options if o and form.startswith(o) and _ends(text, self.texts[i])])

    def ends(self, text: str) -> list[int]:
        """Options that a text ends with, the longest only."""
        form = _compact(text)
        return self._longest([i for i, o in enumerate(self.forms) if len(o) > 1 and form.endswith(o)])

    def _longest(self, found: list[int]) -> list[int]:
        longest = max((len(self.forms[i]) for i in found), default=0)
        return [i for i in found if len(self.forms[i]) == longest]


def _compact(text: str) -> str:
    """What options are compared by: letters, digits and the signs that tell options apart (`LOD > 3`, `1.5`, `↑ ↓`)."""
    return _KEPT.sub("", plain(text).lower())


def _ends(text: str, option: str) -> bool:
    """Does the option end at a word's edge in the text (`ear` is not the beginning of `early`)?"""
    if has_han(option):
        return True
    wanted, text = len(_compact(option)), plain(text)[: 2 * len(option) + 40]
    end = next((at for at in range(len(text) + 1) if len(_compact(text[:at])) >= wanted), len(text))
    return not re.match(r"[A-Za-z0-9]|\.\d", text[end : end + 2])


@lru_cache(maxsize=4096)
def _prepared(options: tuple[str, ...]) -> _Options:
    return _Options(options, tuple(_compact(option) for option in options))


def read_choice(answer: str, options: Sequence[str]) -> Choice:
    """The option that an answer commits to."""
    prepared = _prepared(tuple(options))
    text = RULE["struck"].sub(" ", plain(answer))
    if not _compact(text):
        return Choice(None, "empty")
    for kind in (_formal, _boxed, _whole, _stated, _marked, _opening):
        found = list(kind(text, prepared))
        if found:
            return _decide(text, found)
    return Choice(None, "no_choice")


def chosen_index(reference: str, options: Sequence[str]) -> int | None:
    """Place of the right option: by its text, else by its letter."""
    forms = [normalise(option) or _compact(option) for option in options]
    wanted = normalise(reference) or _compact(reference)
    exact = [i for i, option in enumerate(options) if option.strip() == reference.strip()]
    found = exact or [i for i, form in enumerate(forms) if form == wanted]
    if found:
        return found[0]
    letter = re.fullmatch(r"\s*[(\[]?([A-Ja-j])[)\].]?\s*", reference)
    return _prepared(tuple(options)).letter(letter[1]) if letter else None


def chooses(item: Judgement) -> tuple[bool | None, Problem]:
    """Does an answer choose the right option, or all of the right ones and no other? None, and why, where it cannot be
    read: chosen options have one reader, whoever judges."""
    right = {chosen_index(reference, item.options) for reference in item.wanted}
    if len(item.wanted) > 1:
        several = _chosen_set(item.answer, item.options)
        return (None, "no_choice") if several is None or None in right else (several == right, "")
    choice = read_choice(item.answer, item.options)
    return (None, choice.problem) if choice.index is None or None in right else (choice.index in right, "")


def _chosen_set(answer: str, options: Sequence[str]) -> frozenset[int] | None:
    """The chosen options' places; None where the answer states no set, or two different ones."""
    text = RULE["markup"].sub("", plain(answer)).strip()
    if (line := conclusion_line(text)) is not None:
        return _set(line, options)
    found = [_set(said, options) for _, said in _in_boxes(text)]
    found = found or [_letters(said["set"], options) for said in RULE["stated_set"].finditer(text)]
    found = found or [_set(text, options)]
    return found[0] if len(set(found)) == 1 else None


def _set(said: str, options: Sequence[str]) -> frozenset[int] | None:
    whole = RULE["whole_set"].fullmatch(said.strip())
    return _letters(whole["set"] if whole else "".join(RULE["lettered"].findall(said)), options)


def _letters(said: str, options: Sequence[str]) -> frozenset[int] | None:
    said = re.sub(r"(?i)\band\b", "", said)
    places = frozenset(ord(letter) - ord("A") for letter in re.findall(r"[A-J]", said))
    return places if places and max(places) < len(options) else None


NOTHING = -1
_Found = tuple[int, int | None]
"""Place in the text and chosen option; None where letter and text contradict each other, or two are named."""


def _decide(text: str, found: list[_Found]) -> Choice:
    chosen = {index for _, index in found}
    if None in chosen:
        return Choice(None, "several")
    if len(chosen) == 1:
        return Choice(chosen.pop())
    (before, _), (last, index) = found[-2], found[-1]
    others = {i for at, i in found if at >= last}
    revised = RULE["revises"].search(text[before + 1 : last + 12]) and len(others) == 1
    return Choice(index) if revised else Choice(None, "several")


def _formal(text: str, options: _Options) -> Iterator[_Found]:
    line = conclusion_line(text)
    if line is not None:
        said = next(_in_boxes(line), (0, RULE["markup"].sub("", line)))[1]
        chosen = _slot(said, options, alone=True)
        bare = re.sub(r"^(?:the|my) ", "", said, flags=re.I)
        if chosen is NOTHING and (frame := RULE["frame"].match(bare)):
            chosen = _slot(bare[frame.end() :], options, alone=True)
        yield 0, None if chosen is NOTHING else chosen


def _boxed(text: str, options: _Options) -> Iterator[_Found]:
    for place, said in _in_boxes(text):
        chosen = _slot(said, options, alone=True)
        yield place, None if chosen is NOTHING else chosen


def _in_boxes(text: str) -> Iterator[tuple[int, str]]:
    for found in RULE["boxed"].finditer(text):
        yield found.start(), RULE["markup"].sub("", RULE["tex"].sub("", found["box"] or found["tag"] or "")).strip()


def _whole(text: str, options: _Options) -> Iterator[_Found]:
    """The answer is nothing but an option."""
    form = _compact(RULE["markup"].sub("", text).strip())
    yield from ((0, index) for index, option in enumerate(options.forms) if form == option and len(option) > 1)


def _stated(text: str, options: _Options) -> Iterator[_Found]:
    """`the answer is C`, `I choose C`, `C is correct`, `答案是C`, `故选C`, `C项正确`."""
    text = RULE["markup"].sub(" ", text)
    text = re.sub(r"[ \t]+", " ", text)
    places: list[tuple[int, int | None]] = []
    for kind in ("frame", "picks", "headed"):
        for found in RULE[kind].finditer(text):
            chosen = _slot(text[found.end() :], options)
            if chosen is not NOTHING and not _taken_back(text, found.end()):
                places.append((found.start(), chosen))
    for kind in ("letter_right", "letter_right_zh"):
        for found in RULE[kind].finditer(text):
            index = options.letter(found["letter"])
            said = found["text"] or ""
            stated = options.begins(said.lstrip(" .:()"))
            denied = not stated and RULE["denies"].search(said)
            word = re.search(r"\w+ $", text[: found.start("letter")])
            if word and any(_compact(word[0] + found["letter"]) in form for form in options.forms):
                continue  # amphotericin B is correct
            if RULE["named_letter"].search(text[: found.start("letter")]):
                continue
            if index is None or denied or _taken_back(text, found.start()):
                continue
            places.append((found.start(), index if not stated or index in stated else None))
    for found in RULE["right"].finditer(text):
        line = text[: found.start()].splitlines()[-1] if text[: found.start()].strip() else ""
        named = options.ends(line)
        if named and not _taken_back(text, found.start() - len(options.texts[named[0]])):
            places.append((found.start(), named[0] if len(named) == 1 else None))
    yield from sorted(places, key=lambda place: place[0])


def _marked(text: str, options: _Options) -> Iterator[_Found]:
    """Options with a mark each, one of them as the right one."""
    marks = list(RULE["marked"].finditer(RULE["markup"].sub("", text)))
    right = [found for found in marks if found["yes"]]
    if len({found["letter"] for found in marks}) == len(options.texts):
        yield marks[0].start(), options.letter(right[0]["letter"]) if len(right) == 1 else None


def _opening(text: str, options: _Options) -> Iterator[_Found]:
    """The answer begins with its option, as a letter with a mark or as the text."""
    first = next((line.strip() for line in RULE["markup"].sub("", text).splitlines() if line.strip()), "")
    if _echoes(text, options):
        yield 0, None
        return
    if len(_compact(text)) == 1 and (index := options.letter(_compact(text))) is not None and _compact(text).isalpha():
        yield 0, None if "?" in text else index
        return
    if RULE["begins"].match(first) or options.begins(first):
        chosen = _slot(first, options)
        if chosen is not NOTHING:
            yield 0, chosen


def _slot(said: str, options: _Options, alone: bool = False) -> int | None:
    """The option that a slot holds, as letter, text or both; None where it holds two, NOTHING where it holds none."""
    said = said.strip(" \t\n\"'“”:")
    if word := RULE["option_word"].match(said):
        said = said[word.end() :]
    found = RULE["letter"].match(said) or (re.match(r"(?P<b>[A-Ja-j])\s*[.。]?\s*$", said) if alone else None)
    by_text = options.begins(said)
    if found and not (by_text and len(options.forms[by_text[0]]) > 1):
        letter = next(value for value in found.groupdict().values() if value)
        index = options.letter(letter)
        rest = said[found.end() :].lstrip(" .:：、)）]-")
        if index is None:
            return NOTHING
        also = RULE["also"].match(said[found.end() :].lstrip(")）]"))
        if also and options.letter(also["other"]) not in (None, index):
            return None
        stated = options.begins(rest)
        behind = said[found.end() :] if not stated else rest[len(options.texts[stated[0]]) :]
        if RULE["asks"].match(behind) or RULE["denied"].match(behind.lstrip(" .:：、)）]")):
            return NOTHING
        return index if not stated or index in stated else None
    if not by_text:
        return NOTHING
    beyond = said[len(options.texts[by_text[0]]) :]
    if (also_text := RULE["also_text"].match(beyond)) and options.begins(also_text["other"]):
        return None
    if RULE["asks"].match(beyond) or RULE["denied"].match(beyond):
        return NOTHING
    return by_text[0] if len(by_text) == 1 or len({options.forms[i] for i in by_text}) == 1 else None


def _taken_back(text: str, at: int) -> bool:
    """Does the clause in front of a place deny, or its sentence only suppose, what follows?"""
    sentence = re.split(r"[.;!?。；！？\n]|(?=本题|此题|这里)", text[: max(0, at)])[-1]
    return bool(RULE["denies"].search(RULE["not_but"].sub("", _clause(text, at))) or RULE["unreal"].search(sentence))


def _echoes(text: str, options: _Options) -> bool:
    """Does the answer only begin by writing down all options in their order?"""
    lines = [line.strip() for line in RULE["markup"].sub("", text).splitlines() if line.strip()][: len(options.texts)]
    letters = [found[1].upper() for line in lines if (found := re.match(r"[(\[]?([A-Ja-j])[)\].:、]", line))]
    return len(letters) > 1 and letters == [chr(ord("A") + place) for place in range(len(options.texts))]


def _clause(text: str, at: int) -> str:
    """The part of its clause in front of a place."""
    return re.split(r"[.,;!?。，；！？\n]", text[: max(0, at)])[-1]
