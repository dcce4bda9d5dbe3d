"""The gate's rule on specialties: none may be harmed, and chance in a small one decides nothing."""

from collections.abc import Mapping
from statistics import NormalDist
from typing import Literal, NamedTuple

from clinical_r1.evaluation.measure.compare import PairedResult
from clinical_r1.evaluation.promotion.policy import SpecialtyRule
from clinical_r1.objectstore.manifest import RuleResult
from clinical_r1.page import percent, points
from clinical_r1.stats import Shrunken, paired_power, quantile, shrink

_NORMAL = NormalDist()


class _Group(NamedTuple):
    """A specialty, or several small ones together."""

    name: str
    n: int
    difference: float
    error: float
    """Standard error, from the width of the interval: it knows of patients that repeat."""
    discordance: float


def specialty_rules(results: Mapping[str, PairedResult], rule: SpecialtyRule) -> list[RuleResult]:
    """One result a specialty (small ones together), and a hold for one without a single scored pair."""
    empty = [
        RuleResult(rule=f"specialty {name}", result="hold", reason="no pair has a verdict", n=0, power="")
        for name, result in results.items()
        if not result.n
    ]
    groups = _pooled([_group(name, result) for name, result in results.items() if result.n], rule.min_cases)
    if not groups:
        return empty
    spread = rule.spread_points / 100
    together = shrink([group.difference for group in groups], [group.error for group in groups], spread)
    return [_judged(group, all_told, rule) for group, all_told in zip(groups, together, strict=True)] + empty


def _group(name: str, result: PairedResult) -> _Group:
    error = max((result.high - result.low) / (2 * quantile(0.95)), 1e-6)
    return _Group(f"specialty {name}", result.n, result.difference, error, result.pairs.discordance)


def _pooled(groups: list[_Group], least: int) -> list[_Group]:
    small = [group for group in groups if group.n < least]
    if len(small) < 2:
        return groups
    n = sum(group.n for group in small)
    error = sum((group.n * group.error) ** 2 for group in small) ** 0.5 / n
    difference, discordance = (
        sum(group.n * value for group, value in zip(small, values, strict=True)) / n
        for values in ([group.difference for group in small], [group.discordance for group in small])
    )
    names = ", ".join(group.name.removeprefix("specialty ") for group in small)
    pooled = _Group(f"specialties of fewer than {least} pairs ({names})", n, difference, error, discordance)
    return [group for group in groups if group.n >= least] + [pooled]


def _judged(group: _Group, all_told: Shrunken, rule: SpecialtyRule) -> RuleResult:
    drop, below = rule.design_drop_points / 100, -rule.hold_below_points / 100
    p = _NORMAL.cdf(group.difference / group.error)
    worse, harmed = all_told.below(0.0), all_told.below(below)
    result: Literal["pass", "hold", "refuse"] = "pass"
    if p < rule.alpha and worse >= rule.refuse_probability:
        result = "refuse"
    elif harmed > rule.hold_probability:
        result = "hold"
    found = paired_power(group.n, drop, max(group.discordance, 0.05), confidence=1 - rule.alpha, sides=1)
    return RuleResult(
        rule=group.name,
        result=result,
        reason=f"{points(group.difference)} points (one-sided p {p:.2g}); all specialties considered "
        f"{points(all_told.mean)}, worse with probability {percent(worse, 0)}, by more than {rule.hold_below_points:g} "
        f"points with {percent(harmed, 0)} (refused from {percent(rule.refuse_probability, 0)} and p below "
        f"{rule.alpha:g}, held above {percent(rule.hold_probability, 0)})",
        n=group.n,
        power=f"its own cases show {percent(found, 0)} of true drops of {rule.design_drop_points:g} points and "
        f"{percent(rule.alpha, 0)} of unchanged models",
    )
