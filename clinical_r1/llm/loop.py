"""Run a coroutine that keeps hundreds of calls in flight."""

import gc
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")

YOUNG_OBJECTS = 50_000
"""Allocations between two collections: calls in flight free their objects by reference count, so there is little to
find, and with Python's 700 the collector walks all loaded modules again and again (docs/log.md)."""


def run_calls(work: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop, with a garbage collector that leaves alone what was loaded before and looks less often."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *before[1:])
    try:
        return uvloop.run(work)
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
