"""The experiments as pipelines: shared steps have equal cache keys, arms states of their own, effects are as told."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from clinical_r1.errors import UserError
from clinical_r1.evaluation.experiments.reports import REPORTS
from clinical_r1.runs.arms import DESIGNS, ArmsData, Local, Training, Trial, arguments
from clinical_r1.runs.config import CONFIGS, load_as
from clinical_r1.simulator import teacher, world
from clinical_r1.simulator.beside import SimulatorConfig
from clinical_r1.step import CONTENTS
from clinical_r1.synthesis.config import SynthesisConfig
from pipelines.placement import Placement
from pipelines.registry import EXPERIMENTS, load_pipeline, pipeline_of, titles_of
from pipelines.runner import run_all

SHARED = ("ablate-rl", "ablate-rewards", "compare-algorithms", "compare-synthesizers", "cross-language")
SHARED_SECTIONS = ("records", "synthesis", "base_model", "reference_training", "reference_evaluation")


def told(name: str, tmp_path: Path, *overrides: str) -> dict:
    config = load_as(CONFIGS[name], f"experiments/{name}", list(overrides))
    simulated = config.report.model_copy(update={"simulated": True})
    config = config.model_copy(update={"report": simulated})
    return arguments(name, config, Local(tmp_path, tmp_path / "state", "twins"))


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_one_pipeline_takes_the_arguments_of_every_experiment(name: str, tmp_path: Path) -> None:
    assert set(CONFIGS) == set(DESIGNS) == set(REPORTS) and pipeline_of(name) == EXPERIMENTS
    inputs = load_pipeline(EXPERIMENTS).pipeline_spec.root.input_definitions.parameters
    given = {*told(name, tmp_path), "sources_sha256", "state_dir", "code_version", "simulator"}
    assert given == set(inputs) - set(Placement._fields)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_steps_read_back_what_they_are_told(name: str, tmp_path: Path) -> None:
    given = told(name, tmp_path)
    for arm in given["arms"]:
        training, trial = load(Training, arm["training"]), load(Trial, arm["evaluation"])
        assert trial.evaluation and (training.sft or training.ppo or trial.judge)
    data = load(ArmsData, given["arms_data"])
    assert bool(data.synthesis) == (name in ("compare-synthesizers", "cross-language", "held-out-site"))
    # Nothing but the judges' experiment goes without a trained model.
    assert (given["reference_training"] == "") == (name == "audit-verifier")
    assert [arm.name for arm in load(REPORTS[name][0], given["report"]).arms] == [arm["name"] for arm in given["arms"]]


def load(model: type, text: str) -> Any:
    told = json.loads(text)
    told.pop(CONTENTS, None)  # as a step does (load_settings)
    return model.model_validate_json(json.dumps(told))


def test_shared_steps_are_told_the_same_in_every_experiment(tmp_path: Path) -> None:
    first, *others = (told(name, tmp_path) for name in SHARED)
    for other in others:
        assert {key: first[key] for key in SHARED_SECTIONS} == {key: other[key] for key in SHARED_SECTIONS}


def test_the_papers_table_is_one_run_in_both_experiments_of_rl(tmp_path: Path) -> None:
    both = [told(name, tmp_path) for name in ("ablate-rl", "ablate-rewards")]
    assert both[0]["arms_data"] == both[1]["arms_data"]
    rl, rewards = ({arm["name"]: arm for arm in one["arms"]} for one in both)
    assert rl["paper-0"] == rewards["paper-0"] and rl["paper-1"] == rewards["paper-1"]


def test_algorithms_are_compared_on_equally_many_rollouts_and_ppo_is_the_other_experiments(tmp_path: Path) -> None:
    arms = {arm["name"]: arm for arm in told("compare-algorithms", tmp_path)["arms"]}
    rl = {arm["name"]: arm for arm in told("ablate-rl", tmp_path)["arms"]}
    assert set(arms) == {f"{one}-{seed}" for one in ("ppo", "rloo", "grpo") for seed in (0, 1)}
    assert arms["ppo-0"]["training"] == rl["paper-0"]["training"]
    assert arms["ppo-0"]["state_dir"] == rl["paper-0"]["state_dir"]
    made = [load(Training, arm["training"]).ppo for arm in arms.values()]
    assert len({one.steps * one.batch_size for one in made}) == 1
    assert {one.group_size for one in made if one.algorithm != "ppo"} == {4}
    with pytest.raises(UserError, match=r"algorithms: rloo: ppo: batch_size 6 must be a multiple of .* 4"):
        told("compare-algorithms", tmp_path, "ppo.batch_size=6", "ppo.minibatches=1", "ppo.micro_batch_size=1")


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_no_two_arms_share_a_state_folder(name: str, tmp_path: Path) -> None:
    states = [arm["state_dir"] for arm in told(name, tmp_path)["arms"]]
    assert len(states) > 0 and len(set(states)) == len(states)
    assert str(tmp_path / "state") not in states


def test_the_judge_is_the_same_for_both_synthesizers(tmp_path: Path) -> None:
    config = load_as(CONFIGS["compare-synthesizers"], "experiments/compare-synthesizers")
    rival = load(ArmsData, told("compare-synthesizers", tmp_path)["arms_data"]).synthesis
    assert rival.synthesizer.name == "rival" and rival.judge_endpoint == config.synthesis.judge_endpoint


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_budgets_and_limits_hold_for_all_arms_together(name: str, tmp_path: Path) -> None:
    """Of each kind of call: what is synthesized, what trains, what is evaluated."""
    judge = ["verifier.kind=llm", "endpoint.name=j", "endpoint.base_url=http://127.0.0.1:9/v1", "endpoint.model=m",
             "endpoint.requests_per_minute=60", "budget.max_cost=12"]  # fmt: skip
    places = ["ppo.judge", "evaluation.reward_judge"]
    overrides = [f"{place}.{one}" for place in places for one in judge] + ["synthesis.budget.max_cost=12"]
    given = told(name, tmp_path, *overrides)
    arms = [(load(Training, arm["training"]), load(Trial, arm["evaluation"])) for arm in given["arms"]]
    rates = [how.ppo.judge.endpoint.requests_per_minute for how, _ in arms if how.ppo]
    assert sum(how.ppo.judge.budget.max_cost for how, _ in arms if how.ppo) == pytest.approx(12 if rates else 0)
    assert all(rate * min(2, len(arms)) == 60 for rate in rates)
    if name != "audit-verifier":  # there each judge is an arm with a budget of its own
        trials = [load(Trial, given["reference_evaluation"]), *(trial for _, trial in arms)]
        assert sum(trial.evaluation.reward_judge.budget.max_cost for trial in trials) == pytest.approx(12)
        written = [
            SynthesisConfig.model_validate_json(given["synthesis"]),
            load(ArmsData, given["arms_data"]).synthesis,
        ]
        assert sum(one.budget.max_cost for one in written if one) == 12


def test_nothing_counts_as_planted_on_real_cases(tmp_path: Path) -> None:
    config = load_as(CONFIGS["held-out-site"], "experiments/held-out-site")
    given = arguments("held-out-site", config, Local(tmp_path, tmp_path))
    assert '"planted_points": null' in given["report"]


def test_the_planted_difference_of_the_synthesizers_is_what_the_simulator_does() -> None:
    config = load_as(CONFIGS["compare-synthesizers"], "experiments/compare-synthesizers")
    rates = []
    for endpoint in (SimulatorConfig(), config.endpoints["rival"]):
        mix = teacher.with_careful(teacher.CARE_FIRST, endpoint.world_care)
        rng, right, cases = random.Random(0), 0, list(world.sample_cases(3000, seed=9))
        for case in cases:
            right += teacher.attempt(case.chart, teacher.draw_care(rng, mix), rng).answer == case.reference
        rates.append(100 * right / len(cases))
    assert config.experiment.planted_points == pytest.approx(rates[1] - rates[0], abs=3)


def test_titles_are_read_from_the_pipeline() -> None:
    titles = titles_of(EXPERIMENTS)
    assert titles["prepare-records"] == "Read and split records"
    assert (titles["train-arm"], titles["train-arm-2"]) == ("Train the reference", "Train the arm")


def test_wrong_input_is_told_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown experiment 'ablate-r': did you mean 'ablate-rl'"):
        run_all(["ablate-r"], [], tmp_path, False)
    with pytest.raises(UserError, match="did you mean 'seeds'"):
        load_as(CONFIGS["ablate-rl"], "experiments/ablate-rl", ["experiment.seedz=[1]"])
    with pytest.raises(UserError, match="suspect 'nobody' is none of the judges"):
        load_as(CONFIGS["audit-verifier"], "experiments/audit-verifier", ["experiment.suspect=nobody"])
    with pytest.raises(UserError, match="no such table"):
        told("ablate-rewards", tmp_path, "experiment.tables=[paper, best]")
    with pytest.raises(UserError, match=r"labelled.*no such file"):
        told("audit-verifier", tmp_path, "experiment.labelled=/nowhere.jsonl")
