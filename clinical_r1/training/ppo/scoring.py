"""Verdicts while the models work: the verifier runs on an event loop in a thread of its own.

`submit` starts all judgements at once and returns; reference and value forward passes run meanwhile (torch releases
the interpreter lock). The endpoint's own limits bound how many calls are in flight.
"""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

from clinical_r1.generation.chat import completion_text, prompt_opens_thinking, reasoning_tokens
from clinical_r1.llm.budget import Budget
from clinical_r1.llm.client import LLMClient
from clinical_r1.llm.journal import open_journal
from clinical_r1.reasoning import Outcome, Split, split
from clinical_r1.rewards import NO_RESULT, ReasoningRule, RewardTable, reward, with_reasoning
from clinical_r1.schema import Case, Verdict, VerdictLabel
from clinical_r1.training.ppo.batch import Episode
from clinical_r1.verifier.config import JudgeConfig
from clinical_r1.verifier.grade import near_miss
from clinical_r1.verifier.judgement import Judgement
from clinical_r1.verifier.verifier import build_verifier

judgement = Judgement.of
"""What the verifier is asked about one answer to a case."""
NO_VERDICT = Verdict(label=VerdictLabel.INCORRECT, judge="none", reason="no_result")
"""For outputs that are no result: nobody is asked."""


class JudgeThread:
    """One verifier (and its connection) on one background event loop; use as a context manager."""

    def __init__(self, config: JudgeConfig, calls_dir: Path | None = None) -> None:
        """`calls_dir` gets the journal of the judge's calls: a run that is started again pays for none twice."""
        self.config = config
        self._calls_dir = calls_dir
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="judge", daemon=True)
        self._stack = AsyncExitStack()
        self._verifier: Any = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._open()).result()
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def submit(self, items: list[Judgement | None]) -> "Future[list[Verdict]]":
        """Start judging; the future gives verdicts in order, `NO_VERDICT` where the item is None."""
        return self._call(self._judge(items))

    def _call(self, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _open(self) -> None:
        client = None
        if self.config.endpoint is not None:
            calls = self._stack.enter_context(open_journal(self._calls_dir)) if self._calls_dir else None
            budget = Budget.of(self.config.budget)
            client = await self._stack.enter_async_context(LLMClient(self.config.endpoint, calls, budget))
        self._verifier = build_verifier(self.config.verifier, client)

    async def _close(self) -> None:
        await self._stack.aclose()

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
        self.tokenizer = tokenizer
        self.opened = prompt_opens_thinking(tokenizer)

    def read(self, completion: list[int], finished: bool) -> tuple[Split, int]:
        """The parts of a completion and the tokens of its thought.

        One that was cut at max_new_tokens is `unclosed` inside of its thought, and `aborted` after it: a cut answer
        is no answer.
        """
        parts = split(completion_text(self.tokenizer, completion), opened=self.opened)
        if not finished and parts.outcome is not Outcome.UNCLOSED:
            parts = Split(parts.thinking, parts.response, Outcome.ABORTED)
        return parts, reasoning_tokens(self.tokenizer, completion, parts, self.opened)


class Scorer:
    """Episodes in, rewards out."""

    def __init__(self, judge: JudgeThread, reader: Reader, table: RewardTable, rule: ReasoningRule) -> None:
        self.judge, self.reader, self.table, self.rule = judge, reader, table, rule
        self._level = near_miss if table.near_miss else None

    def start(self, episodes: list[Episode], cases: list[Case]) -> "tuple[list[Split], Future[list[Verdict]]]":
        """Read the episodes and start their judgements; hand the result to `finish`."""
        parts = []
        items: list[Judgement | None] = []
        for episode in episodes:
            one, episode.reasoning_tokens = self.reader.read(episode.completion, episode.finished)
            episode.outcome = one.outcome
            parts.append(one)
            item = None if one.outcome in NO_RESULT else judgement(cases[episode.case], one.response)
            items.append(item)
            episode.level = self._level(item) if self._level and item is not None else None
        return parts, self.judge.submit(items)

    def finish(self, episodes: list[Episode], started: "tuple[list[Split], Future[list[Verdict]]]") -> None:
        """Wait for the verdicts and write label and score into the episodes."""
        for episode, parts, verdict in zip(episodes, started[0], started[1].result(), strict=True):
            episode.label = verdict.label
            tokens = episode.reasoning_tokens
            episode.score = reward(
                self.table, episode.outcome, verdict.label, tokens, parts.thinking, self.rule, episode.level
            )
            episode.reasoned = with_reasoning(episode.outcome, tokens, parts.thinking, self.rule)
