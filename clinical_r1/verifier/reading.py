"""What an answer states: a conclusion in its line, its opening or its headings, or nothing that rules can read.

Rules say *asserted* or nothing. An answer asserts the reference where its conclusion line, or a sentence of a known
plain form (`frames.STRONG`, `frames.WEAK`), names it and goes on only with a reason, a contrast or nothing
(`_tail_stands`), and no other sentence takes that back, doubts it or puts another diagnosis beside it (`_objects`).
To an open question it may also answer in the question's own words (`echo`). What is written in any other way is not
wrong: it is `undecided`, and a judge's to read. The wordings are in `frames`; all works on `plain` text.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from clinical_r1.reasoning import conclusion_line
from clinical_r1.verifier import echo, frames
from clinical_r1.verifier.normalise import CJK, normalise, plain

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


def read(answer: str, matches: Matches, question: str = "") -> Reading:
    """Read an answer against one reference, given as the function that recognises it."""
    text = frames.WRAPPED.sub(r"\n\1\n", frames.STRUCK.sub("\n", plain(answer)))
    line = conclusion_line(text)
    text = frames.MARKUP.sub("", text).strip()
    if not normalise(text):
        return Reading("empty")
    if frames.CROSSED.search(text if line is None else line):
        return Reading("undecided", "crossed")
    if line is not None:
        return _read_line(frames.MARKUP.sub("", line), matches)
    if reason := matches(text.strip(" .。")):
        return Reading("undecided", "question") if "?" in text else Reading("asserted", reason)
    if frames.NO_ANSWER.fullmatch(text):
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
    if _objects(sentences, set(readings), matches):
        return Reading("undecided", "objection")
    return next(iter(readings.values()))


def after_frame(text: str) -> str:
    """What stands behind the first plain statement of a diagnosis (or the whole of an answer without one), up to the
    end of its paragraph; a list that begins there is whole."""
    text = frames.MARKUP.sub("", frames.STRUCK.sub("", text)).strip()
    frame = frames.STRONG.search(text) or frames.WEAK.match(text)
    rest = text[frame.end() :].strip() if frame else text
    lines = [line for line in rest.splitlines() if line.strip()]
    count = next((n for n, line in enumerate(lines) if not frames.BULLET.match(line)), len(lines))
    if count:
        return "\n".join(lines[:count])
    first = lines[0] if lines else ""
    end = frames.END.search(first)
    if end is None:
        return first
    return first[: end.end() if "?" in end.group() else end.start()]  # a question stays one


def _read_line(line: str, matches: Matches) -> Reading:
    """The conclusion line: with it, the verdict is about it alone."""
    items = [frames.BULLET.sub("", part).strip() for part in line.splitlines() if part.strip()]
    if len(items) != 1:
        return Reading("undecided", "several")
    return _assess(_Sentence(items[0], False, "?" in items[0], False), 0, matches)


def _sentences(text: str) -> list[_Sentence]:
    """Sentences in order; a heading such as `Diagnosis:` joins what follows it."""
    found: list[_Sentence] = []
    for line in text.splitlines():
        item = bool(frames.BULLET.match(line))
        rest = frames.BULLET.sub("", line)
        while rest:
            end = frames.END.search(rest)
            part, mark = (rest[: end.start()], end.group()) if end else (rest, "")
            rest = rest[end.end() :] if end else ""
            if not part.strip():
                continue
            asks = "?" in mark or "？" in mark
            if found and found[-1].text.endswith((":", "=")):
                heading = found.pop()
                part, item, asks = f"{heading.text} {part.strip()}", heading.item or item, heading.asks or asks
            elif frames.HEADING.fullmatch(part.strip()) and not mark:
                part += ":"
            bare = part == line and not mark and not frames.VERB.search(part) and len(part) <= 60
            found.append(_Sentence(part.strip(), item, asks, bare))
    return found


def _strong(sentences: list[_Sentence]) -> list[tuple[int, int]]:
    """(index, start of the name) of the sentences that conclude in so many words; if some say `finally`, from it on."""
    strong = [(i, found[-1].end()) for i, s in enumerate(sentences) if (found := list(frames.STRONG.finditer(s.text)))]
    strong = [(i, end) for i, end in strong if normalise(sentences[i].text[end:])]
    last = [(i, end) for i, end in strong if frames.CLOSES.search(sentences[i].text)]
    return strong if not last else [pair for pair in strong if pair[0] >= last[0][0]]


def _statements(sentences: list[_Sentence], matches: Matches) -> list[tuple[int, int]]:
    """(index, start of the name) of the sentence that states a diagnosis less expressly: the opening, else another."""
    if weak := list(frames.WEAK.finditer(sentences[0].text)):
        return [(0, weak[-1].end())]
    opener = re.match(frames.OPENERS, sentences[0].text, re.I)
    if _name(sentences[0].text[opener.end() if opener else 0 :], matches)[0]:
        return [(0, opener.end() if opener else 0)]
    for index, sentence in enumerate(sentences[1:], 1):
        if (weak := list(frames.WEAK.finditer(sentence.text))) and _name(sentence.text[weak[-1].end() :], matches)[0]:
            return [(index, weak[-1].end())]
    return []


def _echoes(sentences: list[_Sentence], asked: echo.Question, matches: Matches) -> tuple[int, Reading] | None:
    """The opening or closing sentence that answers in the question's words with the reference, where no other sentence
    answers it with something else."""
    last = len(sentences) - 1
    places = [0, last] if frames.CLOSES.search(sentences[last].text) else [0]
    read = [(place, reason) for place in places if (reason := _echo(sentences[place], asked, matches))]
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
    for start, form in echo.statements(sentence.text, asked):
        said = _bare(sentence.text[start:])
        if form == "is":
            name, reason = _name(said, matches)
            if name is not None and _tail_stands(said[len(name) :], matches, False, name):
                return reason
            continue
        for copula in re.finditer(r"\s(?=(?:is|are|can|cannot|would be|does|do)\b)", said):
            tail = said[copula.start() :]
            if (reason := matches(said[: copula.start()])) and (end := echo.predicate_end(tail, asked)) is not None:
                return reason if _tail_stands(tail[end:], matches, False) else ""
    return ""


def _bare(said: str) -> str:
    """What is named, without its article, quotes and full stop."""
    lead = frames.ARTICLE.match(said)
    return (said[lead.end() :] if lead else said).rstrip(" .。\"'”」』")


def _assess(sentence: _Sentence, start: int, matches: Matches) -> Reading:
    """One statement: is what stands after its frame the reference, alone and affirmed?"""
    before, said = sentence.text[:start], sentence.text[start:]
    said = _bare(said)
    if sentence.asks or frames.HYPOTHETICAL.search(before) or len(list(frames.STRONG.finditer(before))) > 1:
        return Reading("undecided", "doubt")
    name, reason = _name(said, matches)
    if name is not None:
        return (
            Reading("asserted", reason)
            if _tail_stands(
                said[len(name) :], matches, not before.strip() or bool(re.fullmatch(frames.OPENERS, before, re.I)), name
            )
            else Reading("undecided", "tail")
        )
    if not frames.AGAINST.search(said) and not re.search(r"[、/,，;；+&?]|\b(?:and|or|versus|vs)\b|或|和|及|与", said):
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
    if found := frames.SETTLED.match(tail):
        return _tail_stands(tail[found.end() :], matches, False) if first or CJK.search(found.group()) else False
    if found := frames.ALSO_CALLED.match(tail):
        alias = set(normalise(found[1]).split())
        kin = alias & set(normalise(name).split()) and not any(word.isdigit() for word in alias)
        stands = bool(kin) and not frames.AGAINST.search(found.group())
        return stands and _tail_stands(tail[found.end() :], matches, False)
    if found := frames.CONTRAST.match(tail):
        other = next(text for text in found.groups() if text)
        stands = not matches(other.strip()) and not frames.UNSETTLED_CONTRAST.search(other)
        return stands and _tail_stands(tail[found.end() :], matches, False)
    if frames.BECAUSE.match(tail):
        return not frames.UNSURE_REASON.search(tail)
    return bool(frames.SHOWS_FINDING.match(tail)) and not frames.UNSURE.search(tail)


def _objects(
    sentences: list[_Sentence], stated: set[int], matches: Matches, asked: echo.Question | None = None
) -> bool:
    """Does anything beside the statements deny, doubt or retract them, or put another diagnosis beside them?"""
    last = max(stated)
    following = sentences[last + 1] if last + 1 < len(sentences) else None
    if following and (following.bare or (following.item and sentences[last].item)):
        return True
    for index, sentence in enumerate(sentences):
        if index in stated:
            continue
        clauses = re.split(r"[,;:，；：]", sentence.text)
        if any(
            frames.AGAINST.search(clause)
            and _mentions(clause, matches)
            and not (asked and echo.denies_as_asked(clause, asked))
            for clause in clauses
        ):
            return True
        if index > last and (frames.RETRACTS.search(sentence.text) or _short(sentence, matches)):
            return True
        if asked and _elsewhere(sentence, index > last):
            return True
        if index > last and (
            frames.TURN.match(sentence.text) or frames.BACK.search(sentence.text) or frames.BESIDE.search(sentence.text)
        ):
            return True
    return False


def _short(sentence: _Sentence, matches: Matches) -> bool:
    """A short English sentence behind the conclusion that does not name it again: too easily another answer, or a word
    that takes it back, in more wordings than can be listed."""
    count = len(re.findall(r"[A-Za-z]+", sentence.text))
    return (
        count < 8
        and not frames.SUPPORTS_THIS.fullmatch(sentence.text)
        and not CJK.search(sentence.text)
        and not _mentions(sentence.text, matches)
    )


def _elsewhere(sentence: _Sentence, after: bool) -> bool:
    """Beside an answer in the question's words: a list, a turn, a short word of another answer."""
    return (
        sentence.item
        or bool(frames.ANOTHER.search(sentence.text))
        or (after and bool(frames.HOWEVER.match(sentence.text)))
    )


def _mentions(clause: str, matches: Matches) -> bool:
    """Does the reference stand somewhere in the clause (any run of words, or of characters in Chinese)?"""
    tokens = re.findall(r"[A-Za-z0-9'-]+", clause)[:40]
    if any(
        matches(" ".join(tokens[i:j])) for i in range(len(tokens)) for j in range(i + 1, min(i + 7, len(tokens) + 1))
    ):
        return True
    runs = re.findall(r"[\u3400-\u4dbf\u4e00-\u9fff0-9A-Za-z-]+", clause) if CJK.search(clause) else []
    return any(
        matches(run[i:j]) for run in runs for i in range(len(run)) for j in range(i + 2, min(i + 17, len(run) + 1))
    )
