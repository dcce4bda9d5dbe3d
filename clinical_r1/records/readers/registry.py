"""From a `Source` to rows and rejects, by format name or by looking at the file."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.records.config import Source
from clinical_r1.records.readers import benchmarks, files, ours
from clinical_r1.records.row import Reject, Row, RowError

ItemReader = Callable[[dict[str, Any], int, Source], Row]

ITEM_READERS: dict[str, ItemReader] = {
    "jsonl": ours.case,
    "dxbench": benchmarks.dxbench,
    "huatuo": benchmarks.huatuo,
    "medqa": benchmarks.medqa,
}
FORMATS = ("auto", *ITEM_READERS)


def detect_format(path: str) -> str:
    """Name the format by the keys of the first object, or by the ending for tables."""
    first = next((entry for entry in files.items(path) if not isinstance(entry, Reject)), None)
    if first is None:
        raise UserError(f"{path}:1: holds no JSON object; expected cases, one JSON object a line")
    keys = set(first[1])
    for name, needed in (
        ("huatuo", {"Open-ended Verifiable Question", "Ground-True Answer"}),
        ("dxbench", {"explicit_symptoms", "disease"}),
        ("medqa", {"question", "options", "answer_idx"}),
        ("jsonl", {"question", "reference"}),
    ):
        if needed <= keys:
            return name
    raise UserError(f"{path}: unknown format; set format to one of {', '.join(FORMATS[1:])}")


def resolved_format(source: Source) -> str:
    """The source's format, looked up in the file where it says auto."""
    if source.format not in FORMATS:
        raise UserError(f"{source.path}: unknown format '{source.format}'; use one of {', '.join(FORMATS)}")
    return detect_format(source.path) if source.format == "auto" else source.format


def read_source(source: Source) -> Iterator[Row | Reject]:
    """Rows and rejects of one source, in file order."""
    reader = ITEM_READERS[resolved_format(source)]
    entries = 0
    for entry in files.items(source.path):
        entries += 1
        yield entry if isinstance(entry, Reject) else _one(reader, entry[1], entry[0], source)
    if not entries:
        raise UserError(f"{source.path}: holds no cases")


def _one(reader: ItemReader, item: dict[str, Any], line: int, source: Source) -> Row | Reject:
    try:
        row = reader(item, line, source)
    except RowError as error:
        return Reject(file=source.path, line=line, reason=str(error))
    if source.language != "auto":
        row.fields["language"] = source.language
    row.fields.setdefault("source", source.source or Path(source.path).stem)
    if source.site:
        row.fields.setdefault("site", source.site)
    return row
