"""What is said of a dataset: its report (outcomes, reasons, strategies, lengths, cost, counted in memory that does not
grow with the text) and its card (what is in it, where it came from, on what terms, what it must not be used for)."""

from array import array
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from clinical_r1.errors import UserError
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.privacy.crossing import GateState
from clinical_r1.schema import Trace, TraceOutcome, Usage
from clinical_r1.strict import Strict
from clinical_r1.synthesis.config import SynthesisConfig
from clinical_r1.synthesis.text import units
from clinical_r1.synthesis.writer import prompt_versions

_GATE: dict[GateState, str] = {
    "passed": "passed, by the report of the records step",
    "declared": "passed elsewhere, as the configuration declares",
    "not passed": "not passed; endpoints were trusted ones only",
}
_TERMS = {"train": "its terms let outputs train models", "no_train": "its terms do NOT let outputs train models"}


class Quantiles(BaseModel):
    """Where a length lies."""

    p05: float = 0
    p50: float = 0
    p95: float = 0
    mean: float = 0

    @classmethod
    def of(cls, values: "array[int]") -> "Quantiles":
        """Of any number of values; all zero for none."""
        if not values:
            return cls()
        ordered = sorted(values)
        at = (ordered[min(len(ordered) - 1, int(q * len(ordered)))] for q in (0.05, 0.5, 0.95))
        return cls(p05=next(at), p50=next(at), p95=next(at), mean=round(sum(ordered) / len(ordered), 2))


class SynthesisReport(Strict):
    """What a run made, and what it took; `report.json`."""

    name: str
    dataset_hash: str
    """SHA-256 of traces.jsonl: the identity of the dataset."""
    cases_hash: str
    """SHA-256 of the cases file."""
    cases: int
    """Distinct cases worked on."""
    traces: int
    """Accepted traces."""
    rejected: int
    outcomes: dict[str, int]
    reasons: dict[str, int]
    """Rejects by reason."""
    strategies: dict[str, int]
    """Accepted traces by the strategy of the attempt that was verified."""
    attempts: dict[str, int]
    """Attempts of accepted traces, by strategy."""
    languages: dict[str, int]
    specialties: dict[str, int]
    guided_share: float
    thinking_units: Quantiles
    """Length of the thinking in words or Chinese characters."""
    response_units: Quantiles
    usage: Usage
    """Behind all traces, rejected ones included, as the journal has it (paid once, whenever that was)."""
    calls_per_trace: float
    """Calls per trace, accepted or rejected."""
    cost_per_accepted: float
    """All cost over accepted traces."""
    prompts: dict[str, str]
    """Prompt versions."""
    gate: GateState = "not passed"
    """Did the cases pass the PHI gate?"""
    synthesizers: dict[str, int]
    """Accepted traces by endpoint and model id that the endpoint returned."""
    imported: dict[str, int] = Field(default_factory=dict)
    """Rows by the form that they were read in, where the traces are of others; empty for a search of our own."""
    shard: str = ""
    """`index/count` of a part of a fanned-out run; empty for a whole dataset."""
    endpoints: list[dict[str, object]] = Field(default_factory=list)
    """What each client did in this run: calls, from_journal, retries, failures, cost."""
    seconds: float = 0.0

    def told(self) -> str:
        """In one line: what came of the cases, and why not more."""
        made = max(1, self.traces + self.rejected)
        text = f"{self.traces} traces, {self.rejected} rejected ({self.rejected / made:.0%})"
        often = sorted(self.reasons.items(), key=lambda item: -item[1])[:3]
        if often:
            text += ": " + ", ".join(f"{reason} {count / made:.0%}" for reason, count in often)
        for one in self.endpoints:
            replies, cut = int(str(one.get("replies", 0))), int(str(one.get("cut", 0)))
            if cut > 0.02 * replies:
                text += f"; {cut / replies:.0%} of the replies of {one['endpoint']} were cut, most at "
                text += f"{one.get('cut_at', 'their bound of')} tokens"
            said = one.get("said")
            for reason, words in said.items() if isinstance(said, dict) else ():
                text += f'; {one["endpoint"]}, {reason}: "{words}"' if words else ""
        return text


def tally(traces: Iterable[Trace], config: SynthesisConfig) -> dict[str, Any]:
    """Fields of the report, counted as traces pass; those of one case come one after another."""
    outcomes = Counter({outcome.value: 0 for outcome in TraceOutcome})
    counted: dict[str, Counter[str]] = {
        name: Counter() for name in ("reasons", "strategies", "attempts", "languages", "specialties", "synthesizers")
    }
    thinking, response = array("l"), array("l")
    usage, cases, last_case = Usage(), 0, ""
    for trace in traces:
        if trace.case_id != last_case and trace.reason != "duplicate_case":
            cases, last_case = cases + 1, trace.case_id
        usage = usage + trace.usage
        outcomes[trace.outcome.value] += 1
        if not trace.accepted:
            counted["reasons"][trace.reason] += 1
            continue
        counted["strategies"][trace.attempts[-1].strategy.value if trace.attempts else "imported"] += 1
        counted["attempts"].update(attempt.strategy.value for attempt in trace.attempts)
        counted["languages"][trace.language] += 1
        counted["specialties"][trace.specialty] += 1
        counted["synthesizers"][trace.synthesizer] += 1
        thinking.append(len(units(trace.thinking)))
        response.append(len(units(trace.response)))
    total, refused = outcomes.total(), outcomes[TraceOutcome.REJECTED.value]
    accepted, cost = total - refused, round(usage.cost, 6)
    return {
        "name": config.name,
        "cases": cases,
        "traces": accepted,
        "rejected": refused,
        "outcomes": dict(outcomes),
        "guided_share": round(outcomes[TraceOutcome.GUIDED.value] / max(1, accepted), 4),
        "thinking_units": Quantiles.of(thinking),
        "response_units": Quantiles.of(response),
        "usage": usage.model_copy(update={"cost": cost}),
        "calls_per_trace": round(usage.calls / max(1, total), 3),
        "cost_per_accepted": round(cost / max(1, accepted), 6),
        "prompts": prompt_versions(),
        "shard": f"{config.shard.index}/{config.shard.count}" if config.shard.count > 1 else "",
    } | {name: dict(sorted(counter.items())) for name, counter in counted.items()}


def check_yield(report: SynthesisReport, config: SynthesisConfig) -> None:
    """Raise UserError where too little came of the cases to go on with: no trace at all, or too many rejects.

    A shard may be empty; what all of them gave together is checked where they are merged.
    """
    made = report.traces + report.rejected
    if report.shard or not made or (report.traces and report.rejected <= config.max_rejected_share * made):
        return
    raise UserError(
        f"synthesis: {report.told()}; mend the cause (rejected.jsonl has each case's reason), or go on with what there "
        f"is by a larger max_rejected_share (now {config.max_rejected_share:g})"
    )


def card(report: SynthesisReport, config: SynthesisConfig) -> str:
    """The dataset card; it carries counts only, no record text."""
    tables = {
        "Outcome": report.outcomes,
        "Rejected because": report.reasons,
        "Strategy that was verified": report.strategies,
        "Language": report.languages,
        "Specialty": report.specialties,
    }
    lengths = {"thinking": report.thinking_units, "response": report.response_units}
    said: dict[str, Any] = {
        "report": report,
        "config": config,
        "counts": "\n\n".join(_table(title, counts) for title, counts in tables.items() if counts),
        "lengths": "\n".join(
            f"| {name} | {at.p05:g} | {at.p50:g} | {at.p95:g} | {at.mean:g} |" for name, at in lengths.items()
        ),
    }
    if config.traces is not None:
        said["forms"] = ", ".join(f"{count} rows as {form}" for form, count in report.imported.items()) or "none"
        replaced = "replaced what they found; in doubt a trace was rejected"
        return _filled("imported", scrubbed=replaced if config.traces.scrub else "off", **said)
    return _filled(
        "search",
        part=f" (shard {report.shard} only)" if report.shard else "",
        gate=_GATE[report.gate],
        synthesizer=_endpoint(config.writer),
        judge="none (rules)" if config.verifier.kind == "rule" else _endpoint(config.judge_endpoint),
        returned=_table("Endpoint / model id returned", report.synthesizers),
        strategies=", ".join(config.strategies),
        guided="on" if config.guided else "off",
        filters=", ".join(f"{name} {value}" for name, value in config.filters.model_dump().items()),
        prompts=", ".join(f"`{version}`" for version in report.prompts.values()),
        **said,
    )


def _filled(name: str, **said: Any) -> str:
    return (Path(__file__).with_name("cards") / f"{name}.md").read_text(encoding="utf-8").format(**said)


def _endpoint(endpoint: EndpointConfig) -> str:
    inside = "inside the security boundary" if endpoint.trusted else "outside the security boundary"
    stated = _TERMS.get(endpoint.terms, "terms on training NOT stated")
    return f"{endpoint.name}, model asked for `{endpoint.model}`, region {endpoint.data_region}, {inside}; {stated}."


def _table(title: str, counts: dict[str, int]) -> str:
    rows = "\n".join(f"| {name} | {count} |" for name, count in counts.items())
    return f"| {title} | n |\n|---|---|\n{rows}"
