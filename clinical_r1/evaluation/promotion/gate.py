"""The promotion gate: promote, hold or refuse, with the reasons and with what each rule could have seen.

`hold` means that the data do not decide: more cases may. `refuse` means that they speak against the candidate. Nothing
is promoted to production without a person: see clinical_r1.objectstore.manifest.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from clinical_r1.atomic import write_text
from clinical_r1.baseline import Baseline, make_baseline, write_baseline
from clinical_r1.errors import UserError
from clinical_r1.evaluation.grounding import hallucination_rate
from clinical_r1.evaluation.measure.compare import Comparison, PairedResult, compare
from clinical_r1.evaluation.measure.metrics import Accuracy, is_undecided, measure
from clinical_r1.evaluation.promotion.policy import ForgettingRule, Policy, SpecialtyRule
from clinical_r1.objectstore.manifest import GATE, Gate, RuleResult, decision_of
from clinical_r1.page import percent, points, render
from clinical_r1.sampling import Sampling
from clinical_r1.schema import Case, Prediction
from clinical_r1.stats import Shrunken, paired_interval, paired_power, quantile, shrink, wilson

GATE_PAGE = "gate.html"
NO_FORGETTING = (
    "no forgetting benchmark given; let candidate and base model answer MedQA, then add --forgetting CANDIDATE BASE"
)
MOST_SHARED = 0.1
"""Share of a forgetting set that may ask what a test case asks; above it, it is a copy of the test cases."""
Result = Literal["pass", "hold", "refuse"]


class GateInputs(BaseModel):
    """What the gate looks at; predictions are judged ones."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    cases: list[Case]
    candidate: list[Prediction]
    rival: list[Prediction]
    """The incumbent's predictions on the same cases; the base model's where there is no incumbent."""
    names: tuple[str, str]
    """(rival, candidate)."""
    incumbent: bool
    """Whether `rival` is a model in use."""
    forgetting_cases: list[Case] = Field(default_factory=list)
    """MedQA form."""
    forgetting_source: str = ""
    """What they were made of where they are no benchmark; it is said with the rule."""
    forgetting_candidate: list[Prediction] = Field(default_factory=list)
    forgetting_base: list[Prediction] = Field(default_factory=list)
    benchmark: str = ""
    decoding: Sampling | None = None
    """How the candidate's answers were drawn."""
    weights: str = ""
    """SHA-256 of the candidate's files that decide its text."""
    biased: str = ""
    """Why the benchmark flatters one of the two (difficulty filter); the gate is then disabled."""


def decide(inputs: GateInputs, policy: Policy) -> Gate:
    """Apply the policy. Raises UserError where the benchmark is biased between the two models."""
    if inputs.biased:
        raise UserError(f"promotion gate: biased comparison ({inputs.biased}); use a benchmark without that filter")
    comparison = compare(inputs.cases, inputs.rival, inputs.candidate, inputs.names)
    overall = measure(inputs.cases, inputs.candidate).overall
    unread = unread_shares(inputs)
    reasoned, outputs = round(overall.reasoning_rate * len(inputs.candidate)), len(inputs.candidate)
    flagged, thoughts = hallucination_rate(inputs.cases, inputs.candidate)
    least, most = policy.reasoning.min_rate, policy.hallucination.max_rate
    answering = f"of outputs reason and answer (at least {percent(least, 0)})"
    unsupported = f"of thoughts state what the case does not support (at most {percent(most, 0)})"
    rules = [
        *_primary(comparison, inputs, policy),
        _forgetting(inputs, policy.forgetting, unread),
        *specialty_rules(comparison.by["specialty"], policy.specialty),
        _rate_rule("reasoning rate", reasoned, outputs, least, answering),
        _rate_rule("hallucinated reasoning", flagged, thoughts, most, unsupported, above=True),
        *_unscored(comparison, policy.max_unscored_rate),
    ]
    if not inputs.incumbent:
        rules.append(_minimum(overall, policy.no_incumbent.min_accuracy))
    answers = sorted(f"{row.case_id}\x1f{row.sample}\x1f{row.output}\n" for row in inputs.candidate)
    return Gate(
        decision=decision_of(rules),
        candidate=inputs.names[1],
        weights=inputs.weights,
        answers=hashlib.sha256("".join(answers).encode()).hexdigest(),
        against=inputs.names[0],
        incumbent=inputs.incumbent,
        rules=rules,
        policy=policy.model_dump(mode="json"),
        benchmark=inputs.benchmark,
        unread=unread,
    )


def unread_shares(inputs: GateInputs) -> dict[str, float]:
    """How much of the forgetting benchmark says nothing, on either side; empty without one."""
    sides = {"candidate": inputs.forgetting_candidate, "base model": inputs.forgetting_base}
    return {name: sum(map(is_undecided, rows)) / len(rows) for name, rows in sides.items() if rows}


def _rule(rule: str, result: Result, reason: str, n: int = 0, power: str = "") -> RuleResult:
    return RuleResult(rule=rule, result=result, reason=reason, n=n, power=power)


def _primary(comparison: Comparison, inputs: GateInputs, policy: Policy) -> list[RuleResult]:
    margin = policy.primary.margin_points / 100 if policy.mode == "non_inferior" else 0.0
    rules = [bound_rule("accuracy", comparison.overall, margin, policy)]
    other, name = comparison.independent, "accuracy, independent judge"
    if policy.primary.require_independent and other is not None and other.n:
        rules.append(bound_rule(name, other, margin, policy))
    elif policy.primary.require_independent and other is not None:
        failed = "the independent judge failed on every pair; see that its endpoint answers, then evaluate both again"
        rules.append(_rule(name, "hold", failed))
    elif policy.primary.require_independent:
        sides = zip(inputs.names, (inputs.rival, inputs.candidate), strict=True)
        without = [side for side, rows in sides if not any(row.independent for row in rows)]
        reason = (
            f"no independent judge graded the answers of {' and '.join(without)}; evaluate again with a judge that "
            "training did not use (`clinical-r1 evaluate ... --config two-judges`), or set "
            "primary.require_independent: false in the policy file"
        )
        rules.append(_rule(name, "hold", reason))
    return rules


def bound_rule(name: str, result: PairedResult, margin: float, policy: Policy) -> RuleResult:
    """The lower end of a paired difference's 95% interval must be above -margin."""
    low, high = _one_sided(result, 0.975)
    design = policy.primary.design_points / 100
    discordance = max(result.pairs.discordance, 0.05)
    power, unchanged = (paired_power(result.n, gain, discordance, margin=margin) for gain in (design, 0.0))
    reason = (
        f"difference {points(result.difference)} points, 95% interval {points(low)} to {points(high)}: its lower end "
        f"must be above {points(-margin)}"
    )
    if result.undecided:
        reason += f"; of lower bounds, {percent(result.undecided / result.n)} of the pairs undecided"
    told = (
        f"passes {percent(power, 0)} of candidates that are truly {points(design)} points better, "
        f"{percent(unchanged, 0)} of unchanged ones"
    )
    return _rule(name, "pass" if low > -margin else "refuse" if high < 0 else "hold", reason, result.n, told)


def _one_sided(result: PairedResult, confidence: float) -> tuple[float, float]:
    """One-sided bounds: Tango's score bounds; from the cluster bootstrap's width where patients repeat."""
    if paired_interval(result.pairs) == (result.low, result.high):
        return paired_interval(result.pairs, confidence, sides=1)
    ratio = quantile(confidence, 1) / quantile(0.95)
    low = result.difference - (result.difference - result.low) * ratio
    return low, result.difference + (result.high - result.difference) * ratio


def _forgetting(inputs: GateInputs, rule: ForgettingRule, unread: dict[str, float]) -> RuleResult:
    cases, margin = inputs.forgetting_cases, rule.margin_points / 100
    if not cases:
        return _rule("forgetting", "hold" if rule.required else "pass", NO_FORGETTING)
    asked = {case.question.strip() for case in inputs.cases}
    shared = sum(  # with or without choices below the question
        case.question.strip() in asked or case.question.split("\n\nA. ")[0].strip() in asked for case in cases
    )
    if shared > MOST_SHARED * len(cases) and not inputs.forgetting_source:
        reason = f"{shared:,} of its questions are test cases: it measures nothing that training could have harmed"
        return _rule("forgetting", "hold", reason, len(cases))
    result = compare(cases, inputs.forgetting_base, inputs.forgetting_candidate).overall
    low, _ = _one_sided(result, 0.95)
    said = " and ".join(f"{percent(share)} of the {name}'s" for name, share in unread.items() if share)
    said = said and f"no choice could be read in {said} answers"
    if max(unread.values(), default=0.0) > rule.max_unread_rate and not inputs.forgetting_source:
        said += f" (at most {percent(rule.max_unread_rate, 0)}): a change of form is no change of knowledge"
        return _rule("forgetting", "hold", said, result.n)
    discordance = max(result.pairs.discordance, 0.05)
    unchanged, worse = (paired_power(result.n, loss, discordance, sides=1, margin=margin) for loss in (0.0, -margin))
    against = (
        f"against the base model {points(result.difference)} points, one-sided 95% lower bound {points(low)} (must be "
        f"at least {points(-margin)})"
    )
    return _rule(
        "forgetting",
        "pass" if low >= -margin else "refuse" if result.difference < -margin else "hold",
        "; ".join(filter(None, (against, said, inputs.forgetting_source))),
        result.n,
        f"passes {percent(unchanged, 0)} of models that forgot nothing, "
        f"{percent(worse, 0)} of those that lost {rule.margin_points:g} points",
    )


class _Group(NamedTuple):
    """A specialty, or several small ones together."""

    name: str
    n: int
    difference: float
    error: float
    """Standard error, from the width of the interval: it knows of patients that repeat."""
    discordance: float


def specialty_rules(results: Mapping[str, PairedResult], rule: SpecialtyRule) -> list[RuleResult]:
    """None may be harmed, and chance in a small one decides nothing: one result a specialty (small ones together), and
    a hold for one without a single scored pair."""
    empty = [_rule(f"specialty {name}", "hold", "no pair has a verdict") for name, one in results.items() if not one.n]
    groups = []
    for name, one in results.items():
        if one.n:
            error = max((one.high - one.low) / (2 * quantile(0.95)), 1e-6)
            groups.append(_Group(f"specialty {name}", one.n, one.difference, error, one.pairs.discordance))
    small = [group for group in groups if group.n < rule.min_cases]
    if len(small) > 1:
        n = sum(group.n for group in small)
        names = ", ".join(group.name.removeprefix("specialty ") for group in small)
        together = _Group(
            f"specialties of fewer than {rule.min_cases} pairs ({names})",
            n,
            sum(group.n * group.difference for group in small) / n,
            sum((group.n * group.error) ** 2 for group in small) ** 0.5 / n,
            sum(group.n * group.discordance for group in small) / n,
        )
        groups = [*(group for group in groups if group.n >= rule.min_cases), together]
    if not groups:
        return empty
    shrunk = shrink([one.difference for one in groups], [one.error for one in groups], rule.spread_points / 100)
    return [_specialty(group, all_told, rule) for group, all_told in zip(groups, shrunk, strict=True)] + empty


def _specialty(group: _Group, all_told: Shrunken, rule: SpecialtyRule) -> RuleResult:
    drop, p = rule.design_drop_points, NormalDist().cdf(group.difference / group.error)
    worse, harmed = all_told.below(0.0), all_told.below(-rule.hold_below_points / 100)
    result: Result = "hold" if harmed > rule.hold_probability else "pass"
    if p < rule.alpha and worse >= rule.refuse_probability:
        result = "refuse"
    found = paired_power(group.n, drop / 100, max(group.discordance, 0.05), confidence=1 - rule.alpha, sides=1)
    reason = (
        f"{points(group.difference)} points (one-sided p {p:.2g}); all specialties considered "
        f"{points(all_told.mean)}, worse with probability {percent(worse, 0)}, by more than {rule.hold_below_points:g} "
        f"points with {percent(harmed, 0)} (refused from {percent(rule.refuse_probability, 0)} and p below "
        f"{rule.alpha:g}, held above {percent(rule.hold_probability, 0)})"
    )
    power = (
        f"its own cases show {percent(found, 0)} of true drops of {drop:g} points and {percent(rule.alpha, 0)} of "
        "unchanged models"
    )
    return _rule(group.name, result, reason, group.n, power)


def _rate_rule(name: str, count: int, n: int, limit: float, what: str, above: bool = False) -> RuleResult:
    """Refused where the one-sided 95% bound of a rate is beyond the limit, held where only the rate itself is."""
    low, high = wilson(count, n, confidence=0.9)
    rate = count / n if n else 0.0
    result: Result = "refuse" if (low > limit if above else high < limit) else "hold"
    if (rate <= limit) if above else (rate >= limit):
        result = "pass" if n else "hold"
    ends = " to ".join(map(percent, wilson(count, n)))
    return _rule(name, result, f"{percent(rate)} {what}", n, f"95% interval {ends}")


def _unscored(comparison: Comparison, most: float) -> list[RuleResult]:
    judges = {"failed judgements": comparison.overall, "failed judgements, independent judge": comparison.independent}
    rules = []
    for name, result in judges.items():
        if result is not None:
            total = result.n + result.unscored
            rate = result.unscored / total if total else 1.0
            reason = f"{percent(rate)} of the pairs have no verdict (at most {percent(most, 0)})"
            rules.append(_rule(name, "pass" if rate <= most else "hold", reason, total))
    overall = comparison.overall
    if overall.undecided:
        rate = overall.undecided / overall.n
        reason = (
            f"in {percent(rate)} of the pairs the rules left an answer undecided and no judge was asked (at most "
            f"{percent(most, 0)}): lower bounds decide nothing; name a judge in evaluation.reward_judge"
        )
        rules.append(_rule("undecided answers", "pass" if rate <= most else "hold", reason, overall.n))
    return rules


def _minimum(overall: Accuracy, least: float) -> RuleResult:
    low, high = wilson(overall.share * overall.effective, overall.effective, confidence=0.9)
    reason = (
        f"{overall.kind} {percent(overall.share)}, one-sided 95% lower bound {percent(low)} (must be at least "
        f"{percent(least, 0)})"
    )
    result: Result = "pass" if low >= least else "refuse" if high < least else "hold"
    return _rule("absolute minimum (no incumbent)", result, reason, overall.n)


def write_gate(inputs: GateInputs, policy: Policy, out_dir: Path) -> Gate:
    """Decide; write gate.json, gate.html and the reasoning baseline that travels with the model."""
    result = decide(inputs, policy)
    baseline = make_baseline(
        inputs.candidate, inputs.cases, inputs.names[1], inputs.benchmark, inputs.weights, inputs.decoding
    )
    write_baseline(baseline, Path(out_dir))
    write_result(result, baseline, Path(out_dir))
    return result


def write_result(result: Gate, baseline: Baseline, out_dir: Path) -> None:
    """gate.html, and last gate.json."""
    page = render("gate.html.j2", title=f"Promotion gate: {result.candidate}", result=result, baseline=baseline)
    write_text(out_dir / GATE_PAGE, page)
    write_text(out_dir / GATE, result.model_dump_json(indent=1) + "\n")
