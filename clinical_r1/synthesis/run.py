"""Run synthesis over a file of cases: stream them in, keep a bounded number in flight, write the dataset in order.

The journal in `state_dir` is the only state that matters: after a kill at any moment the same call makes the same
requests, finds the finished ones journaled, and ends with the same dataset.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

from clinical_r1.errors import UserError
from clinical_r1.llm.client import LLMClient, run_calls
from clinical_r1.llm.journal import Journal, open_journal
from clinical_r1.llm.limits import Budget
from clinical_r1.llm.reply import BudgetExhausted
from clinical_r1.progress import Progress
from clinical_r1.schema import Case, Trace, TraceOutcome, iter_jsonl
from clinical_r1.synthesis.config import SynthesisConfig
from clinical_r1.synthesis.dataset import Spool, write_dataset
from clinical_r1.synthesis.exchange import import_traces
from clinical_r1.synthesis.report import SynthesisReport, check_yield
from clinical_r1.synthesis.search import Search, rejected
from clinical_r1.synthesis.writer import Metered, Writer
from clinical_r1.verifier.config import tell_of_rules_alone
from clinical_r1.verifier.verifier import build_verifier


def synthesize(config: SynthesisConfig, cases: Path, out_dir: Path, state_dir: Path) -> SynthesisReport:
    """Make a dataset of verified traces from the cases (schema.Case lines).

    Writes `out_dir`/{traces.jsonl, traces.parquet, rejected.jsonl, card.md, report.json}; journal and its key live in
    `state_dir`, which outlives the run. Raises UserError for wrong input, an unusable endpoint, or a spent budget.
    """
    started = time.monotonic()
    if config.traces is not None:
        return take_traces(config, Path(cases), Path(out_dir), Path(state_dir))
    config.check_privacy(Path(cases))
    tell_of_rules_alone(config.verifier, "a case whose answers stay undecided is rejected; set verifier.kind: ensemble")
    total = _count_units(config, Path(cases))
    with open_journal(state_dir) as journal, Spool(Path(state_dir), config.seed) as spool:
        endpoints = run_calls(_synthesize(config, Path(cases), total, journal, spool))
        seconds = time.monotonic() - started
        whole = config.shard.count == 1
        report = write_dataset(spool, config, Path(cases), Path(out_dir), endpoints, seconds, whole)
    return _told(report, config)


def take_traces(config: SynthesisConfig, cases: Path | None, out_dir: Path, state_dir: Path) -> SynthesisReport:
    """The dataset of `config.traces` in place of a search; of several shards the first takes all.

    `cases` is sft.jsonl, beside which lie the splits that no trace may come from; None holds nothing out.
    """
    assert config.traces is not None
    started = time.monotonic()
    with Spool(state_dir / "traces.spool", config.seed) as spool:
        if config.shard.index:
            return write_dataset(spool, config, cases or Path(config.traces.path), out_dir, [], 0.0, whole=False)
        traces, source, forms, endpoints = import_traces(config, config.traces, cases, state_dir)
        for position, trace in enumerate(traces):
            spool.put(position, trace)
        seconds = time.monotonic() - started
        report = write_dataset(spool, config, source, out_dir, endpoints, seconds, True, forms)
    return _told(report, config)


def _told(report: SynthesisReport, config: SynthesisConfig) -> SynthesisReport:
    print(report.told(), file=sys.stderr, flush=True)
    check_yield(report, config)
    return report


def _count_units(config: SynthesisConfig, cases: Path) -> int:
    """Traces to make; reads the file once, so that a bad line is found before anything is paid."""
    mine = total = 0
    for case in iter_jsonl(cases, Case):
        total += 1
        mine += config.shard.takes(case.id)
    if not total:
        raise UserError(f"{cases}: no cases in it; give a file of Case records, one JSON object a line")
    return mine * config.samples_per_case


def _units(config: SynthesisConfig, cases: Path) -> Iterator[tuple[int, Case, int | None]]:
    """(position in the dataset, case, sample) of this shard; the sample is None for a case that occurred before."""
    seen: set[int] = set()
    for place, case in enumerate(iter_jsonl(cases, Case)):
        if not config.shard.takes(case.id):
            continue
        first, fingerprint = place * config.samples_per_case, hash(case.id)
        if fingerprint in seen:
            yield first, case, None
            continue
        seen.add(fingerprint)
        yield from ((first + sample, case, sample) for sample in range(config.samples_per_case))


async def _synthesize(
    config: SynthesisConfig, cases: Path, total: int, journal: Journal, spool: Spool
) -> list[dict[str, object]]:
    """Fill the spool; returns what each client did."""
    parts = config.shard.count  # limits and budget are those of the whole job
    budget = Budget(config.budget.shared(parts))
    async with AsyncExitStack() as stack:
        synthesizer = await stack.enter_async_context(LLMClient(config.writer.shared(parts), journal, budget))
        clients, judge = [synthesizer], synthesizer
        if config.verifier.kind != "rule" and config.judge_endpoint != config.writer:
            judge = await stack.enter_async_context(LLMClient(config.judge_endpoint.shared(parts), journal, budget))
            clients.append(judge)
        metered = None if config.verifier.kind == "rule" else Metered(judge)
        verifier = build_verifier(config.verifier, cast(LLMClient | None, metered))
        examiner = Writer(metered, config) if metered is not None else None
        search = Search(Writer(Metered(synthesizer), config), verifier, config, examiner)
        with SynthesisProgress(total, clients) as progress:
            ticking = asyncio.create_task(progress.tick())
            try:
                await _work(config, _units(config, cases), search, spool, progress)
            finally:
                ticking.cancel()
        return [client.statistics.summary() for client in clients]


async def _work(
    config: SynthesisConfig,
    units: Iterator[tuple[int, Case, int | None]],
    search: Search,
    spool: Spool,
    progress: "SynthesisProgress",
) -> None:
    """`concurrency` workers draw from one iterator, so that many cases and few cases take the same memory."""
    spent: list[BudgetExhausted] = []

    async def one(case: Case, sample: int | None) -> Trace | None:
        if sample is None:
            return rejected(case, 0, "duplicate_case")
        try:
            return await search.trace(case, sample)
        except BudgetExhausted as error:
            if config.budget.when_spent == "publish":
                return rejected(case, sample, "budget")
            spent.append(error)  # the others end by themselves, each after its call in flight is journaled
            return None

    async def worker() -> None:
        for position, case, sample in units:
            trace = await one(case, sample)
            if trace is None or spent:
                return
            spool.put(position, trace)
            progress.finished(trace)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(config.concurrency):
                group.create_task(worker())
    except BaseExceptionGroup as errors:  # a user's error where there is one, since the others follow from it
        found = errors.exceptions
        raise next((error for error in found if isinstance(error, UserError)), found[0]) from None
    if spent:
        raise spent[0]


class SynthesisProgress(Progress):
    """Finished traces, and how the run stands: rate, time left, cost and outcomes."""

    first, every = 5.0, 30.0  # after 5 s a slow model has finished no trace, but the calls show that it works

    def __init__(self, total: int, clients: Sequence[LLMClient]) -> None:
        super().__init__("synthesis", total)
        self._clients = clients
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()

    def __exit__(self, *_: object) -> None:
        if self._bar is None:
            self.tell()
        super().__exit__()

    def finished(self, trace: Trace) -> None:
        """Count one trace."""
        self._counts[trace.outcome.value] += 1
        if not trace.accepted:
            self._reasons[trace.reason] += 1
        self.advance(1)

    async def tick(self) -> None:
        """Show how the run stands every so often, also while nothing finishes; cancel it to end it."""
        while True:
            await asyncio.sleep(min(1.0, self.first))
            self.advance(0)

    def state(self) -> str:
        """Rates, cost, outcomes and what went wrong, in one short text."""
        seconds = max(1e-9, time.monotonic() - self.started)
        told = [client.statistics for client in self._clients]
        calls, journaled = sum(one.attempts for one in told), sum(one.cached for one in told)
        in_flight = sum(client.gate.in_flight for client in self._clients)
        cost = sum(one.usage.cost for one in told)
        retries: Counter[str] = sum((one.retries for one in told), Counter())
        outcomes = " ".join(f"{outcome.value} {self._counts[outcome.value]}" for outcome in TraceOutcome)
        extra = f", {journaled} from the journal" if journaled else ""
        again = f" | asked again: {_most(retries)}" if retries else ""
        rejects = f" ({_most(self._reasons)})" if self._reasons else ""
        rate = f"{calls / seconds:.0f} a second" if calls > 5 * seconds else f"{60 * calls / seconds:.1f} a minute"
        return f"{calls} calls, {rate}, {in_flight} in flight{extra}, cost {cost:.4f} | {outcomes}{rejects}{again}"

    def line(self) -> str:
        left = (self.total - self.done) * (time.monotonic() - self.started) / max(1, self.done)
        ahead = f", about {left:.0f} s left" if self.done else ", no trace yet"
        return f"synthesis {self.done}/{self.total}{ahead if self.done < self.total else ''}: {self.state()}"


def _most(reasons: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(3))
