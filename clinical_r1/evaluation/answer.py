"""Ask a model every case: a local checkpoint in batches, or any OpenAI-compatible endpoint concurrently. Resumable.

Both give the same `Prediction`s, so that GPT-4o, the base model and ours stand beside each other on the same cases. An
empty or cut-off output is a prediction like any other; only the judge comes later (`judge.py`).
"""

import contextlib
import hashlib
import json
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clinical_r1.asking import ranked
from clinical_r1.dialects import AUTO, THINK
from clinical_r1.errors import UserError
from clinical_r1.evaluation.baselines import messages
from clinical_r1.evaluation.config import EvaluationConfig
from clinical_r1.evaluation.judging.judge import ask_all
from clinical_r1.folders import check_model_folder, identity
from clinical_r1.llm.client import Completion, LLMClient, run_calls
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.journal import NO_ROOM, Entry, Journal, open_journal
from clinical_r1.llm.reply import REFUSALS, CallFailed, estimate_tokens
from clinical_r1.progress import progress
from clinical_r1.reasoning import Outcome, Split, Splitter, render
from clinical_r1.recognise import recognise
from clinical_r1.sampling import NEUTRAL, Sampling
from clinical_r1.schema import Case, Prediction, Usage


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
    jobs = jobs_for(cases, config.samples)
    how = config.decoding.model_dump(exclude={"max_tokens"})
    known = [identity(check_model_folder(model_folder).path), how, config.dtype, config.thinking]
    rows: dict[int, Prediction] = {}
    with open_journal(state_dir) as journal:
        keys = [journal.call_key(json.dumps([*known, asked(config, job.case), stream_seed(config.seed, job)]).encode(),
                                 "local-1", job.sample) for job in jobs]  # fmt: skip
        for index, key in enumerate(keys):
            entry = journal.get(key)
            if entry is not None and entry.fits(config.max_new_tokens, keep_cut=True):
                rows[index] = Prediction.model_validate_json(entry.text)
        todo = deque(index for index in range(len(jobs)) if index not in rows)
        if todo:
            answerer = LocalAnswerer(config, model_folder)
            label = f"answers by {config.model_name or model_folder.name}"
            with progress(label, len(jobs), len(rows)) as advance:
                while todo:
                    batch = [todo.popleft() for _ in range(min(config.batch_rows, len(todo)))]
                    answers = answerer.answer([jobs[index] for index in batch])
                    rows |= {index: answer.row for index, answer in zip(batch, answers, strict=True)}
                    journal.append_now(
                        (keys[index], _kept(config, answer), jobs[index].case.unit)
                        for index, answer in zip(batch, answers, strict=True)
                    )
                    advance(len(batch))
    predictions = [rows[index] for index in range(len(jobs))]
    # A prompt that the model did read is answered with at least one token, be it the end of the turn.
    return predictions, sum(row.reasoning_tokens + row.answer_tokens == 0 for row in predictions)


class LocalAnswer(NamedTuple):
    """A prediction, and how it ended."""

    row: Prediction
    finish_reason: str


def _kept(config: EvaluationConfig, answer: LocalAnswer) -> Entry:
    tokens = Usage(completion_tokens=answer.row.reasoning_tokens + answer.row.answer_tokens)
    return Entry(answer.row.model_dump_json(), config.model_name, answer.finish_reason, tokens,
                 room=config.max_new_tokens)  # fmt: skip


def asked(config: EvaluationConfig, case: Case) -> list[dict[str, str]]:
    """The conversation that puts a case to the model."""
    if config.ranked and not case.options and case.references:
        asked_so = f"{case.question}\n\n{ranked(case.language, config.ranked)}"
        return [*messages(case, config.prompt, config.system_prompt)[:-1], {"role": "user", "content": asked_so}]
    return messages(case, config.prompt, config.system_prompt)


def answer_room(wanted: int, window: int) -> int:
    """Tokens that an answer may have: as many as wanted, or half of a window that they alone would fill."""
    return wanted if wanted < window else window // 2


class LocalAnswerer:
    """A loaded checkpoint that turns jobs into predictions."""

    def __init__(self, config: EvaluationConfig, model_folder: Path) -> None:
        from clinical_r1.generation.chat import CompletionReader, end_ids
        from clinical_r1.generation.decoder import Decoder
        from clinical_r1.generation.load import load_model

        model, self.tokenizer = load_model(model_folder, config.device, config.dtype)
        self.tokenizer.model_max_length = 1 << 60  # a prompt beyond the window is counted here, not warned of
        self.decoder = Decoder(model)
        self.config = config
        self.ends = end_ids(self.tokenizer, model)
        self.completions = CompletionReader(self.tokenizer, config.model_name or model_folder.name, config.thinking)

    def answer(self, jobs: Sequence[Job]) -> list[LocalAnswer]:
        """One answer a job, in order."""
        from clinical_r1.generation.chat import conversation_ids
        from clinical_r1.generation.decoder import SamplingParams

        prompts = [conversation_ids(self.tokenizer, asked(self.config, job.case)) for job in jobs]
        budget = answer_room(self.config.max_new_tokens, self.decoder.window)
        room = self.decoder.window - budget
        fitting = [index for index, prompt in enumerate(prompts) if len(prompt) <= room]
        params = SamplingParams.of(self.config.decoding, budget, self.ends, self.tokenizer.pad_token_id)
        rollouts = self.decoder.generate(
            [prompts[index] for index in fitting],
            params,
            seeds=[stream_seed(self.config.seed, jobs[index]) for index in fitting],
        )
        by_index = dict(zip(fitting, rollouts, strict=True))
        return [self._prediction(job, by_index.get(index)) for index, job in enumerate(jobs)]

    def go_on(self, cases: Sequence[Case], whole: Sequence[Prediction], budget: int) -> list[Prediction]:
        """Answers behind the same thoughts, each closed after `budget` tokens; the budget is `sample`."""
        from clinical_r1.generation.chat import completion_text, conversation_ids
        from clinical_r1.generation.decoder import SamplingParams

        begun = [self._closed(row.output, budget) for row in whole]
        prompts = [
            conversation_ids(self.tokenizer, asked(self.config, case))
            + self.tokenizer(text, add_special_tokens=False)["input_ids"]
            for case, (text, _) in zip(cases, begun, strict=True)
        ]
        room = answer_room(self.config.max_new_tokens, self.decoder.window) - budget
        room = max(1, min(room, self.decoder.window - max(map(len, prompts))))
        params = SamplingParams.of(self.config.decoding, room, self.ends, self.tokenizer.pad_token_id)
        seeds = [stream_seed(self.config.seed, Job(case, budget)) for case in cases]
        rows = []
        for row, (text, splitter), rollout in zip(
            whole, begun, self.decoder.generate(prompts, params, seeds=seeds), strict=True
        ):
            said = completion_text(self.tokenizer, rollout.token_ids, keep_special=splitter.dialect.special)
            splitter.feed(said)
            parts = splitter.finish()[1]
            rows.append(
                Prediction(
                    case_id=row.case_id,
                    sample=budget,
                    output=text + said,
                    thinking=parts.thinking,
                    response=parts.response,
                    outcome=parts.outcome,
                    reasoning_tokens=budget,
                    answer_tokens=len(rollout.token_ids),
                )
            )
        return rows

    def _closed(self, output: str, budget: int) -> tuple[str, Splitter]:
        """An output up to `budget` tokens of its thought and the mark that closes it, and the splitter that read it."""
        dialect = self.completions.reader.dialect or recognise(output) or THINK
        whole = Splitter(dialect=dialect)
        whole.feed(output)
        whole.finish()
        begin, end = whole.thought_spans[0]
        offsets = self.tokenizer(output, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        inside = [start for start, stop in offsets if stop > begin and start < end]
        begun = output[: max(begin, inside[budget]) if budget < len(inside) else end]
        splitter = Splitter(dialect=dialect)
        splitter.feed(begun)
        return begun + splitter.close()[0], splitter

    def _prediction(self, job: Job, rollout: Any) -> LocalAnswer:
        ids = [] if rollout is None else rollout.token_ids
        finish = NO_ROOM if rollout is None else "stop" if rollout.finished else "length"
        text, parts, thought = self.completions.read(ids, finish)
        row = Prediction(
            case_id=job.case.id,
            sample=job.sample,
            output=text,
            thinking=parts.thinking,
            response=parts.response,
            outcome=parts.outcome,
            reasoning_tokens=thought,
            answer_tokens=max(0, len(ids) - thought),
        )
        return LocalAnswer(row, finish)


class Answers(NamedTuple):
    """What an endpoint answered."""

    rows: list[Prediction]
    """In the order of the cases."""
    failed: int
    """Calls that failed for good."""
    notes: list[str]
    """For the report: how the endpoint thinks, what it would not answer, and how it would not be told to draw."""
    decoding: Sampling | None
    """How they were drawn; None where the endpoint decides that itself."""


def answer_by_endpoint(
    config: EvaluationConfig, endpoint: EndpointConfig, cases: Sequence[Case], state_dir: Path
) -> Answers:
    """Predictions of an endpoint; each answer is journaled as it comes, and read anew by every run.

    A failed call is an `aborted` prediction (counted as wrong, listed in the notes), and the next run asks again, as it
    does for what was cut if `max_new_tokens` has changed. One that the endpoint would not answer is `refused`, and
    asked once. Raises UserError where none was answered: that says nothing about a model.
    """
    beside = {"top_k": config.top_k, "repetition_penalty": config.repetition_penalty}
    changed = {name: value for name, value in beside.items() if value != NEUTRAL[name]}
    endpoint = endpoint.model_copy(update={
        "thinking": config.thinking if endpoint.thinking == AUTO else endpoint.thinking,
        "extra_body": changed | endpoint.extra_body,
    })  # fmt: skip
    jobs = jobs_for(cases, config.samples)
    with open_journal(state_dir) as journal:
        rows, reasons, client = run_calls(_ask_all(config, endpoint, jobs, journal))
    counts = Counter(row.outcome for row in rows)
    failed, refused, known = reasons.total(), counts[Outcome.REFUSED], client.statistics.cached
    if failed and failed + known + refused == len(rows) and (failed > 1 or not known):
        often = client.statistics.told()
        raise UserError(f"{endpoint.base_url}: no call of {failed} was answered; most often {often}")
    decoding = _drawn(config.decoding, endpoint, client.quirks.omitted)
    notes = [client.reader.told()]
    if decoding is None:
        notes.append(f"endpoint {endpoint.name} does not take the asked decoding ({config.decoding.told()}): "
                     "how it draws is its own matter and is not recorded")  # fmt: skip
    if refused:
        notes.append(f"{refused} of {len(rows)} cases the endpoint would not answer (refused): unscored")
    if unknown := counts[Outcome.UNKNOWN_FORM]:
        notes.append(f"{unknown} of {len(rows)} answers mark their thought in a form that is not known: unscored")
    return Answers(rows, failed, notes, decoding)


def _drawn(asked: Sampling, endpoint: EndpointConfig, omitted: set[str]) -> Sampling | None:
    """The decoding as it was sent: what the endpoint's entry sets wins; what it refuses is nobody's word."""
    values = asked.model_dump()
    if any(name == "temperature" or values.get(name) != NEUTRAL.get(name) for name in omitted):
        return None
    return asked.model_copy(update={
        name: value for name, value in endpoint.extra_body.items() if name in values and isinstance(value, int | float)
    })  # fmt: skip


async def _ask_all(
    config: EvaluationConfig, endpoint: EndpointConfig, jobs: Sequence[Job], journal: Journal
) -> tuple[list[Prediction], Counter[str], LLMClient]:
    """A row for each job, why calls failed for good, and the client with what it found out."""
    reasons: Counter[str] = Counter()
    doubtful: list[tuple[Prediction, Completion]] = []
    with progress(f"answers by {config.model_name or endpoint.name}", len(jobs), 0) as advance:
        # What came is what counts: asking again for a better answer would flatter the model.
        async with LLMClient(endpoint.model_copy(update={"max_resamples": 0}), journal) as client:

            async def ask(job: Job) -> Prediction:
                row, completion = await _ask(client, config, job, reasons)
                if completion is not None and client.reader.doubtful(completion.answer, row.outcome):
                    doubtful.append((row, completion))
                return row

            # Twice as many as calls in flight: some wait until their answer is on disk.
            rows = await ask_all(jobs, ask, 2 * endpoint.max_concurrency, advance)
            if doubtful:
                await _settle(client, doubtful)
    return rows, reasons, client


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
    try:
        completion = await client.chat(
            asked(config, job.case),
            prompt_version=f"evaluation-3 {client.endpoint.base_url}",  # equal names need not be equal models
            sample_index=job.sample,
            temperature=config.temperature,
            top_p=config.top_p,
            max_tokens=config.max_new_tokens,
            seed=stream_seed(config.seed, job) % 2**31,
            subject=job.case.unit,
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
