"""Objects of a JSON file, one at a time: lists, JSON Lines under any name, objects one after another, wrapped lists.

    for entry in json_items(DataFile(path, "cases.json"), key="data"): ...

A line that does not parse is a reject and the next is read; where a list does not parse, nothing after the fault can
be trusted, and that is a UserError with its line.
"""

import json
from collections.abc import Iterator
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.records.readers.files import DataFile, encoding_of, head_of, lines_of, open_text
from clinical_r1.records.row import Reject, Wanted

Item = tuple[int, dict[str, Any]]
_CHUNK = 1 << 18
_SPACE = " \t\r\n"


def json_items(file: DataFile, key: str = "", wanted: Wanted | None = None) -> Iterator[Item | Reject]:
    """Objects with the line on which they stand (JSON Lines) or their number (lists), from 1.

    `key` (dots descend, `+` joins) names the list inside of a wrapping object. A line that is not `wanted` is not
    parsed: it comes as an empty object.
    """
    if key:
        yield from _wrapped(file, key)
    elif is_lines(file):
        yield from _lines(file, wanted)
    else:
        for number, value in enumerate(_values(file), 1):
            yield (number, value) if isinstance(value, dict) else _no_object(file, number)


def is_lines(file: DataFile) -> bool:
    """One object a line? Told by the first two lines that are not empty."""
    sample = head_of(file).decode(encoding_of(file), errors="replace").removeprefix("\ufeff")
    first = [line.strip() for line in sample.split("\n") if line.strip()][:2]
    if not first or not first[0].startswith("{"):
        return len(first) == 2 and all(_parses(line) for line in first)
    try:
        json.loads(first[0])
    except json.JSONDecodeError as error:
        if len(first) == 1:
            return error.msg != "Extra data"  # `{...}{...}`: objects one after another
    except RecursionError:
        return True  # the line's reject
    else:
        return True
    return first[1].startswith("{") and first[0].endswith("}")


def _parses(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _no_object(file: DataFile, number: int) -> Reject:
    return Reject(file=file.name, line=number, reason="not a JSON object")


def _lines(file: DataFile, wanted: Wanted | None) -> Iterator[Item | Reject]:
    for number, line in lines_of(file):
        if not line.strip():
            continue
        if wanted is not None and not wanted(file.name, number):
            yield number, {}
            continue
        try:
            item = json.loads(line.removeprefix("\ufeff"))
        except json.JSONDecodeError as error:
            yield Reject(file=file.name, line=number, reason=f"malformed JSON: {error.msg} at column {error.colno}")
        except RecursionError:
            yield Reject(file=file.name, line=number, reason="malformed JSON: nested too deeply")
        else:
            yield (number, item) if isinstance(item, dict) else _no_object(file, number)


def _values(file: DataFile) -> Iterator[Any]:
    """The values of a list, or of a row of documents, read piece by piece."""
    decode = json.JSONDecoder().raw_decode
    with open_text(file) as handle:
        text, position, lines, size, inside = "", 0, 0, _CHUNK, False
        while True:
            while position < len(text) and text[position] in _SPACE + ",\ufeff":
                position += 1
            if position < len(text) and text[position] == "[" and not inside:
                inside, position = True, position + 1
                continue
            if position < len(text) and text[position] == "]" and inside:
                inside, position = False, position + 1
                continue
            try:
                if position >= len(text):
                    raise json.JSONDecodeError("the file ends here", text, position)
                value, end = decode(text, position)
                if end == len(text) and not isinstance(value, dict | list | str):
                    raise json.JSONDecodeError("a number may go on", text, position)
            except (json.JSONDecodeError, RecursionError) as error:
                more = handle.read(size)
                if more:
                    lines += text.count("\n", 0, position)
                    text, position, size = text[position:] + more, 0, size * 2
                    continue
                if position >= len(text) and not inside:
                    return
                message = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
                at = lines + (error.lineno if isinstance(error, json.JSONDecodeError) else 1)
                raise UserError(f"{file.path}:{at}: malformed JSON ({message}); correct this line") from None
            yield value
            position = end
            if position > _CHUNK:
                lines += text.count("\n", 0, position)
                text, position, size = text[position:], 0, _CHUNK


def _wrapped(file: DataFile, key: str) -> Iterator[Item | Reject]:
    document = next(_values(file), None)
    number = 0
    for name in key.split("+"):
        found = document
        for part in name.strip().split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if isinstance(found, dict):
            found = list(found.values())
        if not isinstance(found, list):
            held = ", ".join(list(document)[:20]) if isinstance(document, dict) else "no object at its top"
            raise UserError(f"{file.name}: --map items={name}: no list under this key; the file has {held}")
        for value in found:
            number += 1
            yield (number, value) if isinstance(value, dict) else _no_object(file, number)


def lists_in(item: dict[str, Any], depth: int = 3) -> list[str]:
    """Paths in an object to lists of objects: where the cases of a wrapped file lie."""
    found = [k for k, v in item.items() if isinstance(v, list) and v and all(isinstance(x, dict) for x in v[:5])]
    below = ((k, v) for k, v in item.items() if isinstance(v, dict) and depth > 1)
    return found + [f"{key}.{path}" for key, inner in below for path in lists_in(inner, depth - 1)]
