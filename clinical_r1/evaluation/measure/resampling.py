"""Stratified cluster bootstrap and a cluster permutation test.

Observations of one patient are alike, so patients (or cases with several samples) are drawn, or flipped, whole; one by
one the interval would be too narrow. Efron and Tibshirani 1993, ch. 8 (percentile interval) and 15. Strata of fewer
than `FEWEST` clusters are pooled (collapsed strata, Cochran 1977, 5A.12): one cluster alone would seem not to vary.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from statistics import fmean
from typing import Any, Self

from clinical_r1.schema import Case
from clinical_r1.stats import Interval, Pairs, cohen_kappa, paired_interval, wilson
from clinical_r1.strict import Strict

FEWEST = 5
"""Clusters that a stratum needs for a bootstrap of its own."""
DRAWS = 2000


def cluster_interval(values: Sequence[float], strata: Sequence[Hashable], clusters: Sequence[Hashable]) -> Interval:
    """95% percentile interval of the mean of `values` (e.g. right/wrong, or a paired difference of -1, 0, 1).

    `strata` and `clusters` are aligned with `values`, of which there is at least one; a cluster in several strata is
    cut at their borders.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    sums, counts = np.zeros(DRAWS), np.zeros(DRAWS)
    for group in _cluster_totals(values, strata, clusters):
        totals, sizes = np.array(group).T
        for start in range(0, DRAWS, 256):
            drawn = rng.integers(0, len(group), (min(256, DRAWS - start), len(group)))
            sums[start : start + 256] += totals[drawn].sum(axis=1)
            counts[start : start + 256] += sizes[drawn].sum(axis=1)
    low, high = np.quantile(sums / counts, [0.025, 0.975])
    return Interval(float(low), float(high))


def _cluster_totals(
    values: Sequence[float], strata: Sequence[Hashable], clusters: Sequence[Hashable]
) -> list[list[tuple[float, int]]]:
    """For each stratum the sum and size of each cluster; small strata are pooled."""
    table: dict[Hashable, dict[Hashable, list[float]]] = defaultdict(lambda: defaultdict(list))
    for value, stratum, cluster in zip(values, strata, clusters, strict=True):
        table[stratum][cluster].append(value)
    groups = sorted(([(sum(own), len(own)) for own in group.values()] for group in table.values()), key=len)
    large = [group for group in groups if len(group) >= FEWEST]
    small = [total for group in groups if len(group) < FEWEST for total in group]
    if small and large and len(small) < FEWEST:
        small += large.pop(0)
    return [*large, small] if small else large


def mean_interval(values: Sequence[float], strata: Sequence[Hashable], clusters: Sequence[Hashable]) -> Interval:
    """95% interval of a mean of values in [0, 1]: the bootstrap's; where all values are alike, or of one cluster,
    which a bootstrap takes for certainty, Wilson's for as many observations as there are clusters. (0, 1) where there
    is nothing."""
    n = len(set(clusters))
    if n <= 1 or min(values) == max(values):
        return wilson(min(1.0, max(0.0, fmean(values))) * n if n else 0, n)
    return cluster_interval(values, strata, clusters)


def share_interval(hits: Sequence[bool], strata: Sequence[Hashable], clusters: Sequence[Hashable]) -> Interval:
    """95% interval of a share: Wilson's, or `mean_interval` where clusters repeat."""
    if len(set(clusters)) == len(hits):
        return wilson(sum(hits), len(hits))
    return mean_interval([float(hit) for hit in hits], strata, clusters)


def kappa_interval(pairs: Sequence[tuple[bool, bool]], clusters: Sequence[Hashable]) -> tuple[float, Interval]:
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
    chosen = np.random.default_rng(0).multinomial(len(cells), np.full(len(cells), 1 / len(cells)), size=DRAWS)
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
    def of(cls, found: Sequence[tuple[Case, float]], **more: Any) -> Self:
        """From cases with their values; 0 with the interval (0, 1) where there is nothing."""
        values = [value for _, value in found]
        ends = mean_interval(values, [case.specialty for case, _ in found], [case.unit for case, _ in found])
        mean, low, high = (min(1.0, max(0.0, value)) for value in (fmean(values) if values else 0.0, *ends))
        return cls(n=len(values), mean=mean, low=low, high=high, **more)


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
    def of(cls, rows: Sequence[tuple[Case, float, float]]) -> Self:
        """From cases with both values, at least one."""
        differences = [y - x for _, x, y in rows]
        strata, units = [case.specialty for case, _, _ in rows], [case.unit for case, _, _ in rows]
        low, high = difference_interval(differences, strata, units)
        first, second = fmean(x for _, x, _ in rows), fmean(y for _, _, y in rows)
        return cls(n=len(rows), first=first, second=second, difference=fmean(differences), low=low, high=high)


def sign_flip(differences: Sequence[int], clusters: Sequence[Hashable]) -> tuple[float, float]:
    """(exact, mid-p) two-sided p of no difference: each patient's sum of differences keeps its size and flips its sign.

    McNemar's test for clustered pairs: where every pair is its own cluster it is McNemar's exact test. The distribution
    is computed whole, by convolution, so nothing is drawn.
    """
    import numpy as np

    totals: Counter[Hashable] = Counter()
    for value, cluster in zip(differences, clusters, strict=True):
        totals[cluster] += value
    reach = sum(map(abs, totals.values()))
    chance = np.zeros(2 * reach + 1)
    chance[reach] = 1.0
    for size in filter(None, map(abs, totals.values())):
        chance = (np.roll(chance, size) + np.roll(chance, -size)) / 2
    distance = np.abs(np.arange(-reach, reach + 1))
    seen = abs(sum(totals.values()))
    exact = min(1.0, float(chance[distance >= seen].sum()))
    return exact, (exact - float(chance[distance == seen].sum()) / 2 if seen else 1.0)
