"""Proportions, paired comparisons and their power. Numbers in, numbers out; nothing here knows a record.

Everything is closed-form or a bracketed root, so results do not depend on a seed; resampling is evaluation's.
Sources: Wilson 1927; Tango 1998 (Stat Med 17:891); Fagerland, Lydersen and Laake 2013
(mid-p McNemar); Connor 1987 (power of McNemar's test); Holm 1979; Fleiss, Cohen and Everitt 1969 (kappa).
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

_NORMAL = NormalDist()


class Interval(NamedTuple):
    """A closed interval."""

    low: float
    high: float


class Pairs(NamedTuple):
    """The 2 x 2 table of two systems on the same cases."""

    both: int
    first_only: int
    second_only: int
    neither: int

    @property
    def n(self) -> int:
        return sum(self)

    @property
    def difference(self) -> float:
        """Accuracy of the second minus accuracy of the first."""
        return (self.second_only - self.first_only) / self.n if self.n else 0.0

    @property
    def discordance(self) -> float:
        """Share of cases on which the two differ; it drives the power of a paired test."""
        return (self.first_only + self.second_only) / self.n if self.n else 0.0


def pair_up(first: Sequence[bool], second: Sequence[bool]) -> Pairs:
    """The table of two aligned lists of right/wrong. Raises ValueError where the lengths differ."""
    cells = Counter(zip(first, second, strict=True))
    return Pairs(cells[True, True], cells[True, False], cells[False, True], cells[False, False])


def quantile(confidence: float, sides: Literal[1, 2] = 2) -> float:
    """Standard normal quantile of a confidence level, e.g. 0.95 -> 1.96 (two-sided), 1.645 (one-sided)."""
    return _NORMAL.inv_cdf(1 - (1 - confidence) / sides)


def wilson(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (counts may be effective ones); (0, 1) where n is 0: nothing is known."""
    if n == 0:
        return Interval(0.0, 1.0)
    z = quantile(confidence)
    p, spread = successes / n, z * z / n
    centre = (p + spread / 2) / (1 + spread)
    half = z * math.sqrt(p * (1 - p) / n + spread / (4 * n)) / (1 + spread)
    return Interval(0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half)


def effective_n(share: float, n: float, interval: Interval) -> float:
    """How many independent observations would give Wilson's interval of this width: n, or fewer where clusters widened
    the interval."""
    plain, width = wilson(share * n, n), interval.high - interval.low
    return n * min(1.0, ((plain.high - plain.low) / width) ** 2) if n and width > 0 else n


def mcnemar(first_only: int, second_only: int, method: Literal["exact", "mid-p"] = "mid-p") -> float:
    """Two-sided p of McNemar's test on the discordant pairs: exact binomial, or mid-p, which is less conservative."""
    n, k = first_only + second_only, min(first_only, second_only)
    if n == 0:
        return 1.0
    log_half = n * math.log(0.5)

    def mass(i: int) -> float:
        return math.exp(math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + log_half)

    exact = min(1.0, 2 * sum(mass(i) for i in range(k + 1)))
    if method == "exact":
        return exact
    return exact - mass(k) if first_only != second_only else 1.0


def paired_interval(pairs: Pairs, confidence: float = 0.95, sides: Literal[1, 2] = 2) -> Interval:
    """Tango's score interval of the paired difference (second minus first).

    At margin 0 its statistic is McNemar's, so interval and test tell one story. With `sides=1` each end is a one-sided
    bound of that confidence. (-1, 1) where there are no pairs.
    """
    if pairs.n == 0:
        return Interval(-1.0, 1.0)
    z, difference, edge = quantile(confidence, sides), pairs.difference, 1 - 1e-9
    low, high = -1.0, 1.0
    if _tango(pairs, -edge) > z:
        low = _bisect(lambda margin: _tango(pairs, margin) - z, -edge, difference)
    if _tango(pairs, edge) < -z:
        high = _bisect(lambda margin: _tango(pairs, margin) + z, difference, edge)
    return Interval(low, high)


def _tango(pairs: Pairs, margin: float) -> float:
    """Score statistic of the hypothesis difference == margin; falls as the margin grows."""
    n, b, c = pairs.n, pairs.second_only, pairs.first_only
    linear = -b - c + (2 * n - b + c) * margin
    root = math.sqrt(max(0.0, linear * linear - 8 * n * (-c * margin * (1 - margin))))
    p_first = max(0.0, (root - linear) / (4 * n))
    variance = n * (2 * p_first + margin * (1 - margin))
    distance = b - c - n * margin
    if variance <= 0:
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def _bisect(function: Callable[[float], float], low: float, high: float) -> float:
    """Root of a function that changes sign between the two ends, to 1e-10."""
    rising = function(low) < 0
    while high - low > 1e-10:
        middle = (low + high) / 2
        if (function(middle) < 0) == rising:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order given."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def paired_power(
    n: int, effect: float, discordance: float, confidence: float = 0.95, sides: Literal[1, 2] = 2, margin: float = 0.0
) -> float:
    """Power to show a paired difference above -margin when it truly is `effect` (Connor 1987; margin 0 is superiority).

    `discordance` is the share of discordant pairs; it is raised to |effect| where it is given smaller.
    """
    if n == 0:
        return 0.0
    discordance = max(discordance, abs(effect), 1e-12)
    sd = math.sqrt(max(discordance - effect * effect, 1e-12))
    null_sd = math.sqrt(discordance) if margin == 0 else sd
    z = quantile(confidence, sides)
    return _NORMAL.cdf(((effect + margin) * math.sqrt(n) - z * null_sd) / sd)


def minimum_detectable_effect(
    n: int, discordance: float, power: float = 0.8, confidence: float = 0.95, sides: Literal[1, 2] = 2
) -> float:
    """Smallest paired difference that n cases show with the given power; 1.0 where no difference can be shown."""
    if n == 0 or paired_power(n, 1.0, discordance, confidence, sides) < power:
        return 1.0
    return _bisect(lambda effect: paired_power(n, effect, discordance, confidence, sides) - power, 0.0, 1.0)


class Shrunken(NamedTuple):
    """What several groups together say of one of them: a mixture of normals, one for each spread between the groups."""

    weights: Sequence[float]
    means: Sequence[float]
    sds: Sequence[float]

    @property
    def mean(self) -> float:
        return sum(w * m for w, m in zip(self.weights, self.means, strict=True))

    def below(self, limit: float) -> float:
        """Probability that the group's true value is below a limit."""
        parts = zip(self.weights, self.means, self.sds, strict=True)
        return sum(w * _NORMAL.cdf((limit - m) / max(s, 1e-12)) for w, m, s in parts)


def shrink(values: Sequence[float], errors: Sequence[float], spread: float) -> list[Shrunken]:
    """Hierarchical normal model of groups (Gelman et al., Bayesian Data Analysis, 5.4): each group's true value is
    drawn around a common mean (flat prior) with a standard deviation that has a half-normal(`spread`) prior; integrated
    over a grid, so the result depends on no seed.

    Args:
        values: observed differences, one a group.
        errors: their standard errors, above 0.
        spread: how far apart true values are thought to be.
    """
    logs: list[float] = []
    posts: list[list[tuple[float, float]]] = []
    for tau in (spread * step / 12 for step in range(1, 49)):
        precisions = [1 / (error * error + tau * tau) for error in errors]
        total = sum(precisions)
        common = sum(p * value for p, value in zip(precisions, values, strict=True)) / total
        misfit = sum(p * (value - common) ** 2 for p, value in zip(precisions, values, strict=True))
        logs.append((sum(map(math.log, precisions)) - math.log(total) - misfit - (tau / spread) ** 2) / 2)
        row = []
        for value, error in zip(values, errors, strict=True):
            own = tau * tau / (tau * tau + error * error)
            variance = own * error * error + (1 - own) ** 2 / total
            row.append((own * value + (1 - own) * common, math.sqrt(variance)))
        posts.append(row)
    weights = [math.exp(log - max(logs)) for log in logs]
    shares = [weight / sum(weights) for weight in weights]
    return [Shrunken(shares, *zip(*of_group, strict=True)) for of_group in zip(*posts, strict=True)]


def cohen_kappa(table: Sequence[Sequence[int]], confidence: float = 0.95) -> tuple[float, Interval]:
    """Cohen's kappa of a square table (rows: rater 1, columns: rater 2) with its asymptotic interval.

    Variance after Fleiss, Cohen and Everitt 1969, as in statsmodels. Kappa is 1.0 where both raters used one category
    throughout: they never disagreed, though nothing was tested.
    """
    n = sum(map(sum, table))
    size = range(len(table))
    if n == 0:
        return 0.0, Interval(-1.0, 1.0)
    p = [[cell / n for cell in row] for row in table]
    rows, columns = [sum(row) for row in p], [sum(p[i][j] for i in size) for j in size]
    agreed, chance = sum(p[i][i] for i in size), sum(rows[i] * columns[i] for i in size)
    if chance >= 1:
        return 1.0, Interval(-1.0, 1.0)
    kappa = (agreed - chance) / (1 - chance)
    diagonal = sum(p[i][i] * (1 - (rows[i] + columns[i]) * (1 - kappa)) ** 2 for i in size)
    off = (1 - kappa) ** 2 * sum(p[i][j] * (columns[i] + rows[j]) ** 2 for i in size for j in size if i != j)
    variance = (diagonal + off - (kappa - chance * (1 - kappa)) ** 2) / ((1 - chance) ** 2 * n)
    half = quantile(confidence) * math.sqrt(max(variance, 0.0))
    return kappa, Interval(max(-1.0, kappa - half), min(1.0, kappa + half))
