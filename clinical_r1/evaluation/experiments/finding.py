"""What every experiment ends with: one estimate with its interval, its power, and a verdict; planted effects beside it.

Effects are in percentage points. Power is computed from the standard error that the interval implies, for an effect
that was named before the run (`design_points`); the smallest effect that the data show in nine of ten runs stands
beside it. A planted effect is one that the simulated world is known to have: an experiment that misses it is broken.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

from pydantic import Field

from clinical_r1.atomic import write_text
from clinical_r1.errors import Strict
from clinical_r1.page import points, render
from clinical_r1.step import publish_metrics

RESULT, PAGE = "result.json", "report.html"
POWER = 0.9
_NORMAL = NormalDist()


class Estimate(Strict):
    """A difference of shares with its 95% interval, all in 0..1."""

    value: float
    low: float
    high: float
    n: int
    """Cases (or pairs, or patients) behind it."""

    @property
    def error(self) -> float:
        """Standard error that the interval implies."""
        return max((self.high - self.low) / (2 * _NORMAL.inv_cdf(0.975)), 1e-9)

    def power(self, effect: float) -> float:
        """Chance to exclude zero where the truth is `effect` (0..1), two-sided 5%."""
        return _NORMAL.cdf(abs(effect) / self.error - _NORMAL.inv_cdf(0.975))

    @property
    def detectable(self) -> float:
        """Smallest true effect that is found with 90% power."""
        return (_NORMAL.inv_cdf(0.975) + _NORMAL.inv_cdf(POWER)) * self.error

    @property
    def sign(self) -> int:
        """1 or -1 where the interval excludes zero, else 0."""
        return (self.low > 0) - (self.high < 0)

    def words(self) -> str:
        """+5.2 points (95% interval +1.0 to +9.4)."""
        return f"{points(self.value)} points (95% interval {points(self.low)} to {points(self.high)})"

    def words_zh(self) -> str:
        """+5.2 个百分点（95% 区间 +1.0 至 +9.4）。"""
        return f"{points(self.value)} 个百分点（95% 区间 {points(self.low)} 至 {points(self.high)}）"


class Planted(Strict):
    """An effect that the simulated world is known to have."""

    what: str
    size: float
    """Points, as planted."""
    power: float
    """Chance to find an effect of that size with this many cases."""
    detectable: float
    """Points that are found with 90% power."""
    effect: float
    """Points, as estimated."""
    ci: tuple[float, float]
    found: bool


class Cell(Strict):
    """One number of a table: a share with its interval, a difference, or plain text."""

    kind: Literal["text", "share", "difference"] = "text"
    text: str = ""
    value: float = 0.0
    low: float = 0.0
    high: float = 0.0
    shown: bool = False


class Table(Strict):
    """One section of the page."""

    title: str
    note: str = ""
    head: list[str]
    rows: list[list[Cell]]
    reach: float = 0.5
    """Half-width of the difference axis."""


class Finding(Strict):
    """The answer of one experiment; result.json."""

    experiment: str
    question: str
    answer: str
    """In one sentence, with its interval."""
    answer_zh: str
    effect: float
    """Points."""
    ci: tuple[float, float]
    n: int
    design_points: float
    """The effect that the power is for."""
    power: float
    detectable_points: float
    """Found with 90% power."""
    verdict: Literal["shown", "opposite", "not shown"]
    planted: list[Planted] = Field(default_factory=list)
    limits: list[str] = Field(default_factory=list)
    simulated: bool = False


def conclude(
    experiment: str,
    question: str,
    estimate: Estimate,
    design_points: float,
    answer: str,
    answer_zh: str,
    simulated: bool,
    limits: str,
    confirmed: bool = True,
) -> Finding:
    """The finding of an estimate. `confirmed`: the independent judge, where there is one, excludes zero on the same
    side."""
    sign = estimate.sign if confirmed else 0
    return Finding(
        experiment=experiment,
        question=question,
        answer=answer,
        answer_zh=answer_zh,
        effect=_points(estimate.value),
        ci=(_points(estimate.low), _points(estimate.high)),
        n=estimate.n,
        design_points=design_points,
        power=round(estimate.power(design_points / 100), 3),
        detectable_points=_points(estimate.detectable),
        verdict="shown" if sign == 1 else "opposite" if sign == -1 else "not shown",
        simulated=simulated,
        limits=[limits],
    )


def planted(what: str, size_points: float, estimate: Estimate) -> Planted:
    """Hold an estimate against what was planted: found where the interval excludes zero on the planted side."""
    return Planted(
        what=what,
        size=size_points,
        power=round(estimate.power(size_points / 100), 3),
        detectable=_points(estimate.detectable),
        effect=_points(estimate.value),
        ci=(_points(estimate.low), _points(estimate.high)),
        found=estimate.sign == math.copysign(1, size_points),
    )


def write_finding(finding: Finding, tables: Sequence[Table], out_dir: Path, title: str) -> Finding:
    """result.json and report.html."""
    page = render("experiment.html.j2", title=title, finding=finding, tables=tables)
    write_text(Path(out_dir) / PAGE, page)
    text = json.dumps(finding.model_dump(mode="json"), ensure_ascii=False, indent=1)
    write_text(Path(out_dir) / RESULT, text + "\n")
    return finding


def publish(finding: Finding, out_dir: Path, page: Any, metrics: Any) -> dict[str, object]:
    """Copy the page to where the dashboard shows HTML artifacts, put the numbers into the metrics artifact."""
    write_text(page.path, (Path(out_dir) / PAGE).read_text(encoding="utf-8"))
    numbers = finding.model_dump(mode="json", include={"effect", "power", "detectable_points", "n", "verdict"})
    numbers |= {"low": finding.ci[0], "high": finding.ci[1]}
    numbers["planted_found"] = sum(one.found for one in finding.planted)
    publish_metrics(numbers, metrics)
    return numbers


def _points(share: float) -> float:
    return round(100 * share, 2)
