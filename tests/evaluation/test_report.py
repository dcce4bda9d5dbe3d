"""The training report: what it says, that it is self-contained, and that it can carry no record."""

import json
import re
from html.parser import HTMLParser

import pytest
from invented_run import make_cases, make_predictions, write_run

from clinical_r1.errors import UserError
from clinical_r1.evaluation.pages.report import ReportInputs, write_report
from clinical_r1.schema import Verdict, VerdictLabel

KEYS = {"cases", "traces", "outcomes", "sft", "ppo", "mcnemar_p", "seconds"}
MODEL_KEYS = {"accuracy", "n", "reasoning_rate", "mean_reasoning_tokens"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    cases = make_cases(600)
    return write_run(folder, cases, make_predictions(cases, 0.5, 1, 52), make_predictions(cases, 0.62, 2, 66))


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    write_report(ReportInputs(**run, simulated=True), out)
    return (out / "report.html").read_text(encoding="utf-8")


def test_summary_has_the_promised_keys(run, tmp_path):
    returned = write_report(ReportInputs(**run, ceiling=0.95), tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary == json.loads(json.dumps(returned))
    assert summary.keys() >= KEYS
    assert summary["sft"].keys() >= MODEL_KEYS
    assert summary["ppo"].keys() >= MODEL_KEYS
    assert summary["seconds"]["records"] == 10.5
    assert summary["outcomes"] == {"direct": 900, "recovered": 400, "guided": 100, "rejected": 100}
    assert summary["ppo"]["n"] == 600
    assert summary["mcnemar_p"] < 0.01
    assert summary["verdict"] == "gain"
    assert len(summary["by_specialty"]) == 7


def test_page_needs_no_network_and_is_small(page):
    assert len(page) < 1_000_000
    assert not re.search(r"""(src|href)\s*=|@import|url\(|<script|https?://""", page)


def test_page_is_well_formed(page):
    class Parser(HTMLParser):
        open: list[str] = []

        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "br", "rect", "line", "circle", "polyline", "polygon"):
                self.open.append(tag)

        def handle_endtag(self, tag):
            if tag not in ("rect", "line", "circle", "polyline", "polygon"):
                assert self.open.pop() == tag

    parser = Parser()
    parser.feed(page)
    assert parser.open == []


def test_page_says_what_a_clinician_must_know(page):
    assert "Simulated world." in page
    assert "Not a medical device; no autonomous diagnosis" in page
    assert "a gain of +" in page
    assert "95% interval" in page
    assert "Exploring new paths" in page
    assert "5e-6" in page
    assert "0.002" in page
    assert 'lang="zh"' in page
    for caption in ("SFT loss", "PPO reward", "KL to the SFT model", "Reasoning length", "PPO validation accuracy"):
        assert caption in page


def test_page_without_samples_carries_no_record_text(run, tmp_path):
    write_report(ReportInputs(**run, samples=0), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "complaint" not in page
    assert "主诉" not in page
    assert "Hmm" not in page
    assert "carry no sample" in page


def test_record_text_is_escaped(run, tmp_path):
    cases = make_cases(60)
    cases = [case.model_copy(update={"question": "<script>alert(1)</script> " + case.question}) for case in cases]
    paths = write_run(tmp_path / "run", cases, make_predictions(cases, 0.5, 1), make_predictions(cases, 0.5, 2))
    write_report(ReportInputs(**paths), tmp_path)
    assert "<script>alert" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_shows_answers_of_the_first_and_last_steps_and_names_the_algorithm(tmp_path):
    cases = make_cases(60)
    paths = write_run(tmp_path / "run", cases, make_predictions(cases, 0.5, 1), make_predictions(cases, 0.5, 2))
    (paths["ppo"] / "config.json").write_text(json.dumps({"algorithm": "rloo", "learning_rate": 5e-7}))
    row = {"case_id": "c", "reference": "gout", "verdict": "correct", "reward": 0.1, "outcome": "no_think", "tokens": 7}
    rows = [{"step": step, "response": f"<b>said in {step}</b>", "thinking": ""} | row for step in range(1, 41)]
    (paths["ppo"] / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    summary = write_report(ReportInputs(**paths, samples=4), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert summary["algorithm"] == "RLOO"
    assert "SFT + RLOO" in page
    assert "SFT + PPO" not in page
    assert re.search(r"RLOO \d+ s", page) and not re.search(r"PPO \d+ s", page)
    shown = [step for step in range(1, 41) if f"&lt;b&gt;said in {step}&lt;" in page]
    assert shown == [1, 2, 39, 40]


def test_the_page_tells_of_preference_pairs_and_of_the_base_model(tmp_path):
    cases = make_cases(60)
    paths = write_run(tmp_path / "run", cases, make_predictions(cases, 0.5, 1), make_predictions(cases, 0.5, 2))
    (paths["sft"] / "config.json").write_text(json.dumps({"epochs": 1, "dpo": {"learning_rate": 1e-5, "beta": 0.1}}))
    (paths["sft"] / "preference").mkdir()
    rows = [{"step": step, "train/loss": 0.69, "train/margin": 0.1 * step} for step in range(1, 5)]
    (paths["sft"] / "preference" / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    summary = write_report(ReportInputs(**paths, simulated=True, base_model="smollm2"), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "SFT + DPO + PPO" in page and "DPO margin" in page
    assert [row["run"] for row in summary["hyperparameters"] if row["stage"] == "DPO"] == ["1e-5", "0.1"]
    assert "training began with smollm2" in page and "tiny one" not in page
    write_report(ReportInputs(**paths, samples=0), tmp_path)
    assert "said in" not in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({}, ""),
        ({"steps_updated": 4}, ""),
        ({"steps_updated": 0, "kept_step": 0}, "GRPO has learnt nothing: no weight was updated in any of its 4 steps"),
        ({"steps_updated": 0, "kept_step": 0, "steps": 1, "steps_planned": 1}, "updated in its only step, since no"),
        ({"steps_updated": 0, "kept_step": 0}, "is the model before it, and so are its figures."),
        ({"steps_updated": 1}, "GRPO has updated the weights in 1 of its 4 steps; in the others no answer earned more"),
        ({"steps_updated": 4, "kept_step": 0}, "The weights that are kept are those before the first step"),
        ({"steps_updated": 4, "steps_planned": 9, "stop_reason": "KL runaway"}, "after 4 of 9 steps: KL runaway."),
        ({"steps_updated": 0, "steps": 0, "steps_planned": 0, "kept_step": 0}, "No step of GRPO was asked for."),
    ],
)
def test_page_summary_and_card_say_where_rl_changed_nothing_or_little(told, words, tmp_path):
    cases = make_cases(60)
    paths = write_run(tmp_path / "run", cases, make_predictions(cases, 0.5, 1), make_predictions(cases, 0.5, 1))
    (paths["ppo"] / "config.json").write_text(json.dumps({"algorithm": "grpo"}))
    planned = {"steps": 4, "steps_planned": 4, "kept_step": 4, "stop_reason": ""}
    step = {"step": "ppo", "seconds": 1.0, "metrics": {**planned, **told} if told else {}}
    (paths["ppo"] / "step.json").write_text(json.dumps(step))
    said = write_report(ReportInputs(**paths), tmp_path)["learning"]["said"]
    assert (words in said) if words else said == ""
    for file in ("report.html", "MODEL_CARD.md"):
        assert (said in (tmp_path / file).read_text(encoding="utf-8")) if said else True
    assert ("What GRPO changed." in (tmp_path / "report.html").read_text(encoding="utf-8")) == bool(said)


def test_traces_of_others_are_not_called_verified_and_no_teacher_is_said_to_have_written_them(tmp_path):
    cases = make_cases(60)
    paths = write_run(tmp_path / "run", cases, make_predictions(cases, 0.5, 1), make_predictions(cases, 0.5, 2))
    outcomes = {"direct": 20, "unverified": 280, "rejected": 5}
    report = {"traces": 300, "cases": 305, "outcomes": outcomes, "imported": {"columns": 305}}
    (paths["traces"] / "report.json").write_text(json.dumps(report))
    for simulated in (True, False):
        write_report(ReportInputs(**paths, simulated=simulated, simulated_teacher=True), tmp_path)
        page, card = ((tmp_path / name).read_text(encoding="utf-8") for name in ("report.html", "MODEL_CARD.md"))
        assert "reasoning traces of others (20 found right by a verifier, 280 not verified); 5 rejected" in page
        assert "nobody has checked whether they are right" in page
        assert "Traces of others: 300" in card and "The judge was simulated" in card
        for text in ("erified reasoning traces", "Verified traces", "eacher"):
            assert text not in page and text not in card


def test_without_a_judge_figures_are_lower_bounds_in_summary_and_report(tmp_path):
    cases = make_cases(60)
    open_ = Verdict(label=VerdictLabel.UNDECIDED, judge="rule")
    rows = [row.model_copy(update={"verdict": open_, "independent": None}) if i % 3 == 0
            else row.model_copy(update={"independent": None})
            for i, row in enumerate(make_predictions(cases, 0.5, 1))]  # fmt: skip
    summary = write_report(ReportInputs(**write_run(tmp_path / "run", cases, rows, rows)), tmp_path)
    assert "accuracy" not in summary["sft"]
    assert summary["ppo"]["lower_bound"] < 0.5
    assert summary["ppo"]["undecided_share"] == pytest.approx(1 / 3)
    body = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "SFT + PPO, lower bound" in body
    assert "33.3% of the answers of SFT + PPO" in body
    assert "SFT, accuracy" not in body
    assert "Lower bound on" in (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_an_uncertain_difference_is_not_called_a_gain(tmp_path):
    cases = make_cases(60)
    predictions = make_predictions(cases, 0.5, 1)
    paths = write_run(tmp_path / "run", cases, predictions, predictions[:1] + make_predictions(cases[1:], 0.5, 1))
    summary = write_report(ReportInputs(**paths), tmp_path)
    assert summary["verdict"] == "not shown"
    assert "a gain is not shown" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_report_without_the_optional_steps(run, tmp_path):
    inputs = {name: run[name] for name in ("records", "sft_predictions", "ppo_predictions")}
    summary = write_report(ReportInputs(**inputs), tmp_path)
    assert summary["traces"] == 0


def test_missing_predictions_name_the_file(run, tmp_path):
    with pytest.raises(UserError, match=r"predictions\.jsonl: no such file"):
        write_report(ReportInputs(**(run | {"ppo_predictions": tmp_path / "nowhere"})), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_real_cases_with_a_simulated_teacher_are_called_that(run, tmp_path):
    write_report(ReportInputs(**run, simulated_teacher=True), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Cases supplied by the user" in page and "Teacher and judge are simulated" in page
    assert "Simulated world" not in page and "de-identified by the PHI gate" in page


def test_what_became_of_the_rows_is_told_on_the_page_and_in_the_summary(run, tmp_path):
    summary = write_report(ReportInputs(**run), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert summary["records"]["sources"][0]["rejected"] == {"leak": 12, "malformed": 3}
    assert "12 leak, 3 malformed" in page and "3 × reference: empty" in page and "7 × Observation (cancelled)" in page
