"""Records into the store, where a run on a cluster takes them; what the PHI gate would do is said first."""

import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from clinical_r1.atomic import file_sha256
from clinical_r1.errors import UserError
from clinical_r1.objectstore.store import open_store
from clinical_r1.objectstore.transfer import size_text
from clinical_r1.records.config import PhiConfig, RecordsConfig, Source, SplitConfig
from clinical_r1.records.report import RecordsReport
from clinical_r1.records.run import prepare

_KEY = "a key for a preview alone: nothing that it hashes is kept"
_WHOLE = {"sft": 1.0, "rl": 0.0, "validation": 0.0, "test": 0.0}


def preview(path: Path, columns: dict[str, str]) -> RecordsReport:
    """What the records step would make of a file, with the PHI gate on; nothing of it stays. Raises UserError."""
    with TemporaryDirectory() as folder:
        key = Path(folder, "key")
        key.write_text(_KEY, encoding="utf-8")
        config = RecordsConfig(
            sources=[Source(path=str(path), map=columns)],
            splits=SplitConfig(fractions=_WHOLE),
            group_by=["patient"],
            max_reject_rate=1.0,
            phi=PhiConfig(policy="scrub", key_file=str(key)),
        )
        return prepare(config, Path(folder, "out"))


def store_records(path: Path, name: str, store: str, say: Callable[[str], None]) -> str:
    """Put a file, or the files of a folder, under `store`/`name`; returns the URI to give to a run.

    Interrupted, the same call goes on. Raises UserError where other records have that name.
    """
    if "/" in name:
        raise UserError(f"--name {name}: a name has no '/': write one such as ward-7")
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", name):
        raise UserError(f"--name '{name}': use letters, digits, dots and dashes, at most 63, such as ward-7")
    place = open_store(store)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    root = path.parent if path.is_file() else path
    wanted = {f"{name}/{file.relative_to(root).as_posix()}": file for file in files}
    there = {entry.key: entry for entry in place.list(f"{name}/")}
    if strange := sorted(set(there) - set(wanted)):
        raise UserError(
            f"{place.uri}/{name}: holds {strange[0].partition('/')[2]}, another import: give another --name"
        )
    for key, file in wanted.items():
        digest = file_sha256(file)
        known = place.stat(key) if key in there else None
        if known and known.sha256 != digest:
            raise UserError(f"{place.uri}/{key}: other content is there under this name: give another --name")
        if not known:
            place.put_file(key, file, sha256=digest)
    size = sum(file.stat().st_size for file in files)
    uri = f"{place.uri}/{name}" + (f"/{path.name}" if path.is_file() else "")
    say(f"stored: {uri} ({len(files)} file(s), {size_text(size)})")
    return uri
