"""Which condition of an encounter is its diagnosis: stated by `Encounter.diagnosis`, confirmed, and a disorder.

What is not read as confirmed is not confirmed. https://hl7.org/fhir/R4/encounter-definitions.html#Encounter.diagnosis
"""

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from clinical_r1.records.readers.fhir.concepts import (
    codings,
    concept_text,
    each,
    table,
    tag,
    terms,
    without_tag,
    words,
)
from clinical_r1.records.readers.fhir.store import Resource, Store

_NEVER = 9
"""Priority of a use that never names the diagnosis."""


@dataclass
class Diagnosis:
    """The diagnosis of an encounter, or why there is none."""

    name: str = ""
    icd10: str = ""
    icd9: str = ""
    snomed: str = ""
    codes: set[str] = field(default_factory=set)
    """All its codes, to know it again in the reason for the visit."""
    lost: Counter[str] = field(default_factory=Counter)
    why: str = ""


def diagnosis_of(encounter: Resource, linked: list[Resource], store: Store, doc: int) -> Diagnosis:
    """The diagnosis by use and rank, else by category, of those conditions that are confirmed disorders with a name."""
    result = Diagnosis()
    every = _stated(encounter, store, doc, result.lost)
    stated = [(place, c) for place, c in every if place[0] < _NEVER]
    named = {json.dumps(c, sort_keys=True) for _, c in every}
    others = [c for c in linked if json.dumps(c, sort_keys=True) not in named]
    ranked = [(rank, c) for rank, c in stated if _usable(c, result.lost)]
    fitting = [c for c in others if _usable(c, result.lost) and _category_fits(c, result.lost)]
    free = [((1 if _is_encounter_diagnosis(c) else 2, 0.0, index), c) for index, c in enumerate(fitting)]
    if not ranked:
        best = min((place[0] for place, _ in free), default=0)
        ranked = [(place, c) for place, c in free if place[0] == best]
        result.lost["Condition (not the diagnosis)"] += len(free) - len(ranked)
    else:
        result.lost["Condition (not the diagnosis)"] += len(free)
    if not ranked:
        result.why = _why(+result.lost)
        return result
    reason = {str(c.get("code")) for c in codings(encounter.get("reasonCode")) + codings(encounter.get("reason"))} - {
        "None"
    }
    if not stated:  # nothing ranks them: the one that the visit was for, then a coded one, then the first
        ranked = [((not reason & _codes(c), not _code(c, "icd10_systems"), place), c) for place, c in ranked]  # type: ignore[misc]
    chosen = min(ranked, key=lambda pair: pair[0])[1]
    result.lost["Condition (not the diagnosis)"] += len(ranked) - 1
    result.lost = +result.lost
    result.name = without_tag(_name(chosen))
    result.icd10, result.icd9 = _code(chosen, "icd10_systems"), _code(chosen, "icd9_systems")
    result.snomed, result.codes = _code(chosen, "snomed_systems"), _codes(chosen)
    return result


def _why(lost: Counter[str]) -> str:
    kinds = ", ".join(
        sorted(kind.removeprefix("Condition ").strip("()") for kind in lost if kind.startswith("Condition ("))
    )
    return "Condition: none with a name for this encounter that is confirmed and a disorder" + (
        f" ({kinds})" if kinds else ""
    )


def _stated(
    encounter: Resource, store: Store, doc: int, lost: Counter[str]
) -> list[tuple[tuple[int, float, int], Resource]]:
    found = []
    for index, entry in enumerate(each(encounter.get("diagnosis"))):
        use = _priority(words(entry.get("use") or entry.get("role") or []))
        if use == _NEVER:
            lost["Condition (complaint, comorbidity or differential)"] += 1
        rank = _number(entry.get("rank"))
        for target in each(entry.get("condition")):
            reference = target.get("reference") if isinstance(target.get("reference"), dict) else target
            if isinstance(target.get("concept"), dict):
                condition: Resource | None = {"resourceType": "Condition", "code": target["concept"]}
            else:
                condition = store.resolve(reference, doc, "Condition", encounter)
            if condition is None:
                lost["Condition (not in the source)"] += 1
                continue
            found.append(((use, rank, index), condition))
    return found


def _number(rank: Any) -> float:
    try:
        return float(rank)
    except (TypeError, ValueError):
        return float("inf")


def _priority(use: set[str]) -> int:
    for priority, names in table()["uses"].items():
        if use & set(names):
            return _NEVER if priority == "never" else int(priority)
    return 1


def _usable(condition: Resource, lost: Counter[str]) -> bool:
    """Confirmed (or without a status), named and a disorder; counts what it turns down."""
    status = words(condition.get("verificationStatus") or [])
    if status and not status <= terms("confirmed"):
        known = status & terms("not_confirmed")
        lost[f"Condition ({min(known) if known else 'of a status that is not read'})"] += 1
        return False
    if "entered-in-error" in words(condition.get("clinicalStatus") or []):
        lost["Condition (entered-in-error)"] += 1
        return False
    name = _name(condition)
    if not name:
        lost["Condition (without a name)"] += 1
    elif not _is_disorder(condition, name):
        lost["Condition (no disorder)"] += 1
    else:
        return True
    return False


@cache
def _social() -> re.Pattern[str]:
    english = "|".join(map(re.escape, terms("social_words")))
    return re.compile(rf"\b(?:{english})\b|" + "|".join(terms("social_words_zh")), re.IGNORECASE)


@cache
def _no_disease() -> re.Pattern[str]:
    return re.compile("|".join(table()["no_disease"]), re.IGNORECASE)


def _is_disorder(condition: Resource, name: str) -> bool:
    tags = {tag(text) for text in (name, *(str(c.get("display") or "") for c in codings(condition.get("code"))))} - {""}
    if tags & terms("disorder_tags"):
        return True
    code = _code(condition, "icd10_systems").upper()
    social = bool(_social().search(name)) or bool(_codes(condition) & terms("social_codes"))
    stated = not tags and not code.startswith(("Z", "V", "W", "X", "Y"))
    return stated and (bool(code) or not (social or _no_disease().search(name.strip())))


def _is_encounter_diagnosis(condition: Resource) -> bool:
    return bool(words(condition.get("category") or []) & terms("encounter_diagnosis"))


def _category_fits(condition: Resource, lost: Counter[str]) -> bool:
    category = words(condition.get("category") or [])
    if _is_encounter_diagnosis(condition) or not category & terms("other_categories"):
        return True
    lost["Condition (of another category)"] += 1
    return False


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
