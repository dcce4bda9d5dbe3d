"""References that are lists: how a text is taken apart, and how cases and traces carry them."""

import json

import pytest
from pydantic import ValidationError

from clinical_r1.references import split_references
from clinical_r1.schema import Case, Trace, TraceOutcome


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("肺炎", ["肺炎"]),
        ("1.肺炎 2.高血压 3.2型糖尿病", ["肺炎", "高血压", "2型糖尿病"]),
        ("1、肺炎；2、高血压", ["肺炎", "高血压"]),
        ("1.肺炎2.高血压", ["肺炎", "高血压"]),
        ("①肺炎②高血压", ["肺炎", "高血压"]),
        ("（1）急性阑尾炎（2）腹膜炎", ["急性阑尾炎", "腹膜炎"]),
        ("肺炎；高血压", ["肺炎", "高血压"]),
        ("肺炎、高血压病3级、冠心病", ["肺炎", "高血压病3级", "冠心病"]),
        ("1. Pneumonia\n2. Type 2 diabetes\n", ["Pneumonia", "Type 2 diabetes"]),
        ("Pneumonia; hypertension; pneumonia", ["Pneumonia", "hypertension"]),
        ("Pneumonia\nHypertension", ["Pneumonia", "Hypertension"]),
        ("- Asthma\n- Gout", ["Asthma", "Gout"]),
        ("肺部感染\n2型糖尿病", ["肺部感染", "2型糖尿病"]),
        # one thing, whatever marks stand in it
        ("carcinoma, prostate", ["carcinoma, prostate"]),
        ("Decreased serum estradiol and increased serum LH", ["Decreased serum estradiol and increased serum LH"]),
        ("Pain is absent; a barium meal may help.", ["Pain is absent; a barium meal may help."]),
        ("主动脉瓣、二尖瓣关闭不全", ["主动脉瓣、二尖瓣关闭不全"]),
        ("脑炎、脊髓炎和脑脊髓炎", ["脑炎、脊髓炎和脑脊髓炎"]),
        ("2型糖尿病", ["2型糖尿病"]),
        ("Stage 1.5 disease", ["Stage 1.5 disease"]),
        ("1. Pneumonia", ["1. Pneumonia"]),
    ],
)  # fmt: skip
def test_a_reference_text_is_taken_apart_only_where_it_is_a_list(text: str, parts: list[str]) -> None:
    assert split_references(text) == parts


def test_a_case_takes_one_reference_or_a_list_and_writes_a_list() -> None:
    one = Case.model_validate({"language": "en", "question": "q", "reference": "Pneumonia"})
    assert one.references == ["Pneumonia"] and one.reference == "Pneumonia"
    assert one == Case(language="en", question="q", references=["Pneumonia"])
    written = json.loads(one.model_dump_json())
    assert written["references"] == ["Pneumonia"] and "reference" not in written
    assert Case.model_validate(written) == one
    many = Case.model_validate({"language": "zh", "question": "q", "reference": "1.肺炎 2.高血压"})
    assert many.references == ["肺炎", "高血压"] and many.reference == "肺炎"
    assert Case(language="zh", question="q", references=["a; b"]).references == ["a; b"], "a given list stands"


def test_a_single_reference_keeps_the_id_that_it_always_had() -> None:
    assert Case(language="en", question="q", references=["Pneumonia"]).id == "c-e7a0f4e8f474ca64"


def test_an_option_is_never_taken_apart() -> None:
    case = Case.model_validate(
        {"language": "en", "question": "q", "reference": "Asthma; gout", "options": ["Asthma; gout", "Asthma"]}
    )
    assert case.references == ["Asthma; gout"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "reference: missing"),
        ({"reference": "  "}, "reference: empty"),
        ({"reference": None}, "reference: null"),
        ({"references": []}, "references"),
        ({"references": ["a", " "]}, "an empty reference"),
        ({"reference": "a", "references": ["b"]}, "one of the two keys"),
    ],
)
def test_a_case_without_a_reference_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Case.model_validate({"language": "en", "question": "q", **fields})


def test_a_trace_carries_them_too() -> None:
    fields = {"case_id": "c", "language": "en", "question": "q", "outcome": TraceOutcome.DIRECT}
    assert Trace.model_validate({**fields, "reference": "Pneumonia"}).references == ["Pneumonia"]
