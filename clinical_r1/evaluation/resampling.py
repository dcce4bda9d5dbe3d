"""Stratified cluster bootstrap: patients (or cases with several samples) are drawn whole, within their stratum.

Observations of one patient are alike, so resampling them one by one would make the interval too narrow. Efron and
Tibshirani 1993, ch. 8; percentile interval.
"""

from collections.abc import Hashable, Sequence

from clinical_r1.evaluation.stats import Interval


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


def _cluster_totals(
    values: Sequence[float], strata: Sequence[Hashable], clusters: Sequence[Hashable]
) -> list[tuple[list[float], list[int]]]:
    """For each stratum the sums and sizes of its clusters."""
    table: dict[Hashable, dict[Hashable, list[float]]] = {}
    for value, stratum, cluster in zip(values, strata, clusters, strict=True):
        total = table.setdefault(stratum, {}).setdefault(cluster, [0.0, 0])
        total[0] += value
        total[1] += 1
    return [([t[0] for t in group.values()], [int(t[1]) for t in group.values()]) for group in table.values()]
