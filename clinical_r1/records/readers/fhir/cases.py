"""FHIR R4 (and R5 where it is the same) as cases: bundles, NDJSON of resources or of bundles, bulk export and Synthea
folders. An encounter is a case: who, what was found, what was written, and the one diagnosis.

Patient gives identity, sex and age; Encounter site and date; Observation and DiagnosticReport the findings; notes come
from DocumentReference, DiagnosticReport and Composition. What identifies in structured fields (names of patients,
contacts, relatives and staff, identifiers, telecom, addresses, birth dates) goes to the gate's memory.
https://hl7.org/fhir/R4/encounter.html

A table-driven walk of our own: fhir.resources 8.3 refuses all fifteen R4 bundles of a hospital's kind as R5 and one
more as R4B (one key too many refuses the whole bundle), at 9,700 resources/s; see docs/log.md.
"""

from collections.abc import Iterator
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.privacy.known import Known
from clinical_r1.records import values
from clinical_r1.records.config import Source
from clinical_r1.records.readers.fhir import findings
from clinical_r1.records.readers.fhir.diagnosis import Diagnosis, diagnosis_of
from clinical_r1.records.readers.fhir.store import Store, Visit
from clinical_r1.records.readers.fhir.terms import (
    Resource,
    codings,
    concept_text,
    each,
    tag,
    terms,
    texts,
    without_tag,
    words,
)
from clinical_r1.records.readers.files import DataFile, head_of, safe_name
from clinical_r1.records.row import Reject, Row, RowError, UnusableError, Wanted, reject_of
from clinical_r1.text import has_han, main_language

_FAMILY = 10


def is_fhir(files: list[DataFile]) -> bool:
    """Do the files hold FHIR resources? One that does is enough: exports lie beside other files."""
    return any(b'"resourceType"' in head_of(file, 65536) for file in files[:50])


def read_fhir(files: list[DataFile], source: Source, wanted: Wanted | None = None) -> Iterator[Row | Reject | None]:
    """Cases of all files together; `line` is the encounter's line (NDJSON), or its number in its file or bundle."""
    store = Store()
    rejects = [reject for file in files for reject in store.add_file(file)]
    if not store.documents:
        why = f" ({rejects[0].file}:{rejects[0].line}: {rejects[0].reason})" if rejects else ""
        raise UserError(f"{source.path}: no FHIR resource in it{why}; expected Bundles or NDJSON of resources")
    if not store.last:
        raise UserError(f"{source.path}: the source has no Encounter; cases are made from encounters")
    store.finish()
    # One file the user named: after a patient of it, perhaps.
    told = safe_name(files[0].path, store.patient_names()) if len(files) == 1 else ""
    yield from (reject.model_copy(update={"file": told or reject.file}) for reject in rejects)
    for visit in store.encounters():
        file = told or visit.file
        if wanted is not None and not wanted(file, visit.line):
            yield None
            continue
        try:
            row = _case(visit, source)
        except (AttributeError, TypeError, KeyError, ValueError) as error:
            yield reject_of(error, file, visit.line, "Encounter: a resource has the wrong shape")
            continue
        row.file, row.line = file, visit.line
        if file != visit.file and not source.source:
            row.fields["source"] = file.split(".")[0]
        yield row


def _case(visit: Visit, source: Source) -> Row:
    encounter, linked = visit.body, visit.linked()
    status = words(encounter.get("status") or [])
    if status & terms("encounter_not"):
        raise UnusableError(f"Encounter.status: {min(status)}")
    patient = _patient(visit, linked)
    of = {kind: [body for name, body in linked if name == kind] for kind in terms("of_encounter")}
    diagnosis = diagnosis_of(visit, of["Condition"])
    visit.lost.update(kind for kind, _ in linked if kind not in terms("of_encounter"))
    language, parts = _texts(visit, of, diagnosis)
    seen, gender = _day(encounter, of["Condition"]), str(patient.get("gender"))
    fields = {
        "id": str(encounter.get("id") or ""),
        "language": language,
        "question": "\n".join([*parts, values.word_lists()["phrases"][language]["ask"]]),
        "references": [values.as_text(diagnosis.name)],
        "icd10": diagnosis.icd10,
        "sex": values.sex_of(gender) if gender in ("female", "male") else "",
        "age_band": values.band_at(str(patient.get("birthDate") or ""), seen),
        "recorded": values.iso_date(seen),
    }
    provider = encounter.get("serviceProvider")
    site = concept_text(provider) or str((visit.resolve(provider, "Organization") or {}).get("name") or "")
    if site or source.site:
        fields["site"] = site or source.site
    number = next((str(found["value"]) for found in each(patient.get("identifier")) if found.get("value")), "")
    return Row(
        fields=fields,
        patient_id=values.patient_key(patient.get("id") or number),
        department=concept_text(encounter.get("serviceType")),
        other_codes=diagnosis.foreign,
        icd_version="10" if diagnosis.icd10 else "",
        lost=+visit.lost,
        known=_known(patient, visit, linked),
    )


def _patient(visit: Visit, linked: list[tuple[str, Resource]]) -> Resource:
    """The encounter's patient; where it names none that is there, that of its resources, or the bundle's only one."""
    for body in (visit.body, *(body for _, body in linked)):
        for subject in (body.get("subject"), body.get("patient")):
            if subject and (found := visit.resolve(subject, "Patient", visit.body)):
                return found
    only = visit.beside("Patient")
    if len(only) != 1:
        raise RowError("Encounter.subject: no such Patient in the source")
    return only[0]


def _day(encounter: Resource, conditions: list[Resource]) -> str:
    """When the patient was seen: the encounter's start or end, else when a condition was recorded."""
    periods = [period for key in ("period", "actualPeriod") if isinstance(period := encounter.get(key), dict)]
    said = [period.get(key) for period in periods for key in ("start", "end")]
    said += [c.get(key) for c in conditions for key in ("recordedDate", "onsetDateTime", "assertedDate")]
    return str(next(filter(None, said), ""))


def _texts(visit: Visit, of: dict[str, list[Resource]], diagnosis: Diagnosis) -> tuple[str, list[str]]:
    """The language of what was written, and the parts of the question."""
    written = [note for document in of["DocumentReference"] for note in findings.notes_of(document, visit)]
    written += [note for composition in of["Composition"] for note in findings.composition_notes(composition, visit)]
    observations = {str(o.get("id") or id(o)): o for o in of["Observation"]}
    for report in of["DiagnosticReport"]:
        if findings.stands(report, visit, "DiagnosticReport"):
            name = concept_text(report.get("code"))
            for text in findings.report_notes(report, visit):
                written.append(f"{name}: {text}" if name and "\n" not in text else text)
            for target in each(report.get("result")):
                if result := visit.resolve(target, "Observation", report):
                    observations.setdefault(str(result.get("id") or id(result)), result)
                else:
                    visit.lost["Observation (of a report, not in the source)"] += 1
    reasons = _reasons(visit, diagnosis)
    named = [concept_text(o.get("code")) for o in observations.values()]
    language = main_language("".join((*written, *reasons, *named)))
    ordered = sorted(observations.values(), key=lambda o: str(o.get("effectiveDateTime") or ""))
    found = [findings.observation(o, language, visit) for o in ordered]
    if not written and not any(found):
        raise UnusableError("DocumentReference, Observation: no note and no finding for this encounter")
    drugs = [findings.medication(o, visit) for o in (*of["MedicationStatement"], *of["MedicationUsage"])]
    allergies = [findings.allergy(o, visit) for o in of["AllergyIntolerance"]]
    heads = values.word_lists()["phrases"][language]
    parts = [heads["reasons"] + "; ".join(reasons)] if reasons else []
    parts += [values.as_text(note) for note in dict.fromkeys(written)]
    for kind, said in (("findings", found), ("medications", drugs), ("allergies", allergies)):
        if any(said):
            parts.append(heads[kind] + "; ".join(dict.fromkeys(values.as_text(text) for text in said if text)))
    return language, parts


def _reasons(visit: Visit, diagnosis: Diagnosis) -> list[str]:
    """Why the patient came, unless that is the diagnosis itself, or no complaint at all (Synthea writes both)."""
    said = []
    for concept in each(visit.body.get("reasonCode") or visit.body.get("reason")):
        for one in each(concept.get("value")) if "value" in concept else [concept]:  # R5: reason.value
            text = concept_text(one)
            same = {str(c.get("code")) for c in codings(one)} & diagnosis.codes or without_tag(text) == diagnosis.name
            if text and (same or tag(text) == "disorder"):
                visit.lost["Encounter.reason (a diagnosis)"] += 1
            elif text:
                said.append(without_tag(text))
    return said


def _known(patient: Resource, visit: Visit, linked: list[tuple[str, Resource]]) -> Known:
    """Names of patients, relatives, contacts and staff, and numbers."""
    names, numbers = _names_of(patient), _identifiers(patient)
    for resource in (visit.body, *(body for _, body in linked)):
        names += _people_of(resource, visit)
    beside = visit.beside("Patient")  # mother and child; a bundle of many patients is no family
    family = beside if len(beside) <= _FAMILY else []
    staff = visit.beside("Practitioner") + visit.beside("RelatedPerson")
    for person in (*staff, *family, *each(patient.get("contact"))):
        names += _names_of(person)
        numbers += _identifiers(person)
    names += _people_of(patient, visit)
    numbers += [str(found["value"]) for found in each(visit.body.get("identifier")) if found.get("value")]
    return Known(names=list(dict.fromkeys(filter(None, names))), numbers=list(dict.fromkeys(filter(None, numbers))))


def _names_of(resource: Resource) -> list[str]:
    """Every name of a person, in each order that notes write it (family first without a space in Chinese)."""
    found: list[str] = []
    for name in each(resource.get("name")):
        given, family = texts(name.get("given")), " ".join(texts(name.get("family")))
        found += [" ".join(filter(None, (*given, family))), *texts(name.get("text"))]
        if has_han(family):
            found.append(family + "".join(given))
    return [name for name in dict.fromkeys(found) if not values.is_no_person(name)]


def _identifiers(resource: Resource) -> list[str]:
    """Numbers, telecom, lines and places of addresses, and the birth date."""
    found = [item.get("value") for key in ("identifier", "telecom") for item in each(resource.get(key))]
    parts = ("line", "text", "city", "district", "postalCode")
    found += [address.get(key) for address in each(resource.get("address")) for key in parts]
    return [
        text for value in (*found, resource.get("birthDate")) for text in texts(value) if not values.is_no_person(text)
    ]


def _people_of(resource: Any, visit: Visit, depth: int = 8) -> list[str]:
    """Names that a resource tells of persons: displays of references to them, and the names of whom these lead to."""
    found: list[str] = []
    for one in each(resource) if depth else ():
        found += _referred(one, visit)
        for key, value in one.items():
            if key == "contained":
                persons = [inner for inner in each(value) if _is_person(inner.get("resourceType"))]
                found += [name for person in persons for name in _names_of(person)]
            elif isinstance(value, dict | list):
                if key in terms("doers"):
                    found += [str(target["display"]) for target in each(value) if target.get("display")]
                found += _people_of(value, visit, depth - 1)
    return [name for name in dict.fromkeys(found) if not values.is_no_person(name)]


def _referred(reference: Resource, visit: Visit) -> list[str]:
    """The person that a reference leads to."""
    target = reference.get("reference")
    if not isinstance(target, str):
        return []
    parts = target.split("?")[0].rstrip("/").split("/")
    kind = str(reference.get("type") or (parts[-1] if "?" in target else parts[-2] if len(parts) > 1 else ""))
    if not _is_person(kind) and not target.startswith("urn:"):
        return []
    body = visit.resolve(reference, kind if _is_person(kind) else "") or {}
    if not _is_person(body.get("resourceType") or kind):
        return []
    return [*_names_of(body), *texts(reference.get("display"))]


def _is_person(kind: Any) -> bool:
    return str(kind or "").casefold() in terms("persons")
