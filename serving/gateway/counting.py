"""How many tokens were thought? Exact from token ids, else from the model's own tokenizer.

A token belongs to the thought if it carries at least one character of it; the tags themselves belong to nobody; every
other token (the end-of-answer token included) belongs to the answer. Where a tag is a single token, as in the models
that we train, this is `clinical_r1.reasoning.count_reasoning_tokens`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from clinical_r1.errors import UserError
from clinical_r1.reasoning import CLOSE, OPEN

Method = Literal["token_ids", "token_ids_and_tokenizer", "retokenized", "unavailable"]
METHODS: tuple[Method, ...] = ("token_ids", "token_ids_and_tokenizer", "retokenized", "unavailable")
Spans = list[tuple[int, int]]


@dataclass(frozen=True)
class Count:
    """Tokens of one answer."""

    reasoning: int
    answer: int
    total: int
    """All tokens seen, tags included."""
    method: Method


class IdCounter:
    """Counts by token ids while they stream; the tags are single tokens."""

    __slots__ = ("_close", "_inside", "_open", "reasoning", "tags", "total")

    def __init__(self, open_id: int, close_id: int, opened: bool) -> None:
        self._open, self._close, self._inside = open_id, close_id, opened
        self.reasoning = self.tags = self.total = 0

    def feed(self, token_ids: list[int]) -> None:
        """Take the next ids."""
        for token in token_ids:
            if token == self._open:
                self._inside = True
                self.tags += 1
            elif token == self._close:
                self._inside = False
                self.tags += 1
            elif self._inside:
                self.reasoning += 1
        self.total += len(token_ids)

    def close(self) -> None:
        """The thought was closed from outside."""
        self._inside = False

    def count(self) -> Count:
        """What was counted so far."""
        return Count(self.reasoning, self.total - self.reasoning - self.tags, self.total, "token_ids")


class TokenizerCounter:
    """Counts with the model's tokenizer.json: the spans of its own ids, or of the text encoded again."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        if not path.is_file():
            raise UserError(f"{path}: no such file; give the served model's tokenizer.json")
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(path))
        except Exception:
            raise UserError(f"{path}: is no tokenizer.json of the tokenizers library; copy it from the model") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._special = {i for i, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        self._added = {i: token.content for i, token in self._tokenizer.get_added_tokens_decoder().items()}
        self._bytes = {character: byte for byte, character in _byte_alphabet().items()}

    def tag_ids(self) -> tuple[int, int] | None:
        """Ids of the tags where each is one token."""
        ids = [self._tokenizer.encode(tag, add_special_tokens=False).ids for tag in (OPEN, CLOSE)]
        return (ids[0][0], ids[1][0]) if all(len(one) == 1 for one in ids) else None

    def length(self, text: str) -> int:
        """Tokens of a piece of text."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encoded(self, text: str, thoughts: Spans, tags: Spans) -> Count:
        """Encode the whole raw output again.

        Half a character from the engine arrives as U+FFFD, which encodes to several byte tokens where the model had
        one: tokens that share a U+FFFD count once.
        """
        spans = self._tokenizer.encode(text, add_special_tokens=False).offsets
        if "\ufffd" in text:
            spans = [
                span
                for previous, span in zip([(-1, -1), *spans], spans, strict=False)
                if span != previous or text[span[0] : span[1]] != "\ufffd"
            ]
        return _attribute(spans, thoughts, tags, "retokenized")

    def by_ids(self, token_ids: list[int], text: str, thoughts: Spans, tags: Spans) -> Count | None:
        """Place the engine's ids on the text; None if they do not spell it (another tokenizer, stop strings)."""
        spans, at = [], 0
        for token in token_ids:
            size = self._byte_length(token)
            if size is None:
                return None
            spans.append((at, at + size))
            at += size
        data = text.encode()
        # A stop string or an unfinished character may cut the text shorter than its tokens, never longer.
        if at < len(data):
            return None
        to_bytes = _byte_offsets(text)
        return _attribute(
            spans,
            [(to_bytes(a), to_bytes(b)) for a, b in thoughts],
            [(to_bytes(a), to_bytes(b)) for a, b in tags],
            "token_ids_and_tokenizer",
        )

    def _byte_length(self, token: int) -> int | None:
        if token in self._special:
            return 0
        if token in self._added:
            return len(self._added[token].encode())
        piece = self._tokenizer.id_to_token(token)
        if piece is None or any(character not in self._bytes for character in piece):
            return None
        return len(piece)


def share_gap(counts: list[Count], stated: int) -> list[Count]:
    """Retokenised counts, brought to the number of tokens that the engine states for all of them together.

    A model may spell a text in other tokens than its tokenizer would, and where it did so cannot be seen in the text:
    the difference goes to the parts by their lengths (largest remainder). `total` stays what was counted, so that the
    self-check still compares two independent numbers.
    """
    parts = [part for count in counts for part in (count.reasoning, count.answer)]
    weight, gap = sum(parts), stated - sum(count.total for count in counts)
    if not gap or not weight:
        return counts
    exact = [part + gap * part / weight for part in parts]
    shared = [max(0, int(value)) for value in exact]
    missing = max(0, weight + gap) - sum(shared)
    for index in sorted(range(len(parts)), key=lambda i: int(exact[i]) - exact[i])[: max(0, missing)]:
        shared[index] += 1
    return [
        replace(count, reasoning=shared[2 * index], answer=shared[2 * index + 1]) for index, count in enumerate(counts)
    ]


def _attribute(spans: Spans, thoughts: Spans, tags: Spans, method: Method) -> Count:
    """Thought if it overlaps a thought; tag if it lies inside of a tag; else answer. All lists are ascending."""
    reasoning = inside_tags = 0
    for start, end in spans:
        if any(start < stop and end > begin for begin, stop in thoughts if end > start):
            reasoning += 1
        elif end > start and any(start >= begin and end <= stop for begin, stop in tags):
            inside_tags += 1
    return Count(reasoning, len(spans) - reasoning - inside_tags, len(spans), method)


def _byte_offsets(text: str) -> Callable[[int], int]:
    if text.isascii():
        return lambda at: at
    return lambda at: len(text[:at].encode())


def _byte_alphabet() -> dict[int, str]:
    """GPT-2's printable stand-ins for bytes (openai/gpt-2, src/encoder.py, bytes_to_unicode)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {byte: chr(byte) for byte in printable}
    extra = 0
    for byte in range(256):
        if byte not in table:
            table[byte] = chr(256 + extra)
            extra += 1
    return table
