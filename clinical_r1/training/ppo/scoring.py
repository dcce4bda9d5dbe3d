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
from typing import Any, NamedTuple, Self

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

judgement = Judgement.of
"""What the verifier is asked about one answer to a case."""
NO_VERDICT = Verdict(label=VerdictLabel.INCORRECT, judge="none", reason="no_result")
"""For outputs that are no result: nobody is asked."""


class JudgeThread:
    """One verifier (and its connection) on one background event loop; use as a context manager."""

    def __init__(self, config: JudgeConfig, calls_dir: Path | None = None, parts: int = 1, here: int = 1) -> None:
        """`calls_dir` gets the journal of the judge's calls: a run that is started again pays for none twice. `parts`
        processes judge for the job and share its limits and budget, `here` of them its journal."""
        self.config, self._parts, self._here = config, parts, here
        self._calls_dir = calls_dir
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="judge", daemon=True)
        self._stack = AsyncExitStack()
        self._verifier: Any = None
        self._rubrics: RubricJudge | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._open()).result()
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def grade(self, items: list[tuple[Case, str]]) -> "Future[list[float | None]]":
        """Start grading answers by their cases' rubrics; the future gives shares of points from 0 to 1, None where a
        judgement failed."""
        return self._call(self._grade(items))

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

    async def _close(self) -> None:
        await self._stack.aclose()

    async def _grade(self, items: list[tuple[Case, str]]) -> list[float | None]:
        assert self._rubrics is not None  # PPOConfig refuses a table with rubrics without a model that judges
        scores = await asyncio.gather(*(self._rubrics.score(*item) for item in items))
        shares = [score.share(case.rubric) for score, (case, _) in zip(scores, items, strict=True)]
        return [None if share is None else min(1.0, max(0.0, share)) for share in shares]

    async def _judge(self, items: list[Judgement | None]) -> list[Verdict]:
        asked = [item for item in items if item is not None]
        found = await asyncio.gather(*(self._verifier.judge(item) for item in asked), return_exceptions=True)
        judged: list[Verdict] = []
        for one in found:  # only now, when all others are journaled
            if isinstance(one, BaseException):
                raise one
            judged.append(one)
        verdicts = iter(judged)
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


class Asked(NamedTuple):
    """What is being found out about one answer."""

    verdict: "Future[list[Verdict]]"
    share: "Future[list[float | None]] | None"
    """Of its rubric's points; None where the reward table or the case has none."""
    referred: bool
    """The case has a reference, and so the answer a verdict."""


Judging = tuple[list[Split], list[Asked]]
"""What was read of some episodes, and what is being found out about them."""


class Scorer:
    """Episodes in, rewards out."""

    def __init__(self, judge: JudgeThread, reader: Reader, table: RewardTable, rule: ReasoningRule) -> None:
        self.judge, self.reader, self.table, self.rule = judge, reader, table, rule
        self._level = near_miss if table.near_miss else None
        self._ahead: dict[tuple[int, ...], Asked] = {}

    def ahead(self, number: int, case: Case, completion: list[int]) -> None:
        """Start the judgement of an answer that is whole while others are still being sampled; `start` takes it over.

        `number` is the case's index."""
        parts = self.reader.read(completion, finished=True)[0]
        key = (number, *completion)
        if parts.outcome not in NO_RESULT and key not in self._ahead:
            self._ahead[key] = self._ask(case, judgement(case, parts.response))

    def _ask(self, case: Case, item: Judgement | None) -> Asked:
        graded = item is not None and "rubric" in self.table.signals(case)
        return Asked(
            self.judge.submit([item if case.references else None]),
            self.judge.grade([(case, item.answer)]) if item is not None and graded else None,
            bool(case.references),
        )

    def start(self, episodes: list[Episode], cases: list[Case]) -> Judging:
        """Read the episodes and start their judgements; hand the result to `finish`."""
        parts, asked = [], []
        for episode in episodes:
            one, episode.reasoning_tokens = self.reader.read(episode.completion, episode.finished)
            episode.outcome = one.outcome
            parts.append(one)
            case = cases[episode.case]
            item = None if one.outcome in NO_RESULT else judgement(case, one.response)
            early = self._ahead.get((episode.case, *episode.completion)) if item is not None else None
            asked.append(early or self._ask(case, item))
            episode.level = self._level(item) if self._level and item is not None else None
            if item is not None and "choice" in self.table.signals(case):
                episode.signals["choice"] = chooses_right(item)
        self._ahead.clear()
        return parts, asked

    def finish(self, episodes: list[Episode], started: Judging) -> None:
        """Wait for the verdicts and write label, signals and score into the episodes."""
        # All of them are journaled before one that failed is told.
        futures: list[Future[Any]] = [one.verdict for one in started[1]]
        futures += [one.share for one in started[1] if one.share is not None]
        wait(futures)
        for episode, parts, asked in zip(episodes, *started, strict=True):
            episode.label = asked.verdict.result()[0].label if asked.referred else VerdictLabel.UNDECIDED
            if asked.share is not None:
                episode.signals["rubric"] = asked.share.result()[0]
            tokens = episode.reasoning_tokens
            episode.score = reward(
                self.table, episode.outcome, episode.label, tokens, parts.thinking, self.rule, episode.level,
                episode.signals, asked.referred,
            )  # fmt: skip
            episode.reasoned = with_reasoning(episode.outcome, tokens, parts.thinking, self.rule)
