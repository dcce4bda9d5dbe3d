"""Expert review (queue, CSV round trip, agreement) and the verifier audit."""

import json
import random
import re

import pytest
from invented_run import make_cases, make_predictions

from clinical_r1.errors import UserError
from clinical_r1.evaluation.judging.audit import LabelledJudgement, audit_verifier, corrected_accuracy, write_audit
from clinical_r1.evaluation.judging.review import (
    ReviewItem,
    agreements,
    build_queue,
    from_csv,
    import_reviews,
    to_csv,
    write_queue,
)
from clinical_r1.llm.client import run_calls
from clinical_r1.schema import Verdict, VerdictLabel, read_jsonl
from clinical_r1.stats import wilson
from clinical_r1.verifier.rule import RuleVerifier

CASES = make_cases(140)


def queue(size=60, seed=0):
    answers = {"model-a": make_predictions(CASES, 0.5, 1), "model-b": make_predictions(CASES, 0.6, 2)}
    return build_queue(CASES, answers, size, seed)


def test_queue_is_blinded_stratified_and_reproducible(tmp_path):
    items, keys = queue()
    assert (items, keys) == queue()
    assert items != queue(seed=1)[0]
    assert {key.model for key in keys} == {"model-a", "model-b"}
    assert {item.language for item in items} == {"en", "zh"}
    write_queue(items, keys, tmp_path)
    page = (tmp_path / "review.html").read_text(encoding="utf-8")
    shown = page + (tmp_path / "review.csv").read_text(encoding="utf-8")
    assert not re.search(r"model-b|llm:test", shown)
    assert all(key.case_id not in shown for key in keys)
    assert "https://" not in page
    data = re.search(r"const items = (\[.*?\]), columns", page, re.S)[1]
    assert [row["item"] for row in json.loads(data)] == [item.item for item in items]


def test_csv_round_trip_loses_nothing(tmp_path):
    items, _ = queue(4)
    nasty = ['=HYPERLINK("x")', 'line\nbreak, comma; "quotes" \'', "'+1", "中文，备注"]
    items = [
        item.model_copy(update={"comment": text, "grade": "partly", "reasoning": "invented", "reviewer": "-a"})
        for item, text in zip(items, nasty, strict=True)
    ]
    (tmp_path / "r.csv").write_bytes(to_csv(items).encode("utf-8"))
    assert from_csv(tmp_path / "r.csv") == items


def test_record_text_cannot_end_the_script(tmp_path):
    items, keys = queue(1)
    items = [items[0].model_copy(update={"question": "</script><script>alert(1)</script>"})]
    write_queue(items, keys, tmp_path)
    assert "</script><script>alert" not in (tmp_path / "review.html").read_text(encoding="utf-8")


def test_agreement_of_experts_and_verifier(tmp_path):
    items, keys = queue(60)
    write_queue(items, keys, tmp_path)
    truth = {key.item: key.verifier for key in keys}
    reviews = []
    for name, errors in (("first", 0), ("second", 6)):
        for index, item in enumerate(items):
            right = truth[item.item] != (index < errors)
            reviews.append(item.model_copy(update={"grade": "correct" if right else "incorrect", "reviewer": name}))
    result = {(a.first, a.second): a for a in agreements(reviews, {row.item: row for row in keys})}
    assert result["first", "verifier"].kappa == pytest.approx(1)
    assert result["first", "second"].agreed == pytest.approx(0.9)
    assert result["first", "second"].n == 60


def test_an_expert_says_one_thing_of_an_item(tmp_path):
    items, keys = queue(6)
    write_queue(items, keys, tmp_path)
    graded = [item.model_copy(update={"grade": "correct", "reviewer": "li"}) for item in items]
    half = [item.model_copy(update={"grade": "", "reviewer": "li"}) for item in items[:3]] + graded[3:]
    for name, rows in (("a", half), ("b", graded), ("c", graded[:1])):
        (tmp_path / f"{name}.csv").write_text(to_csv(rows), encoding="utf-8")
    files = [tmp_path / f"{name}.csv" for name in "abc"]
    (found,) = import_reviews([*files, files[1]], tmp_path / "key.jsonl", tmp_path / "out")
    assert (found.first, found.second, found.n) == ("li", "verifier", 6)
    assert read_jsonl(tmp_path / "out" / "grades.jsonl", ReviewItem) == sorted(graded, key=lambda row: row.item)
    other = graded[0].model_copy(update={"grade": "incorrect"})
    (tmp_path / "d.csv").write_text(to_csv([other]), encoding="utf-8")
    with pytest.raises(UserError, match=f"d.csv: li graded item {other.item} twice"):
        import_reviews([*files, tmp_path / "d.csv"], tmp_path / "key.jsonl", tmp_path / "out")
    unnamed = []
    for folder, grade in (("li", "correct"), ("wang", "incorrect")):
        unnamed.append(tmp_path / folder / "review.csv")
        unnamed[-1].parent.mkdir()
        rows = [item.model_copy(update={"grade": grade}) for item in items]
        unnamed[-1].write_text(to_csv(rows), encoding="utf-8")
    pairs = {(one.first, one.second) for one in import_reviews(unnamed, tmp_path / "key.jsonl", tmp_path / "out")}
    assert ("li/review", "wang/review") in pairs and len(pairs) == 3
    named = graded[0].model_copy(update={"reviewer": "verifier"})
    (tmp_path / "e.csv").write_text(to_csv([named]), encoding="utf-8")
    with pytest.raises(UserError, match="an expert called 'verifier'"):
        import_reviews([tmp_path / "e.csv"], tmp_path / "key.jsonl", tmp_path / "out")


def test_bad_reviews_are_user_errors(tmp_path):
    items, _ = queue(2)
    path = tmp_path / "r.csv"
    path.write_text(to_csv(items).replace('""', '"perhaps"', 1), encoding="utf-8")
    with pytest.raises(UserError, match="row 2: grade"):
        from_csv(path)
    path.write_text("item,grade\nr1,correct\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"column \w+ is missing"):
        from_csv(path)


def labelled(count: int) -> list[LabelledJudgement]:
    rows = []
    for index, case in enumerate(make_cases(count)):
        right = index % 2 == 0
        answer = case.reference if right else ("Common cold" if case.language == "en" else "感冒")
        rows.append(
            LabelledJudgement(
                question=case.question, reference=case.reference, answer=answer, language=case.language, correct=right
            )
        )
    return rows


def test_audit_of_the_rule_verifier(tmp_path):
    audit = run_calls(audit_verifier(RuleVerifier(), labelled(80)))
    found = audit.confusion
    assert (found["true_accept"], found["false_accept"], found["false_reject"]) == (40, 0, 0)
    assert found["true_reject"] + audit.invalid == 40 and found["true_reject"] >= 30, (
        "what has no known code is undecided"
    )
    assert audit.kappa == pytest.approx(1)
    assert audit.stability["negation"].changed == 0
    assert audit.stability["paraphrase"].n == 80 - audit.invalid
    write_audit(audit, tmp_path, {"ours": (60, 100)})
    assert "60.0%" in (tmp_path / "audit.html").read_text(encoding="utf-8")


class Noisy:
    """A judge that errs at known rates; some judgements fail."""

    name = "noisy"

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    async def judge(self, item):
        right = item.reference == item.answer
        accept = self.rng.random() < (0.9 if right else 0.15)
        label = VerdictLabel.CORRECT if accept else VerdictLabel.INCORRECT
        return Verdict(label=VerdictLabel.INVALID if self.rng.random() < 0.05 else label, judge=self.name)


def test_audit_finds_the_error_rates_and_corrects_for_them():
    audit = run_calls(audit_verifier(Noisy(1), labelled(800)))
    assert audit.invalid > 10
    assert audit.sensitivity == pytest.approx(0.9, abs=0.04)
    assert audit.specificity == pytest.approx(0.85, abs=0.05)
    reported = round(1000 * (0.6 * 0.9 + 0.4 * 0.15))
    estimate, interval, bias = corrected_accuracy(reported, 1000, audit)
    assert interval.low < 0.6 < interval.high
    assert estimate == pytest.approx(0.6, abs=0.06)
    assert bias == pytest.approx(reported / 1000 - estimate)


def test_corrected_interval_covers():
    rng, covered, runs = random.Random(5), 0, 300
    base = run_calls(audit_verifier(Noisy(2), labelled(40)))
    for _ in range(runs):
        right = [rng.random() < 0.9 for _ in range(100)]
        wrong = [rng.random() < 0.85 for _ in range(100)]
        counts = {
            "true_accept": sum(right), "false_reject": 100 - sum(right),
            "true_reject": sum(wrong), "false_accept": 100 - sum(wrong),
        }  # fmt: skip
        audit = base.model_copy(
            update={
                "confusion": counts, "sensitivity": sum(right) / 100, "specificity": sum(wrong) / 100,
                "sensitivity_interval": wilson(sum(right), 100), "specificity_interval": wilson(sum(wrong), 100),
            }
        )  # fmt: skip
        reported = sum(rng.random() < 0.6 * 0.9 + 0.4 * 0.15 for _ in range(400))
        covered += (
            corrected_accuracy(reported, 400, audit)[1].low <= 0.6 <= corrected_accuracy(reported, 400, audit)[1].high
        )
    assert covered / runs >= 0.91


def test_several_answers_to_one_question_count_as_one_in_the_audit():
    """The judge errs by question; four answers a question must not make its error rates look four times as sure."""
    rows = [row for row in labelled(60) for _ in range(4)]
    alone = [row.model_copy(update={"patient": f"p{index}"}) for index, row in enumerate(rows)]

    class ByQuestion(Noisy):
        async def judge(self, item):
            self.rng = random.Random(f"{item.question}")
            return await super().judge(item)

    together, apart = (run_calls(audit_verifier(ByQuestion(1), some)) for some in (rows, alone))
    assert together.confusion == apart.confusion

    def width(audit):
        return audit.specificity_interval[1] - audit.specificity_interval[0]

    assert width(together) > 1.5 * width(apart)
    spread = [corrected_accuracy(300, 500, audit)[1] for audit in (together, apart)]
    assert spread[0].high - spread[0].low > spread[1].high - spread[1].low
