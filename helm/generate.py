"""Writes the chart's values.schema.json and README.md from values.yaml: `python helm/generate.py`, or `make manifests`.

A test holds both equal to what this file would write.
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

CHART = Path(__file__).parent / "clinical-r1"
REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY))

CONSTRAINTS = yaml.safe_load(Path(__file__).with_name("constraints.yaml").read_text(encoding="utf-8"))
NAME = CONSTRAINTS["types"]["name"]


class Value(NamedTuple):
    """One key of values.yaml: its path, default, comment and whether it only holds others."""

    path: str
    default: Any
    text: str
    group: bool


def read_values() -> list[Value]:
    """All keys of values.yaml in their order; raises SystemExit for one without a description."""
    source = (CHART / "values.yaml").read_text(encoding="utf-8")
    lines, found = source.splitlines(), []

    def comment(line: int) -> str:
        block: list[str] = []
        while line > 0 and lines[line - 1].lstrip().startswith("#"):
            line -= 1
            block.insert(0, lines[line].strip().lstrip("#").strip())
        text = " ".join(block)
        return text.removeprefix("-- ") if text.startswith("-- ") else ""

    def walk(node: yaml.MappingNode, data: dict[str, Any], above: str) -> None:
        for key, child in node.value:
            path, default = above + key.value, data[key.value]
            group = isinstance(child, yaml.MappingNode) and not child.flow_style
            text = comment(key.start_mark.line)
            if not group and not text:
                raise SystemExit(f"error: values.yaml:{key.start_mark.line + 1}: {path} has no `# --` line above it")
            found.append(Value(path, default, text, group))
            if group:
                walk(child, default, path + ".")

    walk(yaml.compose(source), yaml.safe_load(source), "")
    return found


def schema_of(value: Value) -> dict[str, Any]:
    """What a key may hold, by its constraint or else by its default."""
    last = value.path.rpartition(".")[2]
    if known := CONSTRAINTS["by_path"].get(value.path) or CONSTRAINTS["by_last_name"].get(last):
        return dict(known)
    default = value.default
    if isinstance(default, dict):  # a closed map in one line: all values are of one type
        one = {"type": "integer", "minimum": 0} if isinstance(next(iter(default.values())), int) else NAME
        return {"type": "object", "additionalProperties": False, "properties": dict.fromkeys(default, one)}
    kinds: dict[type, str] = {bool: "boolean", int: "integer", str: "string"}
    if type(default) not in kinds:
        raise SystemExit(f"error: helm/constraints.yaml: say what {value.path} may hold")
    return {"type": kinds[type(default)]}


def schema(values: list[Value]) -> str:
    """values.schema.json: closed, so that a misspelt key stops the installation."""
    top: dict[str, Any] = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the clinical-r1 chart",
        "type": "object",
        "additionalProperties": False,
        "properties": {},
    }
    groups = {"": top}
    for value in values:
        above, _, key = value.path.rpartition(".")
        made: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": {}}
        entry = made if value.group else {"description": value.text} | schema_of(value)
        groups[above]["properties"][key] = entry
        # `null` takes a key away; then this says so, where a template would stumble over it.
        groups[above].setdefault("required", []).append(key)
        if value.group:
            groups[value.path] = entry
    return json.dumps(top, indent=1, ensure_ascii=False) + "\n"


def readme(values: list[Value]) -> str:
    """The chart's README: README.head.md and one table a section."""
    rows: list[str] = [(CHART / "README.head.md").read_text(encoding="utf-8").rstrip(), ""]
    section = None
    for value in values:
        if value.group:
            continue
        top = value.path.partition(".")[0]
        if top != section:
            section = top
            rows += ["", f"### `{top}`", "", "| Key | Default | Meaning |", "|---|---|---|"]
        default = json.dumps(value.default, ensure_ascii=False).replace("|", "\\|")
        rows.append(f"| `{value.path}` | `{default}` | {value.text.replace('|', '&#124;')} |")
    return "\n".join(rows) + "\n"


def generated() -> dict[Path, str]:
    """Every generated file of the chart with its content."""
    values = read_values()
    return {CHART / "values.schema.json": schema(values), CHART / "README.md": readme(values)}


def main() -> int:
    """Write what has changed."""
    from clinical_r1.atomic import write_text

    for path, text in generated().items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
            print(f"written: {path.relative_to(REPOSITORY)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
