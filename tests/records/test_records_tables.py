"""CSV, Parquet, mapped JSON, FHIR bundles and the MedDX-FT preset."""

import base64
import json

import pytest

from clinical_r1.errors import UserError
from clinical_r1.records.config import PhiConfig, RecordsConfig, Source, parse_map
from clinical_r1.records.readers.registry import read_source, resolved_format
from clinical_r1.records.row import Reject, Row
from clinical_r1.records.run import prepare
from clinical_r1.schema import SPLITS, Case, read_jsonl

MAP = {
    "question": "complaint+history",
    "reference": "dx",
    "icd10": "code",
    "patient": "mrn",
    "age": "age",
    "sex": "sex",
}


def table(count: int = 3) -> list[dict]:
    return [
        {
            "complaint": f"cough for {i + 2} days",
            "history": "never smoked, no travel",
            "dx": "pneumonia",
            "code": "J18.901",
            "mrn": f"00{i}",
            "age": 50 + i,
            "sex": "F",
        }
        for i in range(count)
    ]


def write_table(path, rows):
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        import csv

        with path.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, fieldnames=list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet", ".json", ".jsonl"])
def test_a_map_reads_every_kind_of_table(tmp_path, ending):
    path = write_table(tmp_path / f"rows{ending}", table())
    rows = list(read_source(Source(path=path, map=MAP)))
    assert len(rows) == 3 and all(isinstance(row, Row) for row in rows)
    first = rows[0]
    assert first.fields["question"] == "cough for 2 days\nnever smoked, no travel"
    assert (first.fields["sex"], first.fields["age_band"], first.patient_id) == ("female", "50-59", "000")


def test_bad_cells_are_rejects_with_their_line(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('note,dx\n"two\nlines",flu\n,flu\na,b,c\nfever,\n', encoding="utf-8")
    entries = list(read_source(Source(path=str(path), map={"question": "note", "reference": "dx"})))
    assert [entry.line for entry in entries] == [2, 4, 5, 6]
    assert [isinstance(entry, Reject) for entry in entries] == [False, True, True, True]
    assert entries[1].reason == "question: empty (note)" and "3 cells" in entries[2].reason


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, "no column question and reference; say which columns"),
        ({"question": "complaint"}, "the map lacks reference"),
        (
            {"question": "complaint", "reference": "nope"},
            "--map reference=nope: no such column; the file has complaint",
        ),
        ({"question": "complaint", "reference": "dx", "colour": "x"}, "unknown fields colour"),
    ],
)
def test_wrong_maps_are_user_errors(tmp_path, mapping, message):
    path = write_table(tmp_path / "rows.csv", table())
    with pytest.raises(UserError, match=message):
        list(read_source(Source(path=path, format="csv", map=mapping)))


def test_objects_may_leave_out_keys_that_others_have(tmp_path):
    path = tmp_path / "sparse.jsonl"
    rows = [{"note": "cough for days", "dx": "asthma"}, {"note": "fever for days", "dx": "influenza", "age": "45歲"}]
    write_table(path, rows)
    mapping = {"question": "note", "reference": "dx", "age": "age"}
    found = list(read_source(Source(path=str(path), map=mapping)))
    assert [row.fields["age_band"] for row in found if isinstance(row, Row)] == ["", "40-49"]
    with pytest.raises(UserError, match="no such column"):
        list(read_source(Source(path=str(path), map=mapping | {"sex": "gender"})))


def test_map_on_the_command_line():
    assert parse_map("question=a+b, reference=dx") == {"question": "a+b", "reference": "dx"}
    with pytest.raises(UserError, match="FIELD=COLUMN"):
        parse_map("question")


def test_no_parquet_is_a_user_error(tmp_path):
    (tmp_path / "a.parquet").write_text("hello")
    with pytest.raises(UserError, match="not a Parquet file"):
        list(read_source(Source(path=str(tmp_path / "a.parquet"), map=MAP)))


def bundle(note: str) -> dict:
    resources = [
        {
            "resourceType": "Patient",
            "id": "p1",
            "gender": "male",
            "birthDate": "1950-02-03",
            "name": [{"family": "Quartermain", "given": ["Allan"]}],
            "identifier": [{"value": "ZX-4471"}],
            "telecom": [{"value": "555-0142-77"}],
            "address": [{"line": ["12 Ivory Lane"], "city": "Durban"}],
        },
        {
            "resourceType": "Encounter",
            "id": "e1",
            "subject": {"reference": "Patient/p1"},
            "period": {"start": "2021-05-06T10:00:00Z"},
            "serviceProvider": {"display": "North"},
            "serviceType": {"text": "Cardiology"},
            "reasonCode": [{"text": "chest pain"}],
        },
        {
            "resourceType": "Condition",
            "encounter": {"reference": "Encounter/e1"},
            "code": {
                "text": "Myocardial infarction",
                "coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "I21.9"}],
            },
        },
        {
            "resourceType": "Observation",
            "encounter": {"reference": "Encounter/e1"},
            "code": {"text": "troponin"},
            "valueQuantity": {"value": 2.4, "unit": "ng/mL"},
        },
        {
            "resourceType": "DocumentReference",
            "context": {"encounter": [{"reference": "Encounter/e1"}]},
            "content": [
                {"attachment": {"contentType": "text/plain", "data": base64.b64encode(note.encode()).decode()}}
            ],
        },
        {"resourceType": "Encounter", "id": "e2", "subject": {"reference": "Patient/p1"}},
    ]
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": r} for r in resources]}


def test_fhir_bundle_becomes_cases_and_rejects(tmp_path):
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps(bundle("Pressure-like pain for 2 hours.")))
    assert resolved_format(Source(path=str(path))) == "fhir"
    row, reject = read_source(Source(path=str(path)))
    assert isinstance(row, Row) and isinstance(reject, Reject)
    assert reject.line == 2 and reject.reason.startswith("Condition")
    assert row.fields["references"] == ["Myocardial infarction"] and row.fields["icd10"] == "I21.9"
    assert row.fields["age_band"] == "70-79" and row.fields["sex"] == "male" and row.department == "Cardiology"
    assert "Reason for visit: chest pain" in row.fields["question"] and "troponin 2.4 ng/mL" in row.fields["question"]


def test_fhir_identity_is_scrubbed_from_the_note(tmp_path, monkeypatch):
    monkeypatch.setenv("CLINICAL_R1_PATIENT_KEY", "k" * 32)
    for i in range(8):
        note = f"Quartermain, Allan ({i} visits) of 12 Ivory Lane called 555-0142-77. ID ZX 4471. Crushing pain {i}."
        text = json.dumps(bundle(note)).replace('"p1"', f'"p{i}"').replace("Patient/p1", f"Patient/p{i}")
        (tmp_path / f"{i}.json").write_text(text)
    config = RecordsConfig(
        sources=[Source(path=str(tmp_path), format="fhir")], max_reject_rate=0.6, group_by=["patient"]
    )
    config.dedup.near = "off"
    report = prepare(config, tmp_path / "out")
    written = "".join((tmp_path / "out" / f"{name}.jsonl").read_text() for name in SPLITS)
    assert report.cases == 8 and report.phi["scrubbed"]["name"] >= 8
    for secret in ("Quartermain", "Allan", "Ivory", "555-0142", "4471", "North", "p1", "2021-05-06", "Durban", "e1"):
        assert f'"{secret}' not in written and f" {secret}" not in written, secret
    cases = [case for name in SPLITS for case in read_jsonl(tmp_path / "out" / f"{name}.jsonl", Case)]
    assert len({case.patient for case in cases}) == 8 and all("Crushing pain" in case.question for case in cases)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "no FHIR resource"),
        ('{"resourceType": "Bundle", "entry": []}', "no Encounter"),
    ],
)
def test_wrong_bundles_are_user_errors(tmp_path, content, message):
    (tmp_path / "b.json").write_text(content)
    with pytest.raises(UserError, match=message):
        list(read_source(Source(path=str(tmp_path / "b.json"), format="fhir")))


def test_meddx_preset_is_marked_unverified(tmp_path):
    rows = [{"input": f"record {i}: cough and fever {i * 3}", "output": "flu", "科室": "内科"} for i in range(20)]
    path = write_table(tmp_path / "meddx.json", rows)
    config = RecordsConfig(
        sources=[Source(path=path, format="meddx-ft")], phi=PhiConfig(policy="off", off_because="public")
    )
    config.dedup.near = "off"
    report = prepare(config, tmp_path / "out")
    assert report.cases == 20 and report.sources[0]["unverified"] and report.specialties == {"internal_medicine": 20}
    assert "unverified preset" in (tmp_path / "out/card.md").read_text()
