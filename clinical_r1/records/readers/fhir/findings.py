"""Observations, reports, medicines and allergies as text. Values stand as they were written; nothing unread is silent.

Observation obs-7: a value or components, https://hl7.org/fhir/R4/observation.html
"""

from collections import Counter
from typing import Any

from clinical_r1.records.readers.fhir.concepts import codings, concept_text, each, table, terms, words
from clinical_r1.records.readers.fhir.store import Resource, Store
from clinical_r1.records.values import as_text

_YES = {"en": ("yes", "no"), "zh": ("是", "否")}


def stands(resource: Resource, lost: Counter[str], kind: str) -> bool:
    """Is its status (missing: assumed) one in which it may be believed? Counts it by its status otherwise."""
    status = words(resource.get("status") or [])
    if status <= terms("standing"):
        return True
    lost[f"{kind} ({_known(status)})"] += 1
    return False


def _known(status: set[str]) -> str:
    return next((name for name in table()["not_standing"] if name in status), "of a status that is not read")


def observation(resource: Resource, language: str, lost: Counter[str]) -> str:
    """`name value unit (interpretation; reference range)`, with components after it; "" for one that says nothing."""
    if not stands(resource, lost, "Observation"):
        return ""
    name = concept_text(resource.get("code"))
    if not name:
        lost["Observation (without a name)"] += 1
        return ""
    if site := concept_text(resource.get("bodySite")):
        name += f" ({site})"
    parts = [value] if (value := value_of(resource, language)) else []
    for component in each(resource.get("component")):
        inner, said = concept_text(component.get("code")), value_of(component, language)
        if inner and said:
            parts.append(f"{inner} {said}{_aside(component)}")
        else:
            lost["Observation.component (without a value)"] += 1
    if not parts:
        if not resource.get("hasMember"):
            lost["Observation (without a value)"] += 1
        return ""
    note = "; ".join(filter(None, (_plain(n.get("text")) for n in each(resource.get("note")))))
    colon = ":" if resource.get("component") and not value else ""
    return f"{name}{colon} {', '.join(parts)}{_aside(resource)}" + (f" [{note}]" if note else "")


def _aside(resource: Resource) -> str:
    said = [text for one in each(resource.get("interpretation")) if (text := _interpretation(one))]
    said += [text for one in each(resource.get("referenceRange")) if (text := _reference_range(one))]
    return f" ({'; '.join(said)})" if said else ""


def _interpretation(concept: Any) -> str:
    if text := concept_text(concept):
        return text
    return next(
        (found for c in codings(concept) if (found := table()["interpretations"].get(str(c.get("code")).upper()))), ""
    )


def _reference_range(one: dict[str, Any]) -> str:
    text = _plain(one.get("text")) or _range(one)
    return f"reference {text}" if text else ""


def value_of(resource: Resource, language: str) -> str:
    """The `value[x]` of an observation or component, of any type, as written; "" for none."""
    for key, value in resource.items():
        if key.startswith("value") and len(key) > 5 and value is not None:
            return _typed(key[5:], value, language)
    return ""


def _typed(kind: str, value: Any, language: str) -> str:
    if kind == "Boolean":
        yes, no = _YES[language]
        return {"true": yes, "false": no}.get(str(value).casefold(), "")
    if kind in ("Quantity", "SimpleQuantity", "Age", "Count", "Distance", "Duration", "Money"):
        return quantity(value)
    if kind == "CodeableConcept":
        return concept_text(value) or next((str(c["code"]) for c in codings(value) if c.get("code")), "")
    if kind == "Range":
        return _range(value)
    if kind == "Ratio":
        top, bottom = (value.get(part) or {} for part in ("numerator", "denominator"))
        mark = ":" if not (top.get("unit") or bottom.get("unit")) else " / "
        return f"{quantity(top)}{mark}{quantity(bottom)}" if quantity(top) and quantity(bottom) else ""
    if kind == "Period":
        return " to ".join(filter(None, (_plain(value.get("start")), _plain(value.get("end")))))
    if kind == "SampledData":
        return ""  # a curve is no text; counted as an observation without a value
    return _plain(value)


def _plain(value: Any) -> str:
    return "" if isinstance(value, dict | list) else as_text(value)


def quantity(value: Any) -> str:
    """`<0.01 ng/mL`: comparator, number and unit as written."""
    if not isinstance(value, dict) or value.get("value") is None:
        return ""
    unit = _plain(value.get("unit")) or _plain(value.get("code"))
    number = f"{_plain(value.get('comparator'))}{_plain(value['value'])}"
    return f"{number}{'' if unit in ('%', '') else ' '}{'' if unit in ('1', '{score}') else unit}".strip()


def _range(value: dict[str, Any]) -> str:
    low, high = value.get("low") or {}, value.get("high") or {}
    if quantity(low) and quantity(high):
        same = low.get("unit") == high.get("unit") or not low.get("unit")
        return f"{_plain(low['value']) if same else quantity(low)}-{quantity(high)}"
    return f">={quantity(low)}" if quantity(low) else f"<={quantity(high)}" if quantity(high) else ""


def medication(resource: Resource, store: Store, doc: int, lost: Counter[str]) -> str:
    """The medicine of a statement with its dosage as text; "" for one that is not taken."""
    if not stands(resource, lost, "MedicationStatement"):
        return ""
    target = resource.get("medicationReference") or (resource.get("medication") or {}).get("reference")
    name = concept_text(resource.get("medicationCodeableConcept")) or concept_text(resource.get("medication"))
    if not name and target:
        found = store.resolve(target, doc, "Medication", resource)
        name = concept_text((found or {}).get("code")) or _plain(
            (target if isinstance(target, dict) else {}).get("display")
        )
    if not name:
        lost["MedicationStatement (without a name)"] += 1
        return ""
    doses = [text for one in each(resource.get("dosage")) if (text := _plain(one.get("text")))]
    return " ".join([name, *doses])


def allergy(resource: Resource, lost: Counter[str]) -> str:
    """What the patient is allergic to, with the reactions; a mark where it is not confirmed."""
    status = words(resource.get("verificationStatus") or []) | words(resource.get("status") or [])
    if status & {"refuted", "entered-in-error"}:
        lost[f"AllergyIntolerance ({_known(status)})"] += 1
        return ""
    name = concept_text(resource.get("code")) or concept_text(resource.get("substance"))
    if not name:
        lost["AllergyIntolerance (without a name)"] += 1
        return ""
    said = [concept_text(m) for reaction in each(resource.get("reaction")) for m in each(reaction.get("manifestation"))]
    said += ["unconfirmed"] if "unconfirmed" in status else []
    said = list(filter(None, said))
    return f"{name} ({', '.join(said)})" if said else name
