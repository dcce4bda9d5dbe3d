"""Measure the PHI gate on synthetic sentences, per type: `make bench NAME=phi`.

Values come from Faker (en_US, zh_CN), sentences from phi_templates.yaml; neither shares a list or a pattern with
the recognizers. Half of the sentences are written adversarially: digits and letters spaced out, full-width characters,
look-alike letters of other scripts, zero-width characters. A find counts only if nothing of the value is left in the
text (for a name: no part of it); what the gate would hold back in quarantine is counted apart. The last line printed
is one JSON object. Synthetic sentences are no certificate: measure on your own notes before you rely on the gate.
"""

import argparse
import json
import random
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.phi_values import Values, disguise
from clinical_r1.errors import UserError
from clinical_r1.privacy.dates import shifter
from clinical_r1.privacy.known import KnownFinder
from clinical_r1.privacy.scrub import scrub
from clinical_r1.records.config import Source
from clinical_r1.records.readers.registry import read_source
from clinical_r1.records.row import Known, Row

STYLES = ("plain", "plain", "plain", "plain", "spaced", "fullwidth", "mixed", "invisible")
NEEDED = {"free_name": 0.90}
"""Recall that the gate must show; 0.995 for every other type."""
TARGET = 0.995


@dataclass(frozen=True)
class Sentence:
    """A generated sentence with the value that must not survive."""

    kind: str
    language: str
    style: str
    text: str
    value: str
    known: Known


def sentences(count: int, seed: int) -> Iterator[Sentence]:
    """`count` sentences, types in turn so that each gets the same share."""
    templates = yaml.safe_load(Path(__file__).with_name("phi_templates.yaml").read_text(encoding="utf-8"))
    rng = random.Random(seed)
    values = {language: Values(language, rng.randrange(2**31)) for language in ("en", "zh")}
    plan = [(language, kind) for language in ("en", "zh") for kind in templates[language]]
    for index in range(count):
        language, kind = plan[index % len(plan)]
        template = rng.choice(templates[language][kind])
        slot = re.findall(r"{(\w+)}", template)[0]
        plain, known = values[language].draw(slot)
        style = rng.choice(STYLES)
        shown = disguise(plain, style, slot, rng)
        text = template.replace("{" + slot + "}", shown)
        prose = templates["clinical"][:30] if language == "en" else templates["clinical"][30:]
        filler = rng.choice([line for line in prose if plain not in line])
        text = f"{text} {filler}" if language == "en" else text + filler
        yield Sentence(kind, language, style, text, plain, known if kind == "known_name" else Known())


def _plain(text: str) -> str:
    """Letters, digits and Han characters only, one width, one case."""
    kept = (char for char in unicodedata.normalize("NFKC", text) if unicodedata.category(char)[0] in "LN")
    return "".join(kept).casefold().translate(str.maketrans("авекмнорстухіј", "abekmhopctyxij"))


def survives(sentence: Sentence, output: str) -> bool:
    """Is anything of the value left? Whole values, parts of names, pieces of addresses, half of a number count."""
    left = output
    if sentence.kind in ("free_name", "known_name"):
        parts = [p for p in re.split(r"[\s,.]+", sentence.value) if len(p) > (1 if sentence.language == "zh" else 2)]
        if sentence.language == "zh":
            return any(_plain(part) in _plain(left) for part in parts)
        spoken = _plain(left)
        words = set(re.findall(r"[a-z]+", unicodedata.normalize("NFKC", left).casefold()))
        return _plain(sentence.value) in spoken or any(part.casefold() in words for part in parts)
    if sentence.kind == "age":
        left = left.replace("90+", "")
        return bool(re.search(rf"(?<!\d){sentence.value}(?!\d)", unicodedata.normalize("NFKC", left)))
    if sentence.kind == "address":
        pieces = re.findall(r"\d{2,}|[A-Z][a-z]{3,}|[\u3400-\u9fff]{4,}", sentence.value)
        return any(_plain(piece) in _plain(left) for piece in pieces)
    if sentence.kind in ("date", "url", "photo"):
        return _plain(sentence.value) in _plain(left)
    return _longest_common(_plain(sentence.value), _plain(left)) >= max(5, 0.5 * len(_plain(sentence.value)))


def _longest_common(value: str, text: str) -> int:
    """Length of the longest piece of `value` that occurs in `text`."""
    best = 0
    for start in range(len(value)):
        while start + best < len(value) and value[start : start + best + 1] in text:
            best += 1
    return best


def measure(count: int, seed: int) -> tuple[dict[str, Any], list[tuple[Sentence, str]]]:
    """Recall per type and style, and the misses."""
    hits: dict[str, Counter[str]] = defaultdict(Counter)
    misses: list[tuple[Sentence, str]] = []
    for sentence in sentences(count, seed):
        result = scrub(sentence.text, KnownFinder(sentence.known), shifter(200))
        gone = not survives(sentence, result.text)
        for group in (f"type:{sentence.kind}", f"style:{sentence.style}", f"language:{sentence.language}"):
            hits[group]["n"] += 1
            hits[group]["found"] += gone
            hits[group]["held"] += gone or bool(result.doubts)
        if not gone:
            misses.append((sentence, result.text))

    def table(prefix: str) -> dict[str, dict[str, float]]:
        return {
            group.split(":")[1]: {
                "n": c["n"],
                "recall": round(c["found"] / c["n"], 4),
                "recall_or_quarantined": round(c["held"] / c["n"], 4),
            }
            for group, c in sorted(hits.items())
            if group.startswith(prefix)
        }

    types = table("type:")
    structured = [c for group, c in hits.items() if group.startswith("type:") and group != "type:free_name"]
    return {
        "sentences": count,
        "types": types,
        "styles": table("style:"),
        "languages": table("language:"),
        "structured_and_known_recall": round(sum(c["found"] for c in structured) / sum(c["n"] for c in structured), 4),
        "free_name_recall": types["free_name"]["recall"],
        "below_target": [name for name, row in types.items() if row["recall"] < NEEDED.get(name, TARGET)],
    }, misses


def false_positives(texts: list[str]) -> dict[str, float]:
    """What the gate does to clinical text without identifiers: texts changed and quarantined, finds per 1,000 words."""
    changed = quarantined = finds = words = 0
    for text in texts:
        result = scrub(text, KnownFinder(Known()), shifter(200))
        changed += bool(result.counts)
        quarantined += bool(result.doubts)
        finds += sum(result.counts.values())
        words += len(re.findall(r"[A-Za-z0-9.]+|[\u3400-\u9fff]", text))
    return {
        "texts": len(texts),
        "changed": round(changed / len(texts), 4),
        "quarantined": round(quarantined / len(texts), 4),
        "finds_per_1000_words": round(1000 * finds / words, 2),
    }


def main(argv: list[str] | None = None) -> int:
    """Command line; exit code 1 where a type misses its target."""
    parser = argparse.ArgumentParser(description="Measure the PHI gate, per type, on synthetic sentences.")
    parser.add_argument("--sentences", type=int, default=6000, help="how many (at least 2000)")
    parser.add_argument("--seed", type=int, default=20250411)
    parser.add_argument(
        "--clinical", action="append", default=[], help="a cases file whose false positives to count too"
    )
    parser.add_argument("--show-misses", type=int, default=0, help="print synthetic sentences that were missed")
    args = parser.parse_args(argv)
    if args.sentences < 2000:
        raise UserError(f"--sentences {args.sentences}: at least 2000 are needed for a figure per type")
    report, misses = measure(args.sentences, args.seed)
    templates = yaml.safe_load(Path(__file__).with_name("phi_templates.yaml").read_text(encoding="utf-8"))
    report["false_positives"] = {"built_in": false_positives(templates["clinical"])}
    for path in args.clinical:
        texts = [row.fields["question"] for row in read_source(Source(path=path)) if isinstance(row, Row)]
        report["false_positives"][Path(path).stem] = false_positives(texts)
    for sentence, output in misses[: args.show_misses]:
        print(f"{sentence.kind} {sentence.language} {sentence.style}: {sentence.text!r} -> {output!r}")
    for name, row in report["types"].items():
        print(f"{name:14} n={row['n']:5} recall={row['recall']:.4f} or quarantined={row['recall_or_quarantined']:.4f}")
    print("synthetic sentences: no certificate of anonymity")
    print(json.dumps(report, ensure_ascii=False))
    return 1 if report["below_target"] else 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
