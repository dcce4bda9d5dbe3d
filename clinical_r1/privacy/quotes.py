"""Where else a forgotten patient's words stand: pages, review files, samples; and what cannot be searched.

A quote is the whole text of one of the patient's cases, or its beginning; shorter pieces many patients share.
"""

import html
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_LONGEST, _SHORTEST = 160, 24
_TEXT = {".html", ".htm", ".csv", ".tsv", ".md", ".txt", ".log", ".json", ".yaml", ".yml"}
_KEPT = {"report.json", "manifest.json", "card.md", "config.json", "config.yaml"}
"""Files of numbers that other code renews."""
_UNREAD = frozenset(
    [".parquet", ".gz", ".zip", ".tar", ".tgz", ".xlsx", ".db", ".sqlite", ".safetensors", ".pt", ".bin", ".arrow"]
)
_SEARCHED = {"traces.parquet", "journal.sqlite"}
"""Of those, what `forget` renews by itself."""
ELSEWHERE = [
    "backups, and other copies of these folders",
    "object stores, with older versions in them, and the artifact store of Kubeflow Pipelines",
    "what endpoints outside keep of the requests that they were sent",
    "weights of models (named where a manifest names the data)",
]


def normal(text: str) -> str:
    """Text as it is compared: no markup, one kind of white space."""
    return " ".join(text.split())


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for one in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _strings(one)


def walk(roots: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """(root, file) for every file below the roots; links are not followed."""
    for root in roots:
        for folder, _, names in os.walk(root):
            for name in sorted(names):
                path = Path(folder, name)
                if not path.is_symlink():
                    yield root, path


def quotes_of(roots: Sequence[Path], patients: set[str], ids: set[str]) -> list[str]:
    """The beginnings of all texts about the patients in JSON lines below the roots."""
    found = set()
    for _, path in walk(roots):
        if path.suffix != ".jsonl":
            continue
        for _, row in rows_of(path):
            if is_about(row, patients, ids):
                found |= {normal(str(row.get(key) or ""))[:_LONGEST] for key in ("question", "thinking", "response")}
    return sorted(text for text in found if len(text) >= _SHORTEST)


def rows_of(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """(line, object) of a JSONL file; lines that are no object come with an empty one."""
    with open(path, "rb") as handle:
        for line in handle:
            try:
                row = json.loads(line)
            except ValueError:
                row = {}
            yield line, row if isinstance(row, dict) else {}


def is_about(row: Mapping[str, Any], patients: set[str], ids: set[str]) -> bool:
    """Does a row name one of the patients, or of their cases?"""
    return row.get("patient") in patients or row.get("case_id") in ids or row.get("id") in ids


def quotes(row: Mapping[str, Any], needles: Sequence[str]) -> bool:
    """Does a row quote one of the texts in any of its values (a sample of the gateway, a review item)?"""
    return bool(needles) and any(needle in text for text in map(normal, _strings(row)) for needle in needles)


def quoting_files(
    roots: Sequence[Path], ids: set[str], needles: Sequence[str], dry_run: bool
) -> tuple[list[str], list[str]]:
    """(removed, not searched): text files that quote the patients or name their cases, and files of other kinds."""
    removed, unread = [], []
    for root, path in walk(roots):
        if path.suffix in _UNREAD and path.name not in _SEARCHED:
            unread.append(str(path.relative_to(root)))
        elif path.suffix in _TEXT and path.name not in _KEPT:
            raw = path.read_text(encoding="utf-8", errors="replace")
            plain = normal(html.unescape(re.sub(r"<[^<>]{0,2000}>", " ", raw)))
            whole = normal(raw.replace('""', '"').replace("\\n", " "))
            quoted = any(needle in plain or needle in whole for needle in needles)
            if quoted or any(one in raw for one in ids if len(one) >= 8):
                removed.append(str(path.relative_to(root)))
                if not dry_run:
                    path.unlink()
    return removed, [*unread, *ELSEWHERE]
