"""Reward tables: the paper's values, null outcomes, masking of failed judgements, loops."""

import pytest

from clinical_r1.errors import UserError
from clinical_r1.reasoning import Outcome
from clinical_r1.rewards import ReasoningRule, RewardTable, repeats, reward, reward_table
from clinical_r1.schema import VerdictLabel

THOUGHT = "Okay, fever suggests pneumonia. Also, cough suggests asthma. So pneumonia fits best."
CORRECT, INCORRECT, INVALID = VerdictLabel.CORRECT, VerdictLabel.INCORRECT, VerdictLabel.INVALID


@pytest.mark.parametrize(
    ("name", "outcome", "label", "tokens", "expected"),
    [
        ("paper", Outcome.OK, CORRECT, 20, 1.0),
        ("paper", Outcome.OK, INCORRECT, 20, 0.0),
        ("paper", Outcome.OK, CORRECT, 3, 0.1),
        ("paper", Outcome.NO_THINK, CORRECT, 0, 0.1),
        ("paper", Outcome.EMPTY_THINK, CORRECT, 0, 0.1),
        ("paper", Outcome.NO_THINK, INCORRECT, 0, 0.0),
        ("huatuo", Outcome.OK, CORRECT, 20, 1.0),
        ("huatuo", Outcome.OK, INCORRECT, 20, 0.1),
        ("huatuo", Outcome.NO_THINK, CORRECT, 0, 0.0),
        ("accuracy", Outcome.NO_THINK, CORRECT, 0, 1.0),
    ],
)
def test_tables(name, outcome, label, tokens, expected):
    assert reward(reward_table(name), outcome, label, tokens, THOUGHT) == expected


@pytest.mark.parametrize("outcome", [Outcome.UNCLOSED, Outcome.NO_ANSWER, Outcome.MULTIPLE, Outcome.ABORTED])
@pytest.mark.parametrize("label", list(VerdictLabel))
def test_null_outcomes_earn_nothing_whatever_the_verdict(outcome, label):
    assert reward(reward_table("paper"), outcome, label, 50, THOUGHT) == 0.0


@pytest.mark.parametrize("label", [INVALID, VerdictLabel.UNDECIDED])
@pytest.mark.parametrize("table", ["paper", "huatuo", "accuracy"])
def test_what_is_no_verdict_is_no_reward(label, table):
    assert reward(reward_table(table), Outcome.OK, label, 50, THOUGHT) is None


def test_a_loop_is_paid_as_no_reasoning():
    loop = "Okay, it may be asthma. " * 8
    assert reward(reward_table("paper"), Outcome.OK, CORRECT, 60, loop) == 0.1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("very very very bad", False),
        ("no no no no no no no no no no no no no no", True),
        ("Wait, check again. " * 4, True),
        ("Wait, check again. " * 3, False),
        ("等等，再想想。" * 5, True),
        ("发热 提示 肺炎。另外，咳嗽 提示 哮喘。所以 肺炎 最符合。", False),
        ("A raised speaks for X. B normal speaks against Y. C high speaks for Z. D low speaks against W.", False),
        ("", False),
        ("word", False),
    ],
)
def test_repetition_loops(text, expected):
    assert repeats(text, 4) is expected


def test_own_table_and_rule():
    table = RewardTable(reasoning_correct=2, reasoning_incorrect=-1, plain_correct=0, plain_incorrect=-2, no_result=-3)
    assert reward_table(table) is table
    rule = ReasoningRule(min_reasoning_tokens=30)
    assert reward(table, Outcome.OK, INCORRECT, 29, THOUGHT, rule) == -2
    assert reward(table, Outcome.OK, INCORRECT, 30, THOUGHT, rule) == -1


def test_unknown_table_names_the_known_ones():
    with pytest.raises(UserError, match="accuracy, choice, huatuo, icd10_graded, paper, rubric, verdict_and_rubric"):
        reward_table("zzz")
    with pytest.raises(UserError, match=r"reward_table 'papr': no such table; did you mean 'paper'\?"):
        reward_table("papr")


def test_a_graded_table_pays_near_misses_between_wrong_and_correct():
    def earned(name, label, level):
        return reward(reward_table(name), Outcome.OK, label, 20, THOUGHT, level=level)

    assert earned("icd10_graded", INCORRECT, "block") == pytest.approx(0.3)
    assert earned("icd10_graded", INCORRECT, "category") == pytest.approx(0.6)
    assert earned("icd10_graded", INCORRECT, None) == 0.0
    assert earned("icd10_graded", CORRECT, "category") == 1.0
    assert earned("paper", INCORRECT, "block") == 0.0
