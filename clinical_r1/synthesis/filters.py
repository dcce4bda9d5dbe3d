"""Quality filters over accepted traces: each names one way in which a right answer can come with a bad thought.

Every filter is a function of the trace alone, is counted under its name and can be switched off; none repairs anything.
"""

import re
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from clinical_r1.atomic import read_table
from clinical_r1.lexicon import wordings
from clinical_r1.schema import Trace
from clinical_r1.strict import Strict
from clinical_r1.synthesis.text import cjk_share as share_of_chinese
from clinical_r1.synthesis.text import coverage, fold, sentences, ungrounded_numbers, units
from clinical_r1.verifier.names import names_in

HINDSIGHT = Path(__file__).with_name("hindsight.yaml")
BETRAYS = wordings(HINDSIGHT)
BETRAYS_IN_ASCII = wordings(HINDSIGHT, ("en",))
"""The same without their Chinese forms, which a sentence of ASCII cannot hold: half the time."""
UNLESS: dict[str, str] = {
    name: row.get("unless", "") for name, row in read_table(HINDSIGHT).items() if "matches" in row
}
"""The kinds, and the rule whose sentences each leaves out."""


def told(text: str) -> str:
    """The kind of the first phrase that betrays that the writer was told the answer (`given_answer`, ...), or ""."""
    for sentence in sentences(fold(text).replace("’", "'")):
        rule = BETRAYS_IN_ASCII if sentence.isascii() else BETRAYS
        for kind, unless in UNLESS.items():
            if rule[kind].search(sentence) and not (unless and rule[unless].search(sentence)):
                return kind
    return ""


class FilterConfig(Strict):
    """Which filters run, and where they draw the line."""

    repetition: bool = True
    """Reject a thought that loops: a sentence said `max_repeats` times over, or text that repeats itself throughout."""
    max_repeats: int = Field(default=4, ge=2)
    """How often one sentence of at least 20 units may be said, less one."""
    language_mixing: bool = True
    """Reject Chinese in an English thought and whole English sentences in a Chinese one; terms and units are fine."""
    ungrounded_numbers: bool = True
    """Reject a thought that works with a number that is nowhere in the case."""
    max_ungrounded_numbers: int = Field(default=1, ge=0)
    """How many distinct such numbers a trace may have; see `text.ungrounded_numbers` for what counts as one."""
    disagreement: bool = True
    """Reject a thought whose end does not name the answer that the response gives."""
    min_answer_coverage: float = Field(default=0.5, ge=0, le=1)
    """Share of the answer's content words that the last part of the thought must mention."""
    hindsight: bool = True
    """Reject a thought that betrays that it was told the answer ("the reference answer", "参考答案")."""
    ask_about_hindsight: bool = True
    """Ask the judge that as well, of guided and recovered traces; `verifier: {kind: rule}` has none to ask."""
    min_thinking_units: int = Field(default=0, ge=0)
    """Shortest thought in words or Chinese characters; 0 sets no bound."""
    max_thinking_units: int = Field(default=0, ge=0)
    """Longest thought in words or Chinese characters; 0 sets no bound."""


def repetition(trace: Trace, config: FilterConfig) -> bool:
    """A loop: one longer sentence over and over, or a long text that compresses to next to nothing."""
    counted = Counter(" ".join(units(fold(sentence))) for sentence in sentences(trace.thinking))
    if any(count >= config.max_repeats and len(units(text)) >= 20 for text, count in counted.items()):
        return True
    tokens = units(fold(trace.thinking))
    if len(tokens) < 200:
        return False
    grams = Counter(tuple(tokens[i : i + 12]) for i in range(len(tokens) - 11))
    repeated = sum(count for count in grams.values() if count > 1) / sum(grams.values())
    raw = trace.thinking.encode()
    return repeated > 0.5 or len(zlib.compress(raw, 6)) / len(raw) < 0.12


_ENGLISH_RUN = re.compile(r"(?:\b[A-Za-z]{2,}\b[ ,]+){7,}")


def language_mixing(trace: Trace, config: FilterConfig) -> bool:
    """More than stray terms of the other language in the thought or the response."""
    texts = (trace.thinking, trace.response)
    if trace.language == "en":
        return any(share_of_chinese(text) > 0.02 for text in texts)
    return any(share_of_chinese(text) < 0.5 or _ENGLISH_RUN.search(text) for text in texts if text)


def foreign_numbers(trace: Trace, config: FilterConfig) -> bool:
    """Numbers from nowhere."""
    return len(set(ungrounded_numbers(trace.thinking, trace.question))) > config.max_ungrounded_numbers


def disagreement(trace: Trace, config: FilterConfig) -> bool:
    """The thought ends elsewhere than the response: its last third (at least 100 units) hardly mentions the answer,
    by none of its known names."""
    if not trace.attempts:
        return False
    answer, said = trace.attempts[-1].answer, sentences(trace.thinking)
    missing, start = max(100, len(units(trace.thinking)) // 3), len(said)
    while missing > 0 and start:
        start -= 1
        missing -= len(units(said[start]))
    end = " ".join(said[start:])
    return coverage(answer, end, trace.language) < config.min_answer_coverage and not names_in(end, answer)


def hindsight(trace: Trace, config: FilterConfig) -> bool:
    """The thought knows of an answer that it was handed."""
    return bool(told(trace.thinking) or told(trace.response))


FILTERS: dict[str, Callable[[Trace, FilterConfig], bool]] = {
    "repetition": repetition,
    "language_mixing": language_mixing,
    "ungrounded_numbers": foreign_numbers,
    "disagreement": disagreement,
    "hindsight": hindsight,
}


def first_objection(trace: Trace, config: FilterConfig) -> str:
    """The name of the first filter that rejects the trace, or an empty string."""
    for name, rejects in FILTERS.items():
        if getattr(config, name) and rejects(trace, config):
            return name
    length = len(units(trace.thinking))
    if length < config.min_thinking_units:
        return "too_short"
    if config.max_thinking_units and length > config.max_thinking_units:
        return "too_long"
    return ""
