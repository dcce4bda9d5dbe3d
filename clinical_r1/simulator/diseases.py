"""The simulated clinic (world.yaml): fourteen common diseases, each with a rarer look-alike, and one site's words.

Its frequencies make a world whose best possible accuracy can be computed; they are not epidemiology.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from clinical_r1.text import Language

SPECIALTIES = (
    "respiratory", "gastroenterology", "urology", "cardiology", "immunology", "neurology", "endocrinology",
)  # fmt: skip


@dataclass(frozen=True)
class Disease:
    """One diagnosis; `pair` and `rare` say where it stands in the table."""

    en: str
    zh: str
    icd10: str
    specialty: str
    pair: int
    rare: bool

    def name(self, language: Language) -> str:
        return self.en if language == "en" else self.zh


@dataclass(frozen=True)
class Pair:
    """A common disease and its look-alike, who shares its findings; one test tells them apart."""

    common: Disease
    rare: Disease
    test: tuple[str, str]  # English and Chinese name
    positive: tuple[str, str]  # the result that speaks for the look-alike
    negative: tuple[str, str]
    findings: dict[str, tuple[float, float]]  # English name -> frequency in the common disease, in the look-alike
    ages: tuple[int, int]
    sex: Literal["male", "female"] | None = None


def _pair(index: int, row: dict[str, Any]) -> Pair:
    common, rare = (
        Disease(en, zh, icd10, row["specialty"], index, rare=rare)
        for (en, zh, icd10), rare in ((row["common"], False), (row["rare"], True))
    )
    test, positive, negative, ages = (tuple(row[key]) for key in ("test", "positive", "negative", "ages"))
    findings = {finding: tuple(frequencies) for finding, frequencies in row["findings"].items()}
    return Pair(common, rare, test, positive, negative, findings, ages, row.get("sex"))


_WORLD = yaml.safe_load(Path(__file__).with_name("world.yaml").read_text(encoding="utf-8"))
PAIRS: tuple[Pair, ...] = tuple(_pair(index, row) for index, row in enumerate(_WORLD["pairs"]))
FINDING_ZH: dict[str, str] = {finding: names[0] for finding, names in _WORLD["findings"].items()}
DIALECT: dict[str, tuple[str, str]] = {
    finding: (names[1], names[2]) for finding, names in _WORLD["findings"].items() if len(names) > 1
}
"""The site effect of the simulated world: one site writes some findings in words of its own (English, Chinese).

The meaning is the same and the teacher knows it; a model that never saw the site has to guess.
"""
FINDINGS: tuple[str, ...] = tuple(FINDING_ZH)


def _pointing(finding: str) -> tuple[int, ...]:
    return tuple(index for index, pair in enumerate(PAIRS) if finding in pair.findings)


# A clinician's memory: which common diseases a finding brings to mind, most typical first.
POINTS_TO: dict[str, tuple[int, ...]] = {
    finding: tuple(sorted(_pointing(finding), key=lambda index: -PAIRS[index].findings[finding][0]))
    for finding in FINDINGS
}


def finding_name(finding: str, language: Language) -> str:
    return finding if language == "en" else FINDING_ZH[finding]


def local_name(finding: str, language: Language) -> str | None:
    """The site's own word for a finding; None where it writes what all write."""
    words = DIALECT.get(finding)
    return None if words is None else words[language == "zh"]


def phrases_of(kind: Literal["world", "outside"]) -> dict[Language, dict[str, Any]]:
    """What the teacher writes about the world's cases, or about others (phrases.yaml), by language."""
    return yaml.safe_load(Path(__file__).with_name("phrases.yaml").read_text(encoding="utf-8"))[kind]
