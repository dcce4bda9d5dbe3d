"""One answer under observation: takes the engine's text and ids, gives the parts, the outcome, the counts, the times.

Unary and streamed answers go through the same object, which is why they agree.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from clinical_r1.dialects import CLOSE, DIALECTS, OPEN, THINK, Dialect
from clinical_r1.reasoning import Outcome, Piece, Split, Splitter
from clinical_r1.recognise import FILTERED, AutoSplitter
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

    def __init__(self, thinks: Thinks, budget: int | None = None, slack: int = 0) -> None:
        """`budget`: tokens that the thought may have, None: any number; `slack`: how many more it may take to end by
        itself (where the engine closes it)."""
        self._thinks, self._budget, self._slack = thinks, budget, slack
        self._splitter = thinks.splitter()
        self._spent = 0
        """Tokens of the thought so far, where its budget has to be watched."""
        self._inside = self._splitter.part == "thinking"
        """Whether the last piece ended in the thought."""
        self.cut = False
        """The thought was closed from outside."""
        self.waiting = False
        """It was closed by us, and the engine has not yet been asked to go on."""
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

    def budget_reached(self, text: str, ids: list[int]) -> bool:
        """Call after each piece of an answer with a budget: has the thought to be closed now?

        Tokens are counted by their ids, or with the tokenizer; a piece of several tokens may overshoot by them.
        """
        began, inside = self._inside, self._splitter.part == "thinking"
        self._inside = inside
        if self._ids:
            self._spent = self._ids.reasoning
        elif began:
            self._spent += len(ids) or (self._thinks.tokenizer.length(text) if self._thinks.tokenizer and text else 0)
        if not inside or self._budget is None or self._splitter.undecided:
            return False
        return self._spent >= self._budget + self._slack

    def close_thought(self, now: float) -> list[Piece]:
        """Close it; the answer is still to be asked for, as the continuation of `raw`."""
        self.cut = self.waiting = True
        text, pieces = self._splitter.close()
        self._text.append(text)
        if self._ids:
            self._ids.close()
        return self._seen(pieces, now)

    @property
    def raw(self) -> str:
        """All text so far as the engine would have written it."""
        text = "".join(self._text)
        return text.removeprefix(OPEN) if self._parsed_upstream and self._thinks.opened else text

    def finish(self, now: float, aborted: bool = False) -> list[Piece]:
        """End of this answer; call once."""
        assert self.split is None
        pieces, self.split = self._splitter.finish(aborted)
        if self._slack and self._budget is not None and self._spent >= self._budget and not self.cut:
            self.cut = True  # by the engine
            if self.split.outcome in (Outcome.OK, Outcome.EMPTY_THINK):
                self.split = replace(self.split, outcome=Outcome.CUT_THOUGHT)
        if self.finish_reason in FILTERED:
            self.split = replace(self.split, outcome=Outcome.REFUSED)
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
        if self._parsed_upstream or self.cut:  # tags in the text are ours, the engine's number knows nothing of them
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
