"""Published models as rivals: asked in their publishers' words, drawn as they state it, and said so."""

import json
from typing import Any

import pytest
from invented_run import make_cases
from pydantic import ValidationError
from typer.testing import CliRunner

from clinical_r1.evaluation.answer import messages
from clinical_r1.evaluation.config import OURS, EvaluationConfig, baselines
from clinical_r1.schema import Case, read_jsonl, write_jsonl
from clinical_r1.schema import Prediction as Row
from pipelines.cli.main import app

PAPER = (
    "Please provide a detailed and comprehensive diagnostic analysis of this medical record, and give the diagnostic "
    "results."
)
OPEN = Case(id="o", language="en", question="Fever, cough and {rales}.", references=["Pneumonia"])
CLOSED = Case(
    id="c", language="en", question="Which is it?", references=["Pneumonia"], options=["Asthma", "Pneumonia", "Gout"]
)


def test_the_papers_model_is_asked_what_its_publisher_asks():
    assert messages(OPEN, "clinicalgpt-r1-preview") == [
        {"role": "user", "content": f"Fever, cough and {{rales}}.\n\n{PAPER}\n"}
    ]


def test_choices_are_listed_in_the_publishers_form_and_once():
    asked = messages(CLOSED, "gpt-4o")
    assert asked[0] == {"role": "system", "content": "You are a helpful assistant."}
    assert asked[1]["content"].endswith("Which is it?\n\nA) Asthma\nB) Pneumonia\nC) Gout")
    assert "LETTER is one of ABC." in asked[1]["content"]
    listing = CLOSED.model_copy(update={"question": "Which is it?\nA. Asthma\nB. Pneumonia\nC. Gout"})
    assert messages(listing, "huatuogpt-o1")[0]["content"].count("Pneumonia") == 1


def test_what_a_publisher_has_no_words_for_is_asked_in_ours():
    assert messages(CLOSED, "clinicalgpt-r1-preview")[0]["content"] == CLOSED.prompt
    assert messages(OPEN, OURS) == [{"role": "user", "content": OPEN.prompt}]
    assert messages(OPEN, OURS, "Be brief.")[0]["content"] == "Be brief."


@pytest.mark.parametrize("name", baselines())
def test_every_baseline_makes_a_configuration_and_can_be_asked_anything(name: str):
    config = EvaluationConfig.model_validate({"baseline": name})
    published = baselines()[name]
    stated = {"prompt": name, "thinking": published.thinking, **published.decoding}
    assert stated.items() <= config.model_dump().items()
    for case in (OPEN, CLOSED):
        text = messages(case, name)[-1]["content"]
        assert case.question in text and "{question}" not in text and "{options}" not in text
        assert all(option in text for option in case.options)


def test_what_is_set_beside_a_baseline_wins_and_an_unknown_one_is_named():
    config = EvaluationConfig.model_validate({"baseline": "huatuogpt-o1", "temperature": 0, "prompt": OURS})
    assert (config.temperature, config.top_p, config.prompt, config.thinking) == (0, 0.9, OURS, "headings")
    with pytest.raises(ValidationError, match="'gpt-5o' is no baseline; use one of"):
        EvaluationConfig.model_validate({"baseline": "gpt-5o"})
    with pytest.raises(ValidationError, match="'mine' is no baseline"):
        EvaluationConfig(prompt="mine")


SEEN: list[dict[str, Any]] = []


@pytest.fixture
def url(scripted) -> str:
    """Answers every case rightly, in HuatuoGPT-o1's headings, and keeps what it was sent."""

    def reply(body: dict[str, Any]) -> str:
        SEEN.append(body)
        asked = body["messages"][-1]["content"]
        right = next(case.reference for case in make_cases(6) if case.question in asked)
        return f"## Thinking\n\nIt may be this or that.\n\n## Final Response\n\nFinal diagnosis: {right}"

    return scripted(reply)


def evaluated(url: str, tmp_path, *options: str) -> tuple[dict[str, Any], list[Row]]:
    write_jsonl(tmp_path / "cases.jsonl", make_cases(6))
    SEEN.clear()
    arguments = ["evaluate", url, "-b", str(tmp_path / "cases.jsonl"), "--trusted", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*arguments, *options])
    assert done.exit_code == 0, (done.output, done.exception)
    folder = next((tmp_path / "out").glob("*/cases"))
    return json.loads((folder / "metrics.json").read_text("utf-8")), read_jsonl(folder / "predictions.jsonl", Row)


def test_an_endpoint_is_asked_and_drawn_as_the_baseline_says(url: str, tmp_path):
    metrics, rows = evaluated(url, tmp_path, "--baseline", "huatuogpt-o1")
    assert metrics["model"] == "huatuogpt-o1" and metrics["overall"]["correct"] == 6
    assert all(row.thinking == "It may be this or that." for row in rows)
    assert len(SEEN) == 6
    for body in SEEN:
        drawn = {key: body[key] for key in ("model", "temperature", "top_p", "max_tokens", "top_k")}
        assert drawn == {
            "model": "FreedomIntelligence/HuatuoGPT-o1-7B", "temperature": 0.5, "top_p": 0.9, "max_tokens": 2000,
            "top_k": -1,
        }  # fmt: skip
        assert "End your reply" not in body["messages"][-1]["content"]
    assert metrics["decoding"]["temperature"] == 0.5
    assert any("in the published words of huatuogpt-o1" in note for note in metrics["notes"])


def test_sampling_beyond_openais_protocol_reaches_the_endpoint(url: str, tmp_path):
    metrics, _ = evaluated(url, tmp_path, "--baseline", "qwen2.5-7b-instruct")
    assert {(body["top_k"], body["repetition_penalty"]) for body in SEEN} == {(20, 1.05)}
    assert (metrics["decoding"]["top_k"], metrics["decoding"]["repetition_penalty"]) == (20, 1.05)
    assert any("states no words" in note for note in metrics["notes"])


def test_the_papers_words_for_any_model_and_other_words_are_another_evaluation(url: str, tmp_path):
    evaluated(url, tmp_path, "--model", "ours")
    assert not any(PAPER in body["messages"][-1]["content"] for body in SEEN)
    metrics, _ = evaluated(url, tmp_path, "--model", "ours", "--prompt", "clinicalgpt-r1-preview")
    assert len(SEEN) == 6 and all(PAPER in body["messages"][-1]["content"] for body in SEEN)
    assert (metrics["model"], metrics["decoding"]["temperature"]) == ("ours", 0.0)
    evaluated(url, tmp_path, "--model", "ours", "--prompt", "clinicalgpt-r1-preview")
    assert not SEEN  # the same evaluation goes on where it was


def test_the_listing_names_each_baseline_with_its_source():
    said = CliRunner().invoke(app, ["evaluate", "--list"]).output
    for name, one in baselines().items():
        assert name in said and one.model in said and all(source in said for source in one.source)
