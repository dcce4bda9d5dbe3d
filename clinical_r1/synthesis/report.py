"""Counting a dataset: outcomes, reasons, strategies, lengths, cost; memory does not grow with the text."""

from array import array
from collections import Counter

from pydantic import BaseModel, Field

from clinical_r1.errors import Strict, UserError
from clinical_r1.privacy.crossing import GateState
from clinical_r1.schema import Trace, TraceOutcome, Usage
from clinical_r1.synthesis import prompts
from clinical_r1.synthesis.config import SynthesisConfig
from clinical_r1.synthesis.text import units


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


class Tally:
    """Counts traces as they pass."""

    def __init__(self) -> None:
        self._cases = 0
        self._last_case = ""
        self._outcomes: Counter[str] = Counter({outcome.value: 0 for outcome in TraceOutcome})
        self._counts = {name: Counter[str]() for name in _COUNTED}
        self._thinking: array[int] = array("l")
        self._response: array[int] = array("l")
        self._usage = Usage()

    def add(self, trace: Trace) -> None:
        """Count one trace; traces of one case come one after another."""
        if trace.case_id != self._last_case and trace.reason != "duplicate_case":
            self._cases += 1
            self._last_case = trace.case_id
        self._usage = self._usage + trace.usage
        self._outcomes[trace.outcome.value] += 1
        counts = self._counts
        if not trace.accepted:
            counts["reasons"][trace.reason] += 1
            return
        counts["strategies"][trace.attempts[-1].strategy.value if trace.attempts else "imported"] += 1
        counts["attempts"].update(attempt.strategy.value for attempt in trace.attempts)
        counts["languages"][trace.language] += 1
        counts["specialties"][trace.specialty] += 1
        counts["synthesizers"][trace.synthesizer] += 1
        self._thinking.append(len(units(trace.thinking)))
        self._response.append(len(units(trace.response)))

    def report(
        self,
        config: SynthesisConfig,
        dataset_hash: str,
        cases_hash: str,
        gate: GateState,
        endpoints: list[dict[str, object]],
        seconds: float,
    ) -> SynthesisReport:
        """The totals."""
        total = sum(self._outcomes.values())
        refused = self._outcomes[TraceOutcome.REJECTED.value]
        accepted = total - refused
        usage = self._usage.model_copy(update={"cost": round(self._usage.cost, 6)})
        shard = config.shard
        return SynthesisReport(
            name=config.name,
            dataset_hash=dataset_hash,
            cases_hash=cases_hash,
            cases=self._cases,
            traces=accepted,
            rejected=refused,
            outcomes=dict(self._outcomes),
            guided_share=round(self._outcomes[TraceOutcome.GUIDED.value] / max(1, accepted), 4),
            thinking_units=Quantiles.of(self._thinking),
            response_units=Quantiles.of(self._response),
            usage=usage,
            calls_per_trace=round(usage.calls / max(1, total), 3),
            cost_per_accepted=round(usage.cost / max(1, accepted), 6),
            prompts=prompts.versions(),
            gate=gate,
            shard=f"{shard.index}/{shard.count}" if shard.count > 1 else "",
            endpoints=endpoints,
            seconds=round(seconds, 2),
            **{name: dict(sorted(counter.items())) for name, counter in self._counts.items()},
        )


_COUNTED = ("reasons", "strategies", "attempts", "languages", "specialties", "synthesizers")


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
