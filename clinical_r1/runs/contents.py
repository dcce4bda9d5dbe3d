"""Settings that name files: what these hold is part of what a step is told, so that other contents are another step.

A setting says so by its type (`clinical_r1.settings.Names`). Digests travel beside the settings, in the same argument;
`clinical_r1.step.load_settings` leaves them out. Records and finished traces have theirs from runs.sources.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from clinical_r1.errors import UserError
from clinical_r1.folders import identity
from clinical_r1.records.config import Source
from clinical_r1.runs.sources import fingerprint
from clinical_r1.settings import VARIABLE, Names
from clinical_r1.step import CONTENTS


def as_argument(section: BaseModel, beside: BaseModel | None = None, name: str = "") -> str:
    """A section as the JSON string that a component takes; sorted, so that equal settings give equal cache keys.

    `beside` are settings that the step is not told and whose files it reads. Raises UserError for one that is missing;
    `name` is what it calls the section.
    """
    told = section.model_dump(mode="json")
    if found := {**(contents(beside) if beside else {}), **contents(section, name)}:
        told[CONTENTS] = found
    return json.dumps(told, sort_keys=True, ensure_ascii=False)


def contents(settings: BaseModel, above: str = "") -> dict[str, str]:
    """Setting -> digest of what the file, the files or the model that it names hold."""
    found = {name: _digest(name, path, kind) for name, path, kind in named_files(settings, place=above) if path}
    return {name: digest for name, digest in found.items() if digest}


def named_files(value: Any, names: Names | None = None, place: str = "") -> Iterator[tuple[str, str, Names]]:
    """(setting, path, kind) of all settings in `value` that name a file; the path is empty where none is named."""
    if isinstance(value, BaseModel) and not (names and hasattr(value, "path")):
        for name, field in type(value).model_fields.items():
            kind = next((one for one in field.metadata if isinstance(one, Names)), None)
            yield from named_files(getattr(value, name), kind, f"{place}.{name}".lstrip("."))
    elif isinstance(value, list | dict):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from named_files(one, names, f"{place}.{key}")
    elif names:
        yield place, str(getattr(value, "path", value) or ""), names


def _digest(setting: str, path: str, kind: Names) -> str:
    path = VARIABLE.sub(lambda match: os.environ.get(match[1], match[0]), path)
    if VARIABLE.search(path):  # known to the step alone, which says so where it is not
        return ""
    if kind is Names.MODEL:  # one of a name or at an address is another under another name
        return identity(Path(path)) if Path(path).is_dir() else ""
    place = str(Path(path) / "tokenizer.json") if kind is Names.TOKENIZER else path
    if not re.search(r"://|[*?[]", place) and not os.path.exists(place):
        raise UserError(f"{setting}: {place}: no such file: mend the path")
    return fingerprint([Source(path=place)], setting)
