"""From a `Source` to rows and rejects, by format name or by looking at the file."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.records.config import Source
from clinical_r1.records.readers import benchmarks, fhir, files, meddx, ours, tabular
from clinical_r1.records.row import Reject, Row, RowError

ItemReader = Callable[[dict[str, Any], int, Source], Row]

ITEM_READERS: dict[str, ItemReader] = {
    "jsonl": ours.case,
    "dxbench": benchmarks.dxbench,
    "huatuo": benchmarks.huatuo,
    "medqa": benchmarks.medqa,
    "meddx-ft": meddx.meddx,
}
TABLES = ("csv", "parquet", "json")
FORMATS = ("auto", *ITEM_READERS, *TABLES, "fhir")
UNVERIFIED = ("meddx-ft",)
"""Presets written from a description: nobody here has seen the files."""


def detect_format(path: str) -> str:
    """Name the format by the keys of the first object, or by the ending for tables."""
    if Path(path).is_dir():
        return "fhir"
    files.need_file(path)
    if (table := tabular.table_format(path)) != "json":
        return table
    if fhir.is_fhir(path):
        return "fhir"
    first = next((entry for entry in files.items(path) if not isinstance(entry, Reject)), None)
    if first is None:
        raise UserError(f"{path}:1: holds no JSON object; expected cases, one JSON object a line")
    keys = set(first[1])
    for name, needed in (
        ("huatuo", {"Open-ended Verifiable Question", "Ground-True Answer"}),
        ("dxbench", {"explicit_symptoms", "disease"}),
        ("medqa", {"question", "options", "answer_idx"}),
        ("jsonl", {"question", "reference"}),
        ("jsonl", {"question", "references"}),
    ):
        if needed <= keys:
            return name
    raise UserError(f"{path}: unknown format; set format to one of {', '.join(FORMATS[1:])}, with map for json")


def resolved_format(source: Source) -> str:
    """The source's format, looked up in the file where it says auto; a map makes any JSON a mapped one."""
    if source.format not in FORMATS:
        raise UserError(f"{source.path}: unknown format '{source.format}'; use one of {', '.join(FORMATS)}")
    if source.format != "auto":
        return source.format
    if source.map and Path(source.path).is_file():
        return tabular.table_format(source.path)
    return detect_format(source.path)


def check_source(source: Source) -> None:
    """Raise UserError where format, map or columns cannot be right; reads no further than the first row."""
    name = resolved_format(source)
    if source.map and name not in TABLES:
        raise UserError(f"{source.path}: a map is for {', '.join(TABLES)}, and this is {name}; leave the map out")
    if name in TABLES:
        first = next((entry for entry in tabular.table_items(source.path, name) if not isinstance(entry, Reject)), None)
        tabular.check_columns(source, first[1] if first else {})


def read_source(source: Source) -> Iterator[Row | Reject]:
    """Rows and rejects of one source, in file order, with the source's defaults filled in."""
    count = 0
    for entry in _entries(source, resolved_format(source)):
        count += 1
        yield entry if isinstance(entry, Reject) else _with_defaults(entry, source)
    if not count:
        raise UserError(f"{source.path}: holds no cases")


def _entries(source: Source, name: str) -> Iterator[Row | Reject]:
    if name == "fhir":
        yield from fhir.read_fhir(source)
        return
    table = name in TABLES
    reader = tabular.mapped if table else ITEM_READERS[name]
    if table:
        tabular.check_map(source)
    checked = not table
    for entry in tabular.table_items(source.path, name) if table else files.items(source.path):
        if isinstance(entry, Reject):
            yield entry
            continue
        if not checked:
            tabular.check_columns(source, entry[1])
            checked = True
        try:
            yield reader(entry[1], entry[0], source)
        except RowError as error:
            yield Reject(file=source.path, line=entry[0], reason=str(error))


def _with_defaults(row: Row, source: Source) -> Row:
    if source.language != "auto":
        row.fields["language"] = source.language
    row.fields.setdefault("source", source.source or Path(source.path).stem)
    if source.site:
        row.fields.setdefault("site", source.site)
    return row
