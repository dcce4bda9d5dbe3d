"""From a `Source` to rows and rejects: one reader a form, in whatever container the items come.

A container (`tables.CONTAINERS`, JSON, FHIR) gives items; a form says what an item means. `auto` tells both by the
file's content. Records, benchmarks, evaluation and `records preview` all read through here.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from clinical_r1.atomic import read_table
from clinical_r1.errors import UserError
from clinical_r1.records.config import Source
from clinical_r1.records.readers import sets, tables
from clinical_r1.records.readers.fhir.cases import is_fhir, read_fhir
from clinical_r1.records.readers.files import DataFile, files_of, safe_name
from clinical_r1.records.readers.json_items import Item, json_items, lists_in
from clinical_r1.records.readers.mapping import check_columns, check_map, mapped, own_map
from clinical_r1.records.row import Reject, Row, Wanted, reject_of

ItemReader = Callable[[dict[str, Any], Source], Row]


@dataclass(frozen=True)
class Form:
    """What the items of one kind of set mean: an entry of forms.yaml, where the fields are explained."""

    read: ItemReader
    keys: Sequence[str] = ()
    files: Sequence[str] = ()
    about: str = ""
    rule: str = ""
    prepare: Callable[[list[dict[str, Any]]], Any] | None = None
    unverified: bool = False


_ENTRIES = read_table(Path(__file__).with_name("forms.yaml"))
FORMS: dict[str, Form] = {
    name: Form(**entry | {key: getattr(sets, entry[key]) for key in ("read", "prepare") if key in entry})
    for name, entry in _ENTRIES.items()
}
TABLES = ("csv", "xlsx", "parquet", "arrow", "json")
FORMATS = ("auto", *FORMS, *TABLES, "fhir")
UNVERIFIED = tuple(name for name, form in FORMS.items() if form.unverified)


def kind_of(source: Source) -> tuple[str, Form | None]:
    """What the source is taken for: as given, `mapped` under a map, else by its first item. A form's name, the
    container's for a mapped table, or `fhir`, which has no form."""
    if source.format not in FORMATS:
        raise UserError(f"{source.path}: unknown format '{source.format}'; use one of {', '.join(FORMATS)}")
    files = files_of(source.path, source.encoding)
    if source.format == "fhir":
        return "fhir", None
    if source.format in FORMS:
        if own_map(source) and source.format not in UNVERIFIED:
            raise UserError(f"{source.path}: a map is for tables and JSON of any form; leave out the format or the map")
        return source.format, FORMS[source.format]
    container = tables.container_of(files[0])
    if source.format in TABLES or own_map(source):
        return container, Form(mapped)
    if container == "json" and is_fhir(files):
        return "fhir", None
    keys = next((entry[1] for entry in _items(files[0], source) if not isinstance(entry, Reject)), None)
    if keys is None:
        raise UserError(f"{files[0].name}: holds no cases: no JSON object and no row that can be read")
    known = [name for name, form in FORMS.items() if form.keys and set(form.keys) <= keys.keys()]
    known += ["medqa"] if {"question", "options", "answer_idx"} <= keys.keys() else []
    known += ["diagnosisarena"] if {"final_diagnosis", "case_information"} <= sets.plain_keys(keys).keys() else []
    known += ["jsonl"] if {"question", "references"} <= keys.keys() else []
    if known:
        return known[0], FORMS[known[0]]
    if container != "json" or lists_in(keys):
        return container, Form(mapped)
    raise UserError(
        f"{source.path}: unknown format (its items have {', '.join(list(keys)[:20])}); say which keys hold what with "
        f"--map question=KEY,reference=KEY, or set format to one of {', '.join(FORMATS[1:])}"
    )


def resolved_format(source: Source) -> str:
    """What the source is taken for, by name."""
    return kind_of(source)[0]


def source_name(source: Source) -> str:
    """What records and reports call a source."""
    return source.source or safe_name(Path(source.path)).split(".")[0]


def check_source(source: Source) -> None:
    """Raise UserError where format, map or columns cannot be right; reads no further than the first row."""
    _, form = kind_of(source)
    if form is not None and form.read is mapped:
        check_map(source)
        check_columns(source, _first_keys(files_of(source.path, source.encoding)[0], source) or {})


def read_source(source: Source, wanted: Wanted | None = None) -> Iterator[Row | Reject | None]:
    """Rows and rejects of one source, in file order, with the source's defaults filled in; None for a row that is not
    `wanted`, which is read no further than it takes to pass over it."""
    _, form = kind_of(source)
    files = files_of(source.path, source.encoding)
    entries = read_fhir(files, source, wanted) if form is None else _rows(files, form, source, wanted)
    name, met = source_name(source), False
    for entry in entries:
        met = True
        if isinstance(entry, Row):
            if source.language != "auto":
                entry.fields["language"] = source.language
            defaults = {"source": name, "origin": f"{entry.file}:{entry.line}"}
            entry.fields = defaults | ({"site": source.site} if source.site else {}) | entry.fields
        yield entry
    if not met:
        raise UserError(f"{source.path}: holds no cases")


def _items(file: DataFile, source: Source, wanted: Wanted | None = None) -> Iterator[Item | Reject]:
    container = tables.container_of(file)
    if container == "json":
        return json_items(file, source.map.get("items", ""), wanted)
    return tables.CONTAINERS[container](file)


_SAMPLE = 200
"""Objects of JSON leave out what they lack: a key that none of so many has is a mistake in the map."""


def _first_keys(file: DataFile, source: Source) -> dict[str, Any] | None:
    """Every key with its first value up to a table's first row, or of `_SAMPLE` entries of JSON; None for no row."""
    keys: dict[str, Any] | None = None
    is_table = tables.container_of(file) != "json"
    for entry in islice(_items(file, source), _SAMPLE):
        if not isinstance(entry, Reject):
            keys = {**entry[1], **(keys or {})}
            if is_table:
                break
    return keys


def _rows(files: list[DataFile], form: Form, source: Source, wanted: Wanted | None) -> Iterator[Row | Reject | None]:
    reader, checked = form.read, form.read is not mapped
    if not checked:
        check_map(source)
    for file in files:
        if not checked and (keys := _first_keys(file, source)) is not None:
            check_columns(source, keys)
            checked = True
        if form.prepare is not None:
            sample = islice(_items(file, source), 500)
            reader = partial(form.read, base=form.prepare([e[1] for e in sample if not isinstance(e, Reject)]))  # type: ignore[call-arg]
        for entry in _items(file, source, wanted):
            if isinstance(entry, Reject):
                yield entry
            elif wanted is not None and not wanted(file.name, entry[0]):
                yield None
            else:
                try:  # one bad row never stops the others
                    row = reader(entry[1], source)
                except Exception as error:
                    yield reject_of(error, file.name, entry[0])
                else:
                    row.file, row.line = file.name, entry[0]
                    yield row
