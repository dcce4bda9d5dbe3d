"""Every link, path and command of README and docs, tried against what is there: `make docs-check`.

Links end at a file and a heading; paths in code spans exist; `clinical-r1` lines are parsed by the command line itself,
`make` lines name targets and benchmarks, `python -m` lines modules, `helm` lines files and values of the chart. What
lies outside (https links, kubectl's own words) is counted and not tried.
"""

import importlib.util
import itertools
import json
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from pipelines.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("clinical_r1", "components", "pipelines", "serving", "helm", "manifests", "tests", "benchmarks", "docs")
_PATH = re.compile(rf"(?:{'|'.join(FOLDERS)})/[\w./-]*\w/?")
_AFTER = re.compile(r"&&|\|\||\||;")
_VARIABLE = re.compile(r"[A-Z_]+=")


@dataclass
class Found:
    """What one page, or all of them, came to."""

    links: int = 0
    commands: int = 0
    external: int = 0
    broken: list[str] = field(default_factory=list)


def pages() -> list[Path]:
    """README, docs and the READMEs of the folders."""
    return sorted(
        p for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("helm/*/*.md")]
    )


def slugs(text: str) -> set[str]:
    """The anchors that a forge gives to the page's headings."""
    tokens = MarkdownIt().parse(text)
    titles = [tokens[number + 1].content for number, token in enumerate(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", title).lower()).replace(" ", "-") for title in titles}


def commands_in(block: str) -> Iterator[list[str]]:
    """The words of each command in a fenced block, comments and line continuations taken away."""
    for line in block.replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a quoted text over several lines, such as a JSON patch
            continue
        start = 0
        for end in [number for number, word in enumerate(words) if _AFTER.fullmatch(word)] + [len(words)]:
            while start < end and _VARIABLE.match(words[start]):
                start += 1
            if start < end:
                yield words[start:end]
            start = end + 1


def _program(words: list[str]) -> str:
    """What is wrong with a `clinical-r1` line by its own parser, which reads all of it before it shows its help."""
    told = CliRunner().invoke(app, [*(word for word in words if word != "..."), "--help"])
    return "" if told.exit_code == 0 else " ".join(re.sub(r"[^\x20-\x7e]", " ", told.output).split())


def _make(words: list[str]) -> str:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and not name.startswith("-") and name not in targets:
            return f"no target '{name}'"
        if name == "NAME" and not re.search(r"[<.]", value) and not (ROOT / "benchmarks" / f"{value}.py").is_file():
            return f"no benchmark '{value}'"
        if equals and name not in text:
            return f"the Makefile reads no variable '{name}'"
    return ""


def _helm(words: list[str]) -> str:
    values = yaml.safe_load((ROOT / "helm/clinical-r1/values.yaml").read_text(encoding="utf-8"))
    for flag, value in itertools.pairwise(words):
        if flag in ("--set", "--set-string"):
            place = values
            for key in value.partition("=")[0].split("."):
                if not isinstance(place, dict) or (place and key not in place):
                    return f"the chart has no value '{value.partition('=')[0]}'"
                place = place.get(key, {})
        if flag == "--show-only" and not (ROOT / "helm/clinical-r1" / value).is_file():
            return f"the chart has no {value}"
    return ""


def wrong_with(words: list[str]) -> str:
    """What is wrong with one command, in a few words; empty where nothing is, or where it is not ours to say."""
    name, rest = words[0].removeprefix(".venv/bin/"), words[1:]
    if name == "clinical-r1":
        return _program(rest)
    if name == "make":
        return _make(rest)
    if name == "python" and rest[:1] == ["-m"] and len(rest) > 1:
        return "" if importlib.util.find_spec(rest[1]) else f"no module {rest[1]}"
    if name == "helm" and (wrong := _helm(rest)):
        return wrong
    lost = [word for word in rest if _PATH.fullmatch(word) and not (ROOT / word).exists()]
    return f"no such file: {lost[0]}" if lost else ""


def check(path: Path, text: str) -> Found:
    """All links, paths and commands of one page."""
    found = Found()
    place = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path

    def tell(line: int, what: str) -> None:
        found.broken.append(f"{place}:{line}: {what}")

    for token in MarkdownIt().enable("table").parse(text):
        line = (token.map or [0])[0] + 1
        if token.type == "fence" and token.info.strip() in ("sh", "bash"):
            for words in commands_in(token.content):
                found.commands += 1
                if wrong := wrong_with(words):
                    tell(line, f"`{' '.join(words[:6])}`: {wrong}")
        for child in token.children or []:
            target = str(child.attrGet("href") or child.attrGet("src") or "")
            if target.startswith(("http://", "https://", "mailto:")):
                found.external += 1
            elif target:
                found.links += 1
                name, _, anchor = target.partition("#")
                other = path.parent / name if name else path
                if name and not other.exists():
                    tell(line, f"link to {target}: no such file")
                elif anchor and anchor not in slugs(other.read_text(encoding="utf-8") if name else text):
                    tell(line, f"link to {target}: no such heading")
            if child.type != "code_inline":
                continue
            if _PATH.fullmatch(child.content):
                found.links += 1
                if not (ROOT / child.content).exists():
                    tell(line, f"`{child.content}`: no such file")
            if re.match(r"(clinical-r1|make|python -m) [a-z]", child.content):
                for words in commands_in(child.content):
                    found.commands += 1
                    if wrong := wrong_with(words):
                        tell(line, f"`{child.content}`: {wrong}")
    return found


def main() -> int:
    """Prints what is broken, then the counts as one JSON object; 1 where something is."""
    founds = [check(path, path.read_text(encoding="utf-8")) for path in pages()]
    broken = [line for found in founds for line in found.broken]
    print("\n".join(broken))
    counts = {name: sum(getattr(found, name) for found in founds) for name in ("links", "commands", "external")}
    print(json.dumps({"pages": len(founds), **counts, "broken": len(broken)}))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
