"""Which condition of an encounter is its diagnosis: stated by `Encounter.diagnosis`, confirmed, and a disorder.

What is not read as confirmed is not confirmed. https://hl7.org/fhir/R4/encounter-definitions.html#Encounter.diagnosis
"""

import json
import re
from collections import Counter
from functools import cache
from typing import Any, NamedTuple

from clinical_r1.records.readers.fhir.store import Visit
from clinical_r1.records.readers.fhir.terms import (
    Resource,
    codings,
    concept_text,
    each,
    table,
    tag,
    terms,
    without_tag,
    words,
)
from clinical_r1.records.row import UnusableError

_NEVER = 9
"""Priority of a use that never names the diagnosis."""
_OTHER = "Condition (not the diagnosis)"
_Place = tuple[int, float, int]
"""Use, rank and order of an entry of `Encounter.diagnosis`; the lowest is the diagnosis."""


class Diagnosis(NamedTuple):
    """The diagnosis of an encounter."""

    name: str
    icd10: str
    foreign: list[str]
    """Its codes of ICD-9 and SNOMED CT."""
    codes: set[str]
    """All its codes, to know it again in the reason for the visit."""


def diagnosis_of(visit: Visit, linked: list[Resource]) -> Diagnosis:
    """The diagnosis by use and rank, else by category, of those conditions that are confirmed disorders with a name;
    UnusableError where there is none."""
    encounter, lost = visit.body, visit.lost
    every = _stated(visit)
    stated = [(place, c) for place, c in every if place[0] < _NEVER]
    named = {json.dumps(c, sort_keys=True) for _, c in every}
    others = [c for c in linked if json.dumps(c, sort_keys=True) not in named]
    ranked: list[tuple[Any, Resource]] = [(rank, c) for rank, c in stated if _usable(c, lost)]
    free = []
    for c in others:
        if _usable(c, lost):
            category = words(c.get("category") or [])
            is_diagnosis = bool(category & terms("encounter_diagnosis"))
            if is_diagnosis or not category & terms("other_categories"):
                free.append((1 if is_diagnosis else 2, c))
            else:
                lost["Condition (of another category)"] += 1
    if not ranked:
        best = min((place for place, _ in free), default=0)
        ranked = [((place, index), c) for index, (place, c) in enumerate(free) if place == best]
        lost[_OTHER] -= len(ranked)
    lost[_OTHER] += len(free)
    if not ranked:
        kinds = sorted(kind.removeprefix("Condition (").rstrip(")") for kind, count in lost.items() if count)
        why = "Condition: none with a name for this encounter that is confirmed and a disorder"
        raise UnusableError(why + (f" ({', '.join(kinds)})" if kinds else ""))
    if not stated:  # nothing ranks them: the one that the visit was for, then a coded one, then the first
        coded = codings(encounter.get("reasonCode")) + codings(encounter.get("reason"))
        reason = {str(c["code"]) for c in coded if c.get("code") is not None}
        ranked = [((not reason & _codes(c), not _code(c, "icd10_systems"), place), c) for place, c in ranked]
    chosen = min(ranked, key=lambda pair: pair[0])[1]
    lost[_OTHER] += len(ranked) - 1
    foreign = [code for systems in ("icd9_systems", "snomed_systems") if (code := _code(chosen, systems))]
    return Diagnosis(without_tag(_name(chosen)), _code(chosen, "icd10_systems"), foreign, _codes(chosen))


def _stated(visit: Visit) -> list[tuple[_Place, Resource]]:
    """The conditions that `Encounter.diagnosis` names."""
    found = []
    for index, entry in enumerate(each(visit.body.get("diagnosis"))):
        said = words(entry.get("use") or entry.get("role") or [])
        use = next((priority for priority, names in table()["uses"].items() if said & set(names)), 1)
        if use == "never":
            visit.lost["Condition (complaint, comorbidity or differential)"] += 1
        try:
            rank = float(entry["rank"])
        except (KeyError, TypeError, ValueError):
            rank = float("inf")
        for target in each(entry.get("condition")):
            reference = target.get("reference") if isinstance(target.get("reference"), dict) else target
            if isinstance(target.get("concept"), dict):
                condition: Resource | None = {"resourceType": "Condition", "code": target["concept"]}
            else:
                condition = visit.resolve(reference, "Condition", visit.body)
            if condition is None:
                visit.lost["Condition (not in the source)"] += 1
            else:
                found.append(((_NEVER if use == "never" else int(use), rank, index), condition))
    return found


def _usable(condition: Resource, lost: Counter[str]) -> bool:
    """Confirmed (or without a status), named and a disorder; counts what it turns down."""
    status, why = words(condition.get("verificationStatus") or []), ""
    if status and not status <= terms("confirmed"):
        known = status & terms("not_confirmed")
        why = min(known) if known else "of a status that is not read"
    elif "entered-in-error" in words(condition.get("clinicalStatus") or []):
        why = "entered-in-error"
    elif not without_tag(name := _name(condition)):
        why = "without a name"
    elif not _is_disorder(condition, name):
        why = "no disorder"
    if why:
        lost[f"Condition ({why})"] += 1
    return not why


@cache
def _other_names() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Social findings, and names of no disease."""
    english = "|".join(map(re.escape, terms("social_words")))
    social = rf"\b(?:{english})\b|" + "|".join(terms("social_words_zh"))
    return re.compile(social, re.IGNORECASE), re.compile("|".join(table()["no_disease"]), re.IGNORECASE)


def _is_disorder(condition: Resource, name: str) -> bool:
    tags = {tag(text) for text in (name, *(str(c.get("display") or "") for c in codings(condition.get("code"))))} - {""}
    code = _code(condition, "icd10_systems").upper()
    if tags or code:
        return bool(tags & terms("disorder_tags")) or not (tags or code.startswith(("Z", "V", "W", "X", "Y")))
    named = any(pattern.search(name.strip()) for pattern in _other_names())
    return not named and not _codes(condition) & terms("social_codes")


def _name(condition: Resource) -> str:
    """The condition's text, else the display of its ICD-10 coding, else any other."""
    code = condition.get("code")
    text = concept_text([{"text": one.get("text")} for one in each(code) if one.get("text")])
    coded = [c for c in codings(code) if _in(c, "icd10_systems")]
    return text or concept_text({"coding": coded}) or concept_text(code)


def _in(coding: Resource, systems: str) -> bool:
    system = str(coding.get("system") or "").casefold().replace(" ", "")
    return any(
        system == one or (one in system and not one[0].isdigit()) or system.endswith(f":{one}")
        for one in terms(systems)
    )


def _code(condition: Resource, systems: str) -> str:
    return next((str(c["code"]) for c in codings(condition.get("code")) if c.get("code") and _in(c, systems)), "")


def _codes(condition: Resource) -> set[str]:
    return {str(c["code"]) for c in codings(condition.get("code")) if c.get("code")}
