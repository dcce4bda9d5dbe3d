"""Verdicts for predictions: concurrent, resumable, and honest about failed judgements.

An output without an answer is wrong without asking anyone; one that was refused, or whose form nobody knows, is
unscored. A judge that fails gives `invalid`: the prediction is unscored, never wrong, and is asked again by the next
run.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.evaluation.journal import RowJournal, fingerprint
from clinical_r1.llm.loop import run_calls
from clinical_r1.progress import progress
from clinical_r1.reasoning import UNREADABLE
from clinical_r1.schema import Case, Prediction, Record, Verdict, VerdictLabel
from clinical_r1.verifier.config import JudgeConfig
from clinical_r1.verifier.judgement import Judgement

CALLS = "calls"
"""Folder of the state folder with the journal of the judges' paid calls: none is paid twice."""
NO_ANSWER = "no_answer"
"""Reason of the verdict on an output without an answer."""


class JudgedRow(Record):
    """One verdict in the journal."""

    case_id: str
    sample: int
    verdict: Verdict


def judge_predictions(
    config: JudgeConfig,
    cases: Sequence[Case],
    predictions: Sequence[Prediction],
    state_dir: Path,
    concurrency: int = 128,
    label: str = "verdicts",
) -> list[Verdict]:
    """One verdict a prediction, in order."""
    by_id = {case.id: case for case in cases}
    identity = fingerprint(
        config.identity(),
        [(p.case_id, p.sample, p.response) for p in predictions],
        [(by_id[p.case_id].question, by_id[p.case_id].references) for p in predictions],
    )
    journal = RowJournal(state_dir, "verdicts", identity, JudgedRow)
    done = {(row.case_id, row.sample): row.verdict for row in journal.read()}
    for prediction in predictions:
        if prediction.outcome in UNREADABLE:  # says nothing about the answer: unscored, and shown as what it is
            verdict = Verdict(label=VerdictLabel.INVALID, judge=config.verifier.kind, reason=prediction.outcome.value)
            done[prediction.case_id, prediction.sample] = verdict
        elif not prediction.response:
            verdict = Verdict(label=VerdictLabel.INCORRECT, judge=config.verifier.kind, reason=NO_ANSWER)
            done[prediction.case_id, prediction.sample] = verdict
    todo = [p for p in predictions if (p.case_id, p.sample) not in done]
    if todo:
        with progress(label, len(predictions), len(predictions) - len(todo)) as advance:
            rows = run_calls(_judge_all(config, by_id, todo, journal, concurrency, advance, Path(state_dir) / CALLS))
        done |= {(row.case_id, row.sample): row.verdict for row in rows}
    return [done[p.case_id, p.sample] for p in predictions]


async def _judge_all(
    config: JudgeConfig,
    by_id: dict[str, Case],
    todo: Sequence[Prediction],
    journal: RowJournal[JudgedRow],
    concurrency: int,
    advance: Any,
    calls_dir: Path,
) -> list[JudgedRow]:
    from clinical_r1.verifier.verifier import build_verifier

    queue, rows, unsaved = deque(todo), [], []
    stopped: list[UserError] = []
    async with AsyncExitStack() as stack:
        client = None
        if config.endpoint is not None:
            from clinical_r1.llm.budget import Budget
            from clinical_r1.llm.client import LLMClient
            from clinical_r1.llm.journal import open_journal

            calls = stack.enter_context(open_journal(calls_dir))
            client = await stack.enter_async_context(LLMClient(config.endpoint, calls, Budget.of(config.budget)))
            await client.check()  # a dead judge ends here, and does not leave everything unscored after all retries
        verifier = build_verifier(config.verifier, client)

        async def worker() -> None:
            while queue and not stopped:
                prediction = queue.popleft()
                try:
                    verdict = await verifier.judge(Judgement.of(by_id[prediction.case_id], prediction.response))
                except UserError as error:  # the budget, or the endpoint: the others end after their call in flight
                    stopped.append(error)
                    return
                row = JudgedRow(case_id=prediction.case_id, sample=prediction.sample, verdict=verdict)
                rows.append(row)
                if verdict.label is not VerdictLabel.INVALID:
                    unsaved.append(row)
                if len(unsaved) >= 64:
                    journal.append(unsaved)
                    unsaved.clear()
                advance(1)

        try:
            await run_workers([worker] * min(concurrency, len(todo)))
        finally:
            journal.append(unsaved)
        if stopped:
            raise stopped[0]
    return rows


async def run_workers(workers: Sequence[Any]) -> None:
    """Run all workers; the first failure stops the others and is raised as itself, not wrapped in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(worker())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
