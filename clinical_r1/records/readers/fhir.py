"""FHIR R4 bundles (and NDJSON of resources): one case an encounter that has a coded or named condition.

Patient gives identity, sex and age; Encounter site and date; Condition the reference and its ICD-10 code; Observation
the findings; DocumentReference the notes (text/plain attachments held inline). What identifies in structured fields
(names, identifiers, telecom, address lines, birth date) goes to the gate's memory and is removed from the notes.
https://hl7.org/fhir/R4/bundle.html
"""

import base64
import binascii
import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.privacy.bands import age_band
from clinical_r1.privacy.known import Known
from clinical_r1.records.config import Source
from clinical_r1.records.readers.files import jsonl_items, load_json
from clinical_r1.records.row import Reject, Row, RowError, detect_language

Resource = dict[str, Any]
_ICD_SYSTEMS = ("icd-10", "icd10", "2.16.840.1.113883.6.3", "2.16.840.1.113883.6.90")
_ASK = {"en": "What is the most likely diagnosis?", "zh": "最可能的诊断是什么？"}
_FINDINGS = {"en": "Findings: ", "zh": "检查所见："}
_REASON = {"en": "Reason for visit: ", "zh": "就诊原因："}


def read_fhir(source: Source) -> Iterator[Row | Reject]:
    """Cases of a bundle file, an NDJSON file of resources, or a folder of either; `line` counts encounters."""
    path = Path(source.path)
    files = sorted(f for f in path.rglob("*") if f.suffix in (".json", ".ndjson")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{source.path}: no *.json or *.ndjson file in this folder; expected FHIR bundles")
    for file in files:
        resources: list[Resource] = []
        if file.suffix == ".ndjson":
            for entry in jsonl_items(str(file)):
                if isinstance(entry, Reject):
                    yield entry
                else:
                    resources.append(entry[1])
        else:
            resources = _entries(load_json(str(file)), str(file))
        yield from _cases(resources, str(file), source)


def _entries(document: Any, path: str) -> list[Resource]:
    if not isinstance(document, dict) or "resourceType" not in document:
        raise UserError(f"{path}: no FHIR resource; expected a Bundle (resourceType is missing)")
    if document["resourceType"] != "Bundle":
        return [document]
    found = [entry.get("resource") for entry in document.get("entry", []) if isinstance(entry, dict)]
    return [resource for resource in found if isinstance(resource, dict)]


def _cases(resources: list[Resource], path: str, source: Source) -> Iterator[Row | Reject]:
    by_type: dict[str, list[Resource]] = defaultdict(list)
    for resource in resources:
        by_type[str(resource.get("resourceType"))].append(resource)
    patients = {str(patient.get("id")): patient for patient in by_type["Patient"]}
    staff = [name for r in (*by_type["Practitioner"], *by_type["RelatedPerson"]) for name in _names(r)]
    linked: dict[str, list[Resource]] = defaultdict(list)
    for kind in ("Condition", "Observation", "DocumentReference"):
        for resource in by_type[kind]:
            linked[_encounter_of(resource)].append(resource)
    if not by_type["Encounter"]:
        raise UserError(f"{path}: the bundle has no Encounter; cases are made from encounters")
    for number, encounter in enumerate(by_type["Encounter"], 1):
        try:
            patient = patients.get(_id(encounter.get("subject")), {})
            yield _case(encounter, patient, linked[str(encounter.get("id"))], staff, path, number, source)
        except RowError as error:
            yield Reject(file=path, line=number, reason=str(error))
        except (AttributeError, TypeError):
            yield Reject(file=path, line=number, reason="Encounter: a resource has the wrong shape")


def _case(
    encounter: Resource,
    patient: Resource,
    linked: list[Resource],
    staff: list[str],
    path: str,
    number: int,
    source: Source,
) -> Row:
    if not patient:
        raise RowError("Encounter.subject: no such Patient in the bundle")
    conditions = [r for r in linked if r["resourceType"] == "Condition" and _reference(r)]
    if not conditions:
        raise RowError("Condition: none with a name for this encounter")
    condition = min(conditions, key=lambda r: not _icd10(r))  # coded ones first, else in order
    notes = [note for r in linked if r["resourceType"] == "DocumentReference" for note in _notes(r)]
    findings = [line for r in linked if r["resourceType"] == "Observation" if (line := _observation(r))]
    reason = [text for concept in encounter.get("reasonCode", []) if (text := _concept(concept))]
    if not notes and not findings:
        raise RowError("DocumentReference, Observation: no note and no finding for this encounter")
    language = detect_language("".join((*notes, *findings, *reason)))
    parts = [_REASON[language] + "; ".join(reason)] if reason else []
    parts += notes + ([_FINDINGS[language] + "; ".join(findings)] if findings else [])
    recorded = str(encounter.get("period", {}).get("start", ""))[:10]
    birth = str(patient.get("birthDate", ""))
    return Row(
        file=path,
        line=number,
        fields={
            "id": str(encounter.get("id", "")),
            "language": language,
            "question": "\n".join([*parts, _ASK[language]]),
            "reference": _reference(condition),
            "icd10": _icd10(condition),
            "site": str(encounter.get("serviceProvider", {}).get("display", "")) or source.site,
            "sex": patient.get("gender") if patient.get("gender") in ("female", "male") else "",
            "age_band": _age(birth, recorded),
            "recorded": recorded,
        },
        patient_id=str(patient.get("id", "")),
        department=_concept(encounter.get("serviceType", {})),
        known=Known(names=[*_names(patient), *staff], numbers=_identifiers(patient)),
    )


def _id(reference: Any) -> str:
    return str(reference.get("reference", "")).removeprefix("urn:uuid:").split("/")[-1] if reference else ""


def _encounter_of(resource: Resource) -> str:
    if resource.get("resourceType") == "DocumentReference":
        found = resource.get("context", {}).get("encounter", [])
        return _id(found[0]) if found else ""
    return _id(resource.get("encounter"))


def _concept(concept: Resource) -> str:
    displays = [str(coding.get("display", "")) for coding in concept.get("coding", [])]
    return str(concept.get("text") or next((d for d in displays if d), "")).strip()


def _reference(condition: Resource) -> str:
    return _concept(condition.get("code", {}))


def _icd10(condition: Resource) -> str:
    for coding in condition.get("code", {}).get("coding", []):
        if any(system in str(coding.get("system", "")).casefold() for system in _ICD_SYSTEMS):
            return str(coding.get("code", ""))
    return ""


def _observation(resource: Resource) -> str:
    name = _concept(resource.get("code", {}))
    quantity = resource.get("valueQuantity", {})
    value = f"{quantity.get('value')} {quantity.get('unit', '')}".strip() if "value" in quantity else ""
    value = value or str(resource.get("valueString", "")) or _concept(resource.get("valueCodeableConcept", {}))
    return f"{name} {value}".strip() if name and value else ""


def _notes(document: Resource) -> Iterator[str]:
    for content in document.get("content", []):
        attachment = content.get("attachment", {})
        if str(attachment.get("contentType", "text/plain")).split(";")[0] == "text/plain" and attachment.get("data"):
            try:
                yield base64.b64decode(attachment["data"], validate=True).decode("utf-8").strip()
            except (binascii.Error, UnicodeDecodeError):
                raise RowError("DocumentReference.content.attachment.data: not base64 of UTF-8 text") from None


def _names(resource: Resource) -> list[str]:
    found = []
    for name in resource.get("name", []):
        given, family = [str(part) for part in name.get("given", [])], str(name.get("family", ""))
        found += [" ".join(filter(None, (*given, family))), str(name.get("text", ""))]
        if family and any("\u3400" <= char <= "\u9fff" for char in family):
            found.append(family + "".join(given))
    return [name for name in dict.fromkeys(found) if name]


def _identifiers(patient: Resource) -> list[str]:
    values = [str(item.get("value", "")) for key in ("identifier", "telecom") for item in patient.get(key, [])]
    for address in patient.get("address", []):
        values += [str(line) for line in address.get("line", [])]
        values += [str(address.get(key, "")) for key in ("text", "city", "district", "postalCode")]
    return [value for value in (*values, str(patient.get("birthDate", ""))) if value]


def _age(birth: str, recorded: str) -> str:
    try:
        born, seen = date.fromisoformat(birth), date.fromisoformat(recorded)
    except ValueError:
        return ""
    return age_band(max(0, seen.year - born.year - ((seen.month, seen.day) < (born.month, born.day))))


def is_fhir(path: str) -> bool:
    """Does a folder, or a JSON document, look like FHIR?"""
    file = Path(path)
    if file.is_dir() or file.suffix == ".ndjson":
        return True
    with file.open("rb") as handle:
        head = handle.read(4096)
    try:
        return b'"resourceType"' in head and isinstance(json.loads(file.read_text("utf-8-sig")), dict)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return False
