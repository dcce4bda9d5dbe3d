"""Two datasets of traces side by side: how their chains of thought differ, as effect sizes with intervals.

Intervals come from a bootstrap over cases: where both datasets were made from the same cases the comparison is paired
by itself, and several traces of a case count as what they are, one case. p-values: Mann-Whitney for amounts, Fisher for
shares, Holm over all measures of a section. `analyse` writes it as one self-contained HTML page, without record text.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.lexicon.findings import mentions
from clinical_r1.page import render
from clinical_r1.schema import RETRY_STRATEGIES, Strategy, Trace, TraceOutcome, read_jsonl
from clinical_r1.stats import Interval, holm
from clinical_r1.synthesis import text as reading
from clinical_r1.synthesis.config import draw
from clinical_r1.verifier.names import names_in

RESAMPLES = 2000
WINDOW = 50
"""Units in the window of the moving type-token ratio."""
REACH = 2.0
"""Effects beyond ±REACH are drawn at the edge."""


# --- what is measured of one chain of thought


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
    wanted = reading.content_units(answer, trace.language)
    said = reading.sentences(trace.thinking)
    for place, sentence in enumerate(said if wanted else ()):
        shared = len(wanted & reading.content_units(sentence, trace.language))
        if shared >= 0.6 * len(wanted) or names_in(sentence, answer):
            return place / max(1, len(said) - 1)
    return None


def lexical_diversity(trace: Trace) -> float | None:
    """Moving-average type-token ratio (Covington and McFall 2010), which does not fall with length."""
    tokens = reading.units(reading.fold(trace.thinking))
    if len(tokens) <= WINDOW:
        return len(set(tokens)) / len(tokens) if tokens else None
    counts = Counter(tokens[:WINDOW])
    total = len(counts)
    for gone, token in zip(tokens, tokens[WINDOW:], strict=False):
        counts[token] += 1
        counts[gone] -= 1
        if not counts[gone]:
            del counts[gone]
        total += len(counts)
    return total / (len(tokens) - WINDOW + 1) / WINDOW


def _outcome(outcome: TraceOutcome) -> Callable[[Trace], float]:
    return lambda trace: float(trace.outcome is outcome)


def _uses(strategy: Strategy) -> Callable[[Trace], float]:
    return lambda trace: float(any(attempt.strategy is strategy for attempt in trace.attempts))


def _transitions(trace: Trace) -> float:
    found = reading.transitions(trace.thinking, trace.language).total()
    return 100 * found / max(1, len(reading.units(trace.thinking)))


def _corrections(trace: Trace) -> int:
    return reading.self_corrections(trace.thinking, trace.language)


def _numbers(trace: Trace) -> int:
    return len(set(reading.ungrounded_numbers(trace.thinking, trace.question)))


MEASURES = (
    Measure("thinking_units", "Thinking, words or characters", False, lambda t: len(reading.units(t.thinking))),
    Measure("thinking_sentences", "Thinking, sentences", False, lambda t: len(reading.sentences(t.thinking))),
    Measure("response_units", "Response, words or characters", False, lambda t: len(reading.units(t.response))),
    Measure("transitions_per_100", "Transition words per 100 units", False, _transitions),
    Measure("self_corrections", "Self-corrections per chain", False, _corrections),
    Measure("corrects_itself", "Chains with a self-correction", True, lambda t: float(_corrections(t) > 0)),
    Measure("attempts", "Attempts behind a chain", False, lambda t: len(t.attempts)),
    Measure("first_mention", "First mention of the answer (0 start, 1 end)", False, first_mention),
    Measure("never_mentioned", "Answer never named in the thinking", True, lambda t: float(first_mention(t) is None)),
    Measure("ungrounded_findings", "Findings not in the case", False, ungrounded_findings),
    Measure("ungrounded_numbers", "Numbers not in the case", False, _numbers),
    Measure("lexical_diversity", "Lexical diversity (MATTR-50)", False, lexical_diversity),
    Measure("direct", "Right at once", True, _outcome(TraceOutcome.DIRECT)),
    Measure("recovered", "Recovered by a strategy", True, _outcome(TraceOutcome.RECOVERED)),
    Measure("guided", "Guided by the reference", True, _outcome(TraceOutcome.GUIDED)),
    *(Measure(f"uses_{s}", f"Uses {s.replace('_', ' ').title()}", True, _uses(s)) for s in RETRY_STRATEGIES),
)


# --- two datasets


class Row(BaseModel):
    """One measure in both datasets."""

    name: str
    title: str
    share: bool
    n: tuple[int, int]
    mean: tuple[float, float]
    median: tuple[float, float]
    difference: float
    """Mean of B less mean of A."""
    difference_interval: Interval
    """95%, bootstrap over cases."""
    effect: float | None
    """Hedges' g for amounts, Cohen's h for shares; positive where B has more; None where only the means differ."""
    effect_interval: Interval | None
    p: float
    p_holm: float = 1.0


class Section(BaseModel):
    """The comparison of one language, or across languages where the datasets share none."""

    title: str
    across_languages: bool
    """True: lengths are in words on one side and in characters on the other, and do not compare."""
    traces: tuple[int, int]
    cases: tuple[int, int]
    shared_cases: int
    rows: list[Row]
    strategies: dict[str, tuple[float, float]]
    """Share of attempts by strategy."""
    words: dict[str, tuple[float, float]]
    """Transition words per 1,000 chains, the commonest ones."""


class Comparison(BaseModel):
    """Everything that the report shows."""

    names: tuple[str, str]
    sections: list[Section]


def analyse(a: Path, b: Path, out_dir: Path, names: tuple[str, str] | None = None) -> Comparison:
    """Compare two traces.jsonl; writes `out_dir`/{chains.html, chains.json}."""
    a, b = Path(a), Path(b)
    told = [(a.parent.name, b.parent.name), (a.stem, b.stem), ("A", "B")]
    names = names or next(pair for pair in told if pair[0] and pair[0] != pair[1])
    kept = [[trace for trace in read_jsonl(path, Trace) if trace.accepted] for path in (a, b)]
    comparison = compare(kept[0], kept[1], names)
    write_text(Path(out_dir) / "chains.json", comparison.model_dump_json(indent=1) + "\n")
    title = f"Chains of thought: {names[0]} (A) and {names[1]} (B)"
    page = render("chains.html.j2", title=title, c=comparison, amount=amount, reach=REACH)
    write_text(Path(out_dir) / "chains.html", page)
    return comparison


def amount(value: float, row: Row) -> str:
    """A value as the measure is read: shares in percent."""
    return f"{100 * value:.1f}%" if row.share else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def compare(a: Sequence[Trace], b: Sequence[Trace], names: tuple[str, str]) -> Comparison:
    """Compare two sets of accepted traces; raises UserError where one has none."""
    for name, traces in zip(names, (a, b), strict=True):
        if not traces:
            raise UserError(f"{name}: no accepted traces to compare; give a traces.jsonl with at least one")
    sections = []
    for language in sorted({trace.language for trace in a} & {trace.language for trace in b}):
        own = [[trace for trace in traces if trace.language == language] for traces in (a, b)]
        sections.append(_section({"en": "English", "zh": "Chinese"}[language], own))
    return Comparison(names=names, sections=sections or [_section("Across languages", (a, b), across=True)])


def _section(title: str, both: Sequence[Sequence[Trace]], across: bool = False) -> Section:
    cases = [{trace.case_id for trace in traces} for traces in both]
    order = {case: place for place, case in enumerate(sorted(cases[0] | cases[1]))}
    values, sums = zip(*(_tabled(traces, order) for traces in both), strict=True)
    resampled = _resample(sums, draw("analysis", 0))
    rows = [
        _row(measure, [one[number] for one in values], [one[:, number] for one in resampled])
        for number, measure in enumerate(MEASURES)
        if all(len(one[number]) for one in values)
    ]
    for row, adjusted in zip(rows, holm([row.p for row in rows]), strict=True):
        row.p_holm = adjusted
    used = [Counter(one.strategy.value for trace in traces for one in trace.attempts) for traces in both]
    words = [sum((reading.transitions(t.thinking, t.language) for t in traces), Counter[str]()) for traces in both]
    common = [word for word, _ in (words[0] + words[1]).most_common(12)]
    return Section(
        title=title,
        across_languages=across,
        traces=(len(both[0]), len(both[1])),
        cases=(len(cases[0]), len(cases[1])),
        shared_cases=len(cases[0] & cases[1]),
        rows=rows,
        strategies={name: _pair(one[name] / max(1, one.total()) for one in used) for name in sorted(used[0] | used[1])},
        words={w: _pair(1000 * one[w] / len(traces) for one, traces in zip(words, both, strict=True)) for w in common},
    )


def _pair(values: Iterable[float]) -> tuple[float, float]:
    first, second = values
    return first, second


def _tabled(traces: Sequence[Trace], order: dict[str, int]) -> tuple[list[np.ndarray], np.ndarray]:
    """Values of all measures; and by case their count, sum and sum of squares, (cases, measures, 3): a resample is a
    matrix product."""
    sums = np.zeros((len(order), len(MEASURES), 3))
    values: list[list[float]] = [[] for _ in MEASURES]
    for trace in traces:
        for number, measure in enumerate(MEASURES):
            if (value := measure.value(trace)) is not None:
                values[number].append(value)
                sums[order[trace.case_id], number] += 1, value, value * value
    return [np.array(column, dtype=float) for column in values], sums


def _resample(tables: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """Totals of each table in resamples of the cases, (RESAMPLES, measures, 3); some at a time, to bound memory."""
    cases = len(tables[0])
    rng = np.random.default_rng(seed)
    totals: list[list[np.ndarray]] = [[] for _ in tables]
    step = max(1, min(RESAMPLES, 2_000_000 // cases))
    for start in range(0, RESAMPLES, step):
        chosen = rng.multinomial(cases, np.full(cases, 1 / cases), size=min(step, RESAMPLES - start)).astype(float)
        for table, parts in zip(tables, totals, strict=True):
            parts.append((chosen @ table.reshape(cases, -1)).reshape(len(chosen), *table.shape[1:]))
    return [np.concatenate(parts) for parts in totals]


Moments = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Count, mean and variance."""


def _moments(totals: np.ndarray) -> Moments:
    """From (count, sum, sum of squares); nan where a resample has no value."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = totals[:, 1] / totals[:, 0]
        return totals[:, 0], mean, np.maximum(0.0, totals[:, 2] / totals[:, 0] - mean**2)


def _row(measure: Measure, values: Sequence[np.ndarray], resampled: Sequence[np.ndarray]) -> Row:
    effect = _cohen_h if measure.share else _hedges_g
    a, b = values
    size = float(effect(*((np.array([len(v)]), np.array([v.mean()]), np.array([v.var()])) for v in values))[0])
    drawn_a, drawn_b = map(_moments, resampled)
    return Row(
        name=measure.name,
        title=measure.title,
        share=measure.share,
        n=(len(a), len(b)),
        mean=(float(a.mean()), float(b.mean())),
        median=(float(np.median(a)), float(np.median(b))),
        difference=float(b.mean() - a.mean()),
        difference_interval=_interval(drawn_b[1] - drawn_a[1]),
        effect=size if np.isfinite(size) else None,
        effect_interval=_interval(effect(drawn_a, drawn_b)) if np.isfinite(size) else None,
        p=_p_value(measure, a, b),
    )


def _hedges_g(a: Moments, b: Moments) -> np.ndarray:
    """Standardised difference of means with the small-sample correction; nan where nothing varies but the means."""
    (n_a, mean_a, var_a), (n_b, mean_b, var_b) = a, b
    freedom = np.maximum(1.0, n_a + n_b - 2)
    pooled = np.sqrt((n_a * var_a + n_b * var_b) / freedom)
    correction = 1 - 3 / np.maximum(1.0, 4 * freedom - 1)
    difference = mean_b - mean_a
    undefined = np.where(difference == 0, 0.0, np.nan)
    return np.where(pooled > 0, correction * difference / np.where(pooled > 0, pooled, 1), undefined)


def _cohen_h(a: Moments, b: Moments) -> np.ndarray:
    """Difference of two shares on the arcsine scale."""
    on_arcsine = [np.arcsin(np.sqrt(np.clip(mean, 0, 1))) for _, mean, _ in (a, b)]
    return 2 * (on_arcsine[1] - on_arcsine[0])


def _interval(resampled: np.ndarray) -> Interval:
    """The middle 95% of the resamples in which both sides have a value."""
    usable = resampled[np.isfinite(resampled)]
    if not len(usable):
        return Interval(0.0, 0.0)
    low, high = np.percentile(usable, (2.5, 97.5))
    return Interval(float(low), float(high))


def _p_value(measure: Measure, a: np.ndarray, b: np.ndarray) -> float:
    from scipy import stats  # seconds to import, and most who load this module test nothing

    if measure.share:
        table = [[int(v.sum()), int(len(v) - v.sum())] for v in (a, b)]
        return float(stats.fisher_exact(table).pvalue)
    if np.ptp(np.concatenate((a, b))) == 0:
        return 1.0
    return float(stats.mannwhitneyu(a, b).pvalue)
