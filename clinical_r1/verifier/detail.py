"""More detail than the reference gives: which additions to a name leave the diagnosis what it is.

Side, site, organism, severity and a plain cause may be added to a reference that says nothing of them (`detail.yaml`).
Everything else that stands beside the name (unstable, aspiration, gestational, post-, non-, with empyema) may make
another disease of it, and is never taken for detail.
"""

import re
from pathlib import Path

from clinical_r1.atomic import read_table
from clinical_r1.text import has_han
from clinical_r1.verifier.normalise import RELATIONS, in_order, normalise, words

TABLE = read_table(Path(__file__).with_suffix(".yaml"))
_KINDS = {
    name: {key: frozenset(words(value)) if isinstance(value, str) else value for key, value in kind.items()}
    for name, kind in TABLE["english"].items()
}
_SIDES, _SEVERITIES, _PLACES = (_KINDS[name]["words"] for name in ("side", "severity", "place"))
_COMPANIONS, _VAGUE = _SEVERITIES | _SIDES | set(TABLE["companions"].split()), set(TABLE["vague"].split())
_CAUSES = _KINDS["organism"]["words"] | _SIDES | _SEVERITIES | set(TABLE["causes"].split())
_LEVEL, _MEASURE, _GRADE = (re.compile(TABLE[name]) for name in ("level", "measure", "grade"))
_CAUSE = ("due to", "caused by", "from", "following", "secondary to", "after")
_CHINESE = {
    name: (re.compile(kind["pattern"]), re.compile(kind.get("of", ""))) for name, kind in TABLE["chinese"].items()
}
_TWO_THINGS = re.compile(TABLE["two_things"])
_IN_PARENTHESIS = re.compile(
    "|".join(
        f"(?:{pattern})"
        for pattern in (*TABLE["parenthesis"], f"(?:{_CHINESE['side'][0].pattern})侧?", _CHINESE["severity"][0].pattern)
    )
)
_SIDE_OF = re.compile(r"(?:左|右|两侧|双)([肺肾眼耳膝髋肩乳])(?:[上中下]叶)?")
"""The organ stays where the name needs it: `左肾多发结石`."""
_DISC_LEVEL = re.compile(r"(?:l\d|腰\d)(?:[l腰s骶]?\d)*(?=椎间盘)")


def fits_english(phrase: list[str], reference: list[str]) -> bool:
    """Are the words of a name (in order; see `normalise.words`) the reference's and nothing but detail beside?"""
    if not RELATIONS.isdisjoint(reference) or in_order(reference):
        return False
    phrase = _MEASURE.sub(" ", " ".join(phrase)).split()
    at = next((index for index, word in enumerate(phrase) if word in RELATIONS), len(phrase))
    end = next((index for index in range(at, len(phrase)) if phrase[index] not in RELATIONS), len(phrase))
    extras, relation, rest = phrase[:at], " ".join(phrase[at:end]), phrase[end:]  # `due to`, and what stands behind
    for word in reference:
        if word not in extras:
            return False
        extras.remove(word)
    return _additions_fit(extras, reference) and (not relation or _complement_fits(relation, rest, reference))


def _additions_fit(extras: list[str], reference: list[str]) -> bool:
    rest = " ".join(extras)
    if _GRADE.search(rest):
        if not {"grade", "stage", "class", "type"}.isdisjoint(reference):
            return False
        rest = _GRADE.sub(" ", rest)
    left = set(rest.split())
    levels = {word for word in left if _LEVEL.fullmatch(word)}
    if levels and any(_LEVEL.fullmatch(word) for word in reference):
        return False
    left -= levels
    sided = not _SIDES.isdisjoint(left)
    for kind in _KINDS.values():
        named = left & kind["words"]
        if not named or (kind.get("sided") and not sided) or ("of" in kind and kind["of"].isdisjoint(reference)):
            continue
        telling = kind["words"] - kind.get("neutral", frozenset())
        if not kind.get("sided") and not telling.isdisjoint(reference):
            return False  # the reference says something of that kind, and something else
        if kind.get("one") and len(named & telling) > 1:
            return False
        left -= named
    return not left


def _complement_fits(relation: str, rest: list[str], reference: list[str]) -> bool:
    if not rest:
        return False
    if relation in _CAUSE:
        return set(rest) <= _CAUSES
    if relation == "without":  # what is denied is no part of the name
        return len(rest) <= 4 and not _VAGUE.intersection(rest) and not set(reference).intersection(rest)
    if relation == "with":
        return set(rest) <= _COMPANIONS
    return relation in ("in", "on") and not _SIDES.isdisjoint(rest) and set(rest) <= _SIDES | _PLACES


def fits_chinese(phrase: str, reference: str) -> bool:
    """Is a Chinese name (normalised) the reference (normalised too) and nothing but detail that this leaves open?"""
    if _TWO_THINGS.search(phrase) and not _TWO_THINGS.search(reference):
        return False
    if reference.startswith("腰椎间盘"):
        phrase = _DISC_LEVEL.sub("腰", phrase)
    return any(_without_detail(form, reference) == reference for form in (phrase, _SIDE_OF.sub(r"\1", phrase)))


def _without_detail(phrase: str, reference: str) -> str:
    for kind, (pattern, of) in _CHINESE.items():
        if not of.search(reference):
            continue
        if kind in ("side", "organism") and reference in phrase:
            before, _, after = phrase.rpartition(reference)
            phrase = pattern.sub("", before) + reference + pattern.sub("", after)
        elif not pattern.search(reference):
            phrase = pattern.sub("", phrase)
    return phrase


def parenthesis_fits(inside: str) -> bool:
    """Is what stands in a parenthesis nothing but detail (`L4/5`, `left`, `重度`)?"""
    compact = re.sub(r"[\s/、,，-]+", "", normalise(inside) if has_han(inside) else inside.lower())
    if _IN_PARENTHESIS.fullmatch(compact):
        return True
    tokens = words(inside)
    return bool(tokens) and (_GRADE.fullmatch(" ".join(tokens)) is not None or set(tokens) <= _SIDES | _SEVERITIES)
