"""Questions that the model's window cannot hold are found before anything is paid, and the advice names what helps."""

import json

import pytest

from clinical_r1.errors import UserError
from clinical_r1.records.config import PhiConfig, RecordsConfig, Source, WindowConfig
from clinical_r1.records.run import prepare
from clinical_r1.records.treat import token_counter
from clinical_r1.runs.config import load_config
from clinical_r1.runs.resolve import question_room, with_window

OFF = PhiConfig(policy="off", off_because="synthetic")


def config(tmp_path, **window):
    rows = [
        {"question": f"finding {i * 7} and sign {i}" + " pain" * (2000 if i < 2 else 1), "reference": "gout"}
        for i in range(30)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = RecordsConfig(sources=[Source(path=str(tmp_path / "a.jsonl"))], phi=OFF, window=WindowConfig(**window))
    found.dedup.near = "off"
    return found


def test_longer_questions_are_refused_or_dropped_and_counted(tmp_path):
    with pytest.raises(
        UserError, match=r"a.jsonl:1: 2 of 30 questions are longer than the 400 tokens.*records.window.longer to drop"
    ):
        prepare(config(tmp_path, tokens=400), tmp_path / "out")
    assert not (tmp_path / "out/sft.jsonl").exists()
    report = prepare(config(tmp_path, tokens=400, longer="drop"), tmp_path / "out")
    assert report.dropped["too_long"] == 2 and report.cases == 28 and report.malformed == 0


def test_without_a_window_nothing_is_asked(tmp_path):
    assert prepare(config(tmp_path), tmp_path / "out").cases == 30


def test_the_narrowest_step_decides_and_is_named():
    demo = load_config("demo")
    tokens, _ = question_room(demo)
    assert tokens == demo.base_model.tiny.window - max(demo.ppo.rollout.max_new_tokens, demo.evaluation.max_new_tokens)
    tight = load_config("demo", ["sft.max_length=256"])
    tokens, advice = question_room(tight)
    assert tokens == 56 and "raise sft.max_length (256)" in advice
    told = with_window(tight).records.window
    assert told.tokens == 56 and told.longer == "refuse"
    assert with_window(load_config("demo", ["records.window.tokens=99"])).records.window.tokens == 99


def test_an_estimate_is_never_too_high():
    count = token_counter("")
    assert count("pain in the toe since yesterday") <= 7 and count("发热三天伴咳嗽") <= 5
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        token_counter("/nowhere")
