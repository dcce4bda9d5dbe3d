"""Benchmarks in their publishers' forms: what is asked, what counts as right, and what the figures say of it.

The items are made up; where the real files are at hand they are read whole as well.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clinical_r1.errors import UserError
from clinical_r1.evaluation.answer import asked
from clinical_r1.evaluation.benchmarks import find, load_benchmark
from clinical_r1.evaluation.config import EvaluationConfig
from clinical_r1.evaluation.measure.credit import rubric_metrics
from clinical_r1.evaluation.measure.metrics import measure
from clinical_r1.evaluation.run import judge_twice
from clinical_r1.reasoning import Outcome
from clinical_r1.schema import Case, Criterion, Prediction, RubricScore, VerdictLabel
from clinical_r1.verifier.judgement import Judgement
from clinical_r1.verifier.rule import RuleVerifier
from pipelines.cli.main import app

SHARED = Path(__file__).parents[3] / "shared" / "data"
SLOTS = {"explicit_inform_slots": {"Cough": True}, "implicit_inform_slots": {"Fever": False}}
OPTIONS = {"A": "Fever", "B": "Cough", "C": "Gout", "D": "Rash"}
LINES = "A. 发热\nB. 咳嗽\nC. 痛风\nD. 皮疹"
ITEMS: dict[str, list[dict[str, Any]]] = {
    "medqa": [{"question": "Which?", "options": OPTIONS, "answer": "Gout", "answer_idx": "C"}],
    "medmcqa": [
        {"question": "Which?", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": cop, "id": str(cop)}
        for cop in (0, 3)
    ],
    "medxpertqa": [{"id": "Text-1", "question": "Which? Answer Choices: (A) Fever", "options": OPTIONS, "label": "C"}],
    "medbullets": [{"question": "Which?", "opa": "Fever", "opb": "Gout", "answer": "Gout", "answer_idx": "B"}],
    "cmb": [{"question": "哪些？", "option": OPTIONS, "answer": "ABD", "question_type": "多项选择题"}],
    "cmexam": [{"Question": "哪些？", "Options": LINES, "Answer": "AB"}],
    "diagnosisarena": [
        {"id": 1, "Case Information": "A man coughs.", "Physical Examination": "Rales.", "Diagnostic Tests": "CRP 90.",
         "Final Diagnosis": "Pneumonia", "Options": {"A": "Gout", "B": "Pneumonia"}, "Right Option": "B"}
    ],
    "dxy": [{"consult_id": i, "goal": SLOTS, "disease_tag": name} for i, name in enumerate(("Asthma", "Pneumonia"))],
    "medbench-hard": [
        {"id": "m1", "question": "A man coughs.", "reference": "Pneumonia", "specialty": "respiratory"}
    ],
}  # fmt: skip


def file_of(tmp_path: Path, name: str, items: list[dict[str, Any]]) -> Path:
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")
    return path


def verdict(case: Case, answer: str) -> VerdictLabel:
    return RuleVerifier("code").judge_sync(Judgement.of(case, answer)).label


@pytest.mark.parametrize("name", ITEMS)
def test_every_form_is_read_and_says_what_is_right(name: str, tmp_path: Path):
    cases, notes = find(f"{name}={file_of(tmp_path, name, ITEMS[name])}", tmp_path)[0].load()
    assert len(cases) == len(ITEMS[name]) and any(note.startswith("right here: ") for note in notes)
    for case in cases:
        said = " and ".join(case.references) if not case.options else ", ".join(
            "ABCDEFGHIJ"[case.options.index(reference)] for reference in case.references
        )  # fmt: skip
        label = "最终答案：" if case.language == "zh" else "Final answer: "
        label = "Final diagnosis: " if not case.options else label
        assert verdict(case, f"{label}{said}") is VerdictLabel.CORRECT


def test_an_item_of_several_right_options_wants_them_all_and_no_other(tmp_path: Path):
    case = load_benchmark("cmb", file_of(tmp_path, "cmb", ITEMS["cmb"]))[0]
    assert case.references == ["Fever", "Cough", "Rash"] and "全部正确选项的字母" in case.prompt
    assert verdict(case, "最终答案：A、B、D") is VerdictLabel.CORRECT
    assert verdict(case, "答案为：ABD") is VerdictLabel.CORRECT
    for wrong in ("最终答案：AB", "最终答案：ABCD", "最终答案：A"):
        assert verdict(case, wrong) is VerdictLabel.INCORRECT
    assert verdict(case, "很难说。") is VerdictLabel.UNDECIDED


def test_a_set_can_be_asked_open_or_among_its_candidates(tmp_path: Path):
    path = file_of(tmp_path, "dxy", ITEMS["dxy"])
    open_, closed = load_benchmark("dxy", path), load_benchmark("dxy:closed", path)
    assert not open_[0].options and closed[0].options == ["Asthma", "Pneumonia"]
    arena = file_of(tmp_path, "arena", ITEMS["diagnosisarena"])
    assert load_benchmark("diagnosisarena", arena)[0].options
    case = load_benchmark("diagnosisarena:open", arena)[0]
    assert not case.options and case.references == ["Pneumonia"]
    assert find(f"dxy:closed={path}", tmp_path)[0].name == "dxy-closed"
    with pytest.raises(UserError, match="ask it dxy:open or dxy:closed"):
        find(f"dxy:shut={path}", tmp_path)
    with pytest.raises(UserError, match="no choices in it"):
        load_benchmark("cases:closed", file_of(tmp_path, "own", ITEMS["medbench-hard"]))


def test_diagnosisarenas_list_counts_at_its_first_place_and_at_any(tmp_path: Path):
    chosen = find(f"diagnosisarena:top5={file_of(tmp_path, 'arena', ITEMS['diagnosisarena'])}", tmp_path)[0]
    (case,), notes = chosen.load()
    assert chosen.ranked == 5 and not case.options and "(top 1), or any of the 5" in notes[0]
    config = EvaluationConfig(ranked=5)
    (turn,) = asked(config, case)
    assert turn["content"].endswith("numbered, one a line, nothing else.") and "Final diagnosis" not in turn["content"]
    other = case.model_copy(update={"id": "other"})
    said = {
        "first": "1. Pneumonia;\n2. Gout;",
        "third": "1. Gout\n2) Asthma\n3. **Pneumonia**",
        "none": "1. Gout\n2. Asthma",
        "sixth": "".join(f"{n}. Gout\n" for n in range(1, 6)) + "6. Pneumonia",
        "one": "Final diagnosis: pneumonia",
    }
    cases = [other.model_copy(update={"id": name}) for name in said]
    rows = [
        Prediction(case_id=name, output="", thinking="t", response=text, outcome=Outcome.OK)
        for name, text in said.items()
    ]
    judged = judge_twice(config, cases, rows, tmp_path / "state")
    assert [row.verdict.label.right for row in judged if row.verdict] == [True, False, False, False, True]
    assert [len(row.ranked) for row in judged] == [2, 3, 2, 5, 0]
    metrics = measure(cases, judged)
    assert metrics.overall.correct == 2 and metrics.top is not None and metrics.top.correct == 3


def test_what_is_left_out_is_counted(tmp_path: Path):
    rows = [*ITEMS["medmcqa"], {**ITEMS["medmcqa"][0], "cop": -1, "id": "x"}]
    cases, notes = find(f"medmcqa={file_of(tmp_path, 'medmcqa', rows)}", tmp_path)[0].load()
    assert len(cases) == 2 and "1 items of the file left out: 1 x cop: no answer in this part of the set" in notes


def test_medbench_hards_form_wants_a_specialty(tmp_path: Path):
    row = {key: value for key, value in ITEMS["medbench-hard"][0].items() if key != "specialty"}
    with pytest.raises(UserError, match=r"m\.jsonl:1: specialty: missing"):
        load_benchmark("medbench-hard", file_of(tmp_path, "m", [row]))


def test_dxbench_among_its_candidates_whole():
    if not (SHARED / "DxBench_zh.json").is_file():
        pytest.skip("../shared/data is absent")
    cases = load_benchmark("dxbench:closed", SHARED / "DxBench_zh.json")
    assert len(cases) == 1148 and all(case.reference in case.options for case in cases)


HEALTH = [
    {
        "prompt_id": f"p{i}",
        "prompt": [
            {"role": "user", "content": "My father fell."},
            {"role": "assistant", "content": "Is he awake?"},
            {"role": "user", "content": f"Yes, but his speech is slurred ({i}). What now?"},
        ],
        "rubrics": [
            {"criterion": "Tells the user to call an ambulance", "points": 7, "tags": ["axis:accuracy"]},
            {"criterion": "Names the time of onset as important", "points": 3, "tags": ["axis:completeness"]},
            {"criterion": "Advises to wait until tomorrow", "points": -5, "tags": ["axis:accuracy"]},
        ],
        "example_tags": ["theme:emergency_referrals", "physician_agreed_category:emergent"],
    }
    for i in range(6)
]


def test_points_follow_from_what_is_met():
    rubric = [Criterion(text="a", points=7), Criterion(text="b", points=3), Criterion(text="c", points=-5)]
    for met, share in (([True, True, False], 1.0), ([True, False, True], 0.2), ([False, False, True], -0.5)):
        assert RubricScore(met=met, judge="j").share(rubric) == pytest.approx(share)
    assert RubricScore(met=[True, None, False], judge="j").share(rubric) is None
    case = Case(id="x", language="en", question="?", rubric=rubric)
    rows = [
        Prediction(case_id="x", output="", thinking="", response="r", outcome=Outcome.OK,
                   rubric=RubricScore(met=met, judge="j"))
        for met in ([False, False, True], [False, None, True])
    ]  # fmt: skip
    found = rubric_metrics([(case, row) for row in rows])
    assert found is not None and (found.n, found.unscored, found.mean, found.low) == (1, 1, 0.0, 0.0)


JUDGED: list[str] = []
ASKED: list[list[dict[str, str]]] = []


@pytest.fixture
def url(scripted) -> str:
    """Answers as a model (wisely to even cases), and grades as a judge: met is what a word of is said."""

    def reply(body: dict[str, Any]) -> str:
        text = body["messages"][-1]["content"]
        if "criterion" in text:
            JUDGED.append(text)
            answer, criterion = text.split("<answer>")[1].split("</answer>")[0], text.split("<criterion>")[1]
            word = next(word for word in ("ambulance", "onset", "tomorrow") if word in criterion)
            return json.dumps({"met": word in answer})
        ASKED.append(body["messages"])
        even = int(text.split("(")[1][0]) % 2 == 0
        return "Call an ambulance; note the time of onset." if even else "Call an ambulance tomorrow."

    return scripted(reply)


def run(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, list(arguments))
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def test_health_bench_is_asked_as_a_conversation_and_graded_by_its_rubrics(url: str, tmp_path: Path):
    path = file_of(tmp_path, "hb", HEALTH)
    judge = {"name": "judge", "base_url": url, "model": "j", "trusted": True}
    settings = {"reward_judge": {"verifier": {"kind": "llm"}, "endpoint": judge}}
    (tmp_path / "e.yaml").write_text(json.dumps(settings), encoding="utf-8")
    given = ["evaluate", url, "--model", "m", "--trusted", "-b", str(path), "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match=r"rubrics, which a model grades: set the judge's verifier\.kind to llm"):
        run(*given)
    assert not ASKED  # nothing was paid before that was said
    said = run(*given, "--config", str(tmp_path / "e.yaml"))
    assert [turn["role"] for turn in ASKED[0]] == ["user", "assistant", "user"]
    assert len(JUDGED) == 18 and "ASSISTANT: Is he awake?" in JUDGED[0]
    assert "rubric points 60.0%" in said and "accuracy" not in said
    metrics = json.loads((tmp_path / "out" / "m" / "hb" / "metrics.json").read_text(encoding="utf-8"))
    rubric = metrics["rubric"]
    assert (rubric["n"], rubric["mean"]) == (6, pytest.approx(0.6)) and rubric["low"] < 0.6 < rubric["high"]
    assert rubric["by"]["criteria"]["axis:completeness"]["mean"] == pytest.approx(0.5)
    assert rubric["by"]["criteria"]["axis:accuracy"]["mean"] == pytest.approx((1 + 2 / 7) / 2)
    page = (tmp_path / "out" / "m" / "hb" / "evaluation.html").read_text(encoding="utf-8")
    assert "earns 60.0% of the points" in page and "emergency_referrals" in page and "reward judge accepts" not in page
    run(*given, "--config", str(tmp_path / "e.yaml"))
    assert len(JUDGED) == 18  # what was graded is not asked again
    folder = tmp_path / "out" / "m" / "hb"
    assert "+0.0 points" in run("compare", str(folder), str(folder), "--out", str(tmp_path / "c")).replace(
        " 0.0", " +0.0"
    )


def test_wrong_rubrics_are_named(tmp_path: Path):
    for change, said in (
        ({"rubrics": []}, "rubrics: not a list of criteria"),
        ({"rubrics": [{"criterion": "x", "points": -3}]}, "rubrics: no criterion earns points"),
        ({"prompt": [{"role": "assistant", "content": "Hi"}]}, "prompt: does not end with a message of the user"),
    ):
        with pytest.raises(UserError, match=rf"h\.jsonl:1: {said}"):
            load_benchmark("healthbench", file_of(tmp_path, "h", [{**HEALTH[0], **change}]))
