"""Ask a model every case: a local checkpoint in batches, or any OpenAI-compatible endpoint concurrently. Resumable.

Both give the same `Prediction`s, so that GPT-4o, the base model and ours stand beside each other on the same cases. An
empty or cut-off output is a prediction like any other; only the judge comes later (`judge.py`).
"""

import asyncio
import contextlib
import hashlib
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clinical_r1.errors import UserError
from clinical_r1.evaluation.config import EvaluationConfig
from clinical_r1.evaluation.journal import RowJournal, fingerprint
from clinical_r1.evaluation.judge import run_workers
from clinical_r1.folders import check_model_folder, identity
from clinical_r1.llm.client import Completion, LLMClient
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.failures import REFUSALS, CallFailed
from clinical_r1.llm.loop import run_calls
from clinical_r1.llm.reply import estimate_tokens
from clinical_r1.progress import progress
from clinical_r1.reasoning import Outcome, Split, count_reasoning_tokens, render
from clinical_r1.recognise import Answer, Reader
from clinical_r1.schema import Case, Prediction


class Job(NamedTuple):
    """One answer to be had."""

    case: Case
    sample: int


def stream_seed(seed: int, job: Job) -> int:
    """Seed of one (case, sample), independent of order and batch."""
    text = f"{seed}:{job.case.id}:{job.sample}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def jobs_for(cases: Sequence[Case], samples: int) -> list[Job]:
    """All answers to be had, in the order of the cases."""
    return [Job(case, sample) for case in cases for sample in range(samples)]


def answer_locally(
    config: EvaluationConfig, model_folder: Path, cases: Sequence[Case], state_dir: Path
) -> tuple[list[Prediction], int]:
    """Predictions of a checkpoint in the order of the cases, and how many prompts did not fit the model's window.

    A prompt that does not fit is answered with nothing: it stays in the denominator.
    """
    sampling = (config.samples, config.temperature, config.top_p, config.max_new_tokens, config.seed, config.dtype)
    known = fingerprint(identity(check_model_folder(model_folder).path), sampling, [case.id for case in cases])
    journal = RowJournal(state_dir, "answers", known, Prediction)
    done = {(row.case_id, row.sample): row for row in journal.read()}
    todo = deque(job for job in jobs_for(cases, config.samples) if (job.case.id, job.sample) not in done)
    if todo:
        answerer = LocalAnswerer(config, model_folder)
        with progress(
            f"answers by {config.model_name or model_folder.name}", len(done) + len(todo), len(done)
        ) as advance:
            while todo:
                batch = [todo.popleft() for _ in range(min(config.batch_rows, len(todo)))]
                rows = answerer.answer(batch)
                journal.append(rows)
                done |= {(row.case_id, row.sample): row for row in rows}
                advance(len(rows))
    rows = [done[job.case.id, job.sample] for job in jobs_for(cases, config.samples)]
    # A prompt that the model did read is answered with at least one token, be it the end of the turn.
    return rows, sum(row.reasoning_tokens + row.answer_tokens == 0 for row in rows)


def answer_room(wanted: int, window: int) -> int:
    """Tokens that an answer may have: as many as wanted, or half of a window that they alone would fill."""
    return wanted if wanted < window else window // 2


class LocalAnswerer:
    """A loaded checkpoint that turns jobs into predictions."""

    def __init__(self, config: EvaluationConfig, model_folder: Path) -> None:
        from clinical_r1.generation.chat import end_ids, folder_dialect, think_ids
        from clinical_r1.generation.decoder import build_decoder
        from clinical_r1.generation.load import load_model

        model, self.tokenizer = load_model(model_folder, config.device, config.dtype)
        self.tokenizer.model_max_length = 1 << 60  # a prompt beyond the window is counted here, not warned of
        self.decoder = build_decoder(model)
        self.config = config
        self.ends = end_ids(self.tokenizer, model)
        self.think_ids = think_ids(self.tokenizer)
        self.reader = Reader(config.model_name or model_folder.name, config.thinking)
        if not self.reader.fixed and (found := folder_dialect(self.tokenizer)) is not None:
            self.reader.settle(found)
            self.reader.fixed = True

    def answer(self, jobs: Sequence[Job]) -> list[Prediction]:
        """One prediction a job, in order."""
        from clinical_r1.generation.chat import prompt_ids
        from clinical_r1.generation.sampling import SamplingParams

        prompts = [prompt_ids(self.tokenizer, job.case.prompt) for job in jobs]
        budget = answer_room(self.config.max_new_tokens, self.decoder.window)
        room = self.decoder.window - budget
        fitting = [index for index, prompt in enumerate(prompts) if len(prompt) <= room]
        params = SamplingParams(
            max_new_tokens=budget,
            temperature=self.config.temperature,
            top_p=self.config.top_p,
            eos_token_ids=self.ends,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        rollouts = self.decoder.generate(
            [prompts[index] for index in fitting],
            params,
            seeds=[stream_seed(self.config.seed, jobs[index]) for index in fitting],
        )
        by_index = dict(zip(fitting, rollouts, strict=True))
        return [self._prediction(job, by_index.get(index)) for index, job in enumerate(jobs)]

    def _prediction(self, job: Job, rollout: Any) -> Prediction:
        from clinical_r1.generation.chat import completion_text

        ids = [] if rollout is None else rollout.token_ids
        dialect = self.reader.dialect
        text = completion_text(self.tokenizer, ids, keep_special=dialect is not None and dialect.special)
        cut = rollout is not None and not rollout.finished
        parts = self.reader.read(Answer(text, finish_reason="length" if cut else "stop"))
        thought = self._thought_tokens(ids, parts.thinking)
        return Prediction(
            case_id=job.case.id,
            sample=job.sample,
            output=text,
            thinking=parts.thinking,
            response=parts.response,
            outcome=parts.outcome,
            reasoning_tokens=thought,
            answer_tokens=max(0, len(ids) - thought),
        )

    def _thought_tokens(self, ids: list[int], thinking: str) -> int:
        """Exact where the tags are tokens of the dialect; else the thought is tokenized again."""
        dialect = self.reader.dialect
        if dialect is not None and dialect.name in ("think", "opened") and self.think_ids[0] >= 0:
            return count_reasoning_tokens(ids, *self.think_ids, opened=dialect.opened)
        return len(self.tokenizer(thinking, add_special_tokens=False)["input_ids"]) if thinking else 0


class Answers(NamedTuple):
    """What an endpoint answered."""

    rows: list[Prediction]
    """In the order of the cases."""
    failed: int
    """Calls that failed for good."""
    notes: list[str]
    """For the report: how the endpoint thinks, and what it would not answer."""


def answer_by_endpoint(
    config: EvaluationConfig, endpoint: EndpointConfig, cases: Sequence[Case], state_dir: Path
) -> Answers:
    """Predictions of an endpoint.

    A failed call is an `aborted` prediction (counted as wrong, listed in the notes); it is not journalled, so that the
    next run asks again. One that the endpoint would not answer is `refused`, and asked
    once. Raises UserError where none was answered: that says nothing about a model.
    """
    sampling = (
        config.samples,
        config.temperature,
        config.top_p,
        config.max_new_tokens,
        config.seed,
        config.system_prompt,
        endpoint.thinking,
    )
    known = fingerprint(endpoint.base_url, endpoint.model, sampling, [case.id for case in cases])
    journal = RowJournal(state_dir, "answers", known, Prediction)
    done = {(row.case_id, row.sample): row for row in journal.read()}
    todo = [job for job in jobs_for(cases, config.samples) if (job.case.id, job.sample) not in done]
    failed, notes = 0, []
    if todo:
        rows, reasons, told = run_calls(_ask_all(config, endpoint, todo, journal, len(done)))
        failed = reasons.total()
        if failed == len(rows) and (failed > 1 or not done):
            often = reasons.most_common(1)[0][0]
            raise UserError(
                f"{endpoint.base_url}: no call of {failed} was answered (most often: {often}); is it the API?"
            )
        done |= {(row.case_id, row.sample): row for row in rows}
        notes.append(told)
    rows = [done[job.case.id, job.sample] for job in jobs_for(cases, config.samples)]
    counts = Counter(row.outcome for row in rows)
    if refused := counts[Outcome.REFUSED]:
        notes.append(f"{refused} of {len(rows)} cases the endpoint would not answer (refused): unscored")
    if unknown := counts[Outcome.UNKNOWN_FORM]:
        notes.append(f"{unknown} of {len(rows)} answers mark their thought in a form that is not known: unscored")
    return Answers(rows, failed, notes)


async def _ask_all(
    config: EvaluationConfig,
    endpoint: EndpointConfig,
    todo: Sequence[Job],
    journal: RowJournal[Prediction],
    done: int,
) -> tuple[list[Prediction], Counter[str], str]:
    """A row for each job, why calls failed for good, and how the endpoint thinks."""
    queue, rows = deque(todo), []
    reasons: Counter[str] = Counter()
    unsaved: list[Prediction] = []
    doubtful: list[tuple[Prediction, Completion]] = []
    saving = asyncio.Lock()
    label = f"answers by {config.model_name or endpoint.name}"
    with progress(label, done + len(todo), done) as advance:
        # What came is what counts: asking again for a better answer would flatter the model.
        async with LLMClient(endpoint.model_copy(update={"max_resamples": 0})) as client:
            await client.check()  # a dead endpoint ends here, not after minutes of retries

            async def worker() -> None:
                while queue:
                    job = queue.popleft()
                    row, completion = await _ask(client, config, job, reasons)
                    rows.append(row)
                    if completion is not None and client.reader.doubtful(completion.answer, row.outcome):
                        doubtful.append((row, completion))
                    elif row.outcome is not Outcome.ABORTED:
                        unsaved.append(row)
                    advance(1)
                    if len(unsaved) >= 128:
                        batch = unsaved.copy()
                        unsaved.clear()
                        # In a thread: a disk that takes its time must not hold up the calls in flight.
                        async with saving:
                            await asyncio.to_thread(journal.append, batch)

            try:
                await run_workers([worker] * min(endpoint.max_concurrency, len(todo)))
                if doubtful:
                    await _settle(client, doubtful)
                    unsaved.extend(row for row, _ in doubtful)
            finally:
                journal.append(unsaved)
    return rows, reasons, client.reader.told()


PROBE = [{"role": "user", "content": "Which organ makes insulin? Think it over, then answer in one word."}]
PROBE_TOKENS = 4096


async def _settle(client: LLMClient, doubtful: Sequence[tuple[Prediction, Completion]]) -> None:
    """Rows without any mark that were cut: an answer with room shows whether the endpoint's prompt opens a thought."""
    with contextlib.suppress(CallFailed):
        if client.reader.dialect is None:
            probe = await client.chat(PROBE, "probe-1", temperature=0.0, max_tokens=PROBE_TOKENS, keep_truncated=True)
            client.reader.read(probe.answer)
    for row, completion in doubtful:
        read = _read(client, row.case_id, row.sample, completion)
        for name in ("thinking", "response", "outcome", "reasoning_tokens", "answer_tokens"):
            setattr(row, name, getattr(read, name))


async def _ask(
    client: LLMClient, config: EvaluationConfig, job: Job, reasons: Counter[str]
) -> tuple[Prediction, Completion | None]:
    messages = [{"role": "system", "content": config.system_prompt}] if config.system_prompt else []
    messages.append({"role": "user", "content": job.case.prompt})
    try:
        completion = await client.chat(
            messages,
            prompt_version="evaluation-2",
            sample_index=job.sample,
            temperature=config.temperature,
            top_p=config.top_p,
            max_tokens=config.max_new_tokens,
            seed=stream_seed(config.seed, job) % 2**31,
            subject=job.case.patient or job.case.id,
            keep_truncated=True,  # what was cut off at max_tokens is the model's answer, as a local model's is
        )
    except CallFailed as failure:
        outcome = Outcome.REFUSED if failure.reason in REFUSALS else Outcome.ABORTED
        if outcome is Outcome.ABORTED:
            reasons[failure.reason] += 1
        return Prediction(
            case_id=job.case.id, sample=job.sample, output="", thinking="", response="", outcome=outcome
        ), None
    return _read(client, job.case.id, job.sample, completion), completion


def _read(client: LLMClient, case_id: str, sample: int, completion: Completion) -> Prediction:
    """A completion as a prediction, whatever its dialect."""
    parts = client.reader.read(completion.answer)
    thought, answer = _shared_tokens(parts, completion)
    beside = completion.reasoning is not None
    return Prediction(
        case_id=case_id,
        sample=sample,
        output=render(completion.reasoning or "", completion.text) if beside else completion.text,
        thinking=parts.thinking,
        response=parts.response,
        outcome=parts.outcome,
        reasoning_tokens=thought,
        answer_tokens=answer,
    )


def _shared_tokens(parts: Split, completion: Completion) -> tuple[int, int]:
    """Tokens of thought and answer: as the endpoint states them; where it states one number for both, shared out by
    their estimated lengths (6% off in the mean)."""
    total, stated = completion.usage.completion_tokens, completion.reasoning_tokens
    if stated:  # 0 is what engines without a parser state of every answer
        return stated, max(0, total - stated)
    thinking, response = estimate_tokens(parts.thinking), estimate_tokens(parts.response)
    thought = round(total * thinking / (thinking + response)) if parts.thinking and thinking + response else 0
    return thought, total - thought
