"""Encounters as cases: who, what was found, what was written, and the one diagnosis.

Patient gives identity, sex and age; Encounter site and date; Observation and DiagnosticReport the findings; notes come
from DocumentReference, DiagnosticReport and Composition. What identifies in structured fields (names of patients,
contacts, relatives and staff, identifiers, telecom, addresses, birth dates) goes to the gate's memory.
https://hl7.org/fhir/R4/encounter.html
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.privacy.known import Known
from clinical_r1.records.ages import band_at
from clinical_r1.records.config import Source
from clinical_r1.records.readers.fhir import findings, notes
from clinical_r1.records.readers.fhir.concepts import codings, concept_text, each, tag, terms, without_tag, words
from clinical_r1.records.readers.fhir.diagnosis import Diagnosis, diagnosis_of
from clinical_r1.records.readers.fhir.people import identifiers, names_of, people_of
from clinical_r1.records.readers.fhir.store import Resource, Store, Stored
from clinical_r1.records.readers.files import DataFile, head_of, safe_name
from clinical_r1.records.row import Reject, Row, RowError, UnusableError, Wanted
from clinical_r1.records.values import NotText, as_text, iso_date, patient_key, sex_of
from clinical_r1.text import main_language

_ASK = {"en": "What is the most likely diagnosis?", "zh": "最可能的诊断是什么？"}
_FAMILY = 10
_HEADS = {
    "en": ("Reason for visit: ", "Findings: ", "Medications: ", "Allergies: "),
    "zh": ("就诊原因：", "检查所见：", "用药：", "过敏："),
}


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
    if not store.count("Encounter"):
        raise UserError(f"{source.path}: the source has no Encounter; cases are made from encounters")
    store.finish()
    told = {}
    if len(files) == 1:  # the user named it: after a patient of it, perhaps
        told[files[0].name] = safe_name(files[0].path, store.patient_names())
    for reject in rejects:
        yield reject.model_copy(update={"file": told.get(reject.file, reject.file)})
    for encounter in store.encounters():
        file = told.get(encounter.file, encounter.file)
        yield _entry(encounter, file, store, source) if wanted is None or wanted(file, encounter.line) else None


def _entry(encounter: Stored, file: str, store: Store, source: Source) -> Row | Reject:
    try:
        row = _case(encounter, store, source)
    except UnusableError as error:
        return Reject(file=file, line=encounter.line, reason=str(error), kind="unusable")
    except (RowError, NotText) as error:
        return Reject(file=file, line=encounter.line, reason=str(error))
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        reason = f"Encounter: a resource has the wrong shape ({type(error).__name__})"
        return Reject(file=file, line=encounter.line, reason=reason)
    row.file, row.line = file, encounter.line
    if file != encounter.file and not source.source:
        row.fields["source"] = file.split(".")[0]
    return row


def _case(stored: Stored, store: Store, source: Source) -> Row:
    encounter, doc = stored.body, stored.doc
    status = words(encounter.get("status") or [])
    if status & terms("encounter_not"):
        raise UnusableError(f"Encounter.status: {min(status)}")
    linked = list(store.linked(stored.row))
    patient = _patient(encounter, linked, store, doc)
    of = {kind: [body for name, body in linked if name == kind] for kind in terms("of_encounter")}
    diagnosis = diagnosis_of(encounter, of["Condition"], store, doc)
    if not diagnosis.name:
        raise UnusableError(diagnosis.why)
    lost = diagnosis.lost + Counter(kind for kind, _ in linked if kind not in terms("of_encounter"))
    language, parts = _texts(encounter, of, diagnosis, store, doc, lost)
    seen = _start(encounter) or _recorded(of["Condition"])
    fields: dict[str, Any] = {
        "id": str(encounter.get("id") or ""),
        "language": language,
        "question": "\n".join([*parts, _ASK[language]]),
        "references": [as_text(diagnosis.name)],
        "icd10": diagnosis.icd10,
        "sex": sex_of(str(patient.get("gender") or "")) if str(patient.get("gender")) in ("female", "male") else "",
        "age_band": band_at(str(patient.get("birthDate") or ""), seen),
        "recorded": iso_date(seen),
    }
    provider = encounter.get("serviceProvider")
    site = concept_text(provider) or str((store.resolve(provider, doc, "Organization") or {}).get("name") or "")
    if site or source.site:
        fields["site"] = site or source.site
    return Row(
        fields=fields,
        patient_id=patient_key(patient.get("id") or next(iter(_own_numbers(patient)), "")),
        department=concept_text(encounter.get("serviceType")),
        other_codes=[code for code in (diagnosis.icd9, diagnosis.snomed) if code],
        icd_version="10" if diagnosis.icd10 else "",
        lost=+lost,
        known=_known(patient, encounter, linked, store, doc),
    )


def _own_numbers(patient: Resource) -> list[str]:
    return [str(found["value"]) for found in each(patient.get("identifier")) if found.get("value")]


def _patient(encounter: Resource, linked: list[tuple[str, Resource]], store: Store, doc: int) -> Resource:
    """The encounter's patient; where it names none that is there, that of its resources, or the bundle's only one."""
    subjects = [encounter.get("subject"), encounter.get("patient")]
    subjects += [body.get(key) for _, body in linked for key in ("subject", "patient")]
    for subject in subjects:
        if subject and (found := store.resolve(subject, doc, "Patient", encounter)):
            return found
    only = store.of_document(doc, "Patient")
    if len(only) == 1:
        return only[0]
    raise RowError("Encounter.subject: no such Patient in the source")


def _texts(
    encounter: Resource, of: dict[str, list[Resource]], diagnosis: Diagnosis, store: Store, doc: int, lost: Counter[str]
) -> tuple[str, list[str]]:
    written = [note for d in of["DocumentReference"] for note in notes.notes_of(d, store, doc, lost)]
    written += [note for c in of["Composition"] for note in notes.composition_notes(c, lost)]
    observations = {str(o.get("id") or id(o)): o for o in of["Observation"]}
    for report in of["DiagnosticReport"]:
        if findings.stands(report, lost, "DiagnosticReport"):
            name = concept_text(report.get("code"))
            for text in notes.report_notes(report, store, doc, lost):
                written.append(f"{name}: {text}" if name and "\n" not in text else text)
            for target in each(report.get("result")):
                if result := store.resolve(target, doc, "Observation", report):
                    observations.setdefault(str(result.get("id") or id(result)), result)
                else:
                    lost["Observation (of a report, not in the source)"] += 1
    reasons = _reasons(encounter, diagnosis, lost)
    language = main_language(
        "".join((*written, *reasons, *(concept_text(o.get("code")) for o in observations.values())))
    )
    ordered = sorted(observations.values(), key=lambda o: str(o.get("effectiveDateTime") or ""))
    found = [text for o in ordered if (text := findings.observation(o, language, lost))]
    if not written and not found:
        raise UnusableError("DocumentReference, Observation: no note and no finding for this encounter")
    drugs = [
        text
        for o in (*of["MedicationStatement"], *of["MedicationUsage"])
        if (text := findings.medication(o, store, doc, lost))
    ]
    allergies = [text for o in of["AllergyIntolerance"] if (text := findings.allergy(o, lost))]
    why, seen, taken, allergic = _HEADS[language]
    parts = [why + "; ".join(reasons)] if reasons else []
    parts += [as_text(note) for note in dict.fromkeys(written)]
    for head, texts in ((seen, found), (taken, drugs), (allergic, allergies)):
        if texts:
            parts.append(head + "; ".join(dict.fromkeys(map(as_text, texts))))
    return language, parts


def _reasons(encounter: Resource, diagnosis: Diagnosis, lost: Counter[str]) -> list[str]:
    """Why the patient came, unless that is the diagnosis itself, or no complaint at all (Synthea writes both)."""
    said = []
    for concept in each(encounter.get("reasonCode") or encounter.get("reason")):
        for one in each(concept.get("value")) if "value" in concept else [concept]:  # R5: reason.value
            text = concept_text(one)
            same = {str(c.get("code")) for c in codings(one)} & diagnosis.codes or without_tag(text) == diagnosis.name
            if text and (same or tag(text) == "disorder"):
                lost["Encounter.reason (a diagnosis)"] += 1
            elif text:
                said.append(without_tag(text))
    return said


def _start(encounter: Resource) -> str:
    for key in ("period", "actualPeriod"):
        period = encounter.get(key)
        if isinstance(period, dict) and (period.get("start") or period.get("end")):
            return str(period.get("start") or period.get("end"))
    return ""


def _recorded(conditions: list[Resource]) -> str:
    keys = ("recordedDate", "onsetDateTime", "assertedDate")
    return next((str(c[key]) for c in conditions for key in keys if c.get(key)), "")


def _known(patient: Resource, encounter: Resource, linked: list[tuple[str, Resource]], store: Store, doc: int) -> Known:
    relatives = [r for kind in ("Practitioner", "RelatedPerson") for r in store.of_document(doc, kind)]
    names, numbers = names_of(patient), identifiers(patient)
    for resource in (encounter, *(body for _, body in linked)):
        names += people_of(resource, store, doc)
    beside = store.of_document(doc, "Patient")  # mother and child; a bundle of many patients is no family
    for relative in [*relatives, *(beside if len(beside) <= _FAMILY else [])]:
        names += names_of(relative)
        numbers += identifiers(relative)
    for contact in each(patient.get("contact")):
        names += names_of(contact)
        numbers += identifiers(contact)
    names += people_of(patient, store, doc)
    numbers += [str(found["value"]) for found in each(encounter.get("identifier")) if found.get("value")]
    return Known(names=list(dict.fromkeys(filter(None, names))), numbers=list(dict.fromkeys(filter(None, numbers))))
