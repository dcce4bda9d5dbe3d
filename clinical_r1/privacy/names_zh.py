"""Chinese names: who is spoken of on the left, a string that can be a name, what a person does on the right.

A surname's character alone says nothing (金黄, 石膏, 高热): a candidate needs a cue, and a word of prose or the clinic
is a name only where a title or `，女，5岁` stands behind it. The cues are in `names_zh.yaml`.
"""

import re
from collections.abc import Iterator
from functools import cache

from clinical_r1.privacy.lexicon import chinese, rules
from clinical_r1.privacy.spans import Span
from clinical_r1.text import HAN_CHARACTER as _H
from clinical_r1.text import has_han

RULE, EACH, WORDS = rules("names_zh")


def find_names_zh(text: str) -> Iterator[Span]:
    """Chinese names in folded text."""
    if not has_han(text):
        return
    found = list(_han_names(text))
    yield from found
    yield from _beside(text, found)
    dropped = {index for match in RULE["spaced"].finditer(text) for index in range(*match.span())}
    if dropped:  # `林 海 燕`: once more without the spaces between the characters
        kept = [index for index in range(len(text)) if index not in dropped]
        for span in _han_names("".join(text[index] for index in kept)):
            start, end = kept[span.start], kept[span.end - 1] + 1
            if RULE["apart"].fullmatch(text, start, end):
                yield Span(start, end)


def _beside(text: str, found: list[Span]) -> Iterator[Span]:
    """Names beside a name: `签名：李华/王明`, `由赵敏、李雷陪同`."""
    for group in RULE["together"].finditer(text):
        for one in re.finditer(rf"{_H}+", group["v"]):
            if _is_full_name(one.group()):
                yield Span(group.start("v") + one.start(), group.start("v") + one.end())
    for span in found:
        position = span.end
        while match := RULE["next"].match(text, position):
            if not _is_full_name(match["v"], all_typical=match["by"] in "，,"):
                break
            yield Span(match.start("v"), match.end("v"))
            position = match.end()
        offset = max(0, span.start - 8)
        before = RULE["previous"].search(text[offset : span.start])
        if before and _is_full_name(before["v"], all_typical=True):
            yield Span(offset + before.start("v"), offset + before.end("v"))


def _is_full_name(value: str, all_typical: bool = False) -> bool:
    """A surname that is seldom a word, and a given name; no word of prose or of the clinic."""
    lists = chinese()
    typical = sum(char in lists.given for char in value[1:])
    return (
        value[0] in lists.surnames - lists.rare
        and typical >= (len(value) - 1 if all_typical else 1)
        and not _wordy(value)
        and not RULE["etym"].search(value[1:])
    )


def _wordy(value: str) -> bool:
    """Is it a word, or does it begin with one?"""
    words = chinese().words
    return value in words or (len(value) > 2 and value[:2] in words and value[:2] not in chinese().wordlike)


def _han_names(text: str) -> Iterator[Span]:
    lists = chinese()
    yield from _labelled(text)
    for match in RULE["speaker"].finditer(text):  # in a dialogue: `王建国：我最近咳嗽`
        if _is_full_name(match["v"]) or match["v"][:2] in lists.compound:
            yield Span(match.start("v"), match.end("v"))
    for match in (*RULE["nick"].finditer(text), *RULE["ordinal"].finditer(text)):
        group = "w" if match.groupdict().get("w") else "v"
        surname = match["s"] if group == "v" else match["t"]
        if surname is None or surname in lists.surnames - lists.rare:
            yield Span(match.start(group), match.end(group))
    for _, pattern in EACH["pet_names"]:
        for match in pattern.finditer(text):
            yield Span(match.start("v"), match.end("v"))
    for match in RULE["dotted"].finditer(text):
        if not RULE["eponym"].search(text[match.end() : match.end() + 4] + match["v"][-3:]):
            yield Span(match.start("v"), match.end("v"))
    for match in RULE["people_of"].finditer(text):
        if match["v"] not in lists.words and not RULE["etym"].search(match["v"][1:]):
            yield Span(match.start("v"), match.end("v"))
    position = 0
    while surnamed := _surname().search(
        text, position
    ):  # with a cue before or behind it; a find ends the search inside
        end = _name_end(text, surnamed)
        if end:
            yield Span(surnamed.start(), end)
        position = end or surnamed.start() + 1
    yield from _minority(text)


def _labelled(text: str) -> Iterator[Span]:
    """What fills a field for a name or a signature is a name, with or without a listed surname."""
    lists = chinese()
    for match in RULE["field"].finditer(text):
        value = re.sub(r"\s", "", match["v"])
        label = match.group()[: match.start("v") - match.start()].strip()
        if RULE["nobody"].match(value) or RULE["said"].search(value):
            continue
        if match["bare"] and not (len(value) <= 4 and _is_full_name(value)):
            continue
        surname = value[0] in lists.surnames or value[:2] in lists.compound or any(s in value for s in lists.minority)
        if (
            (RULE["signed"].search(label) and len(value) <= 4 and value not in lists.words)
            or (surname and len(value) <= 8 and not _wordy(value))
            or "·" in value
        ):
            yield Span(match.start("v"), match.end("v"))


@cache
def _surname() -> re.Pattern[str]:
    lists = chinese()
    return re.compile(rf"(?:{'|'.join(sorted(lists.compound))}|[{''.join(sorted(lists.surnames))}])")


def _left_of(text: str, start: int) -> tuple[bool, bool, bool]:
    """The cues before a place: it opens a clause; it is surely spoken of somebody; it may be."""
    left = text[max(0, start - 8) : start]
    opening, strong, weak = (bool(RULE[rule].search(left)) for rule in ("open", "left_strong", "left_weak"))
    return opening, strong, weak


def _right_of(text: str, end: int) -> tuple[bool, bool, bool]:
    """The cues behind a place: what only a person has; what persons do or have; the end of a clause."""
    right = text[end : end + 12]
    very, does, ends = (bool(RULE[rule].match(right)) for rule in ("very", "right", "ends"))
    return very, does, ends


def _name_end(text: str, match: re.Match[str]) -> int:
    """End of the name that begins with this surname, 0 where it begins none."""
    start, surname = match.start(), match.group()
    left = text[max(0, start - 8) : start]
    opening, strong, weak = _left_of(text, start)
    if strong and not opening and RULE["staff_left"].search(left) and RULE["staff_does"].match(text[start : start + 3]):
        return 0
    if RULE["latin_title"].search(left):
        given = RULE["latin_given"].match(text, match.end())
        return given.end() if given else 0
    if not (opening or strong or weak):
        return 0
    best = 0
    for length in (3, 2, 1):
        end = match.end() + length
        fits = re.fullmatch(rf"{_H}{{{length}}}", text[match.end() : end]) and _accepts(text, start, end, surname)
        if fits and (not best or RULE["very"].match(text[end : end + 12])):
            best = end
    if best:
        return best
    titled = RULE["titled"].match(text[match.end() : match.end() + 5])
    if titled and (strong or surname not in chinese().rare) and not _crosses(text, start, match.end()):
        return match.end()
    spaced = RULE["given_apart"].match(text, match.end()) if strong and re.search(r"[:：]\s?$", left) else None
    return spaced.end() if spaced else 0


def _accepts(text: str, start: int, end: int, surname: str) -> bool:
    """Do the cues around `text[start:end]` outweigh what speaks against a name?"""
    (opening, strong, weak), (very, does, ends) = _left_of(text, start), _right_of(text, end)
    lists = chinese()
    name, given, right = text[start:end], text[start + len(surname) : end], text[end : end + 12]
    typical, rare = sum(char in lists.given for char in given), surname in lists.rare
    all_typical = typical == len(given)
    if len(given) == 3 and len(surname) == 1 and not (given[0] in lists.surnames and typical >= 2 and very):
        return False
    titled = bool(RULE["titled"].match(right))
    if name in lists.wordlike and (very or name not in WORDS["wordlike_seldom"]):
        if strong and (very or (does and name not in ("高兴", "平静"))):
            return True
        alone = opening and name in WORDS["wordlike_not_alone"]
        return very and (titled or opening or weak) and not alone
    polite = not rare and len(name) == 2 and RULE["polite"].match(right)
    word = name in lists.words or (len(name) > 2 and len(surname) == 1 and _wordy(name))
    if (word and not polite) or RULE["etym"].search(given):
        return False
    if len(surname) == 2:
        return strong or very or (does and not ends)
    acts = strong and all_typical and RULE["acts"].match(right)
    if _crosses_left(text, start) if very else (not acts and _crosses(text, start, end)):
        return False
    if strong:
        told = does or bool(RULE["told"].match(right))
        return very or (told and (typical > 0 or not rare)) or (ends and typical > 0 and (all_typical or not rare))
    if very:
        sole = opening and not rare and len(given) == 2 and not titled
        return sole or (typical > 0 and (all_typical or not rare or not weak))
    if weak:
        return not rare and all_typical and (does or (ends and len(given) == 2))
    opens = RULE["opens_short" if len(given) == 1 else "opens"].match(text[end : end + 30])
    return opening and does and (not rare or len(given) == 2) and all_typical and bool(opens)


def _crosses(text: str, start: int, end: int) -> bool:
    """Does a word of prose run across an edge of the candidate (`主|任医师`, `张口|`)?"""
    words = chinese().words
    for at in (end - 1, end - 2):
        if at > start and any(text[at : at + size] in words for size in (2, 3) if at + size > end):
            return True
    return _crosses_left(text, start)


def _crosses_left(text: str, start: int) -> bool:
    before = max(0, start - 1)
    return text[before : start + 1] in WORDS["across"] or text[before : start + 2] in WORDS["across"]


@cache
def _pieces() -> re.Pattern[str]:
    return re.compile("|".join(sorted(chinese().minority, key=len, reverse=True)))


def _minority(text: str) -> Iterator[Span]:
    """Names that Chinese characters spell by sound: a known piece, and around it characters that such names use."""
    for match in _pieces().finditer(text):
        start, end = match.span()
        while start and text[start - 1] in WORDS["sounds"] and match.start() - start < 5:
            start -= 1
        while end < len(text) and text[end] in WORDS["sounds"] and end - match.end() < 6:
            if RULE["does"].match(text[end : end + 4]):
                break
            end += 1
        named = end - start >= 3 and text[start:end] not in WORDS["sound_words"]
        if named and not RULE["sound_thing"].match(text[end : end + 12]):
            (opening, strong, weak), (very, does, ends) = _left_of(text, start), _right_of(text, end)
            if (strong and ends) or ((strong or opening or weak) and (very or does)):
                yield Span(start, end)


def is_person_zh(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """A Chinese model's find that reads as a person: a surname and a given name, no word, nothing of the clinic."""
    name = re.sub(r"\s", "", text[start:end])
    lists = chinese()
    surname = name[:1] in lists.surnames - lists.rare or name[:2] in lists.compound
    if surname and re.fullmatch(rf"{_H}{{2,4}}", name) and not _wordy(name) and not RULE["etym"].search(name[1:]):
        yield start, end
