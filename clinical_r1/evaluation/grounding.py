"""Hallucinated reasoning: findings, numbers and test results in the thought that the case does not hold, and a thought
that concludes otherwise than the answer says. And how well that check does, on seeded corruptions of faithful chains.

No model: a lexicon, the case's own words, and the grammar of supposing (`grounding.yaml`). What a thought denies,
supposes ("would expect fever") or says of a disease in general is not a claim about the patient and is not flagged.
Findings outside of the lexicon are not seen: this measures a lower bound.
"""

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.evaluation.inputs import read_evaluated, sample_of
from clinical_r1.evaluation.measure.credit import answer_key
from clinical_r1.lexicon import wordings
from clinical_r1.lexicon.findings import findings, mentions, stance, supported
from clinical_r1.reasoning import Outcome
from clinical_r1.schema import Case, Prediction, Trace, VerdictLabel, read_jsonl, write_jsonl
from clinical_r1.stats import Interval, wilson
from clinical_r1.text import HAN, has_han
from clinical_r1.verifier.judgement import Judgement
from clinical_r1.verifier.rule import RuleVerifier

RULE = wordings(Path(__file__).with_suffix(".yaml"))
_NUMBER = re.compile(r"(?<![\w.\-–])(\d+(?:,\d{3})*(?:\.\d+)?)(?!\d)")
_UNIT = re.compile(rf"^[\s-]*(°\s?[CF]|[a-zA-Z%℃/]+|[{HAN}])")
_LABEL = re.compile(rf"([a-zA-Z]+|[{HAN}]{{2}})\s*(?:is|was|of|at|to|:|：|为|是|约|in)?\s*$")
_BARE = re.compile(r"\s*(?:[,.;:!?)]|$|(?:and|so|but|which|with|means)\b)")
_PAIR_AFTER, _PAIR_BEFORE = re.compile(r"\s*(?:/|over)\s*\d"), re.compile(r"\d\s*(?:/|over)\s*$")
_STATES = {
    "normal": ("normal", "unremarkable", "正常"),
    "high": ("raised", "elevated", "increased", "high", "升高", "增高", "偏高"),
    "low": ("low", "decreased", "reduced", "降低", "减低", "偏低", "下降"),
    "positive": ("positive", "阳性"),
    "negative": ("negative", "阴性"),
}
_STATE_OF = {word: state for state, words in _STATES.items() for word in words}
_STATE_WORDS = "|".join(sorted(_STATE_OF, key=len, reverse=True))
_RESULT_EN = re.compile(rf"((?:[A-Za-z][\w-]*\s+){{1,4}}?)(?:is |was |are |were |: )?({_STATE_WORDS})\b", re.IGNORECASE)
_RESULT_ZH = re.compile(rf"([\w\-]*[{HAN}][\w\-]*)\s*(?:为|是|：)?\s*({_STATE_WORDS})")


class Flag(NamedTuple):
    """One thing in a thought that the case does not support."""

    kind: Literal["finding", "denied_finding", "number", "result", "conclusion"]
    text: str
    start: int


def check(case: Case, prediction: Prediction, diagnoses: Iterable[str] = ()) -> list[Flag]:
    """Everything in the thought that the case does not support; `diagnoses` are names to find a conclusion by."""
    thinking = prediction.thinking
    if not thinking:
        return []
    flags = [
        *_findings(case.problem, thinking),
        *_numbers(case.problem, thinking),
        *_results(case.problem, thinking),
        *_contradicted_conclusion(thinking, prediction.response, diagnoses),
    ]
    return sorted(flags, key=lambda flag: flag.start)


def hallucination_rate(cases: Sequence[Case], predictions: Sequence[Prediction]) -> tuple[int, int]:
    """(predictions with a flag, predictions with a thought); conclusions are found by the cases' diagnoses."""
    by_id = {case.id: case for case in cases}
    diagnoses = sorted({case.reference for case in cases})
    thought = [prediction for prediction in predictions if prediction.thinking]
    return sum(bool(check(by_id[p.case_id], p, diagnoses)) for p in thought), len(thought)


def _findings(question: str, thinking: str) -> Iterator[Flag]:
    present, denied = supported(question)
    seen = set(present)
    for mention in mentions(thinking):
        if mention.stance != "asserted" or mention.key in seen:
            continue
        if set(findings()[mention.key].broader) & present and mention.key not in denied:
            continue  # a narrower word for what the case does say: imprecise, not invented
        seen.add(mention.key)
        yield Flag("denied_finding" if mention.key in denied else "finding", mention.text, mention.start)


def _numbers(question: str, thinking: str) -> Iterator[Flag]:
    """Numbers under a unit or label that the case uses with other values: an age, a pressure, a duration."""
    values: dict[str, set[float]] = defaultdict(set)
    known: set[float] = set()
    for match in _NUMBER.finditer(question):
        known.add(value := float(match[1].replace(",", "")))
        for name in _names(question, match):
            values[name].add(value)
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
        if RULE["general"].search(sentence):
            derived.add(value)  # of people in general, or the outcome of a calculation: also where it stands again
        if value in derived or not shared:
            continue
        if RULE["about"].search(sentence) and (
            "%<" in shared or _near(value, set().union(*(values[name] for name in shared)), 0.2)
            or _near(value, earlier, 0.01)
        ):  # fmt: skip
            continue  # rounded from the case or from what was computed; a rounded share is most often general knowledge
        if RULE["normal"].search(re.split("[,，]", sentence)[-1]):
            continue
        if re.match(r"\s*(?:-|–|~|to|or|至|到)\s*\d", after) or re.search(r"\d\s*(?:-|–|~|to|or|至|到)\s*$", sentence):
            continue
        if stance(sentence, after) == "asserted":
            yield Flag("number", match[0], start)


def _near(value: float, known: Iterable[float], share: float) -> bool:
    return any(abs(value - other) <= share * max(value, other) for other in known)


def _names(text: str, match: re.Match[str]) -> list[str]:
    """What a number is of: its unit behind it (without a plural s), its label in front of it, an age, one of two."""
    before, after = text[max(0, match.start() - 30) : match.start()], text[match.end() : match.end() + 16]
    names = []
    for found, side in ((_UNIT.match(after[:12]), "<"), (_LABEL.search(before), ">")):
        if found:
            word = found[1].casefold()
            names.append((word[:-1] if len(word) > 3 and word.endswith("s") else word) + side)
    names = [name for name in names if not RULE["no_unit"].fullmatch(name[:-1])]
    before = before.casefold()
    if re.match(r"[\s-]*years?[\s-]old", after) or (RULE["aged"].search(before) and _BARE.match(after)):
        names.append("age")
    if _PAIR_AFTER.match(after) or _PAIR_BEFORE.search(before):
        names.append("pair")
    return names


def _results(question: str, thinking: str) -> Iterator[Flag]:
    """Test results that the case states otherwise: `troponin normal` against `troponin raised`."""
    known: dict[str, set[str]] = defaultdict(set)
    for term, state, _, _ in _stated(question):
        known[term].add(state)
    for term, state, start, text in _stated(thinking):
        if term in known and state not in known[term]:
            yield Flag("result", text, start)


def _stated(text: str) -> list[tuple[str, str, int, str]]:
    """(term, state, start, text) of every result; a term is its last word (English) or its whole name (Chinese)."""
    found = []
    for match in _RESULT_EN.finditer(text):
        words = [word for word in match[1].casefold().split() if not RULE["filler"].fullmatch(word)]
        before = re.split(r"[.;!?\n]", text[max(0, match.start() - 40) : match.start()])[-1]
        if words and stance(before, "") == "asserted":
            found.append((" ".join(words[-2:]), _STATE_OF[match[2].casefold()], match.start(), match[0].strip()))
    for match in _RESULT_ZH.finditer(text):
        found.append((match[1], _STATE_OF[match[2]], match.start(), match[0]))
    return found


def _contradicted_conclusion(thinking: str, response: str, diagnoses: Iterable[str]) -> Iterator[Flag]:
    """A flag where the end of the thought settles on diagnoses none of which the response names."""
    answer, whole, folded = answer_key(response), response.casefold(), thinking.casefold()
    sentences = [match for match in re.finditer(r"[^.;!?\n。；！？]+", folded) if match[0].strip()]
    for sentence in reversed(sentences[-3:] if answer else []):
        if not RULE["concludes"].search(sentence[0]):
            continue
        places = [(_place(name.casefold(), sentence[0]), name) for name in diagnoses]
        named = [(at, name) for at, name in places if at >= 0 and not RULE["not_it"].search(sentence[0][:at])]
        if not named:
            continue
        if not any(name.casefold() in whole or answer in name.casefold() or _same(name, response) for _, name in named):
            at, name = max(named)
            yield Flag("conclusion", name, sentence.start() + at)
        return


def _place(name: str, sentence: str) -> int:
    """Where a sentence names something, -1 where it does not; an English name as whole words ("red" is not in
    "considered")."""
    at = sentence.find(name)
    if at < 0 or not name.isascii():
        return at
    found = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", sentence)
    return found.start() if found else -1


_rule = cache(RuleVerifier)


def _same(diagnosis: str, response: str) -> bool:
    """Does a response name a diagnosis in other words?"""
    question = Judgement(question="", reference=diagnosis, answer=response, language="en")
    return _rule().judge_sync(question).label is VerdictLabel.CORRECT


def check_evaluation(folder: Path, out: Path | None = None) -> Iterator[str]:
    """Flags of every thought of an evaluation; yields lines to print, writes one JSON line a flag to `out`."""
    done = read_evaluated(folder)
    by_id, diagnoses = {case.id: case for case in done.cases}, sorted({case.reference for case in done.cases})
    thoughts = [row for row in done.predictions if row.thinking]
    outcomes = Counter(row.outcome for row in done.predictions)
    kept_back = sum(row.outcome is Outcome.OK and not row.thinking for row in done.predictions)
    if not thoughts:
        raise UserError(
            f"{folder}: no answer in it has a thought that can be read ({kept_back} are kept back by the endpoint, "
            f"{outcomes[Outcome.UNKNOWN_FORM]} in a form that is not known); there is nothing to check"
        )
    if unread := kept_back + outcomes[Outcome.UNKNOWN_FORM]:
        yield f"{unread} of {len(done.predictions)} thoughts cannot be read (kept back, or unknown_form): not checked"
    rows = []
    for row in thoughts:
        for flag in check(by_id[row.case_id], row, diagnoses):
            rows.append({"case_id": row.case_id, "sample": row.sample, **flag._asdict()})
    flagged = len({(row["case_id"], row["sample"]) for row in rows})
    low, high = wilson(flagged, len(thoughts))
    yield f"{flagged} of {len(thoughts)} thoughts state what the case does not hold (95%: {low:.1%} to {high:.1%})"
    for kind, count in Counter(str(row["kind"]) for row in rows).most_common():
        yield f"  {kind.replace('_', ' ')}: {count}"
    if out is not None:
        write_jsonl(out, rows)
        yield str(out)


KINDS = ("finding", "number", "result", "conclusion")
_FLIPS = (("raised", "normal"), ("elevated", "normal"), ("positive", "negative"), ("升高", "正常"), ("阳性", "阴性"))
MOST_CHAINS = 400
"""More chains than this are sampled by the seed: enough for intervals of a few points."""


class Score(NamedTuple):
    """How well the detector did on one kind of corruption, or on all."""

    corrupted: int
    caught: int
    clean: int
    false_alarms: int
    recall: float
    recall_interval: Interval
    precision: float
    precision_interval: Interval


def measure_detector(chains: Path, seed: int = 0, out: Path | None = None) -> Iterator[str]:
    """Precision and recall on seeded corruptions of faithful chains: traces.jsonl, or a list of problems with their
    chains (`Question`, `Complex_CoT`, `Response`: the form of HuatuoGPT-o1's data). UserError for other files."""
    cases, predictions = read_chains(chains)
    if not cases:
        raise UserError(f"{chains}: no accepted chain in it; give traces.jsonl or a list of problems with their chains")
    if len(cases) > MOST_CHAINS:
        chosen = {case.id for case in sample_of(cases, MOST_CHAINS, seed)}
        cases = [case for case in cases if case.id in chosen]
        predictions = [row for row in predictions if row.case_id in chosen]
    scores = score(cases, predictions, seed)
    yield f"{len(cases)} chains, each clean and with one thing changed (seed {seed})"
    for kind, result in scores.items():
        yield (
            f"  {kind}: recall {result.recall:.2f} ({result.recall_interval.low:.2f} to "
            f"{result.recall_interval.high:.2f}, {result.caught} of {result.corrupted}); precision "
            f"{result.precision:.2f} ({result.false_alarms} alarms on {result.clean} clean chains)"
        )
    if out is not None:
        write_text(out, json.dumps({kind: result._asdict() for kind, result in scores.items()}, indent=1) + "\n")
        yield str(out)


def score(cases: Sequence[Case], predictions: Sequence[Prediction], seed: int = 0) -> dict[str, Score]:
    """Detector against corruptions of faithful predictions: by kind and `all`.

    Every prediction appears once clean and once for each kind that it offers a place for; precision is that of a set
    with as many clean as corrupted thoughts.
    """
    rng = random.Random(seed)
    diagnoses = sorted({case.reference for case in cases})
    clean = [bool(check(case, prediction, diagnoses)) for case, prediction in zip(cases, predictions, strict=True)]
    scores: dict[str, Score] = {}
    total = caught = 0
    for kind in KINDS:
        changed = [(case, corrupt(case, p, kind, rng, diagnoses)) for case, p in zip(cases, predictions, strict=True)]
        hits = [bool(check(case, p, diagnoses)) for case, p in changed if p is not None]
        scores[kind] = _score(len(hits), sum(hits), clean)
        total, caught = total + len(hits), caught + sum(hits)
    return scores | {"all": _score(total, caught, clean)}


def _score(corrupted: int, caught: int, clean: Sequence[bool]) -> Score:
    recall = caught / corrupted if corrupted else 0.0
    flagged = recall + (sum(clean) / len(clean) if clean else 0.0)
    effective = round(flagged * min(corrupted, len(clean)))
    precision = recall / flagged if flagged else 0.0
    return Score(
        corrupted, caught, len(clean), sum(clean), recall, wilson(caught, corrupted),
        precision, wilson(round(precision * effective), effective),
    )  # fmt: skip


def corrupt(
    case: Case, prediction: Prediction, kind: str, rng: random.Random, diagnoses: Sequence[str]
) -> Prediction | None:
    """The prediction with one thing changed, or None where it offers nothing to change."""
    thinking = prediction.thinking
    if kind == "finding":
        changed = _swap_finding(case, thinking, rng)
    elif kind == "number":
        changed = _swap_number(case.question, thinking, rng)
    elif kind == "result":
        changed = _flip_result(case.question, thinking, rng)
    else:
        others = [name for name in diagnoses if name.casefold() not in prediction.response.casefold()]
        if not others or case.reference.casefold() not in thinking.casefold()[-160:]:
            return None
        return prediction.model_copy(update={"response": rng.choice(others)})
    return None if changed is None else prediction.model_copy(update={"thinking": changed})


def _swap_finding(case: Case, thinking: str, rng: random.Random) -> str | None:
    """A finding of the patient becomes one that the case does not have."""
    present, denied = supported(case.question)
    own = [mention for mention in mentions(thinking) if mention.stance == "asserted" and mention.key in present]
    related = {key for key in findings() if set(findings()[key].broader) & present}
    absent = sorted(set(findings()) - present - denied - related)
    if not own or not absent:
        return None
    mention, key = rng.choice(own), rng.choice(absent)
    name = findings()[key].english[0] if case.language == "en" else findings()[key].chinese[0]
    return thinking[: mention.start] + name + thinking[mention.start + len(mention.text) :]


def _swap_number(question: str, thinking: str, rng: random.Random) -> str | None:
    known = re.findall(r"\d+(?:\.\d+)?", question)
    own = [
        m for m in re.finditer(r"(?<![\w.\-])\d+(?:\.\d+)?(?![\w.])", thinking) if m[0] in known and float(m[0]) >= 10
    ]
    if not own:
        return None
    match = rng.choice(own)
    value = float(match[0])
    changed = value
    while f"{changed:g}" in known or changed == value:
        changed = round(value * rng.choice((0.6, 0.75, 1.3, 1.6, 1.9)), 1 if "." in match[0] else None)
    return f"{thinking[: match.start()]}{changed:g}{thinking[match.end() :]}"


def _flip_result(question: str, thinking: str, rng: random.Random) -> str | None:
    places = []
    for pair in _FLIPS:
        for old, new in (pair, pair[::-1]):
            for match in re.finditer(rf"([\w-]+ |[{HAN}]+){old}(?![a-z])", thinking):
                if match[0] in question:
                    places.append((match.end() - len(old), old, new))
    if not places:
        return None
    at, old, new = rng.choice(places)
    return thinking[:at] + new + thinking[at + len(old) :]


def read_chains(path: Path) -> tuple[list[Case], list[Prediction]]:
    """Aligned cases and predictions of a file of chains; every case keeps its own reference."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; give traces.jsonl or a list of problems with their chains")
    if path.suffix == ".jsonl":
        rows = [(row.question, row.reference, row.thinking, row.response, row.language, row.specialty)
                for row in read_jsonl(path, Trace) if row.accepted]  # fmt: skip
    else:
        try:
            taken = [
                (row["Question"], row.get("Ground-True Answer") or row["Response"], row["Complex_CoT"], row["Response"])
                for row in json.loads(path.read_bytes())
            ]
            if not all(isinstance(text, str) and text.strip() for row in taken for text in row):
                raise ValueError("a field that is no text")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UserError(f"{path}: not a list of objects with Question, Complex_CoT and Response") from None
        rows = [(*row, "zh" if has_han(row[0]) else "en", "unknown") for row in taken]
    cases, predictions = [], []
    for number, (question, reference, thinking, response, language, specialty) in enumerate(rows):
        name = f"chain-{number}"
        cases.append(Case(id=name, question=question, references=[reference], language=language, specialty=specialty))
        predictions.append(
            Prediction(case_id=name, output="", thinking=thinking, response=response, outcome=Outcome.OK)
        )
    return cases, predictions
