"""The <think> format, one truth for all: render it, split it (incrementally), name its outcome; and the line in which a
response states its conclusion. No torch.

Rewards, evaluation and the serving gateway all use this file, so that "did it think?" means the same everywhere.
A well-formed output is one leading block and an answer::

    <think>
    thinking
    </think>

    response
"""

import codecs
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

OPEN = "<think>"
CLOSE = "</think>"


class Outcome(StrEnum):
    """What became of one output; the one enum of rewards, evaluation and metrics."""

    OK = "ok"
    """One leading closed block that is not blank, then an answer."""
    NO_THINK = "no_think"
    """An answer without any tag."""
    EMPTY_THINK = "empty_think"
    """A closed but blank block, then an answer."""
    UNCLOSED = "unclosed"
    """The output ended inside a thought."""
    NO_ANSWER = "no_answer"
    """Nothing but whitespace outside of the thought."""
    MULTIPLE = "multiple"
    """More than one block, a stray tag, or text in front of the block."""
    ABORTED = "aborted"
    """The output was cut off from outside (disconnect, upstream death, time-out, shutdown)."""


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
    beginning of a tag is held back until it is decided. `opened` means that the chat template has already written
    the opening tag into the prompt. `feed_bytes` takes UTF-8 cut anywhere.
    """

    def __init__(self, opened: bool = False) -> None:
        self._inside = opened
        self._held = ""
        self._space = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._parts: dict[Part, list[str]] = {"thinking": [], "answer": []}
        self._opens = int(opened)
        self._closes = 0
        self._irregular = False
        self._fresh = True
        """No visible text yet in the current part."""
        self._done = 0
        """Characters taken in, without the held ones."""
        self._thought_from = 0
        self.thought_spans: list[tuple[int, int]] = []
        """Closed thoughts as [start, end) in characters of everything fed, tags excluded; `finish` closes the last."""
        self.tag_spans: list[tuple[int, int]] = []
        """The tags themselves, in the same measure."""

    @property
    def part(self) -> Part:
        """The part that the next character belongs to (unless it completes a tag)."""
        return "thinking" if self._inside else "answer"

    def feed_bytes(self, data: bytes) -> list[Piece]:
        """As `feed`, for UTF-8 bytes cut at any place."""
        return self.feed(self._decoder.decode(data))

    def feed(self, text: str) -> list[Piece]:
        """Take the next portion of text; return the pieces that are now certain."""
        text = self._held + text
        self._held = ""
        pieces: list[Piece] = []
        start, base = 0, self._done
        while (at := text.find("<", start)) >= 0:
            rest = text[at : at + len(CLOSE)]
            if rest.startswith((OPEN, CLOSE)):
                self._emit(text[start:at], pieces)
                start = at + self._tag(rest.startswith(OPEN), base + at)
            elif OPEN.startswith(rest) or CLOSE.startswith(rest):
                self._emit(text[start:at], pieces)
                self._held = text[at:]
                self._done = base + at
                return pieces
            else:
                self._emit(text[start : at + 1], pieces)
                start = at + 1
        self._emit(text[start:], pieces)
        self._done = base + len(text)
        return pieces

    def finish(self, aborted: bool = False) -> tuple[list[Piece], Split]:
        """End of the output: the last pieces, and the whole. Call once."""
        pieces = self.feed_bytes_end()
        tail, self._held = self._held, ""
        self._emit(tail, pieces)
        self._done += len(tail)
        if self._inside:
            self.thought_spans.append((self._thought_from, self._done))
        thinking, response = ("".join(self._parts[part]) for part in ("thinking", "answer"))
        return pieces, Split(thinking, response, self._outcome(thinking, response, aborted))

    def feed_bytes_end(self) -> list[Piece]:
        """Flush a character that was cut by the end of the bytes."""
        return self.feed(self._decoder.decode(b"", final=True))

    def _tag(self, opening: bool, at: int) -> int:
        size = len(OPEN) if opening else len(CLOSE)
        if self._inside:
            self.thought_spans.append((self._thought_from, at))
        self.tag_spans.append((at, at + size))
        self._thought_from = at + size
        if opening:
            self._irregular |= self._inside or self._opens > 0 or bool(self._parts["answer"])
            self._opens += 1
        else:
            self._irregular |= not self._inside
            self._closes += 1
        self._inside = opening
        self._space = ""
        self._fresh = True
        return size

    def _emit(self, text: str, pieces: list[Piece]) -> None:
        if not text:
            return
        body = text.rstrip()
        if not body:
            if not self._fresh:
                self._space += text
            return
        visible = body.lstrip() if self._fresh else self._space + body
        self._fresh = False
        self._space = text[len(body) :]
        self._parts[self.part].append(visible)
        pieces.append(Piece(self.part, visible))

    def _outcome(self, thinking: str, response: str, aborted: bool) -> Outcome:
        if aborted:
            return Outcome.ABORTED
        if self._inside:
            return Outcome.UNCLOSED
        if self._irregular:
            return Outcome.MULTIPLE
        if not response:
            return Outcome.NO_ANSWER
        if not self._opens:
            return Outcome.NO_THINK
        return Outcome.OK if thinking else Outcome.EMPTY_THINK


def split(text: str, opened: bool = False, aborted: bool = False) -> Split:
    """Take a whole output apart; the same result as feeding it to a `Splitter` in any portions."""
    splitter = Splitter(opened)
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


def conclusion_line(response: str) -> str | None:
    """What the last line `Final diagnosis: ...` (`Final answer:`, `最终诊断：`, `最终答案：`) states; None without one.

    Markdown around the label and full-width colons do not count. Where the label stands alone, as a heading, the next
    line is the conclusion, or the list that begins there (its items with their marks, joined by newlines).
    """
    lines = response.splitlines()
    for index in range(len(lines) - 1, -1, -1):
        found = _CONCLUSION.match(lines[index])
        if not found:
            continue
        if said := _unmarked(found[1]):
            return said
        following = [line for line in lines[index + 1 :] if line.strip()]
        count = next((n for n, line in enumerate(following) if not _ITEM.match(line)), len(following))
        return "\n".join(_unmarked(line) for line in following[: max(1, count)]) or None
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
    """A line without the marks that Markdown puts around it."""
    return text.strip().strip("*_`").strip().removesuffix("**").strip()
