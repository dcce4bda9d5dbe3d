"""Finished traces on disk in the order of arrival, read back in the order of the cases: memory stays flat.

The spool lives for one run. What survives a crash is the journal, from which the same traces are made again.
"""

from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from clinical_r1.errors import UserError
from clinical_r1.llm.lines import line_at
from clinical_r1.schema import Trace, TraceOutcome
from clinical_r1.synthesis.choices import draw


class Spool:
    """Traces by position; keeps 17 bytes a trace in memory, and a little more for guided ones and repeated samples."""

    def __init__(self, path: Path, seed: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._seed = seed
        self._file = open(path, "wb+")  # noqa: SIM115 - closed by __exit__
        self._positions = array("q")
        self._offsets = array("q")
        self._end = 0
        self._guided: list[tuple[int, int]] = []
        self._digests: dict[int, tuple[str, int]] = {}
        self.accepted = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self._positions)

    def put(self, position: int, trace: Trace, watch_copies: bool = False) -> None:
        """Keep a trace; `position` orders the dataset, `watch_copies` notes what finds identical samples."""
        line = trace.model_dump_json().encode() + b"\n"
        try:
            self._file.write(line)
        except OSError as error:
            raise UserError(f"{self._path}: cannot write ({error.strerror}); free space and run again") from None
        self._positions.append(position)
        self._offsets.append(self._end)
        self._end += len(line)
        if not trace.accepted:
            return
        self.accepted += 1
        if trace.outcome is TraceOutcome.GUIDED:
            self._guided.append((draw("guided", self._seed, trace.case_id, trace.sample), position))
        if watch_copies:
            self._digests[position] = (trace.case_id, hash((trace.thinking, trace.response)))

    def copies(self) -> set[int]:
        """Positions of accepted traces whose text an earlier sample of the same case already has."""
        seen: set[tuple[str, int]] = set()
        found = set()
        for position in sorted(self._digests):
            if self._digests[position] in seen:
                found.add(position)
            seen.add(self._digests[position])
        return found

    def guided_over(self, share: float, without: set[int]) -> set[int]:
        """Positions of guided traces above the largest allowed share of the dataset; which stay is decided by hash."""
        guided = sorted((rank, position) for rank, position in self._guided if position not in without)
        others = self.accepted - len(without) - len(guided)
        if share >= 1:
            return set()
        keep = int(others * share / (1 - share) + 1e-9)
        return {position for _, position in guided[keep:]}

    def ordered(self) -> Iterator[tuple[int, Trace]]:
        """(position, trace) by position."""
        self._file.flush()
        number = self._file.fileno()
        for index in sorted(range(len(self._positions)), key=self._positions.__getitem__):
            yield self._positions[index], Trace.model_validate_json(line_at(number, self._offsets[index]))
