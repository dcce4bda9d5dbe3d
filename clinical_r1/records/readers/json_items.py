"""Objects of a JSON file, one at a time: lists, JSON Lines under any name, objects one after another, wrapped lists.

    for entry in json_items(DataFile(path, "cases.json"), key="data"): ...

A line that does not parse is a reject and the next is read; where a list does not parse, nothing after the fault can
be trusted, and that is a UserError with its line.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.records.readers.files import DataFile, encoding_of, head_of, lines_of, open_text
from clinical_r1.records.row import Reject, Wanted

Item = tuple[int, dict[str, Any]]
_CHUNK = 1 << 18


def json_items(file: DataFile, key: str = "", wanted: Wanted | None = None) -> Iterator[Item | Reject]:
    """Objects with the line on which they stand (JSON Lines) or their number (lists), from 1.

    `key` (dots descend, `+` joins) names the list inside of a wrapping object. A line that is not `wanted` is not
    parsed: it comes as an empty object.
    """
    if key:
        values: Iterator[tuple[int, Any]] = enumerate(_wrapped(file, key), 1)
    else:
        values = line_values(file, wanted) if is_lines(file) else enumerate(_values(file), 1)
    for number, value in values:
        if isinstance(value, dict):
            yield number, value
        elif isinstance(value, Reject):
            yield value
        else:
            yield Reject(file=file.name, line=number, reason="not a JSON object")


def _parsed(line: str, decode: Callable[[str], Any] = json.loads) -> tuple[Any, str]:
    """The value of a line, or what keeps it from being one."""
    try:
        return decode(line), ""
    except (ValueError, RecursionError) as error:
        place = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        return None, fault_of(error) + place


def fault_of(error: Exception) -> str:
    """What is wrong with a text that is no JSON, or none that can be read."""
    deep = isinstance(error, RecursionError)
    return getattr(error, "msg", "nested too deeply" if deep else "a number of too many digits")


def is_lines(file: DataFile) -> bool:
    """One object a line? Told by the first two lines that are not empty."""
    sample = head_of(file).decode(encoding_of(file), errors="replace").removeprefix("\ufeff")
    first = [line.strip() for line in sample.split("\n") if line.strip()][:2]
    faults = [_parsed(line)[1] for line in first]
    if not first or not first[0].startswith("{"):
        return faults == ["", ""]
    if faults[0] in ("", "nested too deeply", "a number of too many digits"):  # but for "" the line's reject
        return True
    if len(first) == 1:
        return not faults[0].startswith("Extra data")  # `{...}{...}`: objects one after another
    return first[1].startswith("{") and first[0].endswith("}")


def line_values(
    file: DataFile, wanted: Wanted | None = None, decode: Callable[[str], Any] = json.loads
) -> Iterator[tuple[int, Any]]:
    """The value of each line with its number; a Reject for a line that does not parse."""
    for number, line in lines_of(file):
        if wanted is not None and line.strip() and not wanted(file.name, number):
            yield number, {}
        elif line.strip():
            value, fault = _parsed(line.removeprefix("\ufeff"), decode)
            reject = Reject(file=file.name, line=number, reason=f"malformed JSON: {fault}") if fault else None
            yield number, reject or value


def _values(file: DataFile) -> Iterator[Any]:
    """The values of a list, or of a row of documents, read piece by piece."""
    decode = json.JSONDecoder().raw_decode
    with open_text(file) as handle:
        text, position, lines, size, inside = "", 0, 0, _CHUNK, False
        while True:
            while position < len(text) and text[position] in " \t\r\n,\ufeff":
                position += 1
            if text[position : position + 1] == ("]" if inside else "["):
                inside, position = not inside, position + 1
                continue
            try:
                if position >= len(text):
                    raise json.JSONDecodeError("the file ends here", text, position)
                value, end = decode(text, position)
                if end == len(text) and not isinstance(value, dict | list | str):
                    raise json.JSONDecodeError("a number may go on", text, position)
            except (ValueError, RecursionError) as error:
                more = handle.read(size)
                if more:
                    lines += text.count("\n", 0, position)
                    text, position, size = text[position:] + more, 0, size * 2
                    continue
                if position >= len(text) and not inside:
                    return
                place = f"{file.path}:{lines + getattr(error, 'lineno', 1)}"
                raise UserError(f"{place}: malformed JSON ({fault_of(error)}); correct this line") from None
            yield value
            position = end
            if position > _CHUNK:
                lines += text.count("\n", 0, position)
                text, position, size = text[position:], 0, _CHUNK


def _wrapped(file: DataFile, key: str) -> Iterator[Any]:
    document = next(_values(file), None)
    for name in key.split("+"):
        found = document
        for part in name.strip().split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if isinstance(found, dict):
            found = list(found.values())
        if not isinstance(found, list):
            held = ", ".join(list(document)[:20]) if isinstance(document, dict) else "no object at its top"
            raise UserError(f"{file.name}: --map items={name}: no list under this key; the file has {held}")
        yield from found


def lists_in(item: dict[str, Any], depth: int = 3) -> list[str]:
    """Paths in an object to lists of objects: where the cases of a wrapped file lie."""
    found = [k for k, v in item.items() if isinstance(v, list) and v and all(isinstance(x, dict) for x in v[:5])]
    below = ((k, v) for k, v in item.items() if isinstance(v, dict) and depth > 1)
    return found + [f"{key}.{path}" for key, inner in below for path in lists_in(inner, depth - 1)]
