# ruff: noqa: E501  (a row of a table reads best as one line)
"""Public sets in their publishers' forms, told by their keys in any container; what has no one answer is unusable."""

import csv
import json

import pytest

from clinical_r1.errors import UserError
from clinical_r1.records.config import Source
from clinical_r1.records.readers.registry import read_source, resolved_format
from clinical_r1.records.row import Reject

OPTIONS = {"A": "gout", "B": "septic arthritis", "C": "lupus", "D": "sprain"}
MCQ = {"opa": "gout", "opb": "septic arthritis", "opc": "lupus", "opd": "sprain"}
ITEMS = {
    "medqa": {"question": "Red toe?", "options": OPTIONS, "answer_idx": "A", "answer": "gout", "meta_info": "step2"},
    "medbullets": {"question": "Red toe?", **MCQ, "ope": "", "answer": "gout", "answer_idx": "A", "explanation": "..."},
    "medxpertqa": {"id": "Text-1", "question": "Red toe?\nAnswer Choices: (A) gout (B) septic arthritis", "options": OPTIONS,
                   "label": "A", "medical_task": "Diagnosis"},
    "cmb": {"exam_type": "医师考试", "question": "Red toe?", "answer": "A", "question_type": "单项选择题",
            "option": {**OPTIONS, "E": ""}},
    "cmexam": {"Question": "Red toe?", "Options": "A gout\nB septic arthritis\nC lupus", "Answer": "A", "Explanation": "x"},
    "diagnosisarena": {"id": 3, "Case Information": "A man has a red toe.", "Physical Examination": "Warm.",
                       "Diagnostic Tests": "Crystals.", "Final Diagnosis": "gout", "Options": OPTIONS, "Right Option": "A"},
    "dxy": {"consult_id": "9", "disease_tag": "gout", "goal": {"explicit_inform_slots": {"red toe": True},
            "implicit_inform_slots": {"fever": False, "rash": "UNK"}}},
    "messages": {"messages": [{"role": "system", "content": "You are a doctor."}, {"role": "user", "content": "Red toe?"},
                              {"role": "assistant", "content": "<think>uric acid</think>gout"}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "Red toe?"}, {"from": "gpt", "value": "gout"}]},
    "alpaca": {"instruction": "Name the disease.", "input": "Red toe?", "output": "gout"},
}  # fmt: skip
CHOICES = ("medqa", "medbullets", "medxpertqa", "cmb", "cmexam", "diagnosisarena")


def read(path, **more):
    return list(read_source(Source(path=str(path), **more)))


@pytest.mark.parametrize("name", ITEMS)
@pytest.mark.parametrize("container", ["json", "jsonl", "parquet"])
def test_every_set_is_told_by_its_keys(tmp_path, name, container):
    path = tmp_path / f"file.{container}"
    if container == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist([ITEMS[name]]), path)
    else:
        text = json.dumps([ITEMS[name]]) if container == "json" else json.dumps(ITEMS[name])
        path.write_text(text, encoding="utf-8")
    assert resolved_format(Source(path=str(path))) == name
    (row,) = read(path)
    assert row.fields["references"] == ["gout"] and "ed toe" in row.fields["question"], row
    assert "septic" not in row.fields["question"] and "uric acid" not in str(row.fields)


@pytest.mark.parametrize("name", CHOICES)
def test_closed_keeps_the_options(tmp_path, name):
    (tmp_path / "a.json").write_text(json.dumps([ITEMS[name]]))
    (row,) = read(tmp_path / "a.json", closed=True)
    assert row.fields["options"][:2] == ["gout", "septic arthritis"] and row.fields["references"] == ["gout"]


@pytest.mark.parametrize(("numbers", "right"), [([0, 1, 3], "gout"), ([4, 1, 2], "sprain")])
def test_medmcqa_counts_from_zero_or_from_one(tmp_path, numbers, right):
    items = [{"id": n, "question": f"Red toe {n}?", **MCQ, "cop": n, "subject_name": "Medicine"} for n in numbers]
    (tmp_path / "a.json").write_text(json.dumps(items))
    assert resolved_format(Source(path=str(tmp_path / "a.json"))) == "medmcqa"
    assert read(tmp_path / "a.json")[0].fields["references"] == [right]
    (tmp_path / "b.json").write_text(json.dumps(items[1:2]))
    assert "cannot tell" in read(tmp_path / "b.json")[0].reason


def test_cmexam_as_a_table(tmp_path):
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, ITEMS["cmexam"])
        writer.writeheader()
        writer.writerow(ITEMS["cmexam"])
    assert read(tmp_path / "a.csv")[0].fields["references"] == ["gout"]


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("cmb", {"answer": "ABD"}, "several options"), ("cmexam", {"Answer": "AC"}, "several options"),
        ("cmb", {"answer": ""}, "no answer"), ("medxpertqa", {"label": "?"}, "no answer"),
    ],
)  # fmt: skip
def test_what_has_no_one_answer_is_unusable_and_not_malformed(tmp_path, name, change, reason):
    (tmp_path / "a.json").write_text(json.dumps([ITEMS[name], ITEMS[name] | change]))
    reject = read(tmp_path / "a.json")[1]
    assert isinstance(reject, Reject) and reject.kind == "unusable" and reason in reject.reason


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("medqa", {"answer_idx": "B"}, "answer: another option"), ("medqa", {"options": {"A": "x"}}, "options"),
        ("medqa", {"answer_idx": "Z", "answer": "y"}, "answer: not one"), ("dxy", {"goal": {}}, "goal"),
        ("messages", {"messages": [{"role": "user", "content": "x"}]}, "messages: no question and answer"),
        ("sharegpt", {"conversations": [{"from": "martian", "value": "x"}]}, "conversations: a turn"),
    ],
)  # fmt: skip
def test_wrong_items_name_the_key(tmp_path, name, change, reason):
    (tmp_path / "a.json").write_text(json.dumps([ITEMS[name], ITEMS[name] | change]))
    reject = read(tmp_path / "a.json", format=name)[1]
    assert isinstance(reject, Reject) and reject.kind == "malformed" and reject.reason.startswith(reason)


def test_a_dialogue_keeps_who_said_what(tmp_path):
    turns = [("user", "My toe hurts."), ("assistant", "Since when?"), ("user", "A day."), ("assistant", "gout")]
    (tmp_path / "a.json").write_text(json.dumps([{"messages": [{"role": r, "content": c} for r, c in turns]}]))
    assert read(tmp_path / "a.json")[0].fields["question"] == "Q: My toe hurts.\nA: Since when?\nQ: A day."


def test_symptoms_keep_their_polarity(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([ITEMS["dxy"]]))
    question = read(tmp_path / "a.json")[0].fields["question"]
    assert (
        "presents with: red toe." in question
        and "Absent on questioning: fever." in question
        and "Uncertain: rash" in question
    )


def test_a_map_and_a_named_form_contradict(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([ITEMS["medqa"]]))
    with pytest.raises(UserError, match="a map is for tables"):
        read(tmp_path / "a.json", format="medqa", map={"question": "question", "reference": "answer"})
