"""The critic's update of one step beside the rollout of the next, where a core would be idle.

A small model decodes on one thread (generation/loop.py), so a machine of two or three cores sits half still during
rollouts. The critic's update needs nothing of the next rollout, and the rollout and the reference model nothing of the
critic: side by side they do the arithmetic of one after the other, and PPO stays synchronous (every episode is sampled
by the newest policy and valued by the newest critic). The forward passes that follow, of reference and critic, go to
whichever thread is free.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import torch

from clinical_r1.generation.decoder import supports
from clinical_r1.generation.loop import is_small_step
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.ppo.engines import Engines, world_size

MOST_THREADS = 3
"""With more, an update on all of them is over sooner than on the one that a rollout leaves."""

Numbers = dict[str, float]
T = TypeVar("T")
R = TypeVar("R")


def pays(config: PPOConfig, engines: Engines) -> bool:
    """Whether the critic's updates shall run beside rollouts (the object that does it: `Overlap`).

    Never with several processes or ZeRO-3, whose collective calls must come in one order; nor where a forward pass
    draws random numbers; nor where every update is waited for at once, by a checkpoint or a probe.
    """
    model = engines.policy.model
    return (
        engines.critic is not None
        and engines.device.type == "cpu"
        and world_size() == 1
        and config.deepspeed.stage < 3
        and config.rollout.engine == "static"
        and config.save_every > 1
        and config.probe.every != 1
        and supports(model)
        and not engines.policy.causal.config.attention_dropout
        and 1 < torch.get_num_threads() <= MOST_THREADS
        and is_small_step(model, config.batch_size)
    )


class Overlap:
    """Work on several threads, each with one thread of torch's; without `on` all is done at once, in order.

    How many threads a computation gets never depends on whether something is pending, or a run that goes on from a
    checkpoint would round differently from one that was never stopped.
    """

    def __init__(self, on: bool = False) -> None:
        self._threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._threads, "overlap") if on else None
        self._update: Future[Numbers] | Numbers = {}
        self._passes: list[Future[None]] = []

    @property
    def on(self) -> bool:
        """Whether anything runs beside anything else."""
        return self._pool is not None

    def narrow(self) -> None:
        """From here on one thread, until `join`: what follows may have work beside it."""
        if self._pool is not None:
            torch.set_num_threads(1)

    def start(self, update: Callable[[], Numbers]) -> None:
        """Begin the critic's update; `result` gives its numbers."""
        self.narrow()
        self._update = self._pool.submit(_alone, update) if self._pool is not None else update()

    def result(self) -> Numbers:
        """The numbers of the update, or what it raised; empty where none was started."""
        update, self._update = self._update, {}
        return update.result() if isinstance(update, Future) else update

    def each(self, work: Callable[[T], None], items: Iterable[T]) -> None:
        """Begin a piece of work for each item; `join` waits for them."""
        self.narrow()
        for item in items:
            if self._pool is not None:
                self._passes.append(self._pool.submit(_alone, work, item))
            else:
                work(item)

    def join(self) -> None:
        """Wait for every item's work (raises what it raised); all threads again."""
        passes, self._passes = self._passes, []
        wait(passes)
        if self._pool is not None:
            torch.set_num_threads(self._threads)
        for one in passes:
            one.result()

    def close(self) -> None:
        """Let what runs end, whatever comes of it; all threads again."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self._threads)


def _alone(work: Callable[..., R], *args: Any) -> R:
    """Do it on this one thread; a thread that torch has not met yet would take all."""
    torch.set_num_threads(1)
    return work(*args)
