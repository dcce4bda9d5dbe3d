"""Opening what a user names: JSON lists, JSONL, with errors that name file and line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.records.row import Reject


def need_file(path: str) -> Path:
    """The file, or a UserError for a missing or empty one."""
    file = Path(path)
    if not file.is_file():
        raise UserError(f"{path}: no such file; give the path of a cases file")
    if file.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty; expected cases")
    return file


def load_json(path: str) -> Any:
    """A whole JSON document; malformed JSON is a UserError, since nothing after the fault can be trusted."""
    file = need_file(path)
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; convert the file to UTF-8") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: malformed JSON ({error.msg}); correct this line") from None


def json_items(path: str) -> Iterator[tuple[int, dict[str, Any]] | Reject]:
    """Items of a JSON list (or of the values of one object), numbered from 1."""
    document = load_json(path)
    items = document if isinstance(document, list) else [document]
    if not items:
        raise UserError(f"{path}: holds no cases; expected a JSON list of objects")
    for number, item in enumerate(items, 1):
        yield (number, item) if isinstance(item, dict) else Reject(file=path, line=number, reason="not a JSON object")


def jsonl_items(path: str) -> Iterator[tuple[int, dict[str, Any]] | Reject]:
    """Objects of a JSONL file with their line number; a line that does not parse is a reject."""
    with need_file(path).open("rb") as handle:
        for number, raw in enumerate(handle, 1):
            if not raw.strip():
                continue
            try:
                item = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError:
                yield Reject(file=path, line=number, reason="not UTF-8")
            except json.JSONDecodeError as error:
                yield Reject(file=path, line=number, reason=f"malformed JSON: {error.msg} at column {error.colno}")
            else:
                yield (
                    (number, item) if isinstance(item, dict) else Reject(file=path, line=number, reason="not an object")
                )


def items(path: str) -> Iterator[tuple[int, dict[str, Any]] | Reject]:
    """JSON list or JSONL, by the first character: a list starts with `[`."""
    with need_file(path).open("rb") as handle:
        head = handle.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    return json_items(path) if head.startswith(b"[") or Path(path).suffix == ".json" else jsonl_items(path)
