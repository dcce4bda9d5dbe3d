"""FHIR resources for tests, and what the reader makes of a bundle of them."""

import base64
import json

from clinical_r1.records.config import Source
from clinical_r1.records.readers.registry import read_source
from clinical_r1.records.row import Row

ICD = "http://hl7.org/fhir/sid/icd-10-cm"
SNOMED = "http://snomed.info/sct"


def patient(**more):
    return {
        "resourceType": "Patient", "id": "p7", "gender": "male", "birthDate": "1971-02-03",
        "name": [{"family": "Quist", "given": ["Torben"]}], **more,
    }  # fmt: skip


def encounter(**more):
    return {
        "resourceType": "Encounter", "id": "e7", "status": "finished", "subject": {"reference": "Patient/p7"},
        "period": {"start": "2023-04-05T08:00:00+02:00"}, **more,
    }  # fmt: skip


def condition(name="Gout", id="c7", code=None, **more):
    coding = [{"system": ICD, "code": code}] if code else []
    return {
        "resourceType": "Condition", "id": id, "subject": {"reference": "Patient/p7"},
        "encounter": {"reference": "Encounter/e7"}, "code": {"text": name, "coding": coding}, **more,
    }  # fmt: skip


def observation(name="Urate", id="o7", **more):
    value = {} if any(key.startswith(("value", "component", "data")) for key in more) else {"valueString": "raised"}
    return {
        "resourceType": "Observation", "id": id, "status": "final", "code": {"text": name},
        "encounter": {"reference": "Encounter/e7"}, **value, **more,
    }  # fmt: skip


def document(data, content_type="text/plain", **more):
    raw = data if isinstance(data, bytes) else data.encode()
    attachment = {"contentType": content_type, "data": base64.b64encode(raw).decode()}
    return {
        "resourceType": "DocumentReference", "id": "d7", "status": "current", "content": [{"attachment": attachment}],
        "context": {"encounter": [{"reference": "Encounter/e7"}]}, **more,
    }  # fmt: skip


def bundle(*resources, urls=None):
    entries = [{"resource": r, **({"fullUrl": urls[i]} if urls else {})} for i, r in enumerate(resources)]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


def read(tmp_path, *resources, urls=None):
    path = tmp_path / "b.json"
    path.write_text(json.dumps(bundle(*resources, urls=urls), ensure_ascii=False), encoding="utf-8")
    return list(read_source(Source(path=str(path))))


def row(tmp_path, *resources, urls=None) -> Row:
    (found,) = read(tmp_path, *resources, urls=urls)
    assert isinstance(found, Row), found
    return found


def plain(tmp_path, *more) -> Row:
    return row(tmp_path, patient(), encounter(), condition(), observation(), *more)
