"""The promotion gate: decisions, their reasons and their power."""

import json

import pytest
from invented_run import make_cases, make_prediction, make_predictions

from clinical_r1.baseline import read_baseline
from clinical_r1.errors import UserError
from clinical_r1.evaluation.measure.compare import PairedResult, result_of
from clinical_r1.evaluation.promotion.gate import GateInputs, decide, specialty_rules, write_gate
from clinical_r1.evaluation.promotion.policy import GateConfig, Policy, read_policy
from clinical_r1.evaluation.promotion.run import multiple_choice
from clinical_r1.objectstore.manifest import approve
from clinical_r1.reasoning import Outcome
from clinical_r1.schema import Verdict, VerdictLabel
from clinical_r1.stats import Pairs, shrink

CASES = make_cases(1050)
MEDQA = make_cases(900, seed=9)
INCUMBENT = make_predictions(CASES, 0.55, 1, tokens=4)
BETTER = make_predictions(CASES, 0.66, 2, tokens=4)
BASE_MEDQA = make_predictions(MEDQA, 0.5, 3)


def inputs(**changes) -> GateInputs:
    values = {
        "cases": CASES, "candidate": BETTER, "rival": INCUMBENT, "names": ("incumbent", "candidate"), "incumbent": True,
        "forgetting_cases": MEDQA, "forgetting_base": BASE_MEDQA, "forgetting_candidate": BASE_MEDQA,
    }  # fmt: skip
    return GateInputs(**(values | changes))


def results(result) -> dict[str, str]:
    return {rule.rule: rule.result for rule in result.rules}


def test_a_better_model_is_promoted_with_the_power_of_each_rule():
    result = decide(inputs(), Policy())
    assert result.decision == "promote", result.reasons
    assert len([rule for rule in result.rules if rule.rule.startswith("specialty")]) == 7
    for rule in result.rules:
        if rule.rule.startswith(("accuracy", "forgetting", "specialty")):
            assert "%" in rule.power


def test_an_equal_model_is_held_and_a_worse_one_refused():
    same = decide(inputs(candidate=INCUMBENT), Policy())
    assert (same.decision, results(same)["accuracy"]) == ("hold", "hold")
    worse = decide(inputs(candidate=INCUMBENT, rival=BETTER), Policy())
    assert (worse.decision, results(worse)["accuracy"]) == ("refuse", "refuse")


def test_rules_that_left_answers_undecided_hold_the_gate():
    """Under the reward judge; the independent judge may be the rules alone, whose lower bounds are called that."""
    open_ = Verdict(label=VerdictLabel.UNDECIDED, judge="rule")
    left = [row.model_copy(update={"verdict": open_}) if i % 20 == 0 else row for i, row in enumerate(BETTER)]
    held = decide(inputs(candidate=left), Policy())
    assert results(held)["undecided answers"] == "hold"
    assert any("the rules left an answer undecided and no judge was asked" in rule.reason for rule in held.rules)
    left = [row.model_copy(update={"independent": open_}) if i % 20 == 0 else row for i, row in enumerate(BETTER)]
    passed = decide(inputs(candidate=left), Policy())
    assert passed.decision == "promote"
    assert any("of lower bounds, 5.0% of the pairs undecided" in rule.reason for rule in passed.rules)


def test_non_inferior_mode_lets_an_equal_model_pass():
    assert decide(inputs(candidate=INCUMBENT), Policy(mode="non_inferior")).decision == "promote"


def test_forgetting_is_judged_against_the_base_model():
    lost = decide(inputs(forgetting_candidate=make_predictions(MEDQA, 0.38, 4)), Policy())
    assert (lost.decision, results(lost)["forgetting"]) == ("refuse", "refuse")
    missing = decide(inputs(forgetting_cases=[], forgetting_base=[], forgetting_candidate=[]), Policy())
    assert (missing.decision, results(missing)["forgetting"]) == ("hold", "hold")


def test_a_change_of_form_is_not_taken_for_a_change_of_knowledge():
    """Answers without a readable choice beyond two in a hundred hold the gate, whichever side they are on."""
    open_ = Verdict(label=VerdictLabel.UNDECIDED, judge="rule", reason="no_choice")
    for side in ("forgetting_candidate", "forgetting_base"):
        rows = [row.model_copy(update={"verdict": open_}) if i % 20 == 0 else row for i, row in enumerate(BASE_MEDQA)]
        held = decide(inputs(**{side: rows}), Policy())
        assert results(held)["forgetting"] == "hold"
        assert any("no choice could be read in 5.0% of the" in rule.reason for rule in held.rules)
        assert 0.05 in held.unread.values()
    few = [row.model_copy(update={"verdict": open_}) if i % 100 == 0 else row for i, row in enumerate(BASE_MEDQA)]
    passed = decide(inputs(forgetting_candidate=few, forgetting_base=few), Policy())
    assert passed.decision == "promote"
    assert any("no choice could be read in 1.0% of the candidate's" in rule.reason for rule in passed.rules)


def test_a_forgetting_set_made_of_the_test_cases_is_no_forgetting_set():
    probe = multiple_choice(CASES[:300])
    answers = make_predictions(probe, 0.5, 3)
    said = {"forgetting_cases": probe, "forgetting_base": answers, "forgetting_candidate": answers}
    held = decide(inputs(**said), Policy())
    assert results(held)["forgetting"] == "hold"
    assert "300 of its questions are test cases" in " ".join(held.reasons)
    told = decide(inputs(**said, forgetting_source="asked of the test cases"), Policy())
    rule = next(rule for rule in told.rules if rule.rule == "forgetting")
    assert (rule.result, rule.reason.endswith("; asked of the test cases")) == ("pass", True)


def test_a_language_with_one_diagnosis_is_left_out_of_the_probe():
    lone = CASES[0].model_copy(update={"id": "lone", "language": "zh"})
    others = [case.model_copy(update={"language": "en"}) for case in CASES[1:40]]
    probe = multiple_choice([lone, *others])
    assert [case.id for case in probe] == [f"{case.id}-choice" for case in others]
    with pytest.raises(UserError, match=r"gate\.forgetting: the test cases hold fewer than two"):
        multiple_choice([lone])


def strata(*sizes_and_differences: tuple[int, float]) -> dict[str, PairedResult]:
    """Specialties with exactly these differences, 20% discordant."""
    made = {}
    for index, (n, difference) in enumerate(sizes_and_differences):
        second = round(n * (0.2 + difference) / 2)
        first = second - round(n * difference)
        made[f"s{index:02d}"] = result_of(Pairs(n // 2, first, second, n - n // 2 - first - second))
    return made


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ([(50, 0.10)] * 19 + [(50, -0.08)], "pass"),  # chance in a small one, against all the others
        ([(500, 0.05)] * 6 + [(500, -0.05)], "refuse"),
        ([(50, 0.10)] * 10 + [(500, -0.06)], "refuse"),
        ([(60, -0.03)] * 4, "hold"),
        ([(500, 0.02)] * 7, "pass"),
    ],
)
def test_small_specialties_swing_and_large_ones_speak(layout, expected):
    rules = specialty_rules(strata(*layout), Policy().specialty)
    assert rules[-1].result == expected, rules[-1].reason
    assert expected == "hold" or all(rule.result == "pass" for rule in rules[:-1])


def test_specialties_of_few_cases_are_judged_together_and_that_is_said():
    rules = specialty_rules(strata((400, 0.05), (10, 0.1), (12, -0.1), (8, 0.0)), Policy().specialty)
    assert [rule.n for rule in rules] == [400, 30]
    assert rules[1].rule == "specialties of fewer than 30 pairs (s01, s02, s03)"


def test_shrinkage_lies_between_a_group_and_all_of_them():
    few, many = shrink([-0.08, 0.1, 0.1, 0.1], [0.07] * 4, 0.05), shrink([-0.08, 0.1, 0.1, 0.1], [0.01] * 4, 0.05)
    assert -0.08 < many[0].mean < few[0].mean < 0.1
    assert many[0].below(0) > 0.99 > few[0].below(0)
    alone = shrink([0.03], [0.02], 0.05)[0]
    assert alone.mean == pytest.approx(0.03)
    assert 0.5 > alone.below(0) > 0.05


def test_one_harmed_specialty_refuses_a_model_that_is_better_overall():
    harmed = [
        make_prediction(c, False, tokens=4) if c.specialty == "urology" else p
        for c, p in zip(CASES, BETTER, strict=True)
    ]
    result = decide(inputs(candidate=harmed), Policy())
    assert results(result)["specialty urology"] == "refuse"
    assert result.decision == "refuse"


def test_a_gain_that_the_independent_judge_does_not_see_is_held():
    blind = [b.model_copy(update={"independent": a.independent}) for a, b in zip(INCUMBENT, BETTER, strict=True)]
    result = decide(inputs(candidate=blind), Policy())
    assert results(result)["accuracy"] == "pass"
    assert results(result)["accuracy, independent judge"] == "hold"


def test_an_independent_judge_that_mostly_failed_is_held():
    failed = Verdict(label=VerdictLabel.INVALID, judge="llm:other")
    some = [row.model_copy(update={"independent": failed}) if i % 3 == 0 else row for i, row in enumerate(BETTER)]
    held = results(decide(inputs(candidate=some), Policy()))
    assert (held["failed judgements"], held["failed judgements, independent judge"]) == ("pass", "hold")


def test_what_is_missing_is_said_with_what_to_add():
    alone = [row.model_copy(update={"independent": None}) for row in BETTER]
    result = decide(inputs(candidate=alone, forgetting_cases=[]), Policy())
    assert result.decision == "hold"
    second, forgetting = result.reasons[:2]
    assert "the answers of candidate;" in second and "--config two-judges" in second and "require_independent" in second
    assert "--forgetting CANDIDATE BASE" in forgetting


def test_lost_reasoning_and_invented_findings_are_refused():
    mute = [p.model_copy(update={"outcome": Outcome.NO_THINK, "thinking": ""}) for p in BETTER]
    assert results(decide(inputs(candidate=mute), Policy()))["reasoning rate"] == "refuse"
    inventing = [p.model_copy(update={"thinking": "The patient has jaundice. 患者有黄疸。"}) for p in BETTER]
    assert results(decide(inputs(candidate=inventing), Policy()))["hallucinated reasoning"] == "refuse"


def test_a_rate_at_its_limit_is_held_and_not_refused():
    some = [p.model_copy(update={"thinking": "The patient has jaundice. 患者有黄疸。"}) if i % 100 < 21 else p
            for i, p in enumerate(BETTER)]  # fmt: skip
    assert results(decide(inputs(candidate=some), Policy()))["hallucinated reasoning"] == "hold"
    mute = [p.model_copy(update={"outcome": Outcome.NO_THINK}) if i % 9 == 0 else p for i, p in enumerate(BETTER)]
    assert results(decide(inputs(candidate=mute), Policy()))["reasoning rate"] == "hold"


def test_no_incumbent_asks_for_an_absolute_minimum():
    result = decide(inputs(incumbent=False), Policy.model_validate({"no_incumbent": {"min_accuracy": 0.95}}))
    assert results(result)["absolute minimum (no incumbent)"] == "refuse"


def test_a_biased_benchmark_disables_the_gate():
    with pytest.raises(UserError, match="biased comparison"):
        decide(inputs(biased="filtered by the incumbent's failures"), Policy())


def test_approval_needs_a_name_and_a_reason_and_no_refusal():
    promoted = decide(inputs(), Policy())
    with pytest.raises(UserError, match="approved_by"):
        approve("candidate", promoted, "", "fine")
    approved = approve("candidate", promoted, "Dr. Example", "reviewed 100 cases")
    assert (approved.approved_by, approved.overrides, approved.decision) == ("Dr. Example", [], "promote")
    held = decide(inputs(candidate=INCUMBENT), Policy())
    with pytest.raises(UserError, match="is held"):
        approve("candidate", held, "Dr. Example", "because", override_refusal=True)
    assert approve("candidate", held, "Dr. Example", "because", override_hold=True).overrides[0].decision == "hold"
    refused = decide(inputs(candidate=INCUMBENT, rival=BETTER), Policy())
    with pytest.raises(UserError, match="was refused"):
        approve("candidate", refused, "Dr. Example", "because", override_hold=True)
    assert approve("candidate", refused, "Dr. A", "because", override_refusal=True).overrides[0].by == "Dr. A"


def test_files_of_the_gate(tmp_path):
    result = write_gate(inputs(), read_policy(), tmp_path)
    assert json.loads((tmp_path / "gate.json").read_text(encoding="utf-8"))["decision"] == result.decision
    assert read_baseline(tmp_path).n == len(BETTER)
    assert "Not a medical device" in (tmp_path / "gate.html").read_text(encoding="utf-8")


def test_policy_files_are_checked(tmp_path):
    assert read_policy() == read_policy()
    bad = tmp_path / "policy.yaml"
    bad.write_text("mode: lax\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"policy\.yaml:1: mode"):
        read_policy(bad)
    with pytest.raises(UserError, match="no such policy file"):
        read_policy(tmp_path / "none.yaml")


@pytest.mark.parametrize("setting", ["policy", "incumbent", "forgetting"])
def test_an_address_is_refused_as_it_was_given(setting):
    with pytest.raises(ValueError, match="s3://models/7b is an address; copy it to this machine"):
        GateConfig.model_validate({setting: "s3://models/7b"})
