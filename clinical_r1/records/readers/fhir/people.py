"""Who and what identifies in the structured fields of FHIR: names of patients, relatives, contacts and staff, numbers."""

from typing import Any

from clinical_r1.records.readers.fhir.concepts import each
from clinical_r1.records.readers.fhir.store import Resource, Store
from clinical_r1.records.values import is_no_person

_PERSONS = ("practitioner", "relatedperson", "patient", "person", "practitionerrole")


def names_of(resource: Resource) -> list[str]:
    """Every name of a person, in each order that notes write it (family first without a space in Chinese)."""
    found: list[str] = []
    for name in each(resource.get("name")):
        given = [
            str(part)
            for part in (name.get("given") if isinstance(name.get("given"), list) else [name.get("given")])
            if part
        ]
        family = (
            " ".join(map(str, name["family"]))
            if isinstance(name.get("family"), list)
            else str(name.get("family") or "")
        )
        found += [" ".join(filter(None, (*given, family))), str(name.get("text") or "")]
        if family and any("\u3400" <= char <= "\u9fff" for char in family):
            found.append(family + "".join(given))
    return [name for name in dict.fromkeys(found) if name.strip() and not is_no_person(name)]


def identifiers(resource: Resource) -> list[str]:
    """Numbers, telecom, lines and places of addresses, and the birth date."""
    values = [str(item.get("value") or "") for key in ("identifier", "telecom") for item in each(resource.get(key))]
    for address in each(resource.get("address")):
        lines = address.get("line")
        values += [str(line) for line in (lines if isinstance(lines, list) else [lines]) if line]
        values += [str(address.get(key) or "") for key in ("text", "city", "district", "postalCode")]
    values.append(str(resource.get("birthDate") or ""))
    return [value for value in values if value.strip() and not is_no_person(value)]


def people_of(resource: Any, store: Store, doc: int, depth: int = 8) -> list[str]:
    """Names that a resource tells of persons: displays of references to them, and the names of whom these lead to."""
    found: list[str] = []
    if depth and isinstance(resource, list):
        for one in resource:
            found += people_of(one, store, doc, depth - 1)
    elif depth and isinstance(resource, dict):
        target = resource.get("reference")
        if isinstance(target, str):
            kind = str(
                resource.get("type")
                or target.split("?")[0].rstrip("/").split("/")[-2 if "?" not in target and "/" in target else -1]
            )
            person = kind.casefold() in _PERSONS or target.startswith("urn:")
            body = store.resolve(resource, doc, kind if kind.casefold() in _PERSONS else "") if person else None
            is_person = (body or {}).get("resourceType", kind).casefold() in _PERSONS
            if body and is_person:
                found += names_of(body)
            if is_person and resource.get("display"):
                found.append(str(resource["display"]))
        for key, value in resource.items():
            if key in (
                "individual",
                "actor",
                "author",
                "performer",
                "recorder",
                "asserter",
                "informationSource",
            ) or isinstance(value, dict | list):
                if key == "contained":
                    for inner in each(value):
                        found += names_of(inner) if str(inner.get("resourceType")).casefold() in _PERSONS else []
                elif isinstance(value, dict | list):
                    for one in each(value):
                        if key in ("individual", "actor", "author", "performer", "recorder", "asserter") and one.get(
                            "display"
                        ):
                            found.append(str(one["display"]))
                    found += people_of(value, store, doc, depth - 1)
    return [name for name in dict.fromkeys(found) if not is_no_person(name)]
