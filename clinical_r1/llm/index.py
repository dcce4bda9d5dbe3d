"""A hash table from 64-bit fingerprints to file offsets in two flat arrays: 100,000 entries take 4 MB, not 15."""

from array import array
from collections.abc import Iterator


class OffsetIndex:
    """Open addressing with linear probing; a fingerprint may occur more than once (collisions are the caller's to
    settle)."""

    def __init__(self, capacity: int = 1 << 10) -> None:
        self._allocate(capacity)

    def __len__(self) -> int:
        return self._used

    def _allocate(self, capacity: int) -> None:
        self._mask = capacity - 1
        self._keys = array("Q", bytes(8 * capacity))
        self._offsets = array("q", b"\xff" * (8 * capacity))
        self._used = 0

    def add(self, fingerprint: int, offset: int) -> None:
        """Enter one (fingerprint, offset >= 0)."""
        if 3 * self._used >= 2 * self._mask:
            self._grow()
        place = fingerprint & self._mask
        while self._offsets[place] >= 0:
            place = (place + 1) & self._mask
        self._keys[place] = fingerprint
        self._offsets[place] = offset
        self._used += 1

    def find(self, fingerprint: int) -> Iterator[int]:
        """Offsets entered under a fingerprint."""
        place = fingerprint & self._mask
        while (offset := self._offsets[place]) >= 0:
            if self._keys[place] == fingerprint:
                yield offset
            place = (place + 1) & self._mask

    def _grow(self) -> None:
        keys, offsets = self._keys, self._offsets
        self._allocate(2 * (self._mask + 1))
        for key, offset in zip(keys, offsets, strict=True):
            if offset >= 0:
                self.add(key, offset)
