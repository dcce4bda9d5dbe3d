"""What the simulated teacher writes: reasoning of more or less care, further tries after a failure, and the rewrite.

The teacher stands for a large model that reasons unevenly. It knows only the chart. How careful an attempt is decides
how far it goes: `direct` names a diagnosis, `hasty` takes up one or two findings, `medium` all of them and a test that
does not matter to the case, and `careful` also looks up the test that tells the look-alikes apart. Who does not look it
up names one of the pair by its prior: if it always named the common one, the verifier would keep unchecked traces of
common diseases only, and a model would learn to check where it already knows the answer. Everything is a pure function
of its arguments and the given `random.Random`.
"""

import random
import re
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from clinical_r1.atomic import read_table
from clinical_r1.reasoning import CONCLUSION_LABELS
from clinical_r1.simulator.world import FINDING_LABELS, P_RARE, PAIRS, POINTS_TO, Chart, finding_name, lab
from clinical_r1.text import Language

Care = Literal["direct", "hasty", "medium", "careful"]
CARE_FIRST: dict[Care, float] = {"direct": 0.03, "hasty": 0.27, "medium": 0.48, "careful": 0.22}
CARE_RETRY: dict[Care, float] = {"direct": 0.0, "hasty": 0.34, "medium": 0.44, "careful": 0.22}


class Written(NamedTuple):
    """One attempt: the text of the reasoning and the diagnosis it arrives at (in the case's language)."""

    reasoning: str
    answer: str


def with_careful(mix: dict[Care, float], share: float | None) -> dict[Care, float]:
    """A mix of care with the share of careful work set; None leaves it as it is."""
    if share is None:
        return mix
    rest = sum(mix.values()) - mix["careful"]
    return {care: share if care == "careful" else (1 - share) * p / rest for care, p in mix.items()}


def draw_care(rng: random.Random, mix: dict[Care, float]) -> Care:
    return rng.choices(list(mix), weights=list(mix.values()))[0]


# --- sentences

PHRASES: dict[str, dict[Language, dict[str, Any]]] = read_table(Path(__file__).with_name("phrases.yaml"))
"""What the teacher writes about the world's cases, and about those from `outside`."""


def _say(language: Language, phrase: str, **values: str) -> str:
    return PHRASES["world"][language][phrase].format(**values)


def _weigh(chart: Chart, positions: Iterable[int], phrase: str) -> str:
    """Findings and the diseases they bring to mind; `phrase` begins."""
    language, text = chart.language, ""
    for position in positions:
        finding = chart.findings[position]
        names = [PAIRS[index].common.name(language) for index in POINTS_TO[finding]]
        named = {"finding": finding_name(finding, language), "names": _say(language, "separator").join(names)}
        text += _say(language, phrase, label=FINDING_LABELS[position], **named)
        phrase = "next"
    return text


def _guess(chart: Chart, positions: Iterable[int], rng: random.Random) -> int:
    """The pair that most of the findings point to; chance decides a tie."""
    votes = Counter(index for position in positions for index in POINTS_TO[chart.findings[position]])
    best = max(votes.values())
    return rng.choice([index for index in sorted(votes) if votes[index] == best])


def _member(guess: int, rng: random.Random, language: Language, wrong: Collection[str] = ()) -> str:
    """One of the two look-alikes by their prior, as one concludes who did not look at the tests."""
    names = [PAIRS[guess].common.name(language), PAIRS[guess].rare.name(language)]
    if rng.random() < P_RARE:
        names.reverse()
    return next((name for name in names if name not in wrong), names[0])


def _check(chart: Chart, guess: int) -> tuple[str, str]:
    """Look up the test that tells the pair apart; returns the text and the diagnosis that stands."""
    language, pair = chart.language, PAIRS[guess]
    name, found = pair.rare.name(language), dict(chart.tests).get(guess)
    if found is None:
        said = _say(language, "undone", test=pair.test[language == "zh"])
    else:
        said = _say(language, "for" if found else "against", test=lab(guess, found, language), name=name)
    return _say(language, "check") + said, name if found else pair.common.name(language)


# --- attempts


def attempt(chart: Chart, care: Care, rng: random.Random) -> Written:
    if care == "direct":
        positions: range = range(0)
        guess = _guess(chart, [rng.randrange(len(chart.findings))], rng)
    else:
        positions = range(rng.choice((1, 2)) if care == "hasty" else len(chart.findings))
        guess = _guess(chart, positions, rng)
    text = _weigh(chart, positions, "first")
    others = [test for test in chart.tests if test[0] != guess]
    # A look at the test that does not matter here: what reading a result takes is practised in every second trace.
    if others and care in ("medium", "careful"):
        text += _say(chart.language, "aside", test=lab(*rng.choice(others), chart.language))
    return _finish(chart, text, guess, care == "careful", rng)


def _finish(
    chart: Chart, text: str, guess: int, check: bool, rng: random.Random, wrong: Collection[str] = ()
) -> Written:
    answer = _member(guess, rng, chart.language, wrong)
    text += _say(chart.language, "maybe", name=answer)
    if check:
        checked, answer = _check(chart, guess)
        text += checked
    return Written(text + _say(chart.language, "so", name=answer), answer)


def retry(chart: Chart, strategy: str, first: str, wrong: Collection[str], care: Care, rng: random.Random) -> Written:
    """Go on from a failed first try by one of the paper's strategies.

    The text is the continuation alone: it takes up the findings that the first try left out, so that the rewrite can
    put both together. Verification with care holds on to the hypothesis and checks it.
    """
    covered = covered_findings(chart, first)
    hypothesis = last_hypothesis(chart, first)
    if strategy == "verification" and hypothesis is not None and care == "careful" and not checks_look_alikes(first):
        text, answer = _check(chart, hypothesis)
        return Written(text + _say(chart.language, "so", name=answer), answer)
    language = chart.language
    if strategy == "backtracking" and covered:
        text = _say(language, "backtracking", label=FINDING_LABELS[covered[-1]])
    elif strategy == "corrections" and wrong:
        text = _say(language, "corrections", name=list(wrong)[-1])
    else:
        text = _say(language, "exploring_new_paths")
    rest = [position for position in range(len(chart.findings)) if position not in covered]
    more = rest[:1] if care in ("direct", "hasty") else rest
    text += _weigh(chart, more, "next")
    guess = _guess(chart, [*covered, *more], rng)
    return _finish(chart, text, guess, care == "careful", rng, wrong)


def guided(chart: Chart, reference: str, rng: random.Random) -> Written:
    """Reasoning towards a given diagnosis, as a model writes that was told the answer: smooth, after the fact."""
    positions = range(rng.choice((1, 2, len(chart.findings))))
    text = _weigh(chart, positions, "first")
    text += _say(chart.language, "maybe", name=reference)
    return Written(text + _say(chart.language, "so", name=reference), reference)


def rewrite(language: Language, first: str, last: str) -> str:
    """The natural thinking of a chain of attempts: the failed first try, then the thought that mended it."""
    return _conclusion(language).sub("", first) + last


def conclusion(language: Language, text: str) -> str | None:
    found = _conclusion(language).search(text)
    return found.group(1) if found else None


def _conclusion(language: Language) -> re.Pattern[str]:
    before, after = _say(language, "so", name="\0").split("\0")
    return re.compile(re.escape(before) + r"([^。.]+?)" + re.escape(after) + r"\s*$")


def response(language: Language, answer: str) -> str:
    """The formal answer that follows the thinking: the conclusion line alone, as short as a tiny model's reply may be.

    The space stands before the name in Chinese too, as before every term of the world (world.render_question).
    """
    return f"{CONCLUSION_LABELS[language, 'diagnosis'].rstrip()} {answer}"


# --- reading a text


def covered_findings(chart: Chart, text: str) -> list[int]:
    verb = " suggests" if chart.language == "en" else " 提示"
    return [
        position
        for position, finding in enumerate(chart.findings)
        if f" {FINDING_LABELS[position]} {finding_name(finding, chart.language)}{verb}" in text
    ]


def last_hypothesis(chart: Chart, text: str) -> int | None:
    head, tail = _say(chart.language, "maybe", name="\0").strip().split("\0")
    names = {d.name(chart.language): index for index, pair in enumerate(PAIRS) for d in (pair.common, pair.rare)}
    thoughts = [names[name] for name in re.findall(re.escape(head) + "(.+?)" + re.escape(tail), text) if name in names]
    return thoughts[-1] if thoughts else None


def checks_look_alikes(text: str) -> bool:
    return "check the look-alikes" in text or "检查相似病" in text


def is_careful(chart: Chart, text: str) -> bool:
    """The look-alikes were checked, by what the chart says of the test that tells the last hypothesis' pair apart."""
    thought = text.split("</think>")[0]
    hypothesis = last_hypothesis(chart, thought)
    return hypothesis is not None and _check(chart, hypothesis)[0].strip() in thought
