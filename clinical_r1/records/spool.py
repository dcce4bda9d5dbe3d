"""Cases on their way: texts on disk, the little that policies and splits must know of each in memory.

20,000 notes of 8,000 characters are 160 MB of text and as much again in shingles; neither is held.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(slots=True)
class Facts:
    """What is known of one case without its text."""

    file: str
    line: int
    source: int
    id: str
    language: str
    specialty: str
    icd10: str
    patient: str
    site: str
    """As the case carries it."""
    test_only: bool
    """Its site, as the source names it, is one of `splits.test_sites`."""
    problem: str
    question_key: int
    """Hash of the question's normal form."""
    case_key: int
    """Hash of question and references."""
    block: int
    """Hash of language and principal reference: near-duplicates are looked for within it."""
    leak: bool
    contaminated: bool
    renamed: bool = False
    """The id was numbered; the stored text still has the old one."""
    at: int = 0
    size: int = 0
    shingles_at: int = 0
    shingles: int = 0


class Spool:
    """Two private files that are gone when they are closed: case texts, and their shingles."""

    def __init__(self, texts: int, shingles: int) -> None:
        self._texts, self._shingles = texts, shingles
        self._ends = [0, 0]

    def add(self, facts: Facts, text: bytes, shingles: bytes) -> None:
        """Append a case; its place goes into `facts`."""
        facts.at, facts.size = self._ends[0], len(text)
        facts.shingles_at, facts.shingles = self._ends[1], len(shingles) // 8
        for index, (file, data) in enumerate(((self._texts, text), (self._shingles, shingles))):
            done = 0
            while done < len(data):
                done += os.pwrite(file, data[done:], self._ends[index] + done)
            self._ends[index] += len(data)

    def text(self, facts: Facts) -> bytes:
        """The case as one JSON object."""
        return os.pread(self._texts, facts.size, facts.at)

    def shingles(self, facts: Facts) -> np.ndarray:
        """Distinct shingles of its question, uint64."""
        return np.frombuffer(os.pread(self._shingles, facts.shingles * 8, facts.shingles_at), np.uint64)


@contextmanager
def spool_beside(folder: Path | None) -> Iterator[Spool]:
    """A spool on the file system of `folder` (/tmp may be memory), or of the system's temporary folder."""
    place = folder
    while place is not None and not place.is_dir():
        place = place.parent if place != place.parent else None
    where = place if place is not None and os.access(place, os.W_OK) else None
    with tempfile.TemporaryFile(dir=where) as texts, tempfile.TemporaryFile(dir=where) as shingles:
        yield Spool(texts.fileno(), shingles.fileno())
