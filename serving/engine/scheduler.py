"""The queue in front of the decoder: waiting requests of the same sampling settings form one batch.

Each row draws from its own seeded stream, so an answer does not depend on who else was waiting.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

FinishReason = Literal["stop", "length"]


class Settings(NamedTuple):
    """What must be equal inside a batch."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float


@dataclass(eq=False)
class Job:
    """One completion to generate. Tokens arrive in `events`; a FinishReason (or an exception) ends them."""

    prompt_ids: list[int]
    max_tokens: int
    settings: Settings
    seed: int
    events: "asyncio.Queue[int | FinishReason | Exception]" = field(default_factory=asyncio.Queue)
    cancelled: bool = False
    produced: int = 0
    ended: bool = False


class QueueFullError(Exception):
    """The waiting line is at its limit."""


MAX_WAITING = 256
"""Completions in the line; more are refused."""
COMPANY_SECONDS = 0.005
"""Waited for others after the first request of a batch."""


class Scheduler:
    """Runs batches one after the other in a thread.

    Args:
        decoder: a `clinical_r1.generation.decoder.Decoder`.
        eos_token_ids: the ids that end an answer.
        pad_token_id: the id that fills short prompts.
        max_batch: rows of one batch.
    """

    def __init__(self, decoder: Any, eos_token_ids: list[int], pad_token_id: int, max_batch: int = 16) -> None:
        self._decoder, self._pad, self._max_batch = decoder, pad_token_id, max_batch
        self.eos_token_ids = frozenset(eos_token_ids)
        self.requests = self.batches = self.tokens = 0
        self.busy_seconds = 0.0
        self.waiting: list[Job] = []
        self.running: list[Job] = []
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the worker on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Cancel what waits and what runs, and end the worker."""
        for job in (*self.waiting, *self.running):
            job.cancelled = True
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def submit(self, jobs: list[Job]) -> None:
        """Put jobs in the line, all or none."""
        if len(self.waiting) + len(jobs) > MAX_WAITING:
            raise QueueFullError
        self.waiting.extend(jobs)
        self.requests += len(jobs)
        self._wake.set()

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(COMPANY_SECONDS)
            batch = self._next_batch()
            if not batch:
                self._wake.clear()
                continue
            self.running = batch
            started = time.perf_counter()
            try:
                await asyncio.to_thread(self._generate, batch)
            except Exception as error:
                for job in batch:
                    if not job.ended:
                        job.events.put_nowait(error)
            finally:
                self.running = []
            self.batches += 1
            self.busy_seconds += time.perf_counter() - started

    def _next_batch(self) -> list[Job]:
        """The oldest waiting job and those that can share its batch."""
        waiting = [job for job in self.waiting if not job.cancelled]
        batch: list[Job] = []
        self.waiting.clear()
        longest = room = 0
        for job in waiting:
            # One batch shares its longest prompt and its largest max_tokens; both must fit the model's window.
            prompt, tokens = max(longest, len(job.prompt_ids)), max(room, job.max_tokens)
            fits = prompt + tokens <= self._decoder.window and len(batch) < self._max_batch
            if fits and job.settings == waiting[0].settings:
                batch.append(job)
                longest, room = prompt, tokens
            else:
                self.waiting.append(job)
        return batch

    def _generate(self, batch: list[Job]) -> None:
        from clinical_r1.generation.decoder import SamplingParams

        assert self._loop is not None
        post = self._loop.call_soon_threadsafe

        def end(job: Job, reason: FinishReason) -> None:
            job.ended = True
            post(job.events.put_nowait, reason)

        def on_token(row: int, token_id: int) -> bool:
            """Hand a token to its request; True says that the row needs no more."""
            job = batch[row]
            if job.ended or job.cancelled:
                return True
            job.produced += 1
            self.tokens += 1
            post(job.events.put_nowait, token_id)
            if token_id in self.eos_token_ids:
                end(job, "stop")
            elif job.produced >= job.max_tokens:
                end(job, "length")
            return job.ended

        params = SamplingParams(
            max_new_tokens=max(job.max_tokens for job in batch),
            **batch[0].settings._asdict(),
            eos_token_ids=tuple(sorted(self.eos_token_ids)),
            pad_token_id=self._pad,
        )
        self._decoder.generate(
            [job.prompt_ids for job in batch], params, on_token=on_token, seeds=[job.seed for job in batch]
        )
        for job in batch:
            if not job.ended:
                end(job, "length")
