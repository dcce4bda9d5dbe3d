"""Thinking, one truth for all: render, split (incrementally), outcome, count; and the line in which a response states
its conclusion. No torch.

Rewards, evaluation and the serving gateway all use this file, so that "did it think?" means the same everywhere. What
we train is one leading block and an answer, `THINK`::

    <think>
    thinking
    </think>

    response

Others mark their thoughts otherwise: a row of `dialects.yaml` says how, and `recognise.py` which row applies.
"""

import codecs
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

from clinical_r1.dialects import CLOSE, OPEN, THINK, Dialect, Kind, opened_form


class Outcome(StrEnum):
    """What became of one output; the one enum of rewards, evaluation and metrics."""

    OK = "ok"
    """One leading closed thought that is not blank (or one whose text the endpoint keeps back), then an answer."""
    NO_THINK = "no_think"
    """An answer without any sign of a thought."""
    EMPTY_THINK = "empty_think"
    """A closed but blank block, then an answer."""
    UNCLOSED = "unclosed"
    """The output ended inside a thought."""
    CUT_THOUGHT = "cut_thought"
    """The thought reached its budget, was closed from outside and the answer asked for."""
    NO_ANSWER = "no_answer"
    """Nothing but whitespace outside of the thought."""
    MULTIPLE = "multiple"
    """More than one block, a stray tag, or text in front of the block."""
    UNKNOWN_FORM = "unknown_form"
    """A thought is marked in a way that no dialect knows: what the answer is cannot be said, so nobody judges it."""
    REFUSED = "refused"
    """The endpoint would not answer: its content filter, or a refusal that it declares as one."""
    ABORTED = "aborted"
    """The output was cut off from outside (disconnect, upstream death, time-out, shutdown)."""


UNREADABLE = frozenset({Outcome.UNKNOWN_FORM, Outcome.REFUSED})
"""Outcomes that say nothing about whether the model's answer is right: counted and shown, never judged."""

REASONED = frozenset({Outcome.OK, Outcome.CUT_THOUGHT})
"""Outcomes of a thought that is closed, by the model or at its budget, and an answer behind it."""


def render(thinking: str, response: str) -> str:
    """The training target and the form that a served model produces."""
    return f"{OPEN}\n{thinking.strip()}\n{CLOSE}\n\n{response.strip()}"


Part = Literal["thinking", "answer"]


class Piece(NamedTuple):
    """A stretch of output that belongs to one part."""

    part: Part
    text: str


@dataclass(frozen=True)
class Split:
    """An output taken apart; thinking and response are stripped of surrounding whitespace."""

    thinking: str
    response: str
    outcome: Outcome


class Splitter:
    """Incremental splitter: feed text in any portions, get pieces; their concatenation does not depend on the portions.

    Whitespace at the edges of a part is dropped (a run is held back until something follows it), and a possible
    beginning of a marker is held back until it is decided. `feed_bytes` takes UTF-8 cut anywhere.
    """

    def __init__(self, opened: bool = False, dialect: Dialect = THINK) -> None:
        self.dialect = opened_form(dialect) if opened else dialect
        self._inside = self.dialect.opened
        self._held = ""
        self._space = ""
        self._before = "\n"  # the character in front of the held ones
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._parts: dict[Part, list[str]] = {"thinking": [], "answer": []}
        self._opens = int(self._inside)
        self._closes = 0
        self._irregular = False
        self._fresh = True  # no visible text yet in the current part
        self._opening = ""  # the marker that began the current thought; empty where the prompt holds it
        self._cut = False
        self._done = 0  # characters taken in, without the held ones
        self._thought_from = 0
        self.thought_spans: list[tuple[int, int]] = []
        """Closed thoughts as [start, end) in characters of everything fed, tags excluded; `finish` closes the last."""
        self.tag_spans: list[tuple[int, int]] = []
        """The markers themselves, in the same measure."""

    @property
    def part(self) -> Part:
        """The part that the next character belongs to (unless it completes a tag)."""
        return "thinking" if self._inside else "answer"

    @property
    def undecided(self) -> bool:
        """What came last may be the beginning of a marker."""
        return bool(self._held)

    def feed_bytes(self, data: bytes) -> list[Piece]:
        """As `feed`, for UTF-8 bytes cut at any place."""
        return self.feed(self._decoder.decode(data))

    def feed(self, text: str) -> list[Piece]:
        """Take the next portion of text; return the pieces that are now certain."""
        return self._take(text, last=False)

    def close(self) -> tuple[str, list[Piece]]:
        """Close the thought from outside, as one that has reached its budget: (the text that did it, after which the
        answer has to be asked for; the last pieces). The text counts as a marker, whitespace and all."""
        text, begins = self.dialect.closing(self._opening), self._done + len(self._held)
        if (self._space + self._held).endswith("\n"):
            text = text.removeprefix("\n")
        self._cut = True
        pieces = self.feed(text)
        self.thought_spans = [(start, min(end, begins)) for start, end in self.thought_spans if start <= begins]
        self.tag_spans = [span for span in self.tag_spans if span[0] < begins] + [(begins, begins + len(text))]
        return text, pieces

    def finish(self, aborted: bool = False) -> tuple[list[Piece], Split]:
        """End of the output: the last pieces, and the whole. Call once."""
        pieces = self._take(self._decoder.decode(b"", final=True), last=True)
        if self._inside:
            self.thought_spans.append((self._thought_from, self._done))
        thinking, response = ("".join(self._parts[part]) for part in ("thinking", "answer"))
        return pieces, Split(thinking, response, self._outcome(thinking, response, aborted))

    def _take(self, text: str, last: bool) -> list[Piece]:
        text = self._held + text
        folded = self.dialect.fold(text)
        pieces: list[Piece] = []
        start = 0
        for at, end, kind in self._markers(folded, last):
            if not self._counts(folded, at, kind):
                continue
            self._emit(text[start:at], pieces)
            if kind == "open":
                self._opening = text[at:end]
            self._mark(kind, self._done + at, self._done + end)
            start = end
        stop = len(text) if last else self._safe(folded, start)
        self._emit(text[start:stop], pieces)
        self._held = text[stop:]
        self._before = text[stop - 1] if stop else self._before
        self._done += stop
        return pieces

    def _markers(self, folded: str, last: bool) -> list[tuple[int, int, Kind]]:
        """(start, end, kind) of the markers that are certain."""
        dialect, found = self.dialect, list[tuple[int, int, Kind]]()
        for match in dialect.pattern.finditer(folded):
            if not last and folded[match.start() :] in dialect.beginnings:
                break  # a longer marker may come of it
            found.append((match.start(), match.end(), dialect.kinds[match[0]]))
        if last and dialect.lines:  # the output may end with the line
            at = folded.rfind("\n") + 1
            if kind := dialect.kinds.get(folded[at:] + "\n"):
                found.append((at, len(folded), kind))
        return found

    def _safe(self, folded: str, start: int) -> int:
        """Up to where the text cannot be part of a marker that is still to come."""
        beginnings, end = self.dialect.beginnings, len(folded)
        return next((at for at in range(max(start, end - self.dialect.longest), end) if folded[at:] in beginnings), end)

    def _counts(self, folded: str, at: int, kind: Kind) -> bool:
        """Whether a marker is one here; see `Dialect.once` and `Dialect.lines`."""
        if not self.dialect.once or kind == "drop":
            return True
        if kind == "open":
            return not (self._opens or self._parts["answer"] or folded[:at].strip())
        alone = not self.dialect.lines or (folded[at - 1] if at else self._before) == "\n"
        return self._inside and alone

    def _mark(self, kind: Kind, at: int, end: int) -> None:
        if self._inside:
            self.thought_spans.append((self._thought_from, at))
        self.tag_spans.append((at, end))
        self._thought_from = end
        if kind == "drop":
            return
        again = self._inside and not self.dialect.strict  # gpt-oss thinks in several messages
        if kind == "open":
            self._irregular |= (not again and (self._inside or self._opens > 0)) or bool(self._parts["answer"])
            self._opens += 1
        else:
            self._irregular |= not self._inside and (self.dialect.name != "channels" or bool(self._parts["answer"]))
            self._closes += 1
        if not (again and kind == "open"):
            self._space = ""
            self._fresh = True
        self._inside = kind == "open"

    def _emit(self, text: str, pieces: list[Piece]) -> None:
        body = text.rstrip()
        if not body:
            self._space += "" if self._fresh else text
            return
        visible = body.lstrip() if self._fresh else self._space + body
        self._fresh = False
        self._space = text[len(body) :]
        self._parts[self.part].append(visible)
        pieces.append(Piece(self.part, visible))

    def _outcome(self, thinking: str, response: str, aborted: bool) -> Outcome:
        first_that_holds = (
            (aborted, Outcome.ABORTED),
            (self._inside, Outcome.UNCLOSED),
            (self._irregular, Outcome.MULTIPLE),
            (not response, Outcome.NO_ANSWER),
            (not self._opens, Outcome.NO_THINK),
            (self._cut, Outcome.CUT_THOUGHT),
            (not thinking, Outcome.EMPTY_THINK),
        )
        return next((outcome for holds, outcome in first_that_holds if holds), Outcome.OK)


def split(text: str, opened: bool = False, aborted: bool = False, dialect: Dialect = THINK) -> Split:
    """Take a whole output apart; the same result as feeding it to a `Splitter` in any portions."""
    splitter = Splitter(opened, dialect)
    splitter.feed(text)
    return splitter.finish(aborted)[1]


def count_reasoning_tokens(token_ids: list[int], open_id: int, close_id: int, opened: bool = False) -> int:
    """Tokens of the thought, tags excluded, where the tags are single tokens (they are in the models we train)."""
    inside, count = opened, 0
    for token in token_ids:
        if token == open_id:
            inside = True
        elif token == close_id:
            inside = False
        elif inside:
            count += 1
    return count


ConclusionKind = Literal["diagnosis", "answer"]
CONCLUSION_LABELS: dict[tuple[str, ConclusionKind], str] = {
    ("en", "diagnosis"): "Final diagnosis: ",
    ("en", "answer"): "Final answer: ",
    ("zh", "diagnosis"): "最终诊断：",
    ("zh", "answer"): "最终答案：",
}
"""How the last line of a formal response begins, by language and kind of question."""
_MARKS = r"[\s>#*_`~]*"
_LABEL = r"(?:(?:the\s+|my\s+)?final\s+(?:diagnos[ie]s|answer)|最[終终](?:[诊診][断斷]|答案))"
_CONCLUSION = re.compile(rf"^{_MARKS}(?:[-•·]\s+)?{_MARKS}{_LABEL}{_MARKS}(?:[:：﹕∶]|$)(.*)", re.IGNORECASE)
_ITEM = re.compile(r"^\s*(?:[-•·*]\s|\(?\d{1,2}[.)、．]|[①-⑳])")
_NAME = re.compile(r"^[^.。:：;；!?！？]{1,60}$")


def conclusion_line(response: str) -> str | None:
    """What the last line `Final diagnosis: ...` (`Final answer:`, `最终诊断：`, `最终答案：`) states; None without one.

    Markdown around the label and full-width colons do not count. Where the label stands alone, as a heading, the next
    line is the conclusion, or the list that begins there (items with their marks, or lines of a few words, joined by
    newlines).
    """
    lines = response.splitlines()
    for index in range(len(lines) - 1, -1, -1):
        found = _CONCLUSION.match(lines[index])
        if not found:
            continue
        if said := _unmarked(found[1]):
            return said
        paragraph = "\n".join(lines[index + 1 :]).strip().split("\n\n")[0].splitlines()
        kind = _ITEM if paragraph and _ITEM.match(paragraph[0]) else _NAME
        count = next((n for n, line in enumerate(paragraph) if not kind.match(line)), len(paragraph))
        return "\n".join(_unmarked(line) for line in paragraph[: max(1, count)]) or None
    return None


def with_conclusion(response: str, conclusion: str, language: str, kind: ConclusionKind = "diagnosis") -> str:
    """The response with its conclusion line as the last one, in place of one that it may already end with."""
    lines = response.rstrip().splitlines()
    if lines and _CONCLUSION.match(lines[-1]):
        lines.pop()
    line = CONCLUSION_LABELS["zh" if language == "zh" else "en", kind] + " ".join(conclusion.split())
    body = "\n".join(lines).rstrip()
    return f"{body}\n\n{line}" if body else line


def _unmarked(text: str) -> str:
    return text.strip().strip("*_`").strip().removesuffix("**").strip()
