"""Multiple choice: the option that an answer commits to, in the forms that models write."""

from pathlib import Path

import pytest
import yaml

from clinical_r1.schema import VerdictLabel
from clinical_r1.verifier.choice import chosen_index, read_choice
from clinical_r1.verifier.judgement import Judgement
from clinical_r1.verifier.rule import RuleVerifier

OPTIONS = ["Aspirin", "Heparin", "Warfarin", "Amphotericin B", "Observation"]

FORMS = yaml.safe_load(Path(__file__).with_name("choices.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("answer", FORMS["second"])
def test_reads_the_chosen_option(answer: str) -> None:
    assert read_choice(answer, OPTIONS).index == 1


@pytest.mark.parametrize("answer", FORMS["none"])
def test_never_guesses(answer: str) -> None:
    choice = read_choice(answer, OPTIONS)
    assert choice.index is None and choice.problem


def test_options_that_begin_alike_or_differ_in_signs_are_told_apart() -> None:
    assert read_choice("The answer is aspirin plus heparin.", ["Aspirin", "Aspirin plus heparin"]).index == 1
    assert read_choice("Amphotericin B is the best answer.", OPTIONS).index == 3
    assert read_choice("The answer is LOD > 3.", ["LOD < 3", "LOD > 3"]).index == 1
    assert read_choice("2.67 is correct.", ["2", "2.67"]).index == 1
    assert read_choice("↓ ↑", ["↑ ↓", "↓ ↑"]).index == 1
    assert read_choice("The answer is early repair", ["Ear", "Early repair"]).index == 1


def test_the_right_option_is_known_by_text_or_letter() -> None:
    assert chosen_index("heparin.", OPTIONS) == 1
    assert chosen_index("B", OPTIONS) == 1
    assert chosen_index("gout", OPTIONS) is None


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("B", "correct"),
        ("The answer is A.", "incorrect"),
        ("A and B", "undecided"),
        ("Perhaps.", "undecided"),
        ("", "incorrect"),
    ],
)
def test_an_unread_choice_is_undecided_never_wrong(answer: str, label: str) -> None:
    item = Judgement("q", "Heparin", answer, "en", options=OPTIONS)
    assert RuleVerifier().judge_sync(item).label is VerdictLabel(label)


def test_options_that_are_diagnoses_may_be_named_otherwise() -> None:
    item = Judgement(
        "q", "Myocardial infarction", "The diagnosis is heart attack.", "en", options=["Gout", "Myocardial infarction"]
    )
    assert RuleVerifier().judge_sync(item).label is VerdictLabel.CORRECT
