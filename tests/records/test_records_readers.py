"""Readers of fixed formats: what the question holds, and what it must not."""

import json

import pytest

from clinical_r1.records.config import Source
from clinical_r1.records.readers.registry import read_source, resolved_format
from clinical_r1.records.row import Reject, Row

DX_EN = {
    "id": "X_1",
    "department": "Neurology",
    "explicit_symptoms": [["numb arm", "True"], ["fever", "False"]],
    "implicit_symptoms": [["slurred speech", "True"], ["headache", "Unsure"]],
    "candidate_diseases": ["stroke", "migraine"],
    "disease": "stroke",
}
DX_ZH = {
    "id": "X_1",
    "department": "神经科学",
    "explicit_symptoms": [["手臂麻木", "True"]],
    "implicit_symptoms": [["发热", "False"]],
    "candidate_diseases": ["脑梗死", "偏头痛"],
    "disease": "脑梗死",
}
HUATUO = {
    "Open-ended Verifiable Question": "A man has a painless rash. What caused it?",
    "Ground-True Answer": "Treponema pallidum.",
    "Complex_CoT": "secret chain",
}
MEDQA = {"question": "Which drug?", "options": {"A": "aspirin", "B": "heparin"}, "answer_idx": "B", "answer": "heparin"}


def read(tmp_path, items, **source):
    path = tmp_path / "file.json"
    path.write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")
    return list(read_source(Source(path=str(path), **source)))


def test_dxbench_keeps_polarity_and_hides_the_department(tmp_path):
    row = read(tmp_path, [DX_EN])[0]
    assert isinstance(row, Row)
    question = row.fields["question"]
    assert "presents with: numb arm." in question and "questioning reveals: slurred speech." in question
    assert "Absent on questioning: fever." in question and "Uncertain: headache." in question
    assert "Neurology" not in question and "migraine" not in question
    assert row.department == "Neurology" and row.fields["references"] == ["stroke"]


def test_dxbench_candidates_are_a_choice_only_when_asked(tmp_path):
    row = read(tmp_path, [DX_EN], candidates=True)[0]
    assert "Candidate diagnoses: stroke; migraine." in row.fields["question"]
    assert row.fields["options"] == ["stroke", "migraine"]


def test_dxbench_in_chinese_is_the_same_problem(tmp_path):
    row = read(tmp_path, [DX_ZH])[0]
    assert row.fields["language"] == "zh" and row.fields["question"].endswith("最可能的诊断是什么？")
    assert "问诊否认：发热。" in row.fields["question"]
    assert row.problem == read(tmp_path, [DX_EN])[0].problem
    assert row.fields["id"] != read(tmp_path, [DX_EN])[0].fields["id"]


def test_huatuo_problem_without_its_chain(tmp_path):
    row = read(tmp_path, [HUATUO])[0]
    assert row.fields["references"] == ["Treponema pallidum"] and "secret" not in str(row)


def test_medqa_open_or_closed(tmp_path):
    assert read(tmp_path, [MEDQA])[0].fields["options"] == []
    closed = read(tmp_path, [MEDQA], closed=True)[0].fields
    assert closed["options"] == ["aspirin", "heparin"] and closed["references"] == ["heparin"]


@pytest.mark.parametrize(
    ("item", "key"),
    [
        ({**DX_EN, "disease": ""}, "disease"),
        ({**DX_EN, "explicit_symptoms": [["a"]]}, "explicit_symptoms"),
        ({**DX_EN, "explicit_symptoms": [], "implicit_symptoms": []}, "explicit_symptoms"),
        (7, "not a JSON object"),
    ],
)
def test_bad_items_are_rejects_with_line_and_key(tmp_path, item, key):
    entries = read(tmp_path, [DX_EN, item], format="dxbench")
    assert isinstance(entries[1], Reject) and entries[1].line == 2 and entries[1].reason.startswith(key)


@pytest.mark.parametrize(
    ("item", "name"),
    [(DX_EN, "dxbench"), (HUATUO, "huatuo"), (MEDQA, "medqa"), ({"question": 1, "reference": 2}, "jsonl")],
)
def test_formats_are_told_by_their_keys(tmp_path, item, name):
    for file, text in (("a.json", json.dumps([item])), ("a.jsonl", json.dumps(item) + "\n")):
        (tmp_path / file).write_text(text)
        assert resolved_format(Source(path=str(tmp_path / file))) == name
