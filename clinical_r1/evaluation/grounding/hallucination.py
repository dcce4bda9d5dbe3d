"""Hallucinated reasoning: findings, numbers and test results in the thought that the case does not hold, and a thought
that concludes otherwise than the answer says. No model: a lexicon, the case's own words, and the grammar of supposing.

What a thought denies, supposes ("would expect fever") or says of a disease in general is not a claim about the patient
and is not flagged. Findings outside of the lexicon are not seen: this measures a lower bound.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Literal, NamedTuple

from clinical_r1.evaluation.measure.samples import answer_key
from clinical_r1.lexicon.findings import findings, mentions, stance, supported
from clinical_r1.schema import Case, Prediction, VerdictLabel
from clinical_r1.text import HAN
from clinical_r1.verifier.judgement import Judgement
from clinical_r1.verifier.rule import RuleVerifier

Kind = Literal["finding", "denied_finding", "number", "result", "conclusion"]


class Flag(NamedTuple):
    """One thing in a thought that the case does not support."""

    kind: Kind
    text: str
    start: int


_NUMBER = re.compile(r"(?<![\w.\-–])(\d+(?:,\d{3})*(?:\.\d+)?)(?!\d)")
_UNIT = re.compile(rf"^[\s-]*(°\s?[CF]|[a-zA-Z%℃/]+|[{HAN}])")
_LABEL = re.compile(rf"([a-zA-Z]+|[{HAN}]{{2}})\s*(?:is|was|of|at|to|:|：|为|是|约|in)?\s*$")
_GENERAL = re.compile(
    r"\b(range|reference|typical\w*|threshold|above|below|greater|less|more than|cut-?off|usual\w*|criteri\w+|"
    r"older|younger|between|imagine|suppose|multiply|equals?|ratio|divide|sum|leaving|remaining|total|minus|plus|calculat\w+|"
    r"generally|per|(?:within|over|under|than|say)(?=\s*$))\b|[<>≥≤×*=]|"
    r"范围|参考|大于|小于|超过|以上|以下|低于|高于|标准|阈值|之间|假设|等于"
)
_NORMAL = re.compile(r"\bnormal|正常")
_ABOUT = re.compile(r"\b(?:about|around|approximately|roughly|nearly|almost)\s*$|约\s*$")
_AGED = re.compile(
    r"\b(?:(?:patient|he|she|man|woman|boy|girl|guy|lady|child)(?:['’]s| is| was)(?: only| just| now)?|being|aged?)\s*$"
)
_BARE = re.compile(r"\s*(?:[,.;:!?)]|$|(?:and|so|but|which|with|means)\b)")
_PAIR_AFTER, _PAIR_BEFORE = re.compile(r"\s*(?:/|over)\s*\d"), re.compile(r"\d\s*(?:/|over)\s*$")
_NO_UNITS = frozenset(
    ["and", "or", "the", "a", "an", "is", "was", "to", "of", "in", "with", "for", "that", "which",
     "on", "as", "but", "so", "if", "by", "patients", "people", "about", "around",
     "approximately", "roughly", "nearly", "almost"]
)  # fmt: skip
_STATES = {
    "normal": ("normal", "unremarkable", "正常"),
    "high": ("raised", "elevated", "increased", "high", "升高", "增高", "偏高"),
    "low": ("low", "decreased", "reduced", "降低", "减低", "偏低", "下降"),
    "positive": ("positive", "阳性"),
    "negative": ("negative", "阴性"),
}
_STATE_OF = {word: state for state, words in _STATES.items() for word in words}
_STATE_WORDS = "|".join(sorted(_STATE_OF, key=len, reverse=True))
_RESULT_EN = re.compile(
    rf"((?:[A-Za-z][\w-]*\s+){{1,4}}?)(?:is |was |are |were |: )?({_STATE_WORDS})\b", re.IGNORECASE
)  # fmt: skip
_RESULT_ZH = re.compile(rf"([\w\-]*[{HAN}][\w\-]*)\s*(?:为|是|：)?\s*({_STATE_WORDS})")


def check(case: Case, prediction: Prediction, diagnoses: Iterable[str] = ()) -> list[Flag]:
    """Everything in the thought that the case does not support; `diagnoses` are names to find a conclusion by."""
    thinking = prediction.thinking
    if not thinking:
        return []
    flags = [
        *_findings(case.problem, thinking),
        *_numbers(case.problem, thinking),
        *_results(case.problem, thinking),
    ]
    conclusion = contradicted_conclusion(thinking, prediction.response, diagnoses)
    if conclusion is not None:
        flags.append(conclusion)
    return sorted(flags, key=lambda flag: flag.start)


def hallucination_rate(cases: Sequence[Case], predictions: Sequence[Prediction]) -> tuple[int, int]:
    """(predictions with a flag, predictions with a thought); conclusions are found by the cases' diagnoses."""
    by_id = {case.id: case for case in cases}
    diagnoses = sorted({case.reference for case in cases})
    thought = [prediction for prediction in predictions if prediction.thinking]
    return sum(bool(check(by_id[p.case_id], p, diagnoses)) for p in thought), len(thought)


def _findings(question: str, thinking: str) -> list[Flag]:
    present, denied = supported(question)
    flags, seen = [], set()
    for mention in mentions(thinking):
        if mention.stance != "asserted" or mention.key in present or mention.key in seen:
            continue
        if set(findings()[mention.key].broader) & present and mention.key not in denied:
            continue  # a narrower word for what the case does say: imprecise, not invented
        seen.add(mention.key)
        kind: Kind = "denied_finding" if mention.key in denied else "finding"
        flags.append(Flag(kind, mention.text, mention.start))
    return flags


def _numbers(question: str, thinking: str) -> list[Flag]:
    """Numbers under a unit or label that the case uses with other values: an age, a pressure, a duration."""
    places = [(float(match[1].replace(",", "")), _names(question, match)) for match in _NUMBER.finditer(question)]
    known = {value for value, _ in places}
    values: dict[str, set[float]] = {}
    for value, names in places:
        for name in names:
            values.setdefault(name, set()).add(value)
    flags = []
    before: set[float] = set()
    derived: set[float] = set()
    for match in _NUMBER.finditer(thinking):
        value = float(match[1].replace(",", ""))
        shared = values.keys() & set(_names(thinking, match))
        earlier, before = before, before | {value}
        start, end = match.span()
        sentence = re.split(r"[;!?\n。；！？]|\.\s", thinking[max(0, start - 60) : start].casefold())[-1]
        after = re.split(r"[.;!?\n。；！？]", thinking[end : end + 25])[0]
        if value in known:
            continue
        if _GENERAL.search(sentence):
            derived.add(value)  # of people in general, or the outcome of a calculation: also where it stands again
        if value in derived or not shared:
            continue
        if _ABOUT.search(sentence) and (
            "%<" in shared or _near(value, set().union(*(values[name] for name in shared)), 0.2)
            or _near(value, earlier, 0.01)
        ):  # fmt: skip
            continue  # rounded from the case or from what was computed; a rounded share is most often general knowledge
        if _NORMAL.search(sentence.rpartition(",")[2].rpartition("，")[2]):
            continue
        if re.match(r"\s*(?:-|–|~|to|or|至|到)\s*\d", after) or re.search(r"\d\s*(?:-|–|~|to|or|至|到)\s*$", sentence):
            continue
        if stance(sentence, after) == "asserted":
            flags.append(Flag("number", match[0], start))
    return flags


def _near(value: float, known: Iterable[float], share: float) -> bool:
    return any(abs(value - other) <= share * max(value, other) for other in known)


def _names(text: str, match: re.Match[str]) -> list[str]:
    """What a number is of: its unit behind it (without a plural s), its label in front of it, an age, one of two."""
    before, after = text[max(0, match.start() - 30) : match.start()].casefold(), text[match.end() : match.end() + 16]
    kinds = {
        "age": re.match(r"[\s-]*years?[\s-]old", after) or (_AGED.search(before) and _BARE.match(after)),
        "pair": _PAIR_AFTER.match(after) or _PAIR_BEFORE.search(before),
    }
    unit = _UNIT.match(text[match.end() : match.end() + 12])
    label = _LABEL.search(text[max(0, match.start() - 30) : match.start()])
    names = [f"{_singular(found[1].casefold())}{side}" for found, side in ((unit, "<"), (label, ">")) if found]
    return [name for name in names if name[:-1] not in _NO_UNITS] + [kind for kind, found in kinds.items() if found]


def _singular(unit: str) -> str:
    return unit[:-1] if len(unit) > 3 and unit.endswith("s") else unit


def _results(question: str, thinking: str) -> list[Flag]:
    """Test results that the case states otherwise: `troponin normal` against `troponin raised`."""
    known = _states(question)
    flags = []
    for term, state, start, text in _stated(thinking):
        states = known.get(term)
        if states and state not in states:
            flags.append(Flag("result", text, start))
    return flags


def _states(text: str) -> dict[str, set[str]]:
    known: dict[str, set[str]] = {}
    for term, state, _, _ in _stated(text):
        known.setdefault(term, set()).add(state)
    return known


def _stated(text: str) -> list[tuple[str, str, int, str]]:
    """(term, state, start, text) of every result; a term is its last word (English) or its whole name (Chinese)."""
    found = []
    for match in _RESULT_EN.finditer(text):
        words = [word for word in match[1].casefold().split() if word not in _FILLER]
        before = re.split(r"[.;!?\n]", text[max(0, match.start() - 40) : match.start()])[-1]
        if words and stance(before, "") == "asserted":
            found.append((" ".join(words[-2:]), _STATE_OF[match[2].casefold()], match.start(), match[0].strip()))
    for match in _RESULT_ZH.finditer(text):
        found.append((match[1], _STATE_OF[match[2]], match.start(), match[0]))
    return found


_FILLER = frozenset(
    ["the", "a", "an", "is", "was", "are", "were", "x", "y", "also", "and", "his", "her", "their", "its", "of", "with"]
)
_NOT_IT = re.compile(
    r"(?:\bnot|rather than|instead of|compared to|than|while|although|unlikely|against|rules? out|less likely|unlike|"
    r"不是|并非|排除|不支持|而非|除外)\W*(?:\w+\W+){0,3}$"
)
_CONCLUDES = re.compile(
    r"\b(so|therefore|thus|hence|diagnos\w+|conclu\w+|most likely|fits?|points? to|must be|answer|confirm\w*|aligns?|"
    r"(?:is|as) the way to go|go(?:ing)? with|leaning towards?|it is|it's|might indeed|indeed|culprit|deduc\w+|"
    r"typically right|adds up|makes sense|explains?|clearly|definitely)\b|"
    r"所以|因此|诊断|考虑|符合|综上|答案|最可能|就是|应该是|应为|可以确定|倾向于|支持"
)


def contradicted_conclusion(thinking: str, response: str, diagnoses: Iterable[str]) -> Flag | None:
    """A flag where the end of the thought settles on diagnoses none of which the response names."""
    answer, whole, folded = answer_key(response), response.casefold(), thinking.casefold()
    sentences = [match for match in re.finditer(r"[^.;!?\n。；！？]+", folded) if match[0].strip()]
    for sentence in reversed(sentences[-3:] if answer else []):
        if not _CONCLUDES.search(sentence[0]):
            continue
        places = [(_place(name.casefold(), sentence[0]), name) for name in diagnoses]
        named = [(at, name) for at, name in places if at >= 0 and not _NOT_IT.search(sentence[0][:at])]
        if not named:
            continue
        if any(name.casefold() in whole or answer in name.casefold() or _same(name, response) for _, name in named):
            return None
        at, name = max(named)
        return Flag("conclusion", name, sentence.start() + at)
    return None


def _place(name: str, sentence: str) -> int:
    """Where a sentence names something, -1 where it does not; an English name as whole words ("red" is not in
    "considered")."""
    at = sentence.find(name)
    if at < 0 or not name.isascii():
        return at
    found = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", sentence)
    return found.start() if found else -1


@cache
def _rule() -> RuleVerifier:
    return RuleVerifier()


def _same(diagnosis: str, response: str) -> bool:
    """Does a response name a diagnosis in other words?"""
    question = Judgement(question="", reference=diagnosis, answer=response, language="en")
    return _rule().judge_sync(question).label is VerdictLabel.CORRECT
