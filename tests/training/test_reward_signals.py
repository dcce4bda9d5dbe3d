"""Rewards made of several signals: verdict, chosen option, points of a rubric; each is kept and logged apart."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from clinical_r1.errors import UserError
from clinical_r1.reasoning import Outcome, Split, split
from clinical_r1.rewards import ReasoningRule, RewardTable, reward, reward_table
from clinical_r1.schema import Case, Criterion, VerdictLabel
from clinical_r1.training.ppo.batch import Episode, signal_means
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.ppo.scoring import JudgeThread, Scorer
from clinical_r1.verifier.config import JudgeConfig

THOUGHT = "Okay, fever suggests pneumonia. Also, cough suggests asthma. So pneumonia fits best."
RUBRIC = [Criterion(text="says rest", points=3), Criterion(text="says fluids", points=1),
          Criterion(text="says gout", points=-2)]  # fmt: skip
BOTH = Case(id="both", language="en", question="Fever?", references=["Pneumonia"], rubric=RUBRIC)
PLAIN = Case(id="plain", language="en", question="Fever?", references=["Pneumonia"])
ALONE = Case(id="alone", language="en", question="What now?", rubric=RUBRIC)
CHOICE = Case(id="choice", language="en", question="Which?", references=["Gout"], options=["Asthma", "Gout"])


def paid(table: str | RewardTable, label: VerdictLabel = VerdictLabel.CORRECT, **beside: Any) -> float | None:
    referred = beside.pop("referred", True)
    return reward(reward_table(table), Outcome.OK, label, 20, THOUGHT, None, None, beside, referred)


def test_the_reward_lies_so_far_between_wrong_and_right_as_the_weighted_signals_say():
    table = reward_table("huatuo").model_copy(update={"mix": {"verdict": 3.0, "rubric": 1.0}})
    assert paid(table, rubric=1.0) == 1.0
    assert paid(table, VerdictLabel.INCORRECT, rubric=1.0) == pytest.approx(0.1 + 0.25 * 0.9)
    assert paid(table, rubric=0.5) == pytest.approx(0.1 + (0.75 + 0.125) * 0.9)
    assert paid("verdict_and_rubric", VerdictLabel.INCORRECT, rubric=0.6) == pytest.approx(0.3)


def test_a_signal_that_a_case_lacks_is_left_out_and_one_that_failed_masks():
    assert paid("verdict_and_rubric") == 1.0
    assert paid("verdict_and_rubric", VerdictLabel.UNDECIDED, rubric=0.4, referred=False) == pytest.approx(0.4)
    assert paid("verdict_and_rubric", rubric=None) is None
    assert paid("verdict_and_rubric", VerdictLabel.INVALID, rubric=1.0) is None
    assert paid("choice", VerdictLabel.INVALID, choice=1.0) == 1.0, "no verdict is asked for where none is mixed in"
    assert paid("paper", rubric=0.2, choice=0.0) == 1.0, "what the table does not mix in changes nothing"


def test_a_mix_is_checked():
    for mix, said in (({}, "at least 1 item"), ({"verdict": 0}, "greater than 0"), ({"length": 1}, "Input should be")):
        with pytest.raises(ValidationError, match=said):
            RewardTable.model_validate({**reward_table("paper").model_dump(), "mix": mix})
    assert reward_table("choice").without([CHOICE, PLAIN]) == "plain"
    assert reward_table("verdict_and_rubric").without([BOTH, PLAIN, ALONE]) == ""
    with pytest.raises(ValidationError, match=r"rubric, which a model grades: set judge\.verifier\.kind"):
        PPOConfig(reward_table="rubric")


def grade(body: dict[str, Any]) -> str:
    """A criterion is met where its last word is said; a diagnosis is right where it names pneumonia."""
    text = body["messages"][-1]["content"]
    answer = text.split("<answer>")[1].split("</answer>")[0]
    if "<criterion>" not in text:
        return json.dumps({"verdict": "correct" if "pneumonia" in answer else "incorrect"})
    word = text.split("<criterion>")[1].split("</criterion>")[0].split()[-1]
    return json.dumps({"met": word in answer}) if "broken" not in answer else "I cannot say."


@pytest.fixture
def judge(scripted) -> Iterator[JudgeThread]:
    endpoint = {"name": "j", "base_url": scripted(grade), "model": "j", "trusted": True, "max_resamples": 0}
    config = JudgeConfig.model_validate({"verifier": {"kind": "llm", "max_invalid_share": 1}, "endpoint": endpoint})
    with JudgeThread(config) as thread:
        yield thread


class Texts:
    """Reads an episode whose completion is the number of a text."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def read(self, completion: list[int], finished: bool) -> tuple[Split, int]:
        return split(f"<think>{THOUGHT}</think>{self.texts[completion[0]]}"), 20


def scored(judge: JudgeThread, table: str, asked: list[tuple[Case, str]]) -> list[Episode]:
    episodes = [Episode(case=i, prompt=[1], completion=[i], logprobs=[0.0], finished=True) for i in range(len(asked))]
    scorer = Scorer(judge, Texts([text for _, text in asked]), reward_table(table), ReasoningRule())  # type: ignore[arg-type]
    scorer.finish(episodes, scorer.start(episodes, [case for case, _ in asked]))
    return episodes


def test_episodes_are_paid_by_what_their_cases_have(judge: JudgeThread):
    asked = [(BOTH, "pneumonia: rest, fluids"), (BOTH, "gout: rest"), (PLAIN, "pneumonia"), (ALONE, "rest"),
             (BOTH, "pneumonia, broken"), (ALONE, "gout gout")]  # fmt: skip
    episodes = scored(judge, "verdict_and_rubric", asked)
    assert [episode.score for episode in episodes] == [1.0, pytest.approx(0.125), 1.0, pytest.approx(0.75), None, 0.0]
    assert [episode.signals.get("rubric") for episode in episodes] == [1.0, pytest.approx(0.25), None, 0.75, None, 0.0]
    assert [episode.label.right for episode in episodes] == [True, False, True, None, True, None]
    means = signal_means(episodes)
    assert means["train/signal_rubric"] == pytest.approx((1 + 0.25 + 0.75 + 0) / 4)
    assert means["train/signal_rubric_failed"] == 1.0


def test_choices_are_paid_without_a_judge():
    with JudgeThread(JudgeConfig()) as rules:
        episodes = scored(rules, "choice", [(CHOICE, "Final answer: B"), (CHOICE, "Final answer: A"), (CHOICE, "Hm.")])
    assert [episode.score for episode in episodes] == [1.0, 0.0, 0.0]
    assert signal_means(episodes)["train/signal_choice"] == pytest.approx(1 / 3)


def test_a_case_that_earns_nothing_is_named_before_training():
    with pytest.raises(UserError, match="no such table"):
        reward_table("rubrics")
