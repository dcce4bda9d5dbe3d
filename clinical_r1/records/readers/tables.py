"""Rows of tables as objects: CSV in any of its spellings, Excel and OpenDocument sheets, Parquet and Arrow.

Titles above the header (rows of one cell) are passed over. A header names columns, so a doubled one is refused: nobody
can say which of two "note" columns a map means. A CSV row that does not parse is a reject of its first line, and
reading goes on with the next: an open quote must not swallow the rest of the file.
"""

import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from clinical_r1.atomic import read_table
from clinical_r1.errors import UserError
from clinical_r1.records.readers.files import DataFile, encoding_of, head_of, lines_of, open_bytes
from clinical_r1.records.readers.json_items import Item
from clinical_r1.records.row import Reject

_DELIMITERS = ",;\t|^"
_LONGEST = 2000
"""Lines of one quoted cell; a quote that is open for longer was never meant to open."""
_TITLES = 10
"""Rows above a header at most."""
csv.field_size_limit(min(sys.maxsize, 2**31 - 1))


def csv_items(file: DataFile) -> Iterator[Item | Reject]:
    """Rows of a delimited file with the line on which they begin."""
    lines = _Lines(file)
    delimiter = _delimiter(lines)
    _pass_titles(lines, delimiter, file)
    header: list[str] = []
    while lines:
        number, line = lines.take()
        if not line.strip(" " + delimiter):
            continue
        cells, reason = _record(line, lines, delimiter, len(header))
        if not header:
            header = _header(cells or line.split(delimiter), file)
        elif cells is None:
            yield Reject(file=file.name, line=number, reason=reason)
        else:
            yield number, _named(header, cells)


class _Lines:
    """Physical lines that may be put back."""

    def __init__(self, file: DataFile) -> None:
        self._source = lines_of(file)
        self._waiting: list[tuple[int, str]] = []

    def __bool__(self) -> bool:
        self._waiting = self._waiting or list(islice(self._source, 1))
        return bool(self._waiting)

    def take(self) -> tuple[int, str]:
        return self._waiting.pop() if self else (0, "")

    def put_back(self, lines: list[tuple[int, str]]) -> None:
        self._waiting.extend(reversed(lines))


def _record(first: str, lines: _Lines, delimiter: str, width: int) -> tuple[list[str] | None, str]:
    """The cells of the record that begins with `first` (taking more lines where a cell has line breaks), or why not."""
    taken: list[tuple[int, str]] = []
    text = first
    while True:
        cells, open_quote = _cells(text, delimiter)
        if (fitting := _fitting(cells, width)) is not None:
            return fitting, ""
        if not open_quote or len(taken) >= _LONGEST or not lines:
            break
        odd = True
        while odd and lines and len(taken) < _LONGEST:  # no need to parse before the quotes pair up
            taken.append(lines.take())
            text += "\n" + taken[-1][1]
            odd = bool(text.count('"') % 2)
    lines.put_back(taken)
    if width and (fitting := _fitting(_loose(first, delimiter), width)) is not None:
        return fitting, ""
    if open_quote and taken:
        return None, "a quote opens here and does not close where a cell could end"
    if cells is None or taken:
        return None, "a quote stands inside of a quoted cell; double it"
    return None, f"{len(cells)} cells, the header has {width}"


def _cells(text: str, delimiter: str) -> tuple[list[str] | None, bool]:
    """Cells of one record; None for what is no record, and whether a quote is still open."""
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True)), False
    except csv.Error as error:
        if "new-line" in str(error) and "\r" in text:  # a lone carriage return in a bare cell
            return _cells(text.replace("\r", " "), delimiter)
        return None, "unexpected end" in str(error)


def _loose(line: str, delimiter: str) -> list[str] | None:
    """Cells of one line with quotes inside of quoted cells ("5'6" tall"): a cell ends at a quote before a delimiter."""
    mark = re.escape(delimiter)
    cells = re.findall(rf'(?:^|{mark})(?:"(.*?)"(?={mark}|$)|([^{mark}]*))', line)
    return [(a or b).replace('""', '"') for a, b in cells] if any(a for a, _ in cells) else None


def _fitting(cells: list[str] | None, width: int) -> list[str] | None:
    """The cells under a header of `width` (0: any); None where there are too few, or more that say something."""
    if cells is None or (width and (len(cells) < width or any(cell.strip() for cell in cells[width:]))):
        return None
    return cells[:width] if width else cells


def _delimiter(lines: _Lines) -> str:
    """The delimiter: of a `sep=` line (taken away), else the one that the header has most of outside of quotes."""
    taken: list[tuple[int, str]] = []
    found = ""
    while lines and len(taken) < _TITLES and not found:
        taken.append(lines.take())
        line = taken[-1][1]
        if stated := re.fullmatch(r"\ufeff?\"?sep=(.|\\t)\"?", line.strip(" \r"), re.IGNORECASE):
            return "\t" if stated[1] == "\\t" else stated[1]
        bare = re.sub(r'"[^"]*"', "", line)
        found = max(_DELIMITERS, key=bare.count) if any(mark in bare for mark in _DELIMITERS) else ""
    lines.put_back(taken)
    return found or ","


def _pass_titles(lines: _Lines, delimiter: str, file: DataFile) -> None:
    """Take away blank lines and titles before a row of several cells; where there is none, nothing."""
    taken: list[tuple[int, str]] = []
    while lines and len(taken) < _TITLES:
        number, line = lines.take()
        # Which rows are comments, the file does not say: one above the header would be taken for it.
        comment = line.lstrip('\ufeff" ').startswith("#")
        if comment and (delimiter not in line or re.match(r"[\ufeff\"]*#+\s", line)):
            place = f"{file.name}:{number}"
            raise UserError(f'{place}: a comment (it begins with "#") where the header should be; delete it')
        cells, open_quote = _cells(line, delimiter)
        if open_quote or _filled(cells or line.split(delimiter)) > 1:
            lines.put_back([(number, line)])
            return
        taken.append((number, line))
    lines.put_back(taken)


def _filled(cells: Iterable[Any]) -> int:
    return sum(bool(str(cell).strip()) for cell in cells)


def _header(cells: Iterable[Any], file: DataFile) -> list[str]:
    names = [str(cell if cell is not None else "").removeprefix("\ufeff").strip() for cell in cells]
    twice = [name for name, times in Counter(names).items() if name and times > 1]
    if twice:
        raise UserError(f'{file.name}:1: the header names the column "{twice[0]}" twice; rename one of them')
    return names


def _named(header: list[str], cells: Iterable[Any]) -> dict[str, Any]:
    return {name: cell for name, cell in zip(header, cells, strict=False) if name}


def sheet_items(file: DataFile) -> Iterator[Item | Reject]:
    """Rows of a workbook's first sheet that holds a table (xlsx, xls, ods), numbered as the sheet numbers them."""
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        with open_bytes(file) as handle:
            book = CalamineWorkbook.from_filelike(io.BytesIO(handle.read()))
        sheets = [book.get_sheet_by_name(name) for name in book.sheet_names]
    except CalamineError as error:
        raise UserError(
            f"{file.name}: no workbook that can be read ({error}); save it as CSV, or unpack the archive"
        ) from None
    tables = [sheet.to_python(skip_empty_area=False) for sheet in sheets if sheet.height]
    if not tables:
        raise UserError(f"{file.name}: holds no cases: no sheet of this workbook has a row")
    # A sheet of explanations has one column.
    rows, at = next(
        ((rows, at) for rows in tables if (at := _header_at(rows, 2))), (tables[0], _header_at(tables[0], 1))
    )
    header = _header(rows[at - 1], file)
    for number, cells in enumerate(rows[at:], at + 1):
        if _filled(cells):
            yield number, _named(header, cells)


def _header_at(rows: list[list[Any]], cells: int) -> int:
    """Number of the first row, near the top, with so many cells that are filled; 0: none."""
    near = islice((number for number, row in enumerate(rows, 1) if _filled(row)), _TITLES)
    return next((number for number in near if _filled(rows[number - 1]) >= cells), 0)


def parquet_items(file: DataFile) -> Iterator[Item | Reject]:
    """Rows of a Parquet file, batch by batch, numbered from 1."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file.path)
    except (pa.ArrowInvalid, OSError):
        raise UserError(f"{file.name}: not a Parquet file; check the format") from None
    _header(table.schema_arrow.names, file)
    yield from _batches(table.iter_batches(batch_size=256))


def arrow_items(file: DataFile) -> Iterator[Item | Reject]:
    """Rows of an Arrow file (what `datasets.save_to_disk` writes), batch by batch, numbered from 1."""
    import pyarrow as pa

    with pa.memory_map(str(file.path)) as handle:
        try:
            table: Any = pa.ipc.open_stream(handle)
        except pa.ArrowInvalid:
            try:
                opened = pa.ipc.open_file(handle)
            except pa.ArrowInvalid:
                raise UserError(f"{file.name}: not an Arrow file; check the format") from None
            table = (opened.get_batch(i) for i in range(opened.num_record_batches))
        yield from _batches(table)


def _batches(batches: Iterable[Any]) -> Iterator[Item]:
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, 256):
            for item in batch.slice(start, 256).to_pylist():
                number += 1
                yield number, item


CONTAINERS = {"csv": csv_items, "xlsx": sheet_items, "parquet": parquet_items, "arrow": arrow_items}
_NOT_READ = read_table(Path(__file__).with_name("not_read.yaml"))
_MARKUP = re.compile(r"<(?:\?xml|!doctype|html|[A-Za-z][\w:.\-]*[\s>/])", re.IGNORECASE)


def container_of(file: DataFile) -> str:
    """csv, xlsx, parquet, arrow or json: by the first bytes, and only where these are text by what they say."""
    head = head_of(file)
    for other in _NOT_READ:
        if head.startswith(tuple(mark.encode("latin-1") for mark in other["begins"])):
            raise UserError(f"{file.name}: {other['what']}; {other['fix']}")
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        return "xlsx"
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")) or file.path.suffix == ".arrow":
        return "arrow"
    if file.ending in ("parquet", "xlsx", "xls", "ods"):
        return "parquet" if file.ending == "parquet" else "xlsx"
    text = head.decode(encoding_of(file), errors="replace").lstrip("\ufeff \t\r\n")
    if _MARKUP.match(text):
        raise UserError(f"{file.name}: a page or document in XML or HTML; save its tables as CSV, FHIR as JSON")
    if text.startswith("{") or re.match(r"\[\s*(\{|\]|\[|$)", text):
        return "json"
    if file.ending in ("csv", "tsv", "txt", "tab"):
        return "csv"
    # A header with delimiters is a table; anything else is left to the JSON reader, which says what it met.
    first = next((line for line in text.split("\n") if not line.startswith("#")), "")
    return "csv" if any(mark in first for mark in _DELIMITERS) and not first.startswith(("{", "[", '"{')) else "json"
