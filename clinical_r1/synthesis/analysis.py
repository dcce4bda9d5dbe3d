"""Two datasets of traces side by side: how their chains of thought differ, as effect sizes with intervals.

Intervals come from a bootstrap over cases: where both datasets were made from the same cases the comparison is paired
by itself, and several traces of a case count as what they are, one case. p-values: Mann-Whitney for amounts, Fisher for
shares, Holm over all measures of a section. `analyse` writes it as one self-contained HTML page, without record text.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.page import render
from clinical_r1.schema import Trace, read_jsonl
from clinical_r1.stats import Interval, holm
from clinical_r1.synthesis.chains import MEASURES, Measure
from clinical_r1.synthesis.choices import draw
from clinical_r1.synthesis.text import transitions

RESAMPLES = 2000


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


def compare(a: Sequence[Trace], b: Sequence[Trace], names: tuple[str, str], seed: int = 0) -> Comparison:
    """Compare two sets of accepted traces; raises UserError where one has none."""
    for name, traces in zip(names, (a, b), strict=True):
        if not traces:
            raise UserError(f"{name}: no accepted traces to compare; give a traces.jsonl with at least one")
    shared = sorted({trace.language for trace in a} & {trace.language for trace in b})
    sections = [
        _section(
            {"en": "English", "zh": "Chinese"}[language],
            [trace for trace in a if trace.language == language],
            [trace for trace in b if trace.language == language],
            seed,
        )
        for language in shared
    ]
    if not shared:
        sections = [_section("Across languages", a, b, seed, across=True)]
    return Comparison(names=names, sections=sections)


def _section(title: str, a: Sequence[Trace], b: Sequence[Trace], seed: int, across: bool = False) -> Section:
    cases = [{trace.case_id for trace in traces} for traces in (a, b)]
    order = {case: place for place, case in enumerate(sorted(cases[0] | cases[1]))}
    tables = [_Table(traces, order) for traces in (a, b)]
    resampled = _resample([table.sums for table in tables], draw("analysis", seed))
    rows = [
        row
        for number, measure in enumerate(MEASURES)
        if (row := _row(measure, *(table.values[number] for table in tables), *(r[:, number] for r in resampled)))
    ]
    for row, adjusted in zip(rows, holm([row.p for row in rows]), strict=True):
        row.p_holm = adjusted
    return Section(
        title=title,
        across_languages=across,
        traces=(len(a), len(b)),
        cases=(len(cases[0]), len(cases[1])),
        shared_cases=len(cases[0] & cases[1]),
        rows=rows,
        strategies=_strategies(a, b),
        words=_words(a, b),
    )


class _Table:
    """Values of all measures; per case their count, sum and sum of squares: a resample is a matrix product."""

    def __init__(self, traces: Sequence[Trace], order: dict[str, int]) -> None:
        self.sums = np.zeros((len(order), len(MEASURES), 3))
        values: list[list[float]] = [[] for _ in MEASURES]
        for trace in traces:
            of_case = self.sums[order[trace.case_id]]
            for number, measure in enumerate(MEASURES):
                if (value := measure.value(trace)) is not None:
                    values[number].append(value)
                    of_case[number] += 1, value, value * value
        self.values = [np.array(column, dtype=float) for column in values]


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


def _moments(totals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(count, mean, variance) from (count, sum, sum of squares); nan where a resample has no value."""
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = totals[:, 1] / totals[:, 0]
        return totals[:, 0], mean, np.maximum(0.0, totals[:, 2] / totals[:, 0] - mean**2)


def _row(
    measure: Measure, a: np.ndarray, b: np.ndarray, resampled_a: np.ndarray, resampled_b: np.ndarray
) -> Row | None:
    """One measure; None where a dataset has no value at all."""
    if not len(a) or not len(b):
        return None
    effect = _cohen_h if measure.share else _hedges_g
    point = [np.array([value]) for v in (a, b) for value in (len(v), v.mean(), v.var())]
    size = float(effect(*point)[0])
    moments_a, moments_b = _moments(resampled_a), _moments(resampled_b)
    return Row(
        name=measure.name,
        title=measure.title,
        share=measure.share,
        n=(len(a), len(b)),
        mean=(float(a.mean()), float(b.mean())),
        median=(float(np.median(a)), float(np.median(b))),
        difference=float(b.mean() - a.mean()),
        difference_interval=_interval(moments_b[1] - moments_a[1]),
        effect=size if np.isfinite(size) else None,
        effect_interval=_interval(effect(*moments_a, *moments_b)) if np.isfinite(size) else None,
        p=_p_value(measure, a, b),
    )


def _hedges_g(
    n_a: np.ndarray, mean_a: np.ndarray, var_a: np.ndarray, n_b: np.ndarray, mean_b: np.ndarray, var_b: np.ndarray
) -> np.ndarray:
    """Standardised difference of means with the small-sample correction; nan where nothing varies but the means."""
    freedom = np.maximum(1.0, n_a + n_b - 2)
    pooled = np.sqrt((n_a * var_a + n_b * var_b) / freedom)
    correction = 1 - 3 / np.maximum(1.0, 4 * freedom - 1)
    difference = mean_b - mean_a
    undefined = np.where(difference == 0, 0.0, np.nan)
    return np.where(pooled > 0, correction * difference / np.where(pooled > 0, pooled, 1), undefined)


def _cohen_h(
    n_a: np.ndarray, mean_a: np.ndarray, var_a: np.ndarray, n_b: np.ndarray, mean_b: np.ndarray, var_b: np.ndarray
) -> np.ndarray:
    """Difference of two shares on the arcsine scale."""
    return 2 * (np.arcsin(np.sqrt(np.clip(mean_b, 0, 1))) - np.arcsin(np.sqrt(np.clip(mean_a, 0, 1))))


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


def _strategies(a: Sequence[Trace], b: Sequence[Trace]) -> dict[str, tuple[float, float]]:
    counts = [Counter(attempt.strategy.value for trace in traces for attempt in trace.attempts) for traces in (a, b)]
    names = sorted(counts[0] | counts[1])
    first, second = (max(1, counter.total()) for counter in counts)
    return {name: (counts[0][name] / first, counts[1][name] / second) for name in names}


def _words(a: Sequence[Trace], b: Sequence[Trace], most: int = 12) -> dict[str, tuple[float, float]]:
    counts = []
    for traces in (a, b):
        total: Counter[str] = Counter()
        for trace in traces:
            total += transitions(trace.thinking, trace.language)
        counts.append(total)
    common = [word for word, _ in (counts[0] + counts[1]).most_common(most)]
    return {word: (1000 * counts[0][word] / len(a), 1000 * counts[1][word] / len(b)) for word in common}


REACH = 2.0
"""Effects beyond ±REACH are drawn at the edge."""


def analyse(a: Path, b: Path, out_dir: Path, names: tuple[str, str] | None = None, seed: int = 0) -> Comparison:
    """Compare two traces.jsonl; writes `out_dir`/{chains.html, chains.json}."""
    names = names or _names(Path(a), Path(b))
    kept = [[trace for trace in read_jsonl(path, Trace) if trace.accepted] for path in (a, b)]
    comparison = compare(kept[0], kept[1], names, seed)
    write_text(Path(out_dir) / "chains.json", comparison.model_dump_json(indent=1) + "\n")
    title = f"Chains of thought: {names[0]} (A) and {names[1]} (B)"
    page = render("chains.html.j2", title=title, c=comparison, amount=amount, reach=REACH)
    write_text(Path(out_dir) / "chains.html", page)
    return comparison


def _names(a: Path, b: Path) -> tuple[str, str]:
    if a.parent.name and a.parent.name != b.parent.name:
        return a.parent.name, b.parent.name
    return (a.stem, b.stem) if a.stem != b.stem else ("A", "B")


def amount(value: float, row: Row) -> str:
    """A value as the measure is read: shares in percent."""
    return f"{100 * value:.1f}%" if row.share else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
