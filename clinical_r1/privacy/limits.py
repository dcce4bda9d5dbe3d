"""A note has a time limit: one text must not hold up a step, whatever it is made of."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class NoteTooSlowError(Exception):
    """The recognisers took longer over one note than `phi.seconds_per_note`."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise NoteTooSlowError in the body after `seconds`, also within a regular expression.

    Only the main thread of a process can be interrupted (workers of the records step run there); elsewhere, and with
    0, the body runs on. A timer that was set before goes on afterwards.
    """
    if seconds <= 0 or threading.current_thread() is not threading.main_thread():
        yield
        return

    def expired(number: int, frame: FrameType | None) -> None:
        raise NoteTooSlowError(f"longer than phi.seconds_per_note ({seconds:g} s)")

    before = signal.signal(signal.SIGALRM, expired)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, interval)
        signal.signal(signal.SIGALRM, before)
