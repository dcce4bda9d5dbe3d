"""One text through all recognizers: what is sure is replaced, what is unsure is reported as a doubt."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date

from clinical_r1.privacy.addresses import find_addresses
from clinical_r1.privacy.ages import find_old_ages
from clinical_r1.privacy.dates import find_dates
from clinical_r1.privacy.folding import fold
from clinical_r1.privacy.known import KnownFinder
from clinical_r1.privacy.names_en import find_names_en
from clinical_r1.privacy.names_zh import find_names_zh
from clinical_r1.privacy.numbers import find_numbers, residue
from clinical_r1.privacy.spans import Kind, Span, resolve
from clinical_r1.privacy.values import Values

DOUBT = 0.6
"""Finds below this score send the record to quarantine."""
Finder = Callable[[str], Iterator[Span]]


@dataclass
class Scrubbed:
    """The text without what was found."""

    text: str
    counts: Counter[str] = field(default_factory=Counter)
    doubts: list[str] = field(default_factory=list)
    """Types of what was unsure; empty for a text that may leave."""


def placeholder(kind: Kind) -> str:
    """What stands in the place of an identifier."""
    return f"[{kind.value.upper()}]"


def scrub(text: str, known: KnownFinder, shift: Callable[[date], date] | None, model: Finder | None = None) -> Scrubbed:
    """Replace identifiers in `text`; `model` adds what a statistical recogniser finds."""
    folded = fold(text)
    spans = [*known.find(folded.text), *_recognised(folded.text, shift)]
    spans += model(folded.text) if model else []
    result = Scrubbed("")
    pieces: list[str] = []
    rest: list[str] = []
    position = 0
    for span in resolve(spans):
        if span.score < DOUBT:
            result.doubts.append(span.kind.value)
        start, end = folded.back(span.start, span.end)
        pieces += [text[position:start], span.text or placeholder(span.kind)]
        rest += [text[position:start], "\u25ae"]  # shifted dates must not look like a residue
        position = end
        result.counts[span.kind.value] += 1
    pieces.append(text[position:])
    rest.append(text[position:])
    result.text = "".join(pieces)
    if residue(fold("".join(rest)).text):
        result.doubts.append("residue")
    return result


def _recognised(text: str, shift: Callable[[date], date] | None) -> Iterator[Span]:
    yield from find_numbers(text, Values(text))
    yield from find_old_ages(text)
    yield from find_dates(text, shift)
    yield from find_addresses(text)
    yield from find_names_en(text)
    yield from find_names_zh(text)


RECOGNISERS: dict[str, Finder] = {
    "numbers": lambda text: find_numbers(text, Values(text)),
    "ages": find_old_ages,
    "dates": lambda text: find_dates(text, None),
    "addresses": find_addresses,
    "names_en": find_names_en,
    "names_zh": find_names_zh,
}
"""All of our own, by name; a test doubles the input of each."""
