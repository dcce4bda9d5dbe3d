"""Stratified cluster bootstrap and a cluster permutation test.

Observations of one patient are alike, so patients (or cases with several samples) are drawn, or flipped, whole; one by
one the interval would be too narrow. Efron and Tibshirani 1993, ch. 8 (percentile interval) and 15. Strata of fewer
than `FEWEST` clusters are pooled (collapsed strata, Cochran 1977, 5A.12): one cluster alone would seem not to vary.
"""

from collections.abc import Hashable, Sequence
from typing import Any, Self

from clinical_r1.errors import Strict
from clinical_r1.stats import Interval, Pairs, cohen_kappa, paired_interval, wilson

FEWEST = 5
"""Clusters that a stratum needs for a bootstrap of its own."""


def cluster_interval(
    values: Sequence[float],
    strata: Sequence[Hashable],
    clusters: Sequence[Hashable],
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of the mean of `values` (e.g. right/wrong, or a paired difference of -1, 0, 1).

    `strata` and `clusters` are aligned with `values`; a cluster in several strata is cut at their borders.
    (nan, nan) where there is nothing.
    """
    import numpy as np

    if not values:
        return Interval(float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    sums, counts = np.zeros(draws), np.zeros(draws)
    for totals, sizes in _cluster_totals(values, strata, clusters):
        size = len(totals)
        for start in range(0, draws, 256):
            drawn = rng.integers(0, size, (min(256, draws - start), size))
            sums[start : start + 256] += np.asarray(totals)[drawn].sum(axis=1)
            counts[start : start + 256] += np.asarray(sizes)[drawn].sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(sums / counts, [tail, 1 - tail])
    return Interval(float(low), float(high))


def mean_interval(values: Sequence[float], strata: Sequence[Hashable], clusters: Sequence[Hashable]) -> Interval:
    """95% interval of a mean of values in [0, 1]: the bootstrap's; where all values are alike, or of one cluster,
    which a bootstrap takes for certainty, Wilson's for as many observations as there are clusters. (0, 1) where there
    is nothing."""
    if not values:
        return Interval(0.0, 1.0)
    n = len(set(clusters))
    if min(values) == max(values) or n == 1:
        return wilson(min(1.0, max(0.0, sum(values) / len(values))) * n, n)
    return cluster_interval(values, strata, clusters)


def share_interval(hits: Sequence[bool], strata: Sequence[Hashable], clusters: Sequence[Hashable]) -> Interval:
    """95% interval of a share: Wilson's, or `mean_interval` where clusters repeat."""
    if len(set(clusters)) == len(hits):
        return wilson(sum(hits), len(hits))
    return mean_interval([float(hit) for hit in hits], strata, clusters)


def kappa_interval(
    pairs: Sequence[tuple[bool, bool]], clusters: Sequence[Hashable], draws: int = 2000, seed: int = 0
) -> tuple[float, Interval]:
    """Cohen's kappa of two raters and its 95% interval: the asymptotic one, or a bootstrap's where clusters repeat."""
    import numpy as np

    cells: dict[Hashable, list[int]] = {}
    for (first, second), cluster in zip(pairs, clusters, strict=True):
        cells.setdefault(cluster, [0, 0, 0, 0])[2 * (not first) + (not second)] += 1
    a, b, c, d = (sum(column) for column in zip(*cells.values(), strict=True)) if cells else (0, 0, 0, 0)
    kappa, asymptotic = cohen_kappa([[a, b], [c, d]])
    if b + c == 0 and a and d:  # no disagreement is no certainty: Wilson's bound of the agreement
        chance = (a * a + d * d) / (a + d) ** 2
        return kappa, Interval((wilson(len(cells), len(cells)).low - chance) / (1 - chance), 1.0)
    if len(cells) == len(pairs) or b + c == 0:
        return kappa, asymptotic
    chosen = np.random.default_rng(seed).multinomial(len(cells), np.full(len(cells), 1 / len(cells)), size=draws)
    table = chosen @ np.array(list(cells.values())) / len(pairs)
    table = table / table.sum(axis=1, keepdims=True)
    agreed, yes = table[:, 0] + table[:, 3], (table[:, 0] + table[:, 1], table[:, 0] + table[:, 2])
    chance = yes[0] * yes[1] + (1 - yes[0]) * (1 - yes[1])
    low, high = np.quantile((agreed - chance) / np.maximum(1 - chance, 1e-12), [0.025, 0.975])
    return kappa, Interval(float(low), float(high))


def difference_interval(
    differences: Sequence[float], strata: Sequence[Hashable], clusters: Sequence[Hashable]
) -> Interval:
    """95% interval of a mean of paired differences: the bootstrap's; where all are alike, which a bootstrap takes for
    certainty, Tango's for as many pairs as there are clusters (of their size, where they are not of size 1). (-1, 1)
    where there is nothing, or one cluster whose differences contradict each other."""
    if not differences:
        return Interval(-1.0, 1.0)
    same, n = differences[0], len(set(clusters))
    if min(differences) < max(differences):
        return cluster_interval(differences, strata, clusters) if n > 1 else Interval(-1.0, 1.0)
    size = abs(same) or 1.0
    low, high = paired_interval(Pairs(n if same == 0 else 0, n if same < 0 else 0, n if same > 0 else 0, 0))
    return Interval(low * size, high * size)


class Mean(Strict):
    """A mean of values that are shares, within [0, 1]."""

    n: int
    mean: float
    low: float
    high: float
    """95%: `mean_interval`, resampled by patient within specialties."""

    @classmethod
    def of(cls, values: Sequence[float], strata: Sequence[Hashable], clusters: Sequence[Hashable], **more: Any) -> Self:
        """From aligned lists; 0 with the interval (0, 1) where there is nothing."""
        ends = mean_interval(values, strata, clusters)
        mean = sum(values) / len(values) if values else 0.0
        inside = [min(1.0, max(0.0, value)) for value in (mean, *ends)]
        return cls(n=len(values), mean=inside[0], low=inside[1], high=inside[2], **more)


class MeanDifference(Strict):
    """Two models on the same answers: the paired difference of means, second minus first."""

    n: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    """95%: `difference_interval`, resampled by patient within specialties."""

    @classmethod
    def of(cls, rows: Sequence[tuple[float, float, Hashable, Hashable]]) -> Self:
        """From rows of (first, second, stratum, cluster), at least one."""
        first, second, strata, clusters = (list(column) for column in zip(*rows, strict=True))
        differences = [y - x for x, y in zip(first, second, strict=True)]
        low, high = difference_interval(differences, strata, clusters)
        n = len(rows)
        return cls(
            n=n, first=sum(first) / n, second=sum(second) / n, difference=sum(differences) / n, low=low, high=high
        )


def sign_flip(differences: Sequence[int], clusters: Sequence[Hashable]) -> tuple[float, float]:
    """(exact, mid-p) two-sided p of no difference: each patient's sum of differences keeps its size and flips its sign.

    McNemar's test for clustered pairs: where every pair is its own cluster it is McNemar's exact test. The distribution
    is computed whole, by convolution, so nothing is drawn.
    """
    import numpy as np

    totals: dict[Hashable, int] = {}
    for value, cluster in zip(differences, clusters, strict=True):
        totals[cluster] = totals.get(cluster, 0) + value
    sizes = [abs(total) for total in totals.values() if total]
    if not sizes:
        return 1.0, 1.0
    reach = sum(sizes)
    chance = np.zeros(2 * reach + 1)
    chance[reach] = 1.0
    for size in sizes:
        chance = (np.roll(chance, size) + np.roll(chance, -size)) / 2
    distance = np.abs(np.arange(-reach, reach + 1))
    seen = abs(sum(totals.values()))
    exact = min(1.0, float(chance[distance >= seen].sum()))
    return exact, (exact - float(chance[distance == seen].sum()) / 2 if seen else 1.0)


def _cluster_totals(
    values: Sequence[float], strata: Sequence[Hashable], clusters: Sequence[Hashable]
) -> list[tuple[list[float], list[int]]]:
    """For each stratum the sums and sizes of its clusters; small strata are pooled."""
    table: dict[Hashable, dict[Hashable, list[float]]] = {}
    for value, stratum, cluster in zip(values, strata, clusters, strict=True):
        total = table.setdefault(stratum, {}).setdefault(cluster, [0.0, 0])
        total[0] += value
        total[1] += 1
    groups = sorted((list(group.values()) for group in table.values()), key=len)
    large = [group for group in groups if len(group) >= FEWEST]
    small = [total for group in groups if len(group) < FEWEST for total in group]
    if small and large and len(small) < FEWEST:
        small += large.pop(0)
    groups = [*large, small] if small else large
    return [([total[0] for total in group], [int(total[1]) for total in group]) for group in groups]
