"""One answer under observation: takes the engine's text and ids, gives the parts, the outcome, the counts, the times.

Unary and streamed answers go through the same object, which is why they agree.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from clinical_r1.dialects import CLOSE, DIALECTS, OPEN, THINK, Dialect
from clinical_r1.reasoning import Outcome, Piece, Split, Splitter
from clinical_r1.recognise import AutoSplitter
from serving.gateway.counting import Count, IdCounter, Method, TokenizerCounter, share_gap

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Thinks:
    """What is known of how the served model thinks."""

    opened: bool = False
    dialect: Dialect | None = THINK
    """None: each answer's first mark tells."""
    tag_ids: tuple[int, int] | None = None
    tokenizer: TokenizerCounter | None = None
    token_ids: bool = True
    stops: bool = False
    """The client gave stop strings: what was generated and then cut off cannot be seen in the text."""

    @property
    def method(self) -> Method:
        """How tokens will be counted if the engine keeps its word."""
        if self.token_ids and self.countable_ids:
            return "token_ids"
        if self.tokenizer:
            return "token_ids_and_tokenizer" if self.token_ids else "retokenized"
        return "unavailable"

    @property
    def countable_ids(self) -> tuple[int, int] | None:
        """Ids of the tags where the dialect has such tags, each one token."""
        return self.tag_ids if self.dialect in IN_TAGS else None

    def splitter(self) -> Splitter:
        """For one answer."""
        return AutoSplitter() if self.dialect is None else Splitter(self.opened, self.dialect)


IN_TAGS = (THINK, DIALECTS["tags"], DIALECTS["opened"])
"""Dialects whose tags can be single tokens."""


class AnswerObserver:
    """Follows one choice of one request."""

    def __init__(self, thinks: Thinks) -> None:
        self._thinks = thinks
        self._splitter = thinks.splitter()
        opened, ids = self._splitter.dialect.opened, thinks.countable_ids
        self._ids = IdCounter(*ids, opened) if ids and thinks.token_ids else None
        self._kept_ids: list[int] = []
        self._text: list[str] = []
        self._parsed_upstream = False
        self._half = ""
        self._count: Count | None = None
        self._counted = False
        self.finish_reason: str | None = None
        self.called = False
        """It calls a tool: that is its answer."""
        self.split: Split | None = None
        """Set once the answer has ended, whichever way."""
        self.first_thought = self.first_answer = self.thought_end = 0.0

    def text(self, text: str, now: float) -> list[Piece]:
        """The next raw text of the engine."""
        text = self._whole(text)
        if not text:
            return []
        if self._parsed_upstream and self._splitter.part == "thinking":
            text = CLOSE + text
        self._text.append(text)
        return self._seen(self._splitter.feed(text), now)

    def reasoning(self, text: str, now: float) -> list[Piece]:
        """Thinking that the engine itself has already split off (it runs a reasoning parser)."""
        text = self._whole(text)
        if not text:
            return []
        if not self._text:
            self._splitter = Splitter()  # whatever the model's own marks are, the engine has taken them off
        if self._splitter.part == "answer" and not self._splitter.tag_spans:
            text = OPEN + text
        self._parsed_upstream = True
        self._text.append(text)
        return self._seen(self._splitter.feed(text), now)

    def ids(self, token_ids: list[int]) -> None:
        """The ids of the text that came with them."""
        if self._ids:
            self._ids.feed(token_ids)
        elif self._thinks.tokenizer:
            self._kept_ids += token_ids

    def finish(self, now: float, aborted: bool = False) -> list[Piece]:
        """End of this answer; call once."""
        assert self.split is None
        pieces, self.split = self._splitter.finish(aborted)
        if self.called and self.split.outcome is Outcome.NO_ANSWER:
            outcome = Outcome.OK if self.split.thinking else Outcome.NO_THINK
            self.split = replace(self.split, outcome=outcome)
        return self._seen(pieces, now)

    @property
    def ended(self) -> bool:
        """Whether `finish` was called."""
        return self.split is not None

    @property
    def outcome(self) -> Outcome:
        """After `finish`."""
        assert self.split is not None
        return self.split.outcome

    @property
    def truncated_in_thought(self) -> bool:
        """The token limit fell into the thought."""
        return self.finish_reason == "length" and self.outcome is Outcome.UNCLOSED

    def count(self) -> Count | None:
        """Tokens by the best method that this answer allows; None where there is none. After `finish`."""
        if not self._counted:
            self._count, self._counted = self._counting(), True
        return self._count

    def correct(self, count: Count) -> None:
        """Put a better count in place of the own one."""
        self._count = count

    @property
    def cut_by_stops(self) -> bool:
        """A stop string may have ended it."""
        return self._thinks.stops and self.finish_reason == "stop"

    def _whole(self, text: str) -> str:
        """Text without lone surrogates: the first half of a character waits for the second, which may come later."""
        if not self._half and not _SURROGATE.search(text):
            return text
        text, self._half = self._half + text, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _counting(self) -> Count | None:
        if self._ids and (self._ids.total or not self._text):
            return self._ids.count()
        counter = self._thinks.tokenizer
        if counter is None:
            return None
        text, splitter = "".join(self._text), self._splitter
        if self._kept_ids:
            placed = counter.by_ids(self._kept_ids, text, splitter.thought_spans, splitter.tag_spans)
            if placed:
                return placed
        count = counter.encoded(text, splitter.thought_spans, splitter.tag_spans)
        if self._parsed_upstream:  # the tags in the text are ours, the engine's number knows nothing of them
            count = replace(count, total=count.reasoning + count.answer)
        if self.finish_reason == "stop" and not self._thinks.stops:  # the end token is in no text
            return replace(count, answer=count.answer + 1, total=count.total + 1)
        return count

    def _seen(self, pieces: list[Piece], now: float) -> list[Piece]:
        for part, _ in pieces:
            if part == "thinking":
                if not self.first_thought:
                    self.first_thought = now
            elif not self.first_answer:
                self.first_answer = now
        if self.first_thought and not self.thought_end and self._splitter.part == "answer":
            self.thought_end = now
        return pieces


def reconcile(answers: Sequence[AnswerObserver], stated: object) -> None:
    """Once all answers of a request have ended: bring retokenised counts to the engine's `completion_tokens`."""
    counts = [count for answer in answers if (count := answer.count()) and count.method == "retokenized"]
    if isinstance(stated, int) and len(counts) == len(answers) and not any(answer.cut_by_stops for answer in answers):
        for answer, count in zip(answers, share_gap(counts, stated), strict=True):
            answer.correct(count)
