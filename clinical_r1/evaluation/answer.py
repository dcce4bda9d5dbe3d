"""Ask a model every case: a local checkpoint in batches, or any OpenAI-compatible endpoint concurrently. Resumable.

Both give the same `Prediction`s, so that GPT-4o, the base model and ours stand beside each other on the same cases. An
empty or cut-off output is a prediction like any other; only the judge comes later (`judge.py`).
"""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

from clinical_r1.asking import ranked
from clinical_r1.dialects import AUTO, THINK
from clinical_r1.errors import UserError
from clinical_r1.evaluation.config import OURS, EvaluationConfig, words
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

Job = tuple[Case, int]
"""An answer to be had: to which case, and which one of several."""
Made = tuple[Prediction, str, int]
"""A generated prediction, how it ended, and tokens generated."""


def stream_seed(seed: int, case: Case, sample: int) -> int:
    """Seed of one (case, sample), independent of order and batch."""
    text = f"{seed}:{case.id}:{sample}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def messages(case: Case, prompt: str, system: str = "") -> list[dict[str, str]]:
    """The conversation that puts a case to a model in the words of `prompt`; `system` goes before the prompt's own."""
    asked = words(prompt)
    template = asked.closed if case.options else asked.open if case.references else ""  # a conversation is its own
    content = case.prompt
    if template:
        listed = [] if case.problem == case.question else case.options  # a question may list its options itself
        letters = [chr(ord("A") + index) for index in range(len(case.options))]
        lines = [asked.option.format(letter=letter, text=text) for letter, text in zip(letters, listed, strict=False)]
        content = template.format(question=case.question, options="\n".join(lines), letters="".join(letters))
    before = [{"role": turn.role, "content": turn.content} for turn in case.turns]
    system = system or asked.system
    if system and not any(turn["role"] == "system" for turn in before):
        before.insert(0, {"role": "system", "content": system})
    return [*before, {"role": "user", "content": content}]


def asked(config: EvaluationConfig, case: Case) -> list[dict[str, str]]:
    """The conversation that puts a case to the evaluated model."""
    conversation = messages(case, config.prompt, config.system_prompt)
    if config.ranked and not case.options and case.references:
        conversation[-1]["content"] = f"{case.question}\n\n{ranked(case.language, config.ranked)}"
    return conversation


def told_of_words(prompt: str, cases: Sequence[Case]) -> list[str]:
    """What a reader of the figures has to know of the words in which these cases were asked."""
    if prompt == OURS:
        return []
    asked, said = words(prompt), []
    for closed, template, kind in ((False, asked.open, "open questions"), (True, asked.closed, "multiple choice")):
        if n := sum(bool(case.options) is closed for case in cases):
            whose = f"in the published words of {prompt}" if template else f"in ours: {prompt} states no words for them"
            said.append(f"{n} {kind} asked {whose}")
    chinese = sum(case.language == "zh" for case in cases)
    if chinese and (asked.open or asked.closed):
        said.append(f"{chinese} cases in Chinese asked with the published words, which are English")
    return said


def answer_room(wanted: int, window: int) -> int:
    """Tokens that an answer may have: as many as wanted, or half of a window that they alone would fill."""
    return wanted if wanted < window else window // 2


def _prediction(case_id: str, sample: int, output: str, parts: Split, thought: int, answer: int) -> Prediction:
    return Prediction(
        case_id=case_id, sample=sample, output=output, **vars(parts), reasoning_tokens=thought, answer_tokens=answer
    )


def answer_locally(
    config: EvaluationConfig, model_folder: Path, cases: Sequence[Case], state_dir: Path
) -> tuple[list[Prediction], int]:
    """Predictions of a checkpoint in the order of the cases, and how many prompts did not fit the model's window.

    A prompt that does not fit is answered with nothing: it stays in the denominator.
    """
    jobs = [(case, sample) for case in cases for sample in range(config.samples)]
    how = config.decoding.model_dump(exclude={"max_tokens"})
    known = [identity(check_model_folder(model_folder).path), how, config.dtype, config.thinking]
    requests = [([*known, asked(config, case), stream_seed(config.seed, case, k)], k, case.unit) for case, k in jobs]
    label = f"answers by {config.model_name or model_folder.name}"

    def answer(answerer: LocalAnswerer, batch: list[int]) -> list[Made]:
        return answerer.answer([jobs[index] for index in batch])

    rows = generated(config, model_folder, label, "local-1", requests, answer, state_dir)
    # A prompt that the model did read is answered with at least one token, be it the end of the turn.
    return rows, sum(row.reasoning_tokens + row.answer_tokens == 0 for row in rows)


def generated(
    config: EvaluationConfig,
    model_folder: Path,
    label: str,
    version: str,
    requests: Sequence[tuple[list[Any], int, str]],
    make: Callable[["LocalAnswerer", list[int]], list[Made]],
    state_dir: Path,
    kin: Callable[[int], object] = lambda index: None,
) -> list[Prediction]:
    """The prediction of each request (what it depends on, its sample, whose case it is), from the journal where it
    holds it. `make` gets positions of requests, in batches that are alike in `kin`."""
    with open_journal(state_dir) as journal:
        keys = [journal.call_key(json.dumps(what).encode(), version, sample) for what, sample, _ in requests]
        rows = {
            index: Prediction.model_validate_json(entry.text)
            for index, key in enumerate(keys)
            if (entry := journal.get(key)) is not None and entry.fits(config.max_new_tokens, keep_cut=True)
        }
        todo = [index for index in range(len(keys)) if index not in rows]
        if todo:
            answerer = LocalAnswerer(config, model_folder)
            with progress(label, len(keys), len(rows)) as advance:
                for _, same in groupby(todo, kin):
                    while batch := list(islice(same, config.batch_rows)):
                        kept = []
                        for index, (row, finish, tokens) in zip(batch, make(answerer, batch), strict=True):
                            usage, room = Usage(completion_tokens=tokens), config.max_new_tokens
                            entry = Entry(row.model_dump_json(), config.model_name, finish, usage, room=room)
                            kept.append((keys[index], entry, requests[index][2]))
                            rows[index] = row
                        journal.append_now(kept)
                        advance(len(batch))
    return [rows[index] for index in range(len(keys))]


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

    def answer(self, jobs: Sequence[Job]) -> list[Made]:
        """One answer a job, in order."""
        prompts = [self._prompt(case) for case, _ in jobs]
        budget = answer_room(self.config.max_new_tokens, self.decoder.window)
        fitting = [index for index, prompt in enumerate(prompts) if len(prompt) <= self.decoder.window - budget]
        rollouts = dict(zip(fitting, self._generate([(*jobs[i], prompts[i]) for i in fitting], budget), strict=True))
        made = []
        for index, (case, sample) in enumerate(jobs):
            rollout = rollouts.get(index)
            ids = [] if rollout is None else rollout.token_ids
            finish = NO_ROOM if rollout is None else "stop" if rollout.finished else "length"
            text, parts, thought = self.completions.read(ids, finish)
            answer = max(0, len(ids) - thought)
            made.append((_prediction(case.id, sample, text, parts, thought, answer), finish, thought + answer))
        return made

    def go_on(self, cases: Sequence[Case], whole: Sequence[Prediction], budget: int) -> list[Made]:
        """Answers behind the same thoughts, each closed after `budget` tokens; the budget is `sample`."""
        from clinical_r1.generation.chat import completion_text

        begun = [self._closed(row.output, budget) for row in whole]
        prompts = [
            self._prompt(case) + self.tokenizer(text, add_special_tokens=False)["input_ids"]
            for case, (text, _) in zip(cases, begun, strict=True)
        ]
        room = answer_room(self.config.max_new_tokens, self.decoder.window) - budget
        room = max(1, min(room, self.decoder.window - max(map(len, prompts))))
        rollouts = self._generate([(case, budget, ids) for case, ids in zip(cases, prompts, strict=True)], room)
        made = []
        for row, (text, splitter), rollout in zip(whole, begun, rollouts, strict=True):
            said = completion_text(self.tokenizer, rollout.token_ids, keep_special=splitter.dialect.special)
            splitter.feed(said)
            tokens = len(rollout.token_ids)
            parts = splitter.finish()[1]
            made.append((_prediction(row.case_id, budget, text + said, parts, budget, tokens), "stop", tokens))
        return made

    def _prompt(self, case: Case) -> list[int]:
        from clinical_r1.generation.chat import conversation_ids

        return conversation_ids(self.tokenizer, asked(self.config, case))

    def _generate(self, jobs: Sequence[tuple[Case, int, list[int]]], room: int) -> list[Any]:
        from clinical_r1.generation.decoder import SamplingParams

        params = SamplingParams.of(self.config.decoding, room, self.ends, self.tokenizer.pad_token_id)
        seeds = [stream_seed(self.config.seed, case, sample) for case, sample, _ in jobs]
        return self.decoder.generate([ids for _, _, ids in jobs], params, seeds=seeds)

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
    jobs = [(case, sample) for case in cases for sample in range(config.samples)]
    with open_journal(state_dir) as journal:
        rows, failed, client = run_calls(_ask_all(config, endpoint, jobs, journal))
    counts = Counter(row.outcome for row in rows)
    refused, known = counts[Outcome.REFUSED], client.statistics.cached
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
) -> tuple[list[Prediction], int, LLMClient]:
    """A row for each job, how many calls failed for good, and the client with what it found out."""
    failed = 0
    doubtful: list[tuple[Prediction, Completion]] = []
    # What came is what counts: asking again for a better answer would flatter the model.
    client = LLMClient(endpoint.model_copy(update={"max_resamples": 0}), journal)

    async def ask(job: Job) -> Prediction:
        nonlocal failed
        case, sample = job
        try:
            completion = await client.chat(
                asked(config, case),
                prompt_version=f"evaluation-3 {endpoint.base_url}",  # equal names need not be equal models
                sample_index=sample,
                temperature=config.temperature,
                top_p=config.top_p,
                max_tokens=config.max_new_tokens,
                seed=stream_seed(config.seed, case, sample) % 2**31,
                subject=case.unit,
                keep_truncated=True,  # what was cut off at max_tokens is the model's answer, as a local model's is
            )
        except CallFailed as failure:
            outcome = Outcome.REFUSED if failure.reason in REFUSALS else Outcome.ABORTED
            failed += outcome is Outcome.ABORTED
            return _prediction(case.id, sample, "", Split("", "", outcome), 0, 0)
        row = _read(client, case.id, sample, completion)
        if client.reader.doubtful(completion.answer, row.outcome):
            doubtful.append((row, completion))
        return row

    with progress(f"answers by {config.model_name or endpoint.name}", len(jobs), 0) as advance:
        async with client:
            # Twice as many as calls in flight: some wait until their answer is on disk.
            rows = await ask_all(jobs, ask, 2 * endpoint.max_concurrency, advance)
            if doubtful:
                await _settle(client, doubtful)
    return rows, failed, client


async def _settle(client: LLMClient, doubtful: Sequence[tuple[Prediction, Completion]]) -> None:
    """Rows without any mark that were cut: an answer with room shows whether the endpoint's prompt opens a thought."""
    asked = [{"role": "user", "content": "Which organ makes insulin? Think it over, then answer in one word."}]
    with contextlib.suppress(CallFailed):
        if client.reader.dialect is None:
            probe = await client.chat(asked, "probe-1", temperature=0.0, max_tokens=4096, keep_truncated=True)
            client.reader.read(probe.answer)
    for row, completion in doubtful:
        for name, value in _read(client, row.case_id, row.sample, completion):
            setattr(row, name, value)


def _read(client: LLMClient, case_id: str, sample: int, completion: Completion) -> Prediction:
    """A completion as a prediction, whatever its dialect.

    Tokens of thought and answer are as the endpoint states them; where it states one number for both, shared out by
    their estimated lengths (6% off in the mean).
    """
    parts = client.reader.read(completion.answer)
    beside = completion.reasoning is not None
    output = render(completion.reasoning or "", completion.text) if beside else completion.text
    total, thought = completion.usage.completion_tokens, completion.reasoning_tokens
    if not thought:  # 0 is what engines without a parser state of every answer
        lengths = estimate_tokens(parts.thinking), estimate_tokens(parts.response)
        thought = round(total * lengths[0] / sum(lengths)) if parts.thinking and sum(lengths) else 0
    return _prediction(case_id, sample, output, parts, thought, max(0, total - thought))
