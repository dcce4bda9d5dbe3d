"""Pacing, back-off and the adaptive gate, without waiting for real minutes."""

import asyncio
import random
import time
from email.utils import formatdate

import pytest

from clinical_r1.llm import limits
from clinical_r1.llm.limits import Concurrency, Pacer, backoff
from clinical_r1.llm.transport import retry_after


@pytest.mark.parametrize("per_minute", [1, 10, 60, 600])
def test_no_window_of_a_minute_exceeds_the_limit(monkeypatch, per_minute: int) -> None:
    clock = [1000.0]
    monkeypatch.setattr(limits.time, "monotonic", lambda: clock[0])
    pacer, times = Pacer(per_minute), []
    for _ in range(3 * per_minute + 5):
        clock[0] += pacer.reserve(1)
        times.append(clock[0])
    worst = max(sum(begin <= t < begin + 60 for t in times) for begin in times)
    assert worst <= per_minute + 1
    assert times[-1] - times[0] < 60 * 2 * len(times) / per_minute, "the limit is not used"


def test_a_refund_lets_the_next_one_go_earlier(monkeypatch) -> None:
    monkeypatch.setattr(limits.time, "monotonic", lambda: 5.0)
    pacer = Pacer(600)
    pacer.reserve(120)
    waits = pacer.reserve(0)
    pacer.refund(60)
    assert 0 <= pacer.reserve(0) < waits


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, None),
    ],
)
def test_retry_after(headers, seconds) -> None:
    assert retry_after(headers) == seconds


def test_retry_after_as_a_date() -> None:
    then = time.time() + 30
    seconds = retry_after({"retry-after": formatdate(then, usegmt=True)})
    assert seconds is not None and then - time.time() - 1 <= seconds <= 30  # a date has whole seconds


def test_backoff_grows_to_its_bound_and_is_the_same_in_every_run() -> None:
    waits = [backoff(attempt, 0.5, 60.0, None, random.Random("x")) for attempt in range(12)]
    assert waits == [backoff(attempt, 0.5, 60.0, None, random.Random("x")) for attempt in range(12)]
    assert waits[0] <= 0.5 and 30 <= waits[-1] <= 60 and waits == sorted(waits)
    assert 3.0 <= backoff(0, 0.5, 60.0, 3.0, random.Random(1)) <= 3.75
    assert backoff(0, 0.5, 60.0, 3600.0, random.Random(1)) <= 75


async def test_the_gate_admits_as_many_as_its_limit() -> None:
    gate, inside, most = Concurrency(3), 0, 0

    async def one() -> None:
        nonlocal inside, most
        async with gate:
            inside += 1
            most = max(most, inside)
            try:
                await asyncio.sleep(0.001)
            finally:
                inside -= 1

    tasks = [asyncio.create_task(one()) for _ in range(30)]
    await asyncio.sleep(0.002)
    for task in tasks[::4]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 3 and gate.in_flight == 0


def test_the_gate_falls_on_throttling_and_recovers() -> None:
    gate = Concurrency(100)
    for number in range(400):
        gate.report(throttled=number % 2 == 0)
    low = gate.limit
    assert low < 40
    for _ in range(2000):
        gate.report(throttled=False)
    assert gate.limit == 100


def test_a_few_stray_429s_do_not_starve_the_gate() -> None:
    gate = Concurrency(128)
    rng = random.Random(0)
    for _ in range(20_000):
        gate.report(throttled=rng.random() < 0.05)
    assert gate.limit > 90
