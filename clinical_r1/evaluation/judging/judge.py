"""Verdicts for predictions: concurrent, resumable, and honest about failed judgements.

An output without an answer is wrong without asking anyone; one that was refused, or whose form nobody knows, is
unscored. A judge that fails gives `invalid`: the prediction is unscored, never wrong, and is asked again by the next
run.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from clinical_r1.errors import UserError
from clinical_r1.llm.client import LLMClient, run_calls
from clinical_r1.llm.journal import open_journal
from clinical_r1.llm.limits import Budget
from clinical_r1.progress import progress
from clinical_r1.reasoning import UNREADABLE
from clinical_r1.schema import Case, Prediction, RubricScore, Verdict, VerdictLabel
from clinical_r1.verifier.config import JudgeConfig
from clinical_r1.verifier.judgement import Judgement
from clinical_r1.verifier.verifier import build_rubric_judge, build_verifier

ItemT = TypeVar("ItemT")
FoundT = TypeVar("FoundT")
Judging = Callable[[Prediction], Awaitable[FoundT]]
CALLS = "calls"
"""Folder of the state folder with the journal of the judges' paid calls: none is paid twice."""


def judge_predictions(
    config: JudgeConfig,
    cases: Sequence[Case],
    predictions: Sequence[Prediction],
    state_dir: Path,
    concurrency: int = 128,
    label: str = "verdicts",
) -> list[Verdict]:
    """One verdict a prediction, in order."""
    by_id, kind = {case.id: case for case in cases}, config.verifier.kind
    known: list[Verdict | None] = []
    for row in predictions:
        if row.outcome in UNREADABLE:  # says nothing about the answer: unscored, and shown as what it is
            known.append(Verdict(label=VerdictLabel.INVALID, judge=kind, reason=row.outcome.value))
        else:
            wrong = Verdict(label=VerdictLabel.INCORRECT, judge=kind, reason="no_answer")
            known.append(None if row.response else wrong)

    def judge_with(client: LLMClient | None) -> Judging[Verdict]:
        verifier = build_verifier(config.verifier, client)
        return lambda row: verifier.judge(Judgement.of(by_id[row.case_id], row.response))

    return _judged(config, predictions, known, judge_with, state_dir, concurrency, label)


def grade_rubrics(
    config: JudgeConfig, cases: Sequence[Case], predictions: Sequence[Prediction], state_dir: Path, concurrency: int
) -> list[RubricScore]:
    """The rubric of each prediction, in order; of an answer that cannot be read no criterion is graded."""
    by_id = {case.id: case for case in cases}
    known = [
        RubricScore(met=[None] * len(by_id[row.case_id].rubric), judge=config.verifier.kind)
        if row.outcome in UNREADABLE
        else None
        for row in predictions
    ]

    def judge_with(client: LLMClient | None) -> Judging[RubricScore]:
        judge = build_rubric_judge(config.verifier, client)
        return lambda row: judge.score(by_id[row.case_id], row.response)

    return _judged(config, predictions, known, judge_with, state_dir, concurrency, "rubrics")


def _judged(
    config: JudgeConfig,
    predictions: Sequence[Prediction],
    known: Sequence[FoundT | None],
    judge_with: Callable[[LLMClient | None], Judging[FoundT]],
    state_dir: Path,
    concurrency: int,
    label: str,
) -> list[FoundT]:
    todo = [row for row, one in zip(predictions, known, strict=True) if one is None]

    async def judge_all() -> list[FoundT]:
        with progress(label, len(predictions), len(predictions) - len(todo)) as advance:
            async with judge_client(config, Path(state_dir) / CALLS) as client:
                return await ask_all(todo, judge_with(client), concurrency, advance)

    found = iter(run_calls(judge_all()) if todo else ())
    return [next(found) if one is None else one for one in known]


@asynccontextmanager
async def judge_client(config: JudgeConfig, calls_dir: Path) -> AsyncIterator[LLMClient | None]:
    """The client of a judge's endpoint, whose paid calls are journaled in `calls_dir`; None where rules judge alone."""
    if config.endpoint is None:
        yield None
        return
    with open_journal(calls_dir) as calls:
        async with LLMClient(config.endpoint, calls, Budget(config.budget)) as client:
            yield client


async def ask_all(
    items: Sequence[ItemT],
    ask: Callable[[ItemT], Awaitable[FoundT]],
    concurrency: int,
    advance: Callable[[int], None],
) -> list[FoundT]:
    """What is found for each item, in order, with so many in flight.

    A UserError (the budget, or the endpoint) lets the calls in flight end and is raised then; any other failure stops
    them and is raised as itself, not wrapped in a group.
    """
    todo = deque(enumerate(items))
    found: dict[int, FoundT] = {}
    stopped: list[UserError] = []

    async def worker() -> None:
        while todo and not stopped:
            index, item = todo.popleft()
            try:
                found[index] = await ask(item)
            except UserError as error:
                stopped.append(error)
                return
            advance(1)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(items))):
                group.create_task(worker())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    if stopped:
        raise stopped[0]
    return [found[index] for index in range(len(items))]
