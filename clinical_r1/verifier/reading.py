"""What an answer states: a conclusion in its line, its opening or its headings, or nothing that rules can read.

Rules say *asserted* or nothing. An answer asserts the reference where its conclusion line, or a sentence of a known
plain form (`strong`, `weak`), names it and goes on only with a reason, a contrast or nothing
(`_tail_stands`), and no other sentence takes that back, doubts it or puts another diagnosis beside it (`_objects`).
To an open question it may also answer in the question's own words (`echo`). What is written in any other way is not
wrong: it is `undecided`, and a judge's to read. The rules are in `wordings.yaml`; all works on `plain` text.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

from clinical_r1.lexicon import wordings
from clinical_r1.reasoning import conclusion_line
from clinical_r1.text import HAN, has_han
from clinical_r1.verifier import echo
from clinical_r1.verifier.normalise import normalise, plain, words

RULE = wordings(Path(__file__).with_name("wordings.yaml"))
Finding = Literal["asserted", "empty", "other", "undecided"]
Matches = Callable[[str], str]
"""Says why a phrase is the reference (`equal`, `synonym`, ...), or "" where it is not."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer states of the reference."""

    finding: Finding
    reason: str = ""
    """Of `asserted`: why the name matched; of `undecided`: what could not be read."""
    said: str = ""
    """Of `other`: the one name that the answer plainly concludes."""


@dataclass(frozen=True, slots=True)
class _Sentence:
    text: str
    item: bool
    asks: bool
    bare: bool
    """A short line of its own that says nothing: in a list without bullets, another diagnosis."""


def read(answer: str, matches: Matches, question: str = "", another: Callable[[str], bool] | None = None) -> Reading:
    """Read an answer against one reference, given as the function that recognises it; `another` knows where a text
    names a disease that the reference surely is not."""
    text = RULE["wrapped"].sub(r"\n\1\n", RULE["struck"].sub("\n", plain(answer)))
    line = conclusion_line(text)
    text = RULE["markup"].sub("", text).strip()
    if not normalise(text):
        return Reading("empty")
    if RULE["crossed"].search(text if line is None else line):
        return Reading("undecided", "crossed")
    if line is not None:
        behind = text.rpartition(RULE["markup"].sub("", line))[2]
        return _read_line(RULE["markup"].sub("", line), _sentences(behind) if behind != text else [], matches)
    if reason := matches(text.strip(" .。")):
        return Reading("undecided", "question") if "?" in text else Reading("asserted", reason)
    if RULE["no_answer"].fullmatch(text):
        return Reading("empty", "no_answer")
    sentences = _sentences(text)
    strong = _strong(sentences)
    asked = None if strong else echo.ask(question)
    if asked and (place := _echoes(sentences, asked, matches)):
        return place[1] if not _objects(sentences, {place[0]}, matches, asked) else Reading("undecided", "objection")
    stated = strong or _statements(sentences, matches)
    if not stated:
        return _assess(sentences[0], 0, matches) if len(sentences) == 1 else Reading("undecided", "no_statement")
    readings = {index: _assess(sentences[index], start, matches) for index, start in stated}
    if any(reading.finding != "asserted" for reading in readings.values()):
        other = next(iter(readings.values()))
        return other if len(sentences) == 1 else Reading("undecided", other.reason or "several")
    if _objects(sentences, set(readings), matches) or _goes_on(sentences[max(readings) + 1 :], matches, another):
        return Reading("undecided", "objection")
    return next(iter(readings.values()))


def after_frame(text: str) -> str:
    """What stands behind the first plain statement of a diagnosis (or the whole of an answer without one), up to the
    end of its paragraph; a list that begins there is whole."""
    text = RULE["markup"].sub("", RULE["struck"].sub("", text)).strip()
    frame = RULE["strong"].search(text) or RULE["weak"].match(text)
    rest = text[frame.end() :].strip() if frame else text
    lines = [line for line in rest.splitlines() if line.strip()]
    count = next((n for n, line in enumerate(lines) if not RULE["bullet"].match(line)), len(lines))
    if count:
        return "\n".join(lines[:count])
    first = lines[0] if lines else ""
    end = RULE["end"].search(first)
    if end is None:
        return first
    return first[: end.end() if "?" in end.group() else end.start()]  # a question stays one


def _read_line(line: str, behind: list[_Sentence], matches: Matches) -> Reading:
    """The conclusion line: with it, the verdict is about it alone, unless what stands behind it concludes again or
    takes it back."""
    items = [RULE["bullet"].sub("", part).strip() for part in line.splitlines() if part.strip()]
    if len(items) != 1:
        return Reading("undecided", "several")
    kinds = ("strong", "retracts", "back", "beside")
    if any(RULE["turn"].match(s.text) or any(RULE[kind].search(s.text) for kind in kinds) for s in behind):
        return Reading("undecided", "objection")
    return _assess(_Sentence(items[0], False, "?" in items[0], False), 0, matches)


def _sentences(text: str) -> list[_Sentence]:
    """Sentences in order; a heading such as `Diagnosis:` joins what follows it."""
    found: list[_Sentence] = []
    for line in text.splitlines():
        item = bool(RULE["bullet"].match(line))
        rest = RULE["bullet"].sub("", line)
        while rest:
            end = RULE["end"].search(rest)
            part, mark = (rest[: end.start()], end.group()) if end else (rest, "")
            rest = rest[end.end() :] if end else ""
            if not part.strip():
                continue
            asks = "?" in mark or "？" in mark
            if found and found[-1].text.endswith((":", "=")):
                heading = found.pop()
                part, item, asks = f"{heading.text} {part.strip()}", heading.item or item, heading.asks or asks
            elif not mark and any(RULE[name].fullmatch(part.strip()) for name in ("heading", "section")):
                part += ":"
            bare = part == line and not mark and not RULE["verb"].search(part) and len(part) <= 60
            found.append(_Sentence(part.strip(), item, asks, bare))
    return found


def _strong(sentences: list[_Sentence]) -> list[tuple[int, int]]:
    """(index, start of the name) of the sentences that conclude in so many words; if some say `finally`, from it on."""
    strong = [(i, found[-1].end()) for i, s in enumerate(sentences) if (found := list(RULE["strong"].finditer(s.text)))]
    strong = [
        (i, e) for i, e in strong if normalise(said := sentences[i].text[e:]) and not RULE["reasoned"].match(said)
    ]
    last = [(i, end) for i, end in strong if RULE["closes"].search(sentences[i].text)]
    return strong if not last else [pair for pair in strong if pair[0] >= last[0][0]]


def _statements(sentences: list[_Sentence], matches: Matches) -> list[tuple[int, int]]:
    """(index, start of the name) of the sentence that states a diagnosis less expressly: the opening, else another."""
    if weak := list(RULE["weak"].finditer(sentences[0].text)):
        return [(0, weak[-1].end())]
    opener = RULE["openers"].match(sentences[0].text)
    opened = opener.end() if opener else 0
    lead = RULE["lead"].match(sentences[0].text, opened)
    for start in (opened, lead.end() if lead else opened):
        if _name(sentences[0].text[start:], matches)[0]:
            return [(0, start)]
    for index, sentence in enumerate(sentences[1:], 1):
        if (weak := list(RULE["weak"].finditer(sentence.text))) and _name(sentence.text[weak[-1].end() :], matches)[0]:
            return [(index, weak[-1].end())]
    return []


def _echoes(sentences: list[_Sentence], asked: echo.Question, matches: Matches) -> tuple[int, Reading] | None:
    """The first or last sentence that answers in the question's words with the reference, where no other sentence
    answers it with something else."""
    read = [(place, reason) for place, s in enumerate(sentences) if (reason := _echo(s, asked, matches))]
    if not read:
        return None
    others = [s.text for place, s in enumerate(sentences) if place not in [found for found, _ in read]]
    if any(echo.also_says(text, asked, lambda said: _name(_bare(said), matches)[0] is not None) for text in others):
        return None
    return read[-1][0], Reading("asserted", read[-1][1])


def _echo(sentence: _Sentence, asked: echo.Question, matches: Matches) -> str:
    """Why a sentence answers the question with the reference; "" where it does not plainly."""
    if sentence.asks:
        return ""

    def named(phrase: str) -> str:
        """As `matches`, also with what is asked for behind the name (`the maintenance stage`)."""
        rest, _, last = phrase.rpartition(" ")
        return matches(phrase) or (matches(rest) if rest and asked.head.issuperset(words(last)) else "")

    for said, tail in echo.claims(sentence.text, asked):
        said = _bare(said)
        if tail is None:
            name, reason = _name(said, named)
            if name is not None and _tail_stands(said[len(name) :], matches, False, name):
                return reason
        elif reason := named(said):
            return reason if _tail_stands(tail, matches, False) else ""
    return ""


def _bare(said: str) -> str:
    """What is named, without its article, quotes and full stop."""
    lead = RULE["article"].match(said)
    return (said[lead.end() :] if lead else said).rstrip(" .。\"'”」』")


def _assess(sentence: _Sentence, start: int, matches: Matches) -> Reading:
    """One statement: is what stands after its frame the reference, alone and affirmed?"""
    before, said = sentence.text[:start], _bare(sentence.text[start:])
    if sentence.asks or RULE["hypothetical"].search(before) or len(list(RULE["strong"].finditer(before))) > 1:
        return Reading("undecided", "doubt")
    name, reason = _name(said, matches)
    opens = not before or before.rstrip().endswith((":", "："))
    if name is None and opens and (frame := RULE["weak"].match(sentence.text, start)):
        said = _bare(sentence.text[frame.end() :])  # `Conclusion: this is ...`
        name, reason = _name(said, matches)
    if name is not None:
        first = RULE["openers"].fullmatch(RULE["lead"].sub("", before)) is not None
        stands = _tail_stands(said[len(name) :], matches, first, name)
        return Reading("asserted", reason) if stands else Reading("undecided", "tail")
    if not RULE["against"].search(said) and not re.search(r"[、/,，;；+&?]|\b(?:and|or|versus|vs)\b|或|和|及|与", said):
        return Reading("other", said=said)
    return Reading("undecided", "different")


_CAN_END = re.compile(
    r"[,，;；]|\s(?:is|remains|seems|fits|best|explains|because|since|given|based|considering|supported|in|as"
    r"|not|rather|instead|with|on|which)\b"
    r"|\s[-–:]\s|[:：]|[(（]|而|因|由于|基于|依据|根据|可能性|的可能性|诊断|最|不是|并非"
)


def _name(said: str, matches: Matches) -> tuple[str | None, str]:
    """The beginning of `said` that is the reference: all of it, or up to a place where a name can end."""
    if reason := matches(said):
        return said, reason
    for end in sorted({found.start() for found in _CAN_END.finditer(said)}, reverse=True):
        name = said[:end].strip()
        if name and not re.search(r"[,，;；]", name) and (reason := matches(name)):
            return said[:end], reason
    return None, ""


def _tail_stands(tail: str, matches: Matches, first: bool, name: str = "") -> bool:
    """Does what follows the name within its sentence leave it standing? Only known forms do."""
    tail = tail.strip(" .。)）")
    if not tail:
        return True
    if found := RULE["settled"].match(tail):
        return _tail_stands(tail[found.end() :], matches, False) if first or has_han(found.group()) else False
    if found := RULE["also_called"].match(tail):
        alias = set(normalise(found[1]).split())
        kin = alias & set(normalise(name).split()) and not any(word.isdigit() for word in alias)
        stands = bool(kin) and not RULE["against"].search(found.group())
        return stands and _tail_stands(tail[found.end() :], matches, False)
    if found := RULE["contrast"].match(tail):
        other = next(text for text in found.groups() if text)
        stands = not matches(other.strip()) and not RULE["unsettled_contrast"].search(other)
        return stands and _tail_stands(tail[found.end() :], matches, False)
    if RULE["because"].match(tail):
        return not RULE["unsure_reason"].search(tail)
    return bool(RULE["shows_finding"].match(tail)) and not RULE["unsure"].search(tail)


def _objects(
    sentences: list[_Sentence], stated: set[int], matches: Matches, asked: echo.Question | None = None
) -> bool:
    """Does anything beside the statements deny, doubt or retract them, or put another diagnosis beside them?"""
    first, last = min(stated), max(stated)
    closed = len(stated) == 1 and RULE["closes"].search(sentences[last].text)
    following = sentences[last + 1] if last + 1 < len(sentences) else None
    listed = following and (following.bare or (following.item and sentences[last].item))
    if following and listed and not RULE["section"].search(following.text):
        return True
    for index, sentence in enumerate(sentences):
        if index in stated or (closed and index < first):
            continue  # what stands before a closing sentence was weighed
        text, after = sentence.text, index > last
        for clause in re.split(r"[,;:，；：]", text):
            opposed = RULE["against"].search(clause) and _mentions(clause, matches)
            if opposed and not (asked and echo.denies_as_asked(clause, asked)):
                return True
        if after and any(RULE[rule].search(text) for rule in ("retracts", "beside")):
            return True
        if after and (RULE["turn"].match(text) or _short(sentence, matches)):
            return True
        if after and RULE["back"].search(text) and not (asked and echo.denies_of(text, asked)):
            return True
        # Beside an answer in the question's words: a list, a turn, a short word of another answer.
        if asked and (sentence.item or RULE["another"].search(text) or (after and RULE["however"].match(text))):
            return True
    return False


def _goes_on(after: list[_Sentence], matches: Matches, another: Callable[[str], bool] | None) -> bool:
    """Does what follows a conclusion tell of something else that came out, or affirm another disease?"""
    for text in (sentence.text for sentence in after):
        if RULE["revises"].search(text) and not _mentions(text, matches):
            return True
        told = any(RULE[name].search(text) for name in ("against", "weighs", "of_it"))
        if another and not told and another(text):
            return True
    return False


def _short(sentence: _Sentence, matches: Matches) -> bool:
    """A short English sentence behind the conclusion that does not name it again: too easily another answer, or a word
    that takes it back, in more wordings than can be listed."""
    count = len(re.findall(r"[A-Za-z]+", sentence.text))
    return (
        count < 8
        and not any(RULE[name].fullmatch(sentence.text) for name in ("supports_this", "denies_other"))
        and not RULE["section"].search(sentence.text)
        and not has_han(sentence.text)
        and not _mentions(sentence.text, matches)
    )


def _mentions(clause: str, matches: Matches) -> bool:
    """Does the reference stand somewhere in the clause (any run of words, or of characters in Chinese)?"""
    latin = re.findall(r"[A-Za-z0-9'-]+", clause)[:40]
    spans = (" ".join(latin[i:j]) for i in range(len(latin)) for j in range(i + 1, min(i + 7, len(latin) + 1)))
    runs = re.findall(f"[{HAN}0-9A-Za-z-]+", clause) if has_han(clause) else []
    pieces = (run[i:j] for run in runs for i in range(len(run)) for j in range(i + 2, min(i + 17, len(run) + 1)))
    return any(matches(span) for span in chain(spans, pieces))
