"""The promotion gate: promote, hold or refuse, with the reasons and with what each rule could have seen.

`hold` means that the data do not decide: more cases may. `refuse` means that they speak against the candidate. Nothing
is promoted to production without a person: see clinical_r1.objectstore.manifest.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from clinical_r1.atomic import write_text
from clinical_r1.baseline import Baseline, make_baseline, write_baseline
from clinical_r1.errors import UserError
from clinical_r1.evaluation.grounding.hallucination import hallucination_rate
from clinical_r1.evaluation.measure.compare import Comparison, PairedResult, compare
from clinical_r1.evaluation.measure.metrics import is_undecided, measure
from clinical_r1.evaluation.promotion.policy import Policy
from clinical_r1.evaluation.promotion.specialties import specialty_rules
from clinical_r1.objectstore.manifest import GATE, Gate, RuleResult, decision_of
from clinical_r1.page import percent, points, render
from clinical_r1.sampling import Sampling
from clinical_r1.schema import Case, Prediction
from clinical_r1.stats import paired_interval, paired_power, quantile, wilson

GATE_PAGE = "gate.html"
NO_FORGETTING = (
    "no forgetting benchmark given; let candidate and base model answer MedQA, then add --forgetting CANDIDATE BASE"
)

MOST_SHARED = 0.1
"""Share of a forgetting set that may ask what a test case asks; above it, it is a copy of the test cases."""


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
    rules = [
        *_primary(comparison, inputs, policy),
        _forgetting(inputs, policy),
        *specialty_rules(comparison.by["specialty"], policy.specialty),
        _reasoning(inputs, policy),
        _hallucination(inputs, policy),
        *_unscored(comparison, policy),
    ]
    if not inputs.incumbent:
        rules.append(_minimum(inputs, policy))
    return Gate(
        decision=decision_of(rules),
        candidate=inputs.names[1],
        weights=inputs.weights,
        answers=_answers(inputs.candidate),
        against=inputs.names[0],
        incumbent=inputs.incumbent,
        rules=rules,
        policy=policy.model_dump(mode="json"),
        benchmark=inputs.benchmark,
        unread=unread_shares(inputs),
    )


def unread_shares(inputs: GateInputs) -> dict[str, float]:
    """How much of the forgetting benchmark says nothing, on either side; empty without one."""
    sides = {"candidate": inputs.forgetting_candidate, "base model": inputs.forgetting_base}
    return {name: sum(map(is_undecided, rows)) / len(rows) for name, rows in sides.items() if rows}


def _answers(predictions: Sequence[Prediction]) -> str:
    """SHA-256 of the answers that were judged, in any order."""
    lines = sorted(f"{row.case_id}\x1f{row.sample}\x1f{row.output}\n" for row in predictions)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _primary(comparison: Comparison, inputs: GateInputs, policy: Policy) -> list[RuleResult]:
    margin = policy.primary.margin_points / 100 if policy.mode == "non_inferior" else 0.0
    rules = [bound_rule("accuracy", comparison.overall, margin, policy)]
    if policy.primary.require_independent:
        if comparison.independent is None or not comparison.independent.n:
            reason = _no_second_judge(comparison, inputs)
            rules.append(RuleResult(rule="accuracy, independent judge", result="hold", reason=reason, n=0, power=""))
        else:
            rules.append(bound_rule("accuracy, independent judge", comparison.independent, margin, policy))
    return rules


def _no_second_judge(comparison: Comparison, inputs: GateInputs) -> str:
    """Why there is no second opinion, and what to add."""
    if comparison.independent is not None:
        return "the independent judge failed on every pair; see that its endpoint answers, then evaluate both again"
    sides = zip(inputs.names, (inputs.rival, inputs.candidate), strict=True)
    without = [name for name, rows in sides if not any(row.independent for row in rows)]
    return (
        f"no independent judge graded the answers of {' and '.join(without)}; evaluate again with a judge that "
        "training did not use (`clinical-r1 evaluate ... --config two-judges`), or set primary.require_independent: "
        "false in the policy file"
    )


def bound_rule(name: str, result: PairedResult, margin: float, policy: Policy) -> RuleResult:
    """The lower end of a paired difference's 95% interval must be above -margin."""
    low, high = _one_sided(result, 0.975)
    design = policy.primary.design_points / 100
    discordance = max(result.pairs.discordance, 0.05)
    power = paired_power(result.n, design, discordance, margin=margin)
    unchanged = paired_power(result.n, 0.0, discordance, margin=margin)
    outcome: Literal["pass", "hold", "refuse"] = "pass" if low > -margin else "refuse" if high < 0 else "hold"
    needed = f"must be above {points(-margin)}"
    return RuleResult(
        rule=name,
        result=outcome,
        reason=f"difference {points(result.difference)} points, 95% interval {points(low)} to {points(high)}: "
        f"its lower end {needed}" + _undecided(result),
        n=result.n,
        power=f"passes {percent(power, 0)} of candidates that are truly {points(design)} points better, "
        f"{percent(unchanged, 0)} of unchanged ones",
    )


def _one_sided(result: PairedResult, confidence: float) -> tuple[float, float]:
    """One-sided bounds: Tango's score bounds; from the cluster bootstrap's width where patients repeat."""
    score = paired_interval(result.pairs, confidence, sides=1)
    two_sided = paired_interval(result.pairs)
    if (two_sided.low, two_sided.high) == (result.low, result.high):
        return score.low, score.high
    ratio = quantile(confidence, 1) / quantile(0.95)
    low = result.difference - (result.difference - result.low) * ratio
    return low, result.difference + (result.high - result.difference) * ratio


def _forgetting(inputs: GateInputs, policy: Policy) -> RuleResult:
    margin = policy.forgetting.margin_points / 100
    if not inputs.forgetting_cases:
        outcome: Literal["pass", "hold"] = "hold" if policy.forgetting.required else "pass"
        return RuleResult(rule="forgetting", result=outcome, reason=NO_FORGETTING, n=0, power="")
    shared = _asked_twice(inputs)
    if shared > MOST_SHARED * len(inputs.forgetting_cases) and not inputs.forgetting_source:
        reason = f"{shared:,} of its questions are test cases: it measures nothing that training could have harmed"
        return RuleResult(rule="forgetting", result="hold", reason=reason, n=len(inputs.forgetting_cases), power="")
    comparison = compare(inputs.forgetting_cases, inputs.forgetting_base, inputs.forgetting_candidate)
    result = comparison.overall
    low, _ = _one_sided(result, 0.95)
    unread = unread_shares(inputs)
    said = " and ".join(f"{percent(share)} of the {name}'s" for name, share in unread.items() if share)
    said = f"; no choice could be read in {said} answers" if said else ""
    too_many = max(unread.values(), default=0.0) > policy.forgetting.max_unread_rate
    if too_many and not inputs.forgetting_source:
        said += (
            f" (at most {percent(policy.forgetting.max_unread_rate, 0)}): a change of form is no change of knowledge"
        )
        return RuleResult(rule="forgetting", result="hold", reason=said.removeprefix("; "), n=result.n, power="")
    discordance = max(result.pairs.discordance, 0.05)
    unchanged = paired_power(result.n, 0.0, discordance, sides=1, margin=margin)
    worse = paired_power(result.n, -margin, discordance, sides=1, margin=margin)
    return RuleResult(
        rule="forgetting",
        result="pass" if low >= -margin else "refuse" if result.difference < -margin else "hold",
        reason=f"against the base model {points(result.difference)} points, one-sided 95% lower bound {points(low)} "
        f"(must be at least {points(-margin)})"
        + said
        + (f"; {inputs.forgetting_source}" if inputs.forgetting_source else ""),
        n=result.n,
        power=f"passes {percent(unchanged, 0)} of models that forgot nothing, "
        f"{percent(worse, 0)} of those that lost {policy.forgetting.margin_points:g} points",
    )


def _asked_twice(inputs: GateInputs) -> int:
    """Forgetting cases that ask what a test case asks (with or without choices below it)."""
    asked = {case.question.strip() for case in inputs.cases}
    return sum(
        case.question.strip() in asked or case.question.split("\n\nA. ")[0].strip() in asked
        for case in inputs.forgetting_cases
    )


def _reasoning(inputs: GateInputs, policy: Policy) -> RuleResult:
    rate = measure(inputs.cases, inputs.candidate).overall.reasoning_rate
    least, n = policy.reasoning.min_rate, len(inputs.candidate)
    count = round(rate * n)
    return RuleResult(
        rule="reasoning rate",
        result=_beyond(count, n, least, above=False),
        reason=f"{percent(rate)} of outputs reason and answer (at least {percent(least, 0)})",
        n=n,
        power=_interval_text(count, n),
    )


def _hallucination(inputs: GateInputs, policy: Policy) -> RuleResult:
    flagged, n = hallucination_rate(inputs.cases, inputs.candidate)
    rate, most = flagged / n if n else 0.0, policy.hallucination.max_rate
    return RuleResult(
        rule="hallucinated reasoning",
        result=_beyond(flagged, n, most, above=True) if n else "hold",
        reason=f"{percent(rate)} of thoughts state what the case does not support (at most {percent(most, 0)})",
        n=n,
        power=_interval_text(flagged, n),
    )


def _beyond(count: int, n: int, limit: float, above: bool) -> Literal["pass", "hold", "refuse"]:
    """Refused where the one-sided 95% bound of a rate is beyond the limit, held where only the rate itself is."""
    low, high = wilson(count, n, confidence=0.9)
    rate = count / n if n else 0.0
    if (rate <= limit) if above else (rate >= limit):
        return "pass"
    return "refuse" if (low > limit if above else high < limit) else "hold"


def _interval_text(count: int, n: int) -> str:
    low, high = wilson(count, n)
    return f"95% interval {percent(low)} to {percent(high)}"


def _undecided(result: PairedResult) -> str:
    """That a rule rests on lower bounds, where it does."""
    return (
        f"; of lower bounds, {percent(result.undecided / result.n)} of the pairs undecided" if result.undecided else ""
    )


def _unscored(comparison: Comparison, policy: Policy) -> list[RuleResult]:
    judges = {"failed judgements": comparison.overall, "failed judgements, independent judge": comparison.independent}
    rules = []
    for name, result in judges.items():
        if result is None:
            continue
        total = result.n + result.unscored
        rate = result.unscored / total if total else 1.0
        outcome: Literal["pass", "hold"] = "pass" if rate <= policy.max_unscored_rate else "hold"
        reason = f"{percent(rate)} of the pairs have no verdict (at most {percent(policy.max_unscored_rate, 0)})"
        rules.append(RuleResult(rule=name, result=outcome, reason=reason, n=total, power=""))
    overall = comparison.overall
    if overall.undecided:
        rate = overall.undecided / overall.n
        reason = (
            f"in {percent(rate)} of the pairs the rules left an answer undecided and no judge was asked (at most "
            f"{percent(policy.max_unscored_rate, 0)}): lower bounds decide nothing; name a judge in "
            "evaluation.reward_judge"
        )
        outcome = "pass" if rate <= policy.max_unscored_rate else "hold"
        rules.append(RuleResult(rule="undecided answers", result=outcome, reason=reason, n=overall.n, power=""))
    return rules


def _minimum(inputs: GateInputs, policy: Policy) -> RuleResult:
    overall = measure(inputs.cases, inputs.candidate).overall
    low, high = wilson(overall.share * overall.effective, overall.effective, confidence=0.9)
    least = policy.no_incumbent.min_accuracy
    return RuleResult(
        rule="absolute minimum (no incumbent)",
        result="pass" if low >= least else "refuse" if high < least else "hold",
        reason=f"{overall.kind} {percent(overall.share)}, one-sided 95% lower bound {percent(low)} "
        f"(must be at least {percent(least, 0)})",
        n=overall.n,
        power="",
    )


def write_gate(inputs: GateInputs, policy: Policy, out_dir: Path) -> Gate:
    """Decide; write gate.json, gate.html and the reasoning baseline that travels with the model."""
    result = decide(inputs, policy)
    out_dir = Path(out_dir)
    baseline = make_baseline(
        inputs.candidate, inputs.cases, inputs.names[1], inputs.benchmark, inputs.weights, inputs.decoding
    )
    write_baseline(baseline, out_dir)
    write_result(result, baseline, out_dir)
    return result


def write_result(result: Gate, baseline: Baseline, out_dir: Path) -> None:
    """gate.html, and last gate.json."""
    page = render("gate.html.j2", title=f"Promotion gate: {result.candidate}", result=result, baseline=baseline)
    write_text(out_dir / GATE_PAGE, page)
    write_text(out_dir / GATE, result.model_dump_json(indent=1) + "\n")
