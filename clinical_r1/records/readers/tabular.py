"""CSV, Parquet and JSON with a map from our fields to columns: `question=complaint+history,reference=diagnosis`.

Columns of structured identifiers go to the gate's memory and nowhere else: map them to `name`, `patient`, `phone`,
`address` or `identifier` (several joined with `+`), and their values are removed from the text wherever they stand.
"""

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.privacy.bands import age_band
from clinical_r1.privacy.known import Known
from clinical_r1.records.config import Source
from clinical_r1.records.readers.files import items, need_file
from clinical_r1.records.row import Reject, Row, RowError, detect_language

FIELDS = (
    *("id", "language", "question", "reference", "specialty", "icd10", "source", "site", "sex", "age_band", "recorded"),
    *("patient", "department", "age", "birth_date", "name", "phone", "address", "identifier"),
)
_SEX = {"f": "female", "female": "female", "女": "female", "m": "male", "male": "male", "男": "male"}


def check_map(source: Source) -> dict[str, list[str]]:
    """The map as field -> columns (without one, our own names); a UserError for unknown fields, or where question or
    reference is missing."""
    if not source.map:
        return {field: [field] for field in FIELDS}
    unknown = sorted(set(source.map) - set(FIELDS))
    if unknown:
        raise UserError(f"{source.path}: the map names unknown fields {', '.join(unknown)}; known: {', '.join(FIELDS)}")
    missing = [field for field in ("question", "reference") if field not in source.map]
    if missing:
        raise UserError(
            f"{source.path}: the map lacks {' and '.join(missing)}; give --map question=COLUMN,reference=COLUMN"
        )
    return {field: [column.strip() for column in columns.split("+")] for field, columns in source.map.items()}


def mapped(item: dict[str, Any], line: int, source: Source) -> Row:
    """One table row or JSON object under `source.map`."""
    columns = check_map(source)
    text = {field: _join(item, names) for field, names in columns.items()}
    for field in ("question", "reference"):
        if not text[field]:
            raise RowError(f"{field}: empty ({'+'.join(columns[field])})")
    sex = text.get("sex", "").casefold()
    fields: dict[str, Any] = {
        "language": text.get("language") or detect_language(text["question"] + text["reference"]),
        "question": text["question"],
        "reference": text["reference"],
        "sex": _SEX.get(sex, ""),
        "age_band": _band(text),
    }
    if fields["language"] not in ("en", "zh"):
        raise RowError("language: neither en nor zh")
    fields |= {f: text[f] for f in ("id", "specialty", "icd10", "source", "site", "recorded") if text.get(f)}
    literal = ("phone", "address", "identifier", "birth_date")
    known = Known(
        names=_values(item, columns.get("name", [])),
        numbers=[v for f in literal for v in _values(item, columns.get(f, []))],
    )
    return Row(
        file=source.path,
        line=line,
        fields=fields,
        patient_id=text.get("patient", ""),
        department=text.get("department", ""),
        known=known,
    )


def _band(text: dict[str, str]) -> str:
    if text.get("age_band"):
        return text["age_band"]
    digits = "".join(char for char in text.get("age", "").split(".")[0] if char.isdigit())
    return age_band(int(digits)) if digits else ""


def _values(item: dict[str, Any], columns: list[str]) -> list[str]:
    return [value for column in columns if (value := _cell(item, column))]


def _join(item: dict[str, Any], columns: list[str]) -> str:
    return "\n".join(_values(item, columns))


def _cell(item: dict[str, Any], column: str) -> str:
    """Text under a column or a dotted path; "" for nothing, and lists joined."""
    value: Any = item.get(column)
    if value is None and "." in column:
        value = item
        for part in column.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, list):
        return "; ".join(str(part).strip() for part in value)
    return str(value).strip()


def csv_items(path: str) -> Iterator[tuple[int, dict[str, Any]] | Reject]:
    """Rows of a CSV or TSV file with the line on which they begin; rows with too many or too few cells are rejects."""
    need_file(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            sample = handle.readline()
            handle.seek(0)
            reader = csv.reader(handle, delimiter="\t" if sample.count("\t") > sample.count(",") else ",")
            header = [name.strip() for name in next(reader)]
            start = reader.line_num + 1
            for cells in reader:
                line, start = start, reader.line_num + 1
                if not cells:
                    continue
                if len(cells) != len(header):
                    yield Reject(file=path, line=line, reason=f"{len(cells)} cells, the header has {len(header)}")
                else:
                    yield line, dict(zip(header, cells, strict=True))
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; convert the file to UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{path}: malformed CSV ({error}); correct the file") from None


def parquet_items(path: str) -> Iterator[tuple[int, dict[str, Any]] | Reject]:
    """Rows of a Parquet file, batch by batch, numbered from 1."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    need_file(path)
    try:
        table = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError):
        raise UserError(f"{path}: not a Parquet file; check the format") from None
    number = 0
    for batch in table.iter_batches(batch_size=2048):
        for item in batch.to_pylist():
            number += 1
            yield number, item


def table_items(path: str, kind: str) -> Iterator[tuple[int, dict[str, Any]] | Reject]:
    """Rows of a table by format name (csv | parquet | json)."""
    return {"csv": csv_items, "parquet": parquet_items, "json": items}[kind](path)


def check_columns(source: Source, item: dict[str, Any]) -> None:
    """A mapped column that the first row lacks is a mistake in the map, not in the rows."""
    if not source.map:
        missing = [field for field in ("question", "reference") if field not in item]
        if missing:
            columns = ", ".join(list(item)[:20]) or "none"
            raise UserError(
                f"{source.path}: no column {' and '.join(missing)}; say which columns hold them with "
                f"--map question=COLUMN,reference=COLUMN (the file has {columns})"
            )
        return
    for field, names in check_map(source).items():
        for name in names:
            if name not in item and name.split(".")[0] not in item:
                columns = ", ".join(list(item)[:20])
                raise UserError(f"{source.path}: --map {field}={name}: no such column; the file has {columns}")


def table_format(path: str) -> str:
    """csv, parquet or json by the file's ending."""
    return {".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}.get(Path(path).suffix.casefold(), "json")
