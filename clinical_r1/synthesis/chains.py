"""What is measured of one chain of thought: numbers that make two datasets comparable."""

from collections.abc import Callable
from typing import NamedTuple

from clinical_r1.lexicon.findings import mentions
from clinical_r1.schema import Strategy, Trace, TraceOutcome
from clinical_r1.synthesis.text import (
    content_units,
    fold,
    self_corrections,
    sentences,
    transitions,
    ungrounded_numbers,
    units,
)
from clinical_r1.verifier.names import names_in

WINDOW = 50
"""Units in the window of the moving type-token ratio."""


class Measure(NamedTuple):
    """One column of the analysis."""

    name: str
    title: str
    share: bool
    """True for a yes-or-no property: reported as a percentage."""
    value: Callable[[Trace], float | None]
    """The value of one trace; None where it has none (an answer that is never mentioned has no position)."""


def findings(text: str) -> set[str]:
    """Which of the lexicon's findings a text mentions, whether as present or as absent."""
    return {mention.key for mention in mentions(text)}


def ungrounded_findings(trace: Trace) -> float:
    """Findings that the thinking mentions and the case does not (knowledge counts too: compare, do not judge)."""
    return len(findings(trace.thinking) - findings(trace.question))


def first_mention(trace: Trace) -> float | None:
    """Where the thinking first names its answer, by its words or another name, from 0 (first sentence) to 1 (last);
    None where it never does."""
    if not trace.attempts:
        return None
    answer = trace.attempts[-1].answer
    wanted = content_units(answer, trace.language)
    said = sentences(trace.thinking)
    if not wanted or not said:
        return None
    for place, sentence in enumerate(said):
        shared = len(wanted & content_units(sentence, trace.language))
        if shared >= 0.6 * len(wanted) or names_in(sentence, answer):
            return place / max(1, len(said) - 1)
    return None


def lexical_diversity(trace: Trace) -> float | None:
    """Moving-average type-token ratio (Covington and McFall 2010), which does not fall with length."""
    tokens = units(fold(trace.thinking))
    if len(tokens) <= WINDOW:
        return len(set(tokens)) / len(tokens) if tokens else None
    counts: dict[str, int] = {}
    total = 0
    for place, token in enumerate(tokens):
        counts[token] = counts.get(token, 0) + 1
        if place >= WINDOW:
            gone = tokens[place - WINDOW]
            counts[gone] -= 1
            if not counts[gone]:
                del counts[gone]
        if place >= WINDOW - 1:
            total += len(counts)
    return total / (len(tokens) - WINDOW + 1) / WINDOW


def _per_hundred(count: int, trace: Trace) -> float:
    return 100 * count / max(1, len(units(trace.thinking)))


def _outcome(outcome: TraceOutcome) -> Callable[[Trace], float]:
    return lambda trace: float(trace.outcome is outcome)


def _uses(strategy: Strategy) -> Callable[[Trace], float]:
    return lambda trace: float(any(attempt.strategy is strategy for attempt in trace.attempts))


MEASURES = (
    Measure("thinking_units", "Thinking, words or characters", False, lambda t: len(units(t.thinking))),
    Measure("thinking_sentences", "Thinking, sentences", False, lambda t: len(sentences(t.thinking))),
    Measure("response_units", "Response, words or characters", False, lambda t: len(units(t.response))),
    Measure(
        "transitions_per_100",
        "Transition words per 100 units",
        False,
        lambda t: _per_hundred(transitions(t.thinking, t.language).total(), t),
    ),
    Measure(
        "self_corrections",
        "Self-corrections per chain",
        False,
        lambda t: self_corrections(t.thinking, t.language),
    ),
    Measure(
        "corrects_itself",
        "Chains with a self-correction",
        True,
        lambda t: float(self_corrections(t.thinking, t.language) > 0),
    ),
    Measure("attempts", "Attempts behind a chain", False, lambda t: len(t.attempts)),
    Measure("first_mention", "First mention of the answer (0 start, 1 end)", False, first_mention),
    Measure("never_mentioned", "Answer never named in the thinking", True, lambda t: float(first_mention(t) is None)),
    Measure("ungrounded_findings", "Findings not in the case", False, ungrounded_findings),
    Measure(
        "ungrounded_numbers",
        "Numbers not in the case",
        False,
        lambda t: len(set(ungrounded_numbers(t.thinking, t.question))),
    ),
    Measure("lexical_diversity", "Lexical diversity (MATTR-50)", False, lexical_diversity),
    Measure("direct", "Right at once", True, _outcome(TraceOutcome.DIRECT)),
    Measure("recovered", "Recovered by a strategy", True, _outcome(TraceOutcome.RECOVERED)),
    Measure("guided", "Guided by the reference", True, _outcome(TraceOutcome.GUIDED)),
    Measure("uses_exploring_new_paths", "Uses Exploring New Paths", True, _uses(Strategy.NEW_PATHS)),
    Measure("uses_backtracking", "Uses Backtracking", True, _uses(Strategy.BACKTRACKING)),
    Measure("uses_verification", "Uses Verification", True, _uses(Strategy.VERIFICATION)),
    Measure("uses_corrections", "Uses Corrections", True, _uses(Strategy.CORRECTIONS)),
)
