"""The builder, contamination, and the registry with its real files."""

import json
from collections import Counter
from pathlib import Path

import pytest
from invented_run import make_cases, make_predictions

from clinical_r1.errors import UserError
from clinical_r1.evaluation.benchmarks import (
    BuilderConfig,
    DifficultyFilter,
    bias_of,
    build_benchmark,
    load_benchmark,
    names,
    overlaps,
)
from clinical_r1.evaluation.config import EvaluationConfig
from clinical_r1.evaluation.measure.metrics import is_right
from clinical_r1.schema import Case, read_jsonl, write_jsonl

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def pool(tmp_path):
    cases = make_cases(700)
    write_jsonl(tmp_path / "pool.jsonl", cases)
    return tmp_path / "pool.jsonl"


def test_builder_draws_the_asked_strata_reproducibly(pool, tmp_path):
    config = BuilderConfig(per_specialty=30)
    report = build_benchmark(config, pool, None, tmp_path / "a")
    again = build_benchmark(config, pool, None, tmp_path / "b")
    assert report == again
    assert set(report["by_specialty"].values()) == {30}
    drawn = read_jsonl(tmp_path / "a" / "cases.jsonl", Case)
    per_category = Counter((case.specialty, case.icd10[:3]) for case in drawn)
    assert set(per_category.values()) == {15}, "two categories a specialty, in equal parts"
    other = build_benchmark(BuilderConfig(per_specialty=30, seed=1), pool, None, tmp_path / "c")
    assert other["sha256"] != report["sha256"]
    assert "not checked" in (tmp_path / "a" / "card.md").read_text(encoding="utf-8")


def test_order_of_the_records_changes_nothing(pool, tmp_path):
    write_jsonl(tmp_path / "turned.jsonl", make_cases(700)[::-1])
    one = build_benchmark(BuilderConfig(per_specialty=20), pool, None, tmp_path / "a")
    two = build_benchmark(BuilderConfig(per_specialty=20), tmp_path / "turned.jsonl", None, tmp_path / "b")
    assert one["sha256"] == two["sha256"]


def test_contaminated_and_scarce_cases_are_counted(pool, tmp_path):
    training = [case.model_copy(update={"id": f"t-{case.id}"}) for case in make_cases(700)[:70]]
    write_jsonl(tmp_path / "training.jsonl", training)
    report = build_benchmark(BuilderConfig(per_specialty=95), pool, tmp_path / "training.jsonl", tmp_path / "out")
    assert report["contaminated"] >= 70
    assert report["short"]
    drawn = {case.id for case in read_jsonl(tmp_path / "out" / "cases.jsonl", Case)}
    assert not drawn & {case.id.removeprefix("t-") for case in training}


def test_difficulty_filter_keeps_a_share_unfiltered_and_marks_the_bias(pool, tmp_path):
    cases = make_cases(700)
    predictions = make_predictions(cases, 0.5, 1)
    write_jsonl(tmp_path / "p.jsonl", predictions)
    difficulty = DifficultyFilter(model="incumbent", predictions=tmp_path / "p.jsonl")
    report = build_benchmark(BuilderConfig(per_specialty=30, difficulty=difficulty), pool, None, tmp_path / "out")
    wrong = {row.case_id for row in predictions if is_right(row) is False}
    drawn = [case.id for case in read_jsonl(tmp_path / "out" / "cases.jsonl", Case)]
    assert sum(case_id in wrong for case_id in drawn) / len(drawn) > 0.75
    assert "incumbent" in bias_of(report, ["candidate"], ancestors=["incumbent"])
    assert bias_of(report, ["other", "third"]) == ""
    assert "Biased comparison" in (tmp_path / "out" / "card.md").read_text(encoding="utf-8")
    done = EvaluationConfig(model_name="incumbent", identity="5eed")
    (tmp_path / "config.json").write_text(done.model_dump_json(), encoding="utf-8")
    again = build_benchmark(BuilderConfig(per_specialty=30, difficulty=difficulty), pool, None, tmp_path / "out")
    assert "incumbent" in bias_of(again, ["another name", "third", "5eed"])
    wrong_name = BuilderConfig(difficulty=DifficultyFilter(model="other", predictions=tmp_path / "p.jsonl"))
    with pytest.raises(UserError, match="are of incumbent, not of other"):
        build_benchmark(wrong_name, pool, None, tmp_path / "out")
    with pytest.raises(ValueError, match=r"greater than or equal to 0\.2"):
        DifficultyFilter(model="m", predictions=tmp_path / "p.jsonl", unfiltered=0.1)


def test_containment_sees_a_copy_and_not_a_stock_phrase():
    text = "A 44-year-old man presents to the emergency department with crushing chest pain that began two hours ago."
    item = Case(language="en", question=text, reference="x")
    copy = Case(language="en", question=text + " He is a smoker.", reference="y")
    phrase = Case(
        language="en",
        question="A 44-year-old man presents to the emergency department with a swollen knee.",
        reference="z",
    )
    assert [o.training_id for o in overlaps([item], [copy, phrase])] == [copy.id]
    assert overlaps([item], [phrase]) == []
    chinese = Case(language="zh", question="患者，男，四十四岁，胸骨后压榨样疼痛两小时，伴大汗。", reference="甲")
    said = Case(language="zh", question=chinese.question + "既往吸烟二十年。", reference="乙")
    assert [o.containment for o in overlaps([chinese], [said])] == [1.0]


def test_registry_names_its_files(tmp_path):
    assert {"cases", "dxbench", "medqa"} <= set(names())
    with pytest.raises(UserError, match="known ones are"):
        load_benchmark("medqq", tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"question": "?"}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"bad\.jsonl:1: question: empty"):
        load_benchmark("medqa", tmp_path / "bad.jsonl")
    (tmp_path / "bad.json").write_text(json.dumps([{"id": 1}]), encoding="utf-8")
    with pytest.raises(UserError, match="bad\.json:1: disease: missing"):
        load_benchmark("dxbench", tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("name", "file", "count"),
    [
        ("medqa", "medqa_test_1273.jsonl", 1273),
        ("dxbench", "DxBench_en.json", 1148),
        ("dxbench", "DxBench_zh.json", 1148),
    ],
)
def test_real_benchmarks_load_whole(name, file, count):
    if not (SHARED / file).is_file():
        pytest.skip("../shared/data is absent")
    cases = load_benchmark(name, SHARED / file)
    assert len(cases) == count == len({case.id for case in cases})
    assert {case.language for case in cases} == {"zh" if "zh" in file else "en"}
