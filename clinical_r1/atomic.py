"""Files appear whole or not at all: write to a temporary name, fsync, rename (POSIX rename is atomic).

And the one way to say which bytes a file holds, and to read a table that lies beside its module.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any


@contextmanager
def atomic_writer(path: str | os.PathLike[str], mode: str = "w", private: bool = False) -> Iterator[IO]:
    """Open `path` for writing through a temporary neighbour; publish it only if the block ends without an exception.

    `mode` is "w" (UTF-8, newline kept) or "wb". A `private` file (text of records) only its owner may read (0600).
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        form: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
        opener = partial(os.open, mode=0o600) if private else None
        with open(temporary, mode, opener=opener, **form) as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike[str], text: str, private: bool = False) -> None:
    """Write a whole UTF-8 text file atomically; `private` as in `atomic_writer`."""
    with atomic_writer(path, private=private) as handle:
        handle.write(text)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hex SHA-256 of a file's bytes, streamed."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_table(path: Path) -> Any:
    """A YAML file that lies beside its module; by libyaml, which reads a table of patterns in a tenth of the time."""
    import yaml

    return yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
