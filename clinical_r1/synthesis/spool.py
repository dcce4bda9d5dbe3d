"""Finished traces on disk in the order of arrival, read back in the order of the cases: memory stays flat.

The spool is a database without a name: it ends with its process, whatever ends that. What survives a crash is the
journal, from which the same traces are made again.
"""

import sqlite3
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Self

from clinical_r1.errors import UserError
from clinical_r1.schema import Trace, TraceOutcome
from clinical_r1.synthesis.choices import draw

_TABLE = "CREATE TABLE traces (position INTEGER PRIMARY KEY, case_id TEXT, digest BLOB, guided INTEGER, line TEXT)"
"""`digest` of the text of an accepted trace; `guided`: the rank of one that was guided."""


class Spool:
    """Traces by position, which orders the dataset."""

    def __init__(self, folder: Path, seed: int) -> None:
        """`folder`: on the file system that the spool may fill."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "traces.spool"
        self._path.unlink(missing_ok=True)
        self._seed = seed
        self._rows = sqlite3.connect(self._path, isolation_level=None)
        for statement in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", _TABLE, "BEGIN"):
            self._rows.execute(statement)
        self._path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.close()

    def put(self, position: int, trace: Trace) -> None:
        """Keep a trace."""
        digest = guided = None
        if trace.accepted:
            digest = blake2b(f"{trace.thinking}\0{trace.response}".encode(), digest_size=16).digest()
        if trace.outcome is TraceOutcome.GUIDED:
            guided = draw("guided", self._seed, trace.case_id, trace.sample)
        row = (position, trace.case_id, digest, guided, trace.model_dump_json())
        try:
            self._rows.execute("INSERT INTO traces VALUES (?, ?, ?, ?, ?)", row)
        except sqlite3.OperationalError as error:
            raise UserError(f"{self._path}: cannot write ({error}); free space and run again") from None

    def copies(self) -> set[int]:
        """Positions of accepted traces whose text an earlier sample of the same case already has."""
        rows = self._rows.execute(
            "SELECT position, row_number() OVER (PARTITION BY case_id, digest ORDER BY position) FROM traces "
            "WHERE digest IS NOT NULL"
        )
        return {position for position, number in rows if number > 1}

    def guided_over(self, share: float, without: set[int]) -> set[int]:
        """Positions of guided traces above the largest allowed share of the dataset; which stay is decided by hash."""
        rows = self._rows.execute("SELECT position FROM traces WHERE guided IS NOT NULL ORDER BY guided, position")
        guided = [position for (position,) in rows if position not in without]
        accepted = self._rows.execute("SELECT count(digest) FROM traces").fetchone()[0] - len(without)
        if share >= 1:
            return set()
        return set(guided[int((accepted - len(guided)) * share / (1 - share) + 1e-9) :])

    def ordered(self) -> Iterator[tuple[int, Trace]]:
        """(position, trace) by position."""
        for position, line in self._rows.execute("SELECT position, line FROM traces ORDER BY position"):
            yield position, Trace.model_validate_json(line)
