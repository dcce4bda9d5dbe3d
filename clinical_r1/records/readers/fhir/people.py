"""Who and what identifies in the structured fields of FHIR: names of patients, relatives, contacts and staff,
numbers."""

from typing import Any

from clinical_r1.records.readers.fhir.concepts import each, terms
from clinical_r1.records.readers.fhir.store import Resource, Store
from clinical_r1.records.values import is_no_person
from clinical_r1.text import has_han

_ROLES = frozenset({"individual", "actor", "author", "performer", "recorder", "asserter", "informationSource", "party"})
"""Elements that name who did something, also where the reference does not say that it leads to a person."""


def names_of(resource: Resource) -> list[str]:
    """Every name of a person, in each order that notes write it (family first without a space in Chinese)."""
    found: list[str] = []
    for name in each(resource.get("name")):
        given, family = _texts(name.get("given")), " ".join(_texts(name.get("family")))
        found += [" ".join(filter(None, (*given, family))), *_texts(name.get("text"))]
        if has_han(family):
            found.append(family + "".join(given))
    return [name for name in dict.fromkeys(found) if not is_no_person(name)]


def _texts(value: Any) -> list[str]:
    return [str(one) for one in (value if isinstance(value, list) else [value]) if one]


def identifiers(resource: Resource) -> list[str]:
    """Numbers, telecom, lines and places of addresses, and the birth date."""
    values = [
        text
        for key in ("identifier", "telecom")
        for item in each(resource.get(key))
        for text in _texts(item.get("value"))
    ]
    for address in each(resource.get("address")):
        values += [
            text for key in ("line", "text", "city", "district", "postalCode") for text in _texts(address.get(key))
        ]
    values += _texts(resource.get("birthDate"))
    return [value for value in values if not is_no_person(value)]


def people_of(resource: Any, store: Store, doc: int, depth: int = 8) -> list[str]:
    """Names that a resource tells of persons: displays of references to them, and the names of whom these lead to."""
    found: list[str] = []
    for one in each(resource) if depth else ():
        found += _referred(one, store, doc)
        for key, value in one.items():
            if key == "contained":
                found += [
                    name for inner in each(value) if _is_person(inner.get("resourceType")) for name in names_of(inner)
                ]
            elif isinstance(value, dict | list):
                if key in _ROLES:
                    found += [str(target["display"]) for target in each(value) if target.get("display")]
                found += people_of(value, store, doc, depth - 1)
    return [name for name in dict.fromkeys(found) if not is_no_person(name)]


def _referred(reference: Resource, store: Store, doc: int) -> list[str]:
    """The person that a reference leads to."""
    target = reference.get("reference")
    if not isinstance(target, str):
        return []
    parts = target.split("?")[0].rstrip("/").split("/")
    kind = str(reference.get("type") or (parts[-1] if "?" in target else parts[-2] if len(parts) > 1 else ""))
    if not _is_person(kind) and not target.startswith("urn:"):
        return []
    body = store.resolve(reference, doc, kind if _is_person(kind) else "") or {}
    if not _is_person(body.get("resourceType") or kind):
        return []
    return [*names_of(body), *_texts(reference.get("display"))]


def _is_person(kind: Any) -> bool:
    return str(kind or "").casefold() in terms("persons")
