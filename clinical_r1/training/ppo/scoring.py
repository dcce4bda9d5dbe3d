"""Verdicts while the models work: the verifier runs on an event loop in a thread of its own.

An answer is judged as soon as it is whole, while the others of its batch are still being sampled; then reference and
value forward passes run (torch releases the interpreter lock). The endpoint's own limits bound the calls in flight.
"""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, wait
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

from clinical_r1.generation.chat import CompletionReader
from clinical_r1.llm.client import LLMClient
from clinical_r1.llm.journal import open_journal
from clinical_r1.llm.limits import Budget
from clinical_r1.reasoning import Split
from clinical_r1.rewards import NO_RESULT, ReasoningRule, RewardTable, reward, with_reasoning
from clinical_r1.schema import Case, Verdict, VerdictLabel
from clinical_r1.training.ppo.batch import Episode
from clinical_r1.verifier.config import JudgeConfig
from clinical_r1.verifier.judgement import Judgement
from clinical_r1.verifier.rule import chooses_right, near_miss
from clinical_r1.verifier.verifier import RubricJudge, build_rubric_judge, build_verifier

NO_VERDICT = Verdict(label=VerdictLabel.INCORRECT, judge="none", reason="no_result")
"""For outputs that are no result: nobody is asked."""


class JudgeThread:
    """One verifier (and its connection) on one background event loop; use as a context manager."""

    def __init__(self, config: JudgeConfig, calls_dir: Path | None = None, parts: int = 1, here: int = 1) -> None:
        """`calls_dir` gets the journal of the judge's calls: a run that is started again pays for none twice. `parts`
        processes judge for the job and share its limits and budget, `here` of them its journal."""
        self.config, self._calls_dir, self._parts, self._here = config, calls_dir, parts, here
        self._loop, self._stack = asyncio.new_event_loop(), AsyncExitStack()
        self._thread = threading.Thread(target=self._loop.run_forever, name="judge", daemon=True)
        self._verifier: Any = None
        self._rubrics: RubricJudge | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._open()).result()
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._stack.aclose()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def grade(self, case: Case, answer: str) -> "Future[float | None]":
        """Start grading an answer by its case's rubric; the future gives the share of points from 0 to 1, None where a
        judgement failed."""
        return self._call(self._grade(case, answer))

    def submit(self, items: list[Judgement | None]) -> "Future[list[Verdict]]":
        """Start judging; the future gives verdicts in order, `NO_VERDICT` where the item is None."""
        return self._call(self._judge(items))

    def _call(self, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _open(self) -> None:
        client = None
        if self.config.endpoint is not None:
            calls = self._stack.enter_context(open_journal(self._calls_dir)) if self._calls_dir else None
            budget = Budget(self.config.budget.shared(self._parts), self._here)
            endpoint = self.config.endpoint.shared(self._parts)
            client = await self._stack.enter_async_context(LLMClient(endpoint, calls, budget))
        self._verifier = build_verifier(self.config.verifier, client)
        if client is not None and self.config.verifier.kind != "rule":
            self._rubrics = build_rubric_judge(self.config.verifier, client)

    async def _grade(self, case: Case, answer: str) -> float | None:
        assert self._rubrics is not None  # PPOConfig refuses a table with rubrics without a model that judges
        share = (await self._rubrics.score(case, answer)).share(case.rubric)
        return None if share is None else min(1.0, max(0.0, share))

    async def _judge(self, items: list[Judgement | None]) -> list[Verdict]:
        asked = [self._verifier.judge(item) for item in items if item is not None]
        found: list[Any] = await asyncio.gather(*asked, return_exceptions=True)
        for one in found:  # only now, when all others are journaled
            if isinstance(one, BaseException):
                raise one
        verdicts = iter(found)
        return [NO_VERDICT if item is None else next(verdicts) for item in items]


class Reader:
    """Takes completions apart: thought, answer, outcome, reasoning tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self._completions = CompletionReader(tokenizer, "the policy", strict=True)

    def read(self, completion: list[int], finished: bool) -> tuple[Split, int]:
        """The parts of a completion and the tokens of its thought, as evaluation and the gateway read them.

        What was cut at max_new_tokens is `unclosed` inside of its thought; behind it, what there is of the answer is
        judged.
        """
        _, parts, tokens = self._completions.read(completion, "stop" if finished else "length")
        return parts, tokens


Asked = tuple["Future[list[Verdict]] | None", "Future[float | None] | None"]
"""What is being found out about one answer: its verdict, None where its case has no reference; its share of its
rubric's points, None where the reward table or the case has none."""


class Scorer:
    """Episodes in, rewards out."""

    def __init__(self, judge: JudgeThread, reader: Reader, table: RewardTable, rule: ReasoningRule) -> None:
        self.judge, self.reader, self.table, self.rule = judge, reader, table, rule
        self._ahead: dict[tuple[int, ...], Asked] = {}

    def ahead(self, number: int, case: Case, completion: list[int]) -> None:
        """Start the judgement of an answer that is whole while others are still being sampled; `start` takes it over.

        `number` is the case's index."""
        parts = self.reader.read(completion, finished=True)[0]
        key = (number, *completion)
        if parts.outcome not in NO_RESULT and key not in self._ahead:
            self._ahead[key] = self._ask(case, Judgement.of(case, parts.response))

    def _ask(self, case: Case, item: Judgement | None) -> Asked:
        verdict = self.judge.submit([item]) if case.references else None
        graded = item is not None and "rubric" in self.table.signals(case)
        return verdict, self.judge.grade(case, item.answer) if item is not None and graded else None

    def start(self, episodes: list[Episode], cases: list[Case]) -> list[tuple[Split, Asked]]:
        """Read the episodes and start their judgements; hand the result to `finish`."""
        started = []
        for episode in episodes:
            parts, episode.reasoning_tokens = self.reader.read(episode.completion, episode.finished)
            episode.outcome = parts.outcome
            case = cases[episode.case]
            asked: Asked | None = None
            item = None if parts.outcome in NO_RESULT else Judgement.of(case, parts.response)
            if item is not None:
                asked = self._ahead.get((episode.case, *episode.completion))
                if self.table.near_miss:
                    episode.level = near_miss(item)
                if "choice" in self.table.signals(case):
                    episode.signals["choice"] = chooses_right(item)
            started.append((parts, asked or self._ask(case, item)))
        self._ahead.clear()
        return started

    def finish(self, episodes: list[Episode], started: list[tuple[Split, Asked]]) -> None:
        """Wait for the verdicts and write label, signals and score into the episodes."""
        # All of them are journaled before one that failed is told.
        futures: list[Future[Any]] = [future for _, asked in started for future in asked if future is not None]
        wait(futures)
        for episode, (parts, (verdict, share)) in zip(episodes, started, strict=True):
            episode.label = verdict.result()[0].label if verdict is not None else VerdictLabel.UNDECIDED
            if share is not None:
                episode.signals["rubric"] = share.result()
            tokens = episode.reasoning_tokens
            episode.score = reward(
                self.table, episode.outcome, episode.label, tokens, parts.thinking, self.rule, episode.level,
                episode.signals, verdict is not None,
            )  # fmt: skip
            episode.reasoned = with_reasoning(episode.outcome, tokens, parts.thinking, self.rule)
