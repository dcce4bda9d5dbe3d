"""Reasoning data of others in, ours out in their form."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from clinical_r1.errors import UserError
from clinical_r1.schema import Case, Trace, TraceOutcome, read_jsonl, write_jsonl
from clinical_r1.synthesis.config import SynthesisConfig
from clinical_r1.synthesis.dataset import merge_shards, read_report
from clinical_r1.synthesis.exchange import export_traces, read_row
from clinical_r1.synthesis.run import synthesize, take_traces

Q = "A 54-year-old man has sudden pain in the first toe, which is red and warm. What is the most likely diagnosis?"
T = "Sudden monoarthritis of the first toe, red and warm: podagra. So gout."
R = "The presentation is typical.\n\nFinal diagnosis: gout"
ZH = (
    "患者，男，54岁，突发第一跖趾关节红肿热痛。最可能的诊断是什么？",
    "单关节急性红肿热痛，考虑痛风。",
    "最终诊断：痛风",
)
HUATUO = {"question": "Which? ", "options": {"A": "x"}, "answer_idx": "A", "answer": "x", "Question": Q}
FORMS = {
    "medical-o1": ({"Question": Q, "Complex_CoT": T, "Response": R}, "columns", []),
    "huatuo demo": (HUATUO | {"Ground-True Answer": "gout", "Complex_CoT": T, "Response": R}, "columns", ["gout"]),
    "reasoning_content": (
        {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": Q},
                      {"role": "assistant", "content": R, "reasoning_content": T}], "reference": "gout"},
        "messages", ["gout"],
    ),
    "tags in the content": (
        {"messages": [{"role": "user", "content": Q}, {"role": "assistant", "content": f"<think>{T}</think>{R}"}]},
        "messages", [],
    ),
    "parts": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": Q}]},
                      {"role": "assistant", "content": [{"type": "text", "text": f"<think>\n{T}\n</think>\n{R}"}]}]},
        "messages", [],
    ),
    "headings": (
        {"conversations": [{"from": "human", "value": Q},
                           {"from": "gpt", "value": f"## Thinking\n\n{T}\n\n## Final Response\n\n{R}"}]},
        "sharegpt", [],
    ),
    "open columns": ({"prompt": Q, "reasoning": T, "completion": R, "answer": "gout"}, "columns", ["gout"]),
    "ours": ({"case_id": "c-1", "question": Q, "thinking": T, "response": R, "outcome": "direct", "language": "en",
              "references": ["gout"]}, "traces", ["gout"]),
}  # fmt: skip


def settings(path: Path, **source: object) -> SynthesisConfig:
    return SynthesisConfig.model_validate(
        {"verifier": {"kind": "rule"}, "traces": {"path": str(path), **source}, "max_rejected_share": 1.0}
    )


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_question_thought_answer_and_reference(name):
    row, form, references = FORMS[name]
    found = read_row(row, {})
    assert (found.form, found.problem) == (form, "")
    assert (found.question, found.thinking, found.response) == (Q, T, R)
    assert found.references == references
    assert found.language == "en"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"Question": Q, "Response": R}, "no_thought"),
        ({"Question": Q, "Complex_CoT": "  ", "Response": R}, "no_thought"),
        ({"Complex_CoT": T, "Response": R}, "no_question"),
        ({"Question": Q, "Complex_CoT": T}, "no_answer"),
        ({"messages": [{"role": "user", "content": Q}]}, "no_answer"),
        ({"messages": [{"role": "user", "content": Q}, {"role": "assistant", "content": R}] * 2}, "several_turns"),
        ({"messages": [{"role": "user", "content": Q}, {"role": "assistant", "content": f"<think>{T}"}]}, "unclosed"),
        (
            {"messages": [{"role": "user", "content": Q}, {"role": "assistant", "content": f"<plan>{T}</plan> {R}"}]},
            "unknown_form",
        ),
        ({"text": Q}, "unknown_form"),
    ],
)
def test_what_is_no_trace_has_a_reason(row, problem):
    assert read_row(row, {}).problem == problem


def test_an_import_verifies_marks_and_rejects(tmp_path):
    rows = [
        {"Question": Q, "Complex_CoT": T, "Response": R, "Ground-True Answer": "gout"},
        {"Question": Q + " He is 54.", "Complex_CoT": T, "Response": "It is gout."},
        {"Question": Q, "Complex_CoT": T, "Response": R, "Ground-True Answer": "septic arthritis"},
        {"Question": ZH[0], "Complex_CoT": ZH[1], "Response": ZH[2], "Ground-True Answer": "痛风"},
        {"Question": Q, "Complex_CoT": T, "Response": R, "Ground-True Answer": "gout"},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    report = take_traces(settings(tmp_path / "rows.json"), None, tmp_path / "out", tmp_path / "state")
    kept, refused = (read_jsonl(tmp_path / "out" / name, Trace) for name in ("traces.jsonl", "rejected.jsonl"))
    assert [trace.outcome for trace in kept] == [TraceOutcome.DIRECT, TraceOutcome.UNVERIFIED, TraceOutcome.DIRECT]
    assert kept[0].question.startswith(Q)
    assert kept[0].question.endswith("Final diagnosis: ...")  # asked as our own cases are
    assert kept[1].question == Q + " He is 54."
    assert kept[1].references == []
    assert [trace.language for trace in kept] == ["en", "en", "zh"]
    assert {trace.reason for trace in refused} == {"incorrect", "identical_sample"}
    assert report.outcomes["unverified"] == 1
    assert report.imported == {"columns": 5}
    card = (tmp_path / "out" / "card.md").read_text(encoding="utf-8")
    assert "written by others" in card
    strict = settings(tmp_path / "rows.json", unverified="reject")
    take_traces(strict, None, tmp_path / "strict", tmp_path / "state")
    assert all(
        trace.outcome is TraceOutcome.DIRECT for trace in read_jsonl(tmp_path / "strict" / "traces.jsonl", Trace)
    )


def test_identifiers_go_and_held_out_questions_are_no_traces(tmp_path):
    rows = [
        {"q": Q, "t": T, "a": R},
        {"q": "Mr. John Smith, MRN 12345678, has " + Q[2:], "t": T, "a": R},
        {"q": "A woman has a rash after amoxicillin and a sore throat for a week. Diagnosis?", "t": T, "a": R},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    for name in ("sft", "rl", "validation"):
        write_jsonl(tmp_path / f"{name}.jsonl", [])
    held = Case(language="en", question=rows[2]["q"].upper(), reference="mononucleosis")
    write_jsonl(tmp_path / "test.jsonl", [held])
    columns = {"question": "q", "thinking": "t", "response": "a"}
    take_traces(settings(tmp_path / "rows.parquet", map=columns), tmp_path / "sft.jsonl", tmp_path / "out", tmp_path)
    kept, refused = (read_jsonl(tmp_path / "out" / name, Trace) for name in ("traces.jsonl", "rejected.jsonl"))
    assert [trace.reason for trace in refused] == ["held_out"]
    assert len(kept) == 2
    assert "Smith" not in kept[1].question
    assert "12345678" not in kept[1].question


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "no rows in it"),
        ("[]", "no rows in it"),
        ('{"text": "x"}\n', "no row is in a known form; name its columns"),
        ('{"Question": "x"}\n[1]\n', "rows.jsonl:2: not a JSON object"),
        ('{"Question": "x"}\nnope\n', "rows.jsonl:2: not JSON"),
        ('[{"Question": "x"}, ', "rows.jsonl: not JSON"),
    ],
)
def test_a_source_that_cannot_be_read_is_one_sentence(content, told, tmp_path):
    (tmp_path / "rows.jsonl").write_text(content)
    with pytest.raises(UserError, match=told):
        take_traces(settings(tmp_path / "rows.jsonl"), None, tmp_path / "out", tmp_path / "state")
    assert not (tmp_path / "out" / "report.json").exists()


def test_shards_give_the_import_once(tmp_path):
    write_jsonl(tmp_path / "sft.jsonl", [Case(language="en", question="Another case", reference="flu")])
    (tmp_path / "rows.jsonl").write_text(json.dumps({"Question": Q, "Complex_CoT": T, "Response": R}))
    told = settings(tmp_path / "rows.jsonl")
    folders = []
    for index in range(3):
        part = told.model_copy(update={"shard": told.shard.model_copy(update={"index": index, "count": 3})})
        folders.append(tmp_path / f"shard-{index}")
        synthesize(part, tmp_path / "sft.jsonl", folders[-1], tmp_path / f"state-{index}")
    report = merge_shards(told, tmp_path / "sft.jsonl", reversed(folders), tmp_path / "out", tmp_path / "merge")
    assert report.traces == 1
    assert len(read_jsonl(tmp_path / "out" / "traces.jsonl", Trace)) == 1


def test_what_is_exported_comes_in_again(tmp_path):
    rows = [{"Question": Q, "Complex_CoT": T, "Response": R, "Ground-True Answer": "gout"},
            {"Question": ZH[0], "Complex_CoT": ZH[1], "Response": ZH[2]}]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    take_traces(settings(tmp_path / "rows.jsonl"), None, tmp_path / "first", tmp_path / "state")
    assert export_traces(tmp_path / "first", tmp_path / "hf", "apache-2.0") == 2
    readme = (tmp_path / "hf" / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(readme.split("---")[1])
    assert front["license"] == "apache-2.0"
    assert front["language"] == ["en", "zh"]
    from datasets import load_dataset

    loaded = load_dataset("parquet", data_files=str(tmp_path / "hf" / "data" / "train.parquet"), split="train",
                          cache_dir=str(tmp_path / "cache"))  # fmt: skip
    assert loaded[0]["messages"][1]["reasoning_content"] == T
    assert loaded[0]["verified"] is True
    again = settings(tmp_path / "hf" / "data" / "train.parquet")
    take_traces(again, None, tmp_path / "second", tmp_path / "state")
    one, two = (read_jsonl(tmp_path / name / "traces.jsonl", Trace) for name in ("first", "second"))
    told = [(t.question, t.thinking, t.response, t.references, t.outcome) for t in one]
    assert told == [(t.question, t.thinking, t.response, t.references, t.outcome) for t in two]
    assert export_traces(tmp_path / "first", tmp_path / "verified", unverified=False) == 1
    assert read_report(tmp_path / "second").imported == {"messages": 2}


def test_the_published_demo_of_huatuogpt_o1(tmp_path):
    path = Path(__file__).resolve().parents[3] / "shared" / "data" / "huatuogpt_o1_demo_198.json"
    if not path.is_file():
        pytest.skip("the demo data are not here")
    report = take_traces(settings(path), None, tmp_path / "out", tmp_path / "state")
    assert report.imported == {"columns": 198}
    assert report.traces + report.rejected == 198
    assert report.outcomes["direct"] > 0
    assert report.rejected < 20
