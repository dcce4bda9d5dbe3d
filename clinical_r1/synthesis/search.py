"""The search of paper section 2.1.2: think, answer, verify; retry by strategy; guided at last; rewrite; verify.

    initial -> verifier -> (strategy -> verifier) x retries -> guided by the reference -> verifier
            -> natural thinking -> formal response -> verifier -> filters -> guided, recovered: told the answer?

The reference reaches the verifier (with the question and the final answer, never with reasoning) and the guided prompt,
nothing else. Every case ends as a trace: accepted, or rejected with a reason; no failure of a call escapes but those
that end the run as a whole (budget spent, endpoint unusable).
"""

import asyncio
from collections.abc import Sequence

from clinical_r1.llm.reply import CallFailed
from clinical_r1.reasoning import CONCLUSION_LABELS, conclusion_line, with_conclusion
from clinical_r1.schema import Attempt, Case, Strategy, Trace, TraceOutcome, Verdict, VerdictLabel
from clinical_r1.synthesis.config import SynthesisConfig, draw
from clinical_r1.synthesis.filters import first_objection
from clinical_r1.synthesis.writer import Account, Writer
from clinical_r1.verifier.judgement import Judgement, Verifier

JUDGE_TRIES = 2
"""A failed judgement is no verdict: it is asked for once more before the case is given up."""


class _RejectedError(Exception):
    """Ends the work on one trace; the message is the reason code."""


class Search:
    """Makes one trace of one case; holds no state between cases."""

    def __init__(
        self, writer: Writer, verifier: Verifier, config: SynthesisConfig, examiner: Writer | None = None
    ) -> None:
        """`examiner` asks the judge's endpoint whether a thought was told the answer; None where there is no judge."""
        self._writer = writer
        self._verifier = verifier
        self._config = config
        self._examiner = examiner if config.filters.hindsight and config.filters.ask_about_hindsight else None

    async def trace(self, case: Case, sample: int) -> Trace:
        """Search, rewrite, verify and filter; never raises for what concerns this case alone."""
        account = Account(case.unit)
        trace = rejected(case, sample, "")
        try:
            await self._attempts(case, sample, trace.attempts)
            await self._rewrite(case, sample, trace)
            trace.outcome = TraceOutcome.DIRECT if len(trace.attempts) == 1 else TraceOutcome.RECOVERED
            if trace.attempts[-1].strategy is Strategy.GUIDED:
                trace.outcome = TraceOutcome.GUIDED
            if objection := first_objection(trace, self._config.filters):
                raise _RejectedError(f"filter:{objection}")
            # One question to the judge about a thought that had something to be told: that it was wrong, or the answer.
            examiner = None if trace.outcome is TraceOutcome.DIRECT else self._examiner
            if examiner is not None and await examiner.told(case, trace.thinking, sample):
                raise _RejectedError("filter:hindsight_by_judge")
        except _RejectedError as reason:
            trace.outcome, trace.reason = TraceOutcome.REJECTED, str(reason)
        except CallFailed as failure:
            trace.outcome, trace.reason = TraceOutcome.REJECTED, f"call_failed:{failure.reason}"
        trace.usage = account.usage
        trace.synthesizer = f"{self._config.writer.name} / {account.model or self._config.writer.model}"
        return trace

    async def _attempts(self, case: Case, sample: int, chain: list[Attempt]) -> None:
        """Fill `chain` until its last attempt is verified."""
        config = self._config
        chain.append(await self._first(case, sample))
        for _ in range(config.retries):
            strategy = choose_strategy(config, len(chain), case.id, sample)
            if _correct(chain[-1]) or strategy is None:
                break
            chain.append(await self._attempt(case, strategy, chain, sample))
        if _correct(chain[-1]):
            return
        if not config.guided:
            raise _RejectedError("all_attempts_failed")
        chain.append(await self._attempt(case, Strategy.GUIDED, chain, sample))
        if not _correct(chain[-1]):
            raise _RejectedError("guided_not_verified")

    async def _first(self, case: Case, sample: int) -> Attempt:
        """The first attempt; with `best_of` the verified one of several, or else the first."""
        tries = await asyncio.gather(
            *(self._attempt(case, Strategy.INITIAL, (), sample, number) for number in range(self._config.best_of)),
            return_exceptions=True,
        )
        made = [attempt for attempt in tries if isinstance(attempt, Attempt)]
        for failure in tries:
            if isinstance(failure, BaseException) and not (made and isinstance(failure, CallFailed | _RejectedError)):
                raise failure
        verified = [attempt for attempt in made if _correct(attempt)]
        if not verified or self._config.best_by == "first":
            return (verified or made)[0]
        pick = min if self._config.best_by == "shortest" else max
        return pick(verified, key=lambda attempt: len(attempt.reasoning))

    async def _attempt(
        self, case: Case, strategy: Strategy, chain: Sequence[Attempt], sample: int, candidate: int = 0
    ) -> Attempt:
        reply = await self._writer.attempt(case, strategy, chain, sample, candidate)
        verdict = await self._judge(case, reply.answer)
        return Attempt(strategy=strategy, reasoning=reply.reasoning, answer=reply.answer, verdict=verdict)

    async def _judge(self, case: Case, answer: str) -> Verdict:
        """A verdict; raises _RejectedError where the judge gives none."""
        item = Judgement.of(case, answer)
        for _ in range(JUDGE_TRIES):
            verdict = await self._verifier.judge(item)
            if verdict.label is not VerdictLabel.INVALID:
                return verdict
        raise _RejectedError(f"judge_invalid:{verdict.reason}" if verdict.reason else "judge_invalid")

    async def _rewrite(self, case: Case, sample: int, trace: Trace) -> None:
        """Natural thinking and formal response; a response that does not state the right answer is drafted again, and
        one without a conclusion line gets it."""
        trace.thinking = await self._writer.natural(case, trace.attempts, sample)
        answer = trace.attempts[-1].answer
        for draft in range(self._config.rewrites):
            trace.response = await self._writer.response(case, trace.thinking, answer, sample, draft)
            verdict = await self._judge(case, trace.response)
            if verdict.label is VerdictLabel.CORRECT:
                trace.response = concluded(case, trace.response, answer)
                return
        raise _RejectedError("response_not_verified")


def choose_strategy(config: SynthesisConfig, attempts_so_far: int, case_id: str, sample: int) -> Strategy | None:
    """The strategy of the next retry, or None where none is open.

    Backtracking is open only with a step to return to: an attempt before the one that just failed (paper 2.1.2).
    `random` draws anew each time; `round_robin` walks through the configured order, each case starting elsewhere.
    """
    strategies, seed = config.strategies, config.seed
    allowed = [s for s in strategies if s is not Strategy.BACKTRACKING or attempts_so_far >= 2]
    if not allowed:
        return None
    if config.policy == "random":
        return allowed[draw("strategy", seed, case_id, sample, attempts_so_far) % len(allowed)]
    start = draw("start", seed, case_id, sample) + attempts_so_far - 1
    turn = (strategies[(start + step) % len(strategies)] for step in range(len(strategies)))
    return next(strategy for strategy in turn if strategy in allowed)


def concluded(case: Case, response: str, answer: str) -> str:
    """A verified response that ends with its conclusion line: its own where it states one, else the verified answer."""
    last = response.rstrip().rpartition("\n")[2]
    if last.startswith(CONCLUSION_LABELS[case.language, case.asks_for].rstrip()) and conclusion_line(last):
        return response
    stated = conclusion_line(response)
    if stated is None or "\n" in stated:
        stated = answer
    return with_conclusion(response, stated, case.language, case.asks_for)


def _correct(attempt: Attempt) -> bool:
    return attempt.verdict.label is VerdictLabel.CORRECT


def rejected(case: Case, sample: int, reason: str) -> Trace:
    """A trace without content: where the search begins, and what a case becomes that never began."""
    return Trace(
        case_id=case.id,
        sample=sample,
        language=case.language,
        specialty=case.specialty,
        question=case.prompt,
        references=case.references,
        outcome=TraceOutcome.REJECTED,
        reason=reason,
    )
