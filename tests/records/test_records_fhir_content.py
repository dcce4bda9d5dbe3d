# ruff: noqa: E501  (a row of a table reads best as one line)
"""What stands in a FHIR encounter's case: values, reports, notes, people, and what is counted as lost."""

import base64
import json

import pytest

from clinical_r1.records.config import Source
from clinical_r1.records.readers.registry import read_source, resolved_format
from clinical_r1.records.row import Row
from tests.records.exports import bundle, condition, document, encounter, observation, patient, plain, read, row


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"valueQuantity": {"value": 0.01, "comparator": "<", "unit": "ng/mL"}}, "Urate <0.01 ng/mL"),
        ({"valueQuantity": {"value": 7.0, "unit": "mg/dL"}}, "Urate 7.0 mg/dL"),
        ({"valueQuantity": {"value": 93, "code": "%"}}, "Urate 93%"),
        ({"valueInteger": 0}, "Urate 0"),
        ({"valueBoolean": False}, "Urate no"),
        ({"valueCodeableConcept": {"coding": [{"display": "Positive"}]}}, "Urate Positive"),
        ({"valueRange": {"low": {"value": 2, "unit": "h"}, "high": {"value": 4, "unit": "h"}}}, "Urate 2-4 h"),
        ({"valueRange": {"high": {"value": 4, "unit": "h"}}}, "Urate <=4 h"),
        ({"valueRatio": {"numerator": {"value": 1}, "denominator": {"value": 128}}}, "Urate 1:128"),
        ({"valueDateTime": "2023-01"}, "Urate 2023-01"),
        ({"valueTime": "08:30:00"}, "Urate 08:30:00"),
        ({"valueQuantity": {"value": 9}, "interpretation": [{"coding": [{"code": "HH"}]}]}, "Urate 9 (critically high)"),
        ({"valueQuantity": {"value": 9}, "interpretation": {"text": "Raised"}}, "Urate 9 (Raised)"),
        ({"valueQuantity": {"value": 9}, "referenceRange": [{"low": {"value": 3}, "high": {"value": 7}}]},
         "Urate 9 (reference 3-7)"),
        ({"component": [{"code": {"text": "Left"}, "valueInteger": 3}, {"code": {"text": "Right"}, "valueInteger": 4}]},
         "Urate: Left 3, Right 4"),
        ({"valueString": "see note", "note": [{"text": "haemolysed"}]}, "Urate see note [haemolysed]"),
    ],
)  # fmt: skip
def test_values_stand_as_they_were_written(tmp_path, value, text):
    found = row(tmp_path, patient(), encounter(), condition(), observation(**value))
    assert f"Findings: {text}\n" in found.fields["question"] and not found.lost


@pytest.mark.parametrize("status", ["entered-in-error", "cancelled", "preliminary", "registered", "unknown", "odd"])
def test_results_that_do_not_stand_are_counted_and_left_out(tmp_path, status):
    found = plain(tmp_path, observation("Potassium", "o8", status=status, valueString="9.9"))
    assert "9.9" not in found.fields["question"] and sum(found.lost.values()) == 1


def test_what_is_absent_or_not_read_is_counted(tmp_path):
    absent = observation("Lipase", "o8", dataAbsentReason={"text": "not performed"})
    order = {"resourceType": "MedicationRequest", "encounter": {"reference": "Encounter/e7"}}
    found = plain(tmp_path, absent, order)
    assert found.lost == {"Observation (without a value)": 1, "MedicationRequest": 1}


def test_reports_medicines_and_allergies_enter(tmp_path):
    at = {"encounter": {"reference": "Encounter/e7"}}
    report = {"resourceType": "DiagnosticReport", "status": "final", "code": {"text": "Chest X-ray"},
              "conclusion": "Clear lungs.", "result": [{"reference": "Observation/o9"}], **at}  # fmt: skip
    loose = {key: value for key, value in observation("Ferritin", "o9", valueInteger=12).items() if key != "encounter"}
    drug = {"resourceType": "MedicationStatement", "status": "active", "context": at["encounter"],
            "medicationReference": {"reference": "#m"}, "dosage": [{"text": "100 mg daily"}],
            "contained": [{"resourceType": "Medication", "id": "m", "code": {"text": "allopurinol"}}]}  # fmt: skip
    stopped = {"resourceType": "MedicationStatement", "status": "entered-in-error", "context": at["encounter"],
               "medicationCodeableConcept": {"text": "warfarin"}}  # fmt: skip
    allergy = {"resourceType": "AllergyIntolerance", "code": {"text": "penicillin"}, **at,
               "reaction": [{"manifestation": [{"text": "rash"}]}],
               "verificationStatus": {"coding": [{"code": "unconfirmed"}]}}  # fmt: skip
    asked = plain(tmp_path, report, loose, drug, stopped, allergy).fields["question"]
    assert "Chest X-ray: Clear lungs." in asked and "Ferritin 12" in asked
    assert "Medications: allopurinol 100 mg daily" in asked and "warfarin" not in asked
    assert "Allergies: penicillin (rash, unconfirmed)" in asked


RTF = r"{\rtf1\ansi\ansicpg1252{\fonttbl\f0 Arial;}\f0 Fi\'e8vre depuis 3 jours.\par Toux.}"


@pytest.mark.parametrize(
    ("data", "content_type", "text"),
    [
        ("Toe pain.", "text/plain", "Toe pain."),
        ("Fièvre".encode("latin-1"), "text/plain; charset=iso-8859-1", "Fièvre"),
        ("Fièvre le soir".encode("cp1252"), "text/plain", "Fièvre le soir"),
        ("发热三天，伴咳嗽".encode("gb18030"), "text/plain", "发热三天，伴咳嗽"),
        ("发热三天".encode("gbk"), "text/plain;charset=GB2312", "发热三天"),
        ("Pain".encode("utf-16"), "text/plain", "Pain"),
        ("<html><head><style>p{}</style></head><p>Toe&nbsp;pain &lt; 3 d<br>Red</p></html>", "text/html", "Toe pain < 3 d\nRed"),
        ("<table><tr><td>Na</td><td>135</td></tr></table>", "text/html", "Na 135"),
        ("<ClinicalDocument><title>Note</title><paragraph>Toe pain</paragraph></ClinicalDocument>", "text/xml", "Toe pain"),
        (RTF, "application/rtf", "Fièvre depuis 3 jours."),
        (RTF, "text/plain", "Fièvre depuis 3 jours."),
    ],
)  # fmt: skip
def test_notes_of_every_kind_are_text(tmp_path, data, content_type, text):
    found = plain(tmp_path, document(data, content_type))
    assert text in found.fields["question"] and "\\par" not in found.fields["question"] and not found.lost


def test_notes_in_a_binary_and_notes_that_cannot_be_read(tmp_path):
    binary = {"resourceType": "Binary", "id": "b7", "contentType": "text/html",
              "data": base64.b64encode(b"<p>Toe pain</p>").decode()}  # fmt: skip
    pointing = document("") | {"content": [{"attachment": {"url": "https://ehr.example/Binary/b7"}}]}
    assert "Toe pain" in plain(tmp_path, pointing, binary).fields["question"]
    lost = plain(tmp_path, pointing).lost
    assert lost == {"note (at an address that the source does not hold)": 1}
    assert plain(tmp_path, document(b"%PDF-1.4 ...", "application/pdf")).lost == {"note (in application/pdf)": 1}
    broken = document("") | {"content": [{"attachment": {"contentType": "text/plain", "data": "%%%"}}]}
    assert plain(tmp_path, broken).lost == {"note (not base64)": 1}


@pytest.mark.parametrize(
    "more", [{"status": "superseded"}, {"docStatus": "preliminary"}, {"status": "entered-in-error"}]
)
def test_retracted_notes_stay_out(tmp_path, more):
    found = plain(tmp_path, document("wrong patient", **more))
    assert "wrong patient" not in found.fields["question"] and sum(found.lost.values()) == 1


def test_base64_with_line_breaks_and_the_plainest_of_two_renderings(tmp_path):
    text = base64.b64encode(b"Pain in the first toe since yesterday night.").decode()
    lines = "\r\n".join(text[i : i + 20] for i in range(0, len(text), 20))
    two = document("") | {"content": [{"attachment": {"contentType": "application/pdf", "data": "JVBERi0="}},
                                      {"attachment": {"contentType": "text/plain", "data": lines}}]}  # fmt: skip
    found = plain(tmp_path, two)
    assert "first toe since" in found.fields["question"] and not found.lost


def test_names_of_contacts_staff_and_relatives_are_known(tmp_path):
    person = patient(
        contact=[{"name": {"family": "Lund", "given": ["Inge"]}, "telecom": [{"value": "5550134"}]}],
        generalPractitioner=[{"reference": "Practitioner/s9", "display": "Dr. Ada Voss"}],
        identifier=[{"value": "MRN-88"}], address=[{"line": ["4 Quay Row"], "city": "Ribe", "postalCode": "6760"}],
    )  # fmt: skip
    visit = encounter(participant=[{"individual": {"reference": "Practitioner/s1", "display": "Per Holt"}}])
    nurse = {"resourceType": "Practitioner", "id": "s1", "name": [{"family": "Holt", "given": ["Per", "Ole"]}]}
    aunt = {"resourceType": "RelatedPerson", "id": "r1", "patient": {"reference": "Patient/p7"},
            "name": [{"text": "Mette Krog"}]}  # fmt: skip
    note = document("x y z", author=[{"display": "Jonas Brandt"}])
    found = row(
        tmp_path, person, visit, nurse, aunt, condition(), note, observation(performer=[{"display": "Lab Kit"}])
    )
    assert {
        "Torben Quist",
        "Inge Lund",
        "Dr. Ada Voss",
        "Per Holt",
        "Per Ole Holt",
        "Mette Krog",
        "Jonas Brandt",
    } <= set(found.known.names)
    assert {"MRN-88", "4 Quay Row", "Ribe", "6760", "5550134", "1971-02-03"} <= set(found.known.numbers)


def test_sodium_is_a_name_and_mother_and_child_are_known_to_each_other(tmp_path):
    mother = patient(id="p8", name=[{"family": "Zyx", "given": ["Orla"]}])
    sodium = observation("Na", valueQuantity={"value": 131, "unit": "mmol/L"})
    found = row(tmp_path, patient(), mother, encounter(), condition(), sodium)
    assert "Na 131 mmol/L" in found.fields["question"] and "Orla Zyx" in found.known.names


def test_encounters_of_many_patients_and_none_that_is_cancelled(tmp_path):
    second = [patient(id="p8", gender="female"), encounter(id="e8", subject={"reference": "Patient/p8"}),
              condition("Asthma", "c8", encounter={"reference": "Encounter/e8"}),
              observation(id="o8", encounter={"reference": "Encounter/e8"})]  # fmt: skip
    entries = read(
        tmp_path, patient(), encounter(), condition(), observation(), *second, encounter(id="e9", status="cancelled")
    )
    assert [e.line for e in entries] == [1, 2, 3] and [isinstance(e, Row) for e in entries] == [True, True, False]
    assert entries[2].kind == "unusable"


def test_chinese_encounters(tmp_path):
    found = row(tmp_path, patient(name=[{"family": "欧阳", "given": ["若兰"]}]), encounter(),
                condition("痛风"), observation("血尿酸", valueQuantity={"value": 612, "unit": "μmol/L"}))  # fmt: skip
    assert found.fields["language"] == "zh" and "检查所见：血尿酸 612 μmol/L" in found.fields["question"]
    assert "欧阳若兰" in found.known.names


def test_other_files_beside_an_export_do_not_hide_it(tmp_path):
    (tmp_path / "manifest.json").write_text('{"transactionTime": "2024", "output": []}')
    (tmp_path / "a.json").write_text(json.dumps(bundle(patient(), encounter(), condition(), observation())))
    assert resolved_format(Source(path=str(tmp_path))) == "fhir"
    entries = list(read_source(Source(path=str(tmp_path))))
    assert sum(isinstance(e, Row) for e in entries) == 1


def test_wrong_shapes_are_rejects_without_text(tmp_path):
    odd = [encounter(period="yesterday"), condition(code={"text": ["Gout"]}), observation(valueQuantity="high")]
    entries = read(tmp_path, patient(), *odd)
    assert len(entries) == 1 and "Gout" not in getattr(entries[0], "reason", "")


def test_a_file_named_after_its_patient_is_not_told(tmp_path):
    path = tmp_path / "quist_torben.json"
    path.write_text(json.dumps(bundle(patient(), encounter(), condition(), observation(), encounter(id="e9"))))
    found, reject = read_source(Source(path=str(path)))
    assert "quist" not in f"{found.file}{found.fields['source']}{found.fields['origin']}{reject.file}".casefold()
    assert found.file == reject.file and found.file.endswith(".json")


def test_thousands_of_resources_resolve_quickly_and_conditions_of_no_encounter_are_told(tmp_path):
    visits = [encounter(id=f"e{i}") for i in range(300)]
    found = [condition(f"Disease {i}", f"c{i}", encounter={"reference": f"Encounter/e{i}"}) for i in range(300)]
    values = [observation(f"Test {i % 9}", f"o{i}", encounter={"reference": f"Encounter/e{i % 300}"}, valueInteger=i)
              for i in range(3000)]  # fmt: skip
    (tmp_path / "e").mkdir()
    for name, resources in (
        ("Patient", [patient()]),
        ("Encounter", visits),
        ("Condition", found),
        ("Observation", values),
    ):
        (tmp_path / "e" / f"{name}.ndjson").write_text("".join(json.dumps(r) + "\n" for r in resources))
    rows = list(read_source(Source(path=str(tmp_path / "e"))))
    assert len(rows) == 300 and all(row.fields["question"].count("Test ") == 10 for row in rows)
