"""Token ids to text, one at a time: hold back what may still change (a character cut between tokens)."""

from typing import Protocol


class Decodes(Protocol):
    """The part of a tokenizer that this file needs."""

    def decode(self, token_ids: list[int]) -> str:
        """Text of the ids, special tokens left out."""


class Detokenizer:
    """Incremental decoding of one completion by the two-offset method (as vLLM and TGI do it).

    The concatenation of what `push` and `finish` return equals `decode(all ids)` for byte-level BPE tokenizers.
    """

    def __init__(self, tokenizer: Decodes) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._prefix = 0
        self._read = 0

    def push(self, token_id: int) -> str:
        """Add a token; return the text that became certain (empty while a character is incomplete)."""
        self._ids.append(token_id)
        before = self._tokenizer.decode(self._ids[self._prefix : self._read])
        after = self._tokenizer.decode(self._ids[self._prefix :])
        if len(after) <= len(before) or after.endswith("�"):
            return ""
        self._prefix, self._read = self._read, len(self._ids)
        return after[len(before) :]

    def finish(self) -> str:
        """What was held back at the end of the output."""
        before = self._tokenizer.decode(self._ids[self._prefix : self._read])
        after = self._tokenizer.decode(self._ids[self._prefix :])
        self._read = len(self._ids)
        return after[len(before) :]


class StopText:
    """Finds stop strings in a growing text; what may be the beginning of one is held back."""

    def __init__(self, stops: list[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.hit = False

    def push(self, text: str) -> str:
        """Return the text that is certainly in front of any stop string."""
        if not self._stops or self.hit:
            return "" if self.hit else text
        text = self._held + text
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.hit, self._held = True, ""
            return text[: min(found)]
        keep = max(
            (n for stop in self._stops for n in range(1, min(len(stop), len(text) + 1)) if text.endswith(stop[:n])),
            default=0,
        )
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back and turned out to be no stop string."""
        held, self._held = self._held, ""
        return held
