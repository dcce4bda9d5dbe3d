"""From a `Source` to rows and rejects: one reader a form, in whatever container the items come.

A container (`tables.CONTAINERS`, JSON, FHIR) gives items; a form says what an item means. `auto` tells both by the
file's
content. Records, benchmarks, evaluation and `records preview` all read through here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from clinical_r1.errors import UserError
from clinical_r1.records.config import Source
from clinical_r1.records.readers import choices, fhir, problems, tables
from clinical_r1.records.readers.files import DataFile, files_of, safe_name
from clinical_r1.records.readers.json_items import json_items, lists_in
from clinical_r1.records.readers.mapping import check_columns, check_map, mapped, own_map
from clinical_r1.records.row import Reject, Row, RowError, UnusableError, Wanted

ItemReader = Callable[[dict[str, Any], Source], Row]


@dataclass(frozen=True)
class Form:
    """What the items of one kind of set mean."""

    read: ItemReader
    keys: tuple[str, ...] = ()
    """Keys by which `auto` knows an item of it."""
    files: tuple[str, ...] = ()
    """Usual names of its files."""
    about: str = ""
    rule: str = ""
    """What its publishers count as right, where that is more than naming the reference or choosing the right option."""
    prepare: Callable[[list[dict[str, Any]]], Any] | None = None
    """Looks at the first items for what one alone cannot tell; its result is the reader's third argument."""


FORMS: dict[str, Form] = {
    "huatuo": Form(problems.huatuo, ("Open-ended Verifiable Question", "Ground-True Answer"),
                   about="HuatuoGPT-o1's verifiable problems"),
    "dxbench": Form(problems.dxbench, ("explicit_symptoms", "disease"), ("DxBench_en.json", "DxBench_zh.json"),
                    "DxBench: symptoms in, one of 423 diseases out; no licence stated",
                    "its publishers let a doctor choose among the candidates of the item (dxbench:closed)"),
    "dxy": Form(problems.symptom_slots, ("goal", "disease_tag"), ("dxy.json", "muzhi.json"), "Dxy and Muzhi",
                "its publishers let a doctor choose among the file's diseases (dxy:closed)", problems.diseases_of),
    "muzhi": Form(problems.symptom_slots, about="the same form as dxy",
                  rule="its publishers let a doctor choose among the file's diseases (muzhi:closed)",
                  prepare=problems.diseases_of),
    "diagnosisarena": Form(problems.diagnosis_arena, about="DiagnosisArena: 1,113 cases from journals",
                           rule="a wider category is wrong; its publishers ask for five diagnoses by rank "
                                "(diagnosisarena:top5: top 1 and top 5)"),
    "healthbench": Form(problems.health_bench, ("prompt", "rubrics"), about="HealthBench: conversations with rubrics"),
    "medbench-hard": Form(problems.specialty_cases, about="MedBench-Hard's form: our cases, seven specialties; the set "
                          "itself is not public", rule="given by specialty"),
    "jsonl": Form(problems.ours, ("question", "reference"), ("cases.jsonl", "test.jsonl"),
                  "our own cases, one JSON object a line"),
    "medmcqa": Form(choices.medmcqa, ("question", "opa", "cop"), about="MedMCQA", prepare=choices.medmcqa_base),
    "medbullets": Form(choices.medbullets, ("question", "opa", "answer"), about="MedBullets"),
    "medxpertqa": Form(choices.medxpertqa, ("question", "options", "label"), about="MedXpertQA, text"),
    "cmexam": Form(choices.cmexam, ("Question", "Options", "Answer"), about="CMExam"),
    "cmb": Form(choices.cmb, ("question", "option", "answer"), about="CMB-Exam"),
    "medqa": Form(choices.medqa, ("question", "options", "answer"),
                  ("medqa.jsonl", "medqa_test.jsonl", "medqa_test_1273.jsonl"), "MedQA, in English or Chinese; MIT"),
    "messages": Form(problems.chat, ("messages",), about="chat transcripts: role and content"),
    "sharegpt": Form(problems.chat, ("conversations",), about="chat transcripts: from and value"),
    "alpaca": Form(problems.instruction, ("instruction", "output"), about="instruction, input, output"),
    "meddx-ft": Form(problems.meddx, about="MedDX-FT; unverified: nobody here has seen the files"),
}  # fmt: skip
TABLES = ("csv", "xlsx", "parquet", "arrow", "json")
FORMATS = ("auto", *FORMS, *TABLES, "fhir")
UNVERIFIED = ("meddx-ft",)
"""Presets written from a description: nobody here has seen the files."""


class Kind(NamedTuple):
    """What a source was taken for."""

    name: str
    """A form's name, `fhir`, or the container's name for a mapped table."""
    form: Form | None
    """None for FHIR."""


def kind_of(source: Source) -> Kind:
    """The source's form: as given, `mapped` under a map, else by its first item."""
    if source.format not in FORMATS:
        raise UserError(f"{source.path}: unknown format '{source.format}'; use one of {', '.join(FORMATS)}")
    files = files_of(source.path, source.encoding)
    if source.format == "fhir":
        return Kind("fhir", None)
    if source.format in FORMS:
        if own_map(source) and source.format not in UNVERIFIED:
            raise UserError(f"{source.path}: a map is for tables and JSON of any form; leave out the format or the map")
        return Kind(source.format, FORMS[source.format])
    container = tables.container_of(files[0])
    if source.format in TABLES or own_map(source):
        return Kind(container, Form(mapped))
    if container == "json" and fhir.is_fhir(files):
        return Kind("fhir", None)
    first = next((e[1] for e in _items(files[0], container, source) if not isinstance(e, Reject)), None)
    if first is None:
        raise UserError(f"{files[0].name}: holds no cases: no JSON object and no row that can be read")
    return _by_keys(first, container, source)


def _by_keys(first: dict[str, Any], container: str, source: Source) -> Kind:
    for name, form in FORMS.items():
        if form.keys and set(form.keys) <= first.keys():
            return Kind(name, form)
    if {"question", "options", "answer_idx"} <= first.keys():
        return Kind("medqa", FORMS["medqa"])
    if {"final_diagnosis", "case_information"} <= problems.plain_keys(first).keys():
        return Kind("diagnosisarena", FORMS["diagnosisarena"])
    if {"question", "references"} <= first.keys():
        return Kind("jsonl", FORMS["jsonl"])
    if container != "json" or lists_in(first):
        return Kind(container, Form(mapped))
    raise UserError(
        f"{source.path}: unknown format (its items have {', '.join(list(first)[:20])}); say which keys hold what with "
        f"--map question=KEY,reference=KEY, or set format to one of {', '.join(FORMATS[1:])}"
    )


def resolved_format(source: Source) -> str:
    """What the source is taken for, by name."""
    return kind_of(source).name


def check_source(source: Source) -> None:
    """Raise UserError where format, map or columns cannot be right; reads no further than the first row."""
    kind = kind_of(source)
    if kind.form is not None and kind.form.read is mapped:
        check_map(source)
        file = files_of(source.path, source.encoding)[0]
        container = tables.container_of(file)
        check_columns(source, _keys_of(_first_of(_items(file, container, source), container)))


def read_source(source: Source, wanted: Wanted | None = None) -> Iterator[Row | Reject | None]:
    """Rows and rejects of one source, in file order, with the source's defaults filled in; None for a row that is not
    `wanted`, which is read no further than it takes to pass over it."""
    kind = kind_of(source)
    files = files_of(source.path, source.encoding)
    entries = fhir.read_fhir(files, source, wanted) if kind.form is None else _rows(files, kind.form, source, wanted)
    name, met = source_name(source), False
    for entry in entries:
        met = True
        yield _with_defaults(entry, source, name) if isinstance(entry, Row) else entry
    if not met:
        raise UserError(f"{source.path}: holds no cases")


def _items(
    file: DataFile, container: str, source: Source, wanted: Wanted | None = None
) -> Iterator[tables.Item | Reject]:
    if container == "json":
        return json_items(file, source.map.get("items", ""), wanted)
    return tables.CONTAINERS[container](file)


_SAMPLE = 200
"""Objects of JSON leave out what they lack: a key that none of so many has is a mistake in the map."""


def _first_of(items: Iterator[tables.Item | Reject], container: str) -> list[tables.Item | Reject]:
    """The entries that show which columns there are: up to the first row of a table, `_SAMPLE` entries of JSON."""
    found: list[tables.Item | Reject] = []
    for entry in items:
        found.append(entry)
        if len(found) >= _SAMPLE or (container != "json" and not isinstance(entry, Reject)):
            break
    return found


def _keys_of(entries: list[tables.Item | Reject]) -> dict[str, Any]:
    """Every key of these entries with its first value."""
    keys: dict[str, Any] = {}
    for entry in entries:
        if not isinstance(entry, Reject):
            keys = {**entry[1], **keys}
    return keys


def _rows(files: list[DataFile], form: Form, source: Source, wanted: Wanted | None) -> Iterator[Row | Reject | None]:
    reader, checked = form.read, form.read is not mapped
    if not checked:
        check_map(source)
    for file in files:
        container = tables.container_of(file)
        if not checked:
            first = _first_of(_items(file, container, source), container)
            if any(not isinstance(entry, Reject) for entry in first):
                check_columns(source, _keys_of(first))
                checked = True
        if form.prepare is not None:
            sample = islice(_items(file, container, source), 500)
            reader = partial(form.read, base=form.prepare([e[1] for e in sample if not isinstance(e, Reject)]))  # type: ignore[call-arg]
        for entry in _items(file, container, source, wanted):
            if isinstance(entry, Reject):
                yield entry
                continue
            line, item = entry
            good = wanted is None or wanted(file.name, line)
            yield _row(reader, item, source, file.name, line) if good else None


def _row(reader: ItemReader, item: dict[str, Any], source: Source, name: str, line: int) -> Row | Reject:
    """The item as a row, or as a reject of any fault that it has: one bad row never stops the others."""
    try:
        row = reader(item, source)
    except UnusableError as error:
        return Reject(file=name, line=line, reason=str(error), kind="unusable")
    except RowError as error:
        return Reject(file=name, line=line, reason=str(error))
    except UserError:
        raise
    except Exception as error:  # the exception's text may be the record's
        return Reject(file=name, line=line, reason=f"cannot be read ({type(error).__name__})")
    row.file, row.line = name, line
    return row


def source_name(source: Source) -> str:
    """What records and reports call a source."""
    return source.source or safe_name(Path(source.path)).split(".")[0]


def _with_defaults(row: Row, source: Source, name: str) -> Row:
    if source.language != "auto":
        row.fields["language"] = source.language
    row.fields.setdefault("source", name)
    row.fields.setdefault("origin", f"{row.file}:{row.line}")
    if source.site:
        row.fields.setdefault("site", source.site)
    return row
