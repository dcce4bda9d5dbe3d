"""What RL, evaluation or the gate would refuse after hours of training is refused where the records are read."""

import json

import pytest

from clinical_r1.errors import UserError
from clinical_r1.records.config import LaterConfig, PhiConfig, RecordsConfig, Source, SplitConfig
from clinical_r1.records.run import prepare
from clinical_r1.runs.config import load_config
from clinical_r1.runs.resolve import with_later

RUBRIC = [{"text": "names the joint", "points": 1, "tags": []}]


def config(tmp_path, later, *, reference=lambda i: f"disease {i}", rubric=lambda i: []):
    rows = [
        {key: value for key, value in
         {"question": f"finding {i * 7} and sign {i}", "reference": reference(i), "rubric": rubric(i)}.items() if value}
        for i in range(40)
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = RecordsConfig(
        sources=[Source(path=str(tmp_path / "a.jsonl"))], phi=PhiConfig(policy="off", off_because="synthetic"),
        splits=SplitConfig(counts={"sft": 10, "rl": 10, "validation": 10, "test": 10}), later=later,
    )  # fmt: skip
    found.dedup.near = "off"
    return found


@pytest.mark.parametrize(
    ("later", "cases", "said"),
    [
        ({"paid": ["rubric"]}, {}, r"of the split rl has none of what ppo\.reward_table pays \(rubric\)"),
        ({"rubrics": False}, {"rubric": lambda i: RUBRIC}, r"has a rubric.*set evaluation\.reward_judge\.verifier"),
        ({"probe": True}, {"reference": lambda i: "gout"}, r"fewer than two different diagnoses.*gate\.forgetting"),
    ],
)  # fmt: skip
def test_it_is_refused_in_one_sentence_and_nothing_is_written(tmp_path, later, cases, said):
    with pytest.raises(UserError, match=said):
        prepare(config(tmp_path, LaterConfig(**later), **cases), tmp_path / "out")
    assert not (tmp_path / "out" / "sft.jsonl").exists()


def test_conversations_with_a_rubric_alone_cannot_be_watched_in_rl(tmp_path):
    rows = [
        {"prompt": [{"role": "user", "content": f"finding {i * 7} and sign {i}?"}],
         "rubrics": [{"criterion": "names the joint", "points": 1, "tags": []}]}
        for i in range(40)
    ]  # fmt: skip
    told = config(tmp_path, LaterConfig(paid=["rubric"], watched=3))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told.sources[0].format = "healthbench"
    with pytest.raises(UserError, match="of the split validation has no reference"):
        prepare(told, tmp_path / "out")
    told.later.watched = 0
    assert prepare(told, tmp_path / "out").cases == 40


def test_cases_that_later_steps_can_use_pass(tmp_path):
    asked = LaterConfig(paid=["verdict", "rubric"], rubrics=True, probe=True)
    assert prepare(config(tmp_path, asked, rubric=lambda i: RUBRIC if i % 2 else []), tmp_path / "out").cases == 40


def test_a_run_fills_it_in_from_what_its_steps_are_told():
    told = with_later(load_config("demo", ["ppo.reward_table=verdict_and_rubric"])).records.later
    assert set(told.paid) == {"verdict", "rubric"} and told.watched == 300 and told.rubrics and told.probe
    rules = ["evaluation.reward_judge={verifier: {kind: rule}}", "evaluation.independent_judge=null"]
    assert not with_later(load_config("demo", rules)).records.later.rubrics
