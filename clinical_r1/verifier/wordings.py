"""The rules of `wordings.yaml`, compiled: `RULE["strong"].search(sentence)`. What each is for stands there."""

import re
from functools import cache
from pathlib import Path

import yaml

TABLE = Path(__file__).with_suffix(".yaml")


@cache
def load(table: Path = TABLE, languages: tuple[str, ...] = ("en", "zh")) -> dict[str, re.Pattern[str]]:
    """Rules by name, those that have a form in one of the languages. One that names another holds it; only rules above
    it can be named."""
    parts: dict[str, str] = {}
    for name, rule in yaml.safe_load(table.read_text(encoding="utf-8")).items():
        kinds = [rf"\b(?:{'|'.join(rule['words'])})\b"] if "words" in rule else []
        kinds += [kind for language in languages for kind in rule.get(language, ())]
        held = [re.sub(r"@(\w+)@", lambda found: parts[found[1]], kind) for kind in kinds]
        if held:
            parts[name] = held[0] if len(held) == 1 else f"(?:{'|'.join(held)})"
    return {name: re.compile(pattern, re.IGNORECASE) for name, pattern in parts.items()}


RULE = load()
