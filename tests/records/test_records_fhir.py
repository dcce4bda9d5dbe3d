# ruff: noqa: E501  (a row of a table reads best as one line)
"""FHIR as hospitals and Synthea write it: references, versions, and which condition is the diagnosis."""

import gzip
import json

import pytest

from clinical_r1.records.config import Source
from clinical_r1.records.readers.registry import read_source
from clinical_r1.records.row import Reject
from tests.records.exports import ICD, SNOMED, bundle, condition, encounter, observation, patient, read, row


@pytest.mark.parametrize(
    "reference",
    [
        "Encounter/e7", "https://ehr.example/fhir/R4/Encounter/e7", "Encounter/e7/_history/3", "encounter/E7", "urn:uuid:e7",
        "http://other.example/baseR4/Encounter/e7/_history/1", "e7",
    ],
)  # fmt: skip
def test_every_form_of_a_reference_leads_to_its_resource(tmp_path, reference):
    found = row(tmp_path, patient(), encounter(), condition(encounter={"reference": reference}),
                observation(encounter={"reference": reference}))  # fmt: skip
    assert found.fields["references"] == ["Gout"] and "Urate raised" in found.fields["question"]


@pytest.mark.parametrize("prefix", ["urn:uuid:", "https://ehr.example/fhir/X/", "urn:oid:2.16.1."])
def test_resources_without_ids_are_known_by_their_full_url(tmp_path, prefix):
    ends = [f"{prefix}{number}" for number in (11, 12, 13, 14)]
    resources = [patient(), encounter(subject={"reference": ends[0]}), condition(encounter={"reference": ends[1]}),
                 observation(encounter={"reference": ends[1]})]  # fmt: skip
    for resource in resources:
        del resource["id"]
    assert row(tmp_path, *resources, urls=ends).known.names == ["Torben Quist"]


def test_contained_and_logical_references(tmp_path):
    inner = patient(id="inside")
    found = row(tmp_path, encounter(contained=[inner], subject={"reference": "#inside"}), condition(), observation())
    assert found.fields["sex"] == "male"
    named = patient(id="other", identifier=[{"system": "urn:mrn", "value": "A1"}])
    by_number = encounter(subject={"type": "Patient", "identifier": {"system": "urn:mrn", "value": "A1"}})
    assert row(tmp_path, named, by_number, condition(), observation()).fields["age_band"] == "50-59"


def test_an_identifier_of_the_wrong_shape_stops_nothing(tmp_path):
    for odd in (3, "A1", ["A1"], {"system": "urn:mrn", "value": "A1"}):
        assert row(tmp_path, patient(identifier=odd), encounter(), condition(), observation()).fields["sex"] == "male"


def test_bulk_export_in_parts_packed_and_of_any_order(tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    parts = {
        "1.Observation.000.ndjson.gz": [observation()],
        "2.Condition.000.ndjson": [condition()],
        "3.Encounter.000.ndjson.gz": [encounter()],
        "3.Encounter.001.ndjson.gz": [encounter(id="e8", subject={"reference": "Patient/p8"})],
        "4.Patient.000.ndjson": [patient()],
        "4.Patient.001.ndjson": [patient(id="p8", gender="female")],
        "5.Condition.001.ndjson": [condition("Migraine", "c8", encounter={"reference": "Encounter/e8"})],
        "6.Observation.001.ndjson": [observation("Aura", "o8", encounter={"reference": "Encounter/e8"})],
    }
    for name, resources in parts.items():
        text = "".join(json.dumps(resource) + "\n" for resource in resources).encode()
        (folder / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    rows = list(read_source(Source(path=str(folder))))
    assert [r.fields["references"] for r in rows] == [["Gout"], ["Migraine"]]
    assert [r.patient_id for r in rows] == ["p7", "p8"] and all(r.file.startswith("export#") for r in rows)


def test_bundles_in_one_ndjson_keep_their_own_patients(tmp_path):
    path = tmp_path / "all.ndjson"
    bundles = [bundle(patient(gender=g), encounter(), condition(n), observation())
               for g, n in (("male", "Gout"), ("female", "Asthma"))]  # fmt: skip
    path.write_text("".join(json.dumps(one) + "\n" for one in bundles))
    rows = list(read_source(Source(path=str(path))))
    assert [(r.fields["sex"], r.fields["references"]) for r in rows] == [("male", ["Gout"]), ("female", ["Asthma"])]


def test_the_newest_version_of_a_resource_counts(tmp_path):
    old = observation(valueString="mistyped", meta={"versionId": "1"})
    new = observation(valueString="corrected", meta={"versionId": "2"})
    asked = row(tmp_path, patient(), encounter(), condition(), new, old).fields["question"]
    assert "corrected" in asked and "mistyped" not in asked


@pytest.mark.parametrize("status", ["refuted", "entered-in-error", "provisional", "differential", "unconfirmed", "odd"])
@pytest.mark.parametrize("form", ["code", "coding", "text", "list"])
def test_only_confirmed_conditions_are_diagnoses(tmp_path, status, form):
    forms = {
        "code": status, "coding": {"coding": [{"code": status}]}, "text": {"text": status.capitalize()},
        "list": [{"coding": [{"code": status}]}],
    }  # fmt: skip
    bad = condition("Lymphoma", "c1", "C85.9", verificationStatus=forms[form])
    good = condition("Sarcoidosis", "c2", verificationStatus={"coding": [{"code": "confirmed"}]})
    found = row(tmp_path, patient(), encounter(), bad, good, observation())
    assert found.fields["references"] == ["Sarcoidosis"] and sum(found.lost.values()) == 1
    (reject,) = read(tmp_path, patient(), encounter(), bad, observation())
    assert isinstance(reject, Reject) and reject.kind == "unusable" and "Lymphoma" not in reject.reason


def use(code):
    return {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/diagnosis-role", "code": code}]}


@pytest.mark.parametrize(
    ("stated", "reference"),
    [
        ([("c1", "AD", 1), ("c2", "DD", 1)], "Sarcoidosis"),
        ([("c1", "CC", 1), ("c2", None, None)], "Sarcoidosis"),
        ([("c1", "CM", 1), ("c2", "billing", 2)], "Sarcoidosis"),
        ([("c1", None, 2), ("c2", None, 1)], "Sarcoidosis"),
        ([("c1", "DD", 2), ("c2", "DD", 1)], "Sarcoidosis"),
        ([("c1", None, None)], "Cough variant asthma"),
        ([("c1", "CC", None)], "Sarcoidosis"),
    ],
)
def test_use_and_rank_say_which_one(tmp_path, stated, reference):
    both = [condition("Cough variant asthma", "c1", "J45.9"), condition("Sarcoidosis", "c2")]
    entries = [
        {"condition": {"reference": f"Condition/{id}"}, **({"use": use(code)} if code else {}),
         **({"rank": rank} if rank else {})}
        for id, code, rank in stated
    ]  # fmt: skip
    found = row(tmp_path, patient(), encounter(diagnosis=entries), *both, observation())
    assert found.fields["references"] == [reference]


def test_r5_writes_lists_and_concepts(tmp_path):
    reference = [{"reference": {"reference": "Condition/c2"}}]
    entries = [{"condition": reference, "use": [use("working")]},
               {"condition": [{"concept": {"text": "Sarcoidosis"}}], "use": [use("final")]}]  # fmt: skip
    r5 = encounter(
        diagnosis=entries, actualPeriod={"start": "2023-04"}, reason=[{"value": [{"concept": {"text": "cough"}}]}]
    )
    del r5["period"]
    found = row(tmp_path, patient(birthDate="1971"), r5, condition("Bronchitis", "c2"), observation())
    assert found.fields["references"] == ["Sarcoidosis"] and "Reason for visit: cough" in found.fields["question"]
    assert found.fields["age_band"] == "50-59"


@pytest.mark.parametrize(
    "social",
    [
        {"text": "Full-time employment (finding)"},
        {"coding": [{"system": SNOMED, "code": "160903007", "display": "Full-time employment"}]},
        {"text": "Received higher education (finding)"},
        {"text": "Medication review due (situation)"},
        {"text": "Problems related to employment", "coding": [{"system": ICD, "code": "Z56.9"}]},
    ],
)
@pytest.mark.parametrize("category", ["encounter-diagnosis", ["encounter-diagnosis"], None])
def test_social_findings_are_no_diagnosis(tmp_path, social, category):
    forms = {None: {}, "encounter-diagnosis": {"category": [{"coding": [{"code": "encounter-diagnosis"}]}]}}
    more = forms.get(category if not isinstance(category, list) else "encounter-diagnosis", {})
    finding = condition(id="c1", **more) | {"code": social}
    sinusitis = condition("Viral sinusitis (disorder)", "c2", **more)
    assert row(tmp_path, patient(), encounter(), finding, sinusitis, observation()).fields["references"] == [
        "Viral sinusitis"
    ]
    assert isinstance(read(tmp_path, patient(), encounter(), finding, observation())[0], Reject)


@pytest.mark.parametrize(
    "name",
    ["Normal pregnancy", "Normal pregnancy (finding)", "Well child visit", "Routine physical examination", "Annual check-up",
     "Encounter for immunization", "No abnormality detected", "Follow-up visit", "Family history of gout", "Suspected gout", "?Gout", "疑似痛风", "痛风待排", "健康体检", "正常妊娠", "预防接种"],
)  # fmt: skip
def test_a_normal_state_or_an_errand_is_no_diagnosis(tmp_path, name):
    normal = condition(name, "c1") if "(" in name else condition(name, "c1") | {"code": {"text": name}}
    assert isinstance(read(tmp_path, patient(), encounter(), normal, observation())[0], Reject)
    found = row(
        tmp_path, patient(), encounter(), normal, condition("Normal pressure hydrocephalus", "c2"), observation()
    )
    assert (
        found.fields["references"] == ["Normal pressure hydrocephalus"] and found.lost["Condition (no disorder)"] == 1
    )


def test_an_encounter_diagnosis_goes_before_the_problem_list(tmp_path):
    def category(code):
        return {"category": [{"coding": [{"code": code}], "text": code}]}

    listed = condition("Hypertension", "c1", "I10", **category("problem-list-item"))
    seen = condition("Cellulitis", "c2", **category("encounter-diagnosis"))
    found = row(tmp_path, patient(), encounter(), listed, seen, observation())
    assert found.fields["references"] == ["Cellulitis"] and found.lost


def test_synthea_tells_the_diagnosis_as_the_reason(tmp_path):
    code = {"coding": [{"system": SNOMED, "code": "444814009", "display": "Viral sinusitis (disorder)"}]}
    found = row(tmp_path, patient(), encounter(reasonCode=[code]), condition() | {"code": code}, observation())
    assert found.fields["references"] == ["Viral sinusitis"] and "sinusitis" not in found.fields["question"]
    assert found.other_codes == ["444814009"] and found.lost["Encounter.reason (a diagnosis)"] == 1
