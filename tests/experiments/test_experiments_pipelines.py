"""The experiments as pipelines: shared steps have equal cache keys, arms states of their own, effects are as told."""

import random
from pathlib import Path

import pytest

from clinical_r1.errors import UserError
from clinical_r1.runs.arms import ARGUMENTS, Local
from clinical_r1.runs.config import load_as
from clinical_r1.runs.experiments import CONFIGS, CompareSynthesizersConfig, HeldOutSiteConfig
from clinical_r1.simulator import teacher, world
from clinical_r1.simulator.config import SimulatorConfig
from pipelines.placement import Placement
from pipelines.registry import PIPELINES, load_pipeline, titles_of
from pipelines.runner import check_names

SHARED = ("ablate-rl", "ablate-rewards", "compare-synthesizers", "cross-language")
SHARED_SECTIONS = ("records", "synthesis", "base_model", "sft", "evaluation", "state_dir", "sources_sha256")


def arguments(name: str, tmp_path: Path, *overrides: str) -> dict:
    config = load_as(CONFIGS[name], f"experiments/{name}", list(overrides))
    simulated = config.report.model_copy(update={"simulated": True})
    config = config.model_copy(update={"report": simulated})
    return ARGUMENTS[name](config, Local(tmp_path, tmp_path / "state", "sha", "code", "twins"))


def test_every_experiment_is_a_pipeline_with_arguments_for_all_its_inputs(tmp_path: Path) -> None:
    assert set(CONFIGS) == set(ARGUMENTS) <= set(PIPELINES)
    for name in CONFIGS:
        inputs = load_pipeline(name).pipeline_spec.root.input_definitions.parameters
        given = arguments(name, tmp_path) | {"simulator": ""}
        assert set(given) == set(inputs) - set(Placement._fields), name


def test_shared_steps_are_told_the_same_in_every_experiment(tmp_path: Path) -> None:
    first, *others = (arguments(name, tmp_path) for name in SHARED)
    for other in others:
        assert {key: first[key] for key in SHARED_SECTIONS} == {key: other[key] for key in SHARED_SECTIONS}


@pytest.mark.parametrize("name", SHARED)
def test_shared_steps_are_the_first_of_their_kind(name: str) -> None:
    """kfp numbers the later uses of a component, and the number is part of the cache key."""
    dag = load_pipeline(name).pipeline_spec.root.dag
    for task in ("prepare-records", "synthesize-shard", "base-model", "fine-tune", "evaluate-model"):
        assert dag.tasks[task].component_ref.name == f"comp-{task}"


def test_the_papers_table_is_one_run_in_both_experiments_of_rl(tmp_path: Path) -> None:
    rl = {arm["name"]: arm for arm in arguments("ablate-rl", tmp_path)["arms"]}
    rewards = {arm["name"]: arm for arm in arguments("ablate-rewards", tmp_path)["arms"]}
    assert rl["paper-0"] == rewards["paper-0"] and rl["paper-1"] == rewards["paper-1"]
    components = [load_pipeline(name).pipeline_spec for name in ("ablate-rl", "ablate-rewards")]
    names = [{n for n in spec.components if n.startswith(("comp-reinforce", "comp-evaluate"))} for spec in components]
    assert names[0] == names[1]


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_no_two_arms_share_a_state_folder(name: str, tmp_path: Path) -> None:
    given = arguments(name, tmp_path)
    states = [arm["state_dir"] for key in given if key.startswith("arms") for arm in given[key]]
    assert len(states) > 0 and len(set(states)) == len(states)
    assert given["state_dir"] not in states


def test_the_judge_is_the_same_for_both_synthesizers(tmp_path: Path) -> None:
    config = load_as(CompareSynthesizersConfig, "experiments/compare-synthesizers")
    rival = type(config.synthesis).model_validate_json(arguments("compare-synthesizers", tmp_path)["rival_synthesis"])
    assert rival.synthesizer.name == "rival" and rival.judge_endpoint == config.synthesis.judge_endpoint


def test_nothing_counts_as_planted_on_real_cases(tmp_path: Path) -> None:
    config = load_as(HeldOutSiteConfig, "experiments/held-out-site")
    given = ARGUMENTS["held-out-site"](config, Local(tmp_path, tmp_path, "sha", "code"))
    assert '"planted_points": null' in given["report"]


def test_the_planted_difference_of_the_synthesizers_is_what_the_simulator_does() -> None:
    config = load_as(CompareSynthesizersConfig, "experiments/compare-synthesizers")
    rates = []
    for endpoint in (SimulatorConfig(), config.endpoints["rival"]):
        mix = teacher.with_careful(teacher.CARE_FIRST, endpoint.world_care)
        rng, right, cases = random.Random(0), 0, list(world.sample_cases(3000, seed=9))
        for case in cases:
            right += teacher.attempt(case.chart, teacher.draw_care(rng, mix), rng).answer == case.reference
        rates.append(100 * right / len(cases))
    assert config.experiment.planted_points == pytest.approx(rates[1] - rates[0], abs=3)


def test_titles_are_read_from_the_pipeline() -> None:
    titles = titles_of("held-out-site")
    assert (
        titles["prepare-records"] == "Read and split records"
        and titles["fine-tune-further"] == "Fine-tune (SFT)"
        and titles["leak-cases"] == "Plant a leak"
    )


def test_wrong_input_is_told_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown experiment 'ablate': choose of ablate-rl"):
        check_names(["ablate"])
    with pytest.raises(UserError, match="did you mean 'seeds'"):
        load_as(CONFIGS["ablate-rl"], "experiments/ablate-rl", ["experiment.seedz=[1]"])
    with pytest.raises(UserError, match="suspect 'nobody' is none of the judges"):
        load_as(CONFIGS["audit-verifier"], "experiments/audit-verifier", ["experiment.suspect=nobody"])
    with pytest.raises(UserError, match="no such table"):
        arguments("ablate-rewards", tmp_path, "experiment.tables=[paper, best]")
    with pytest.raises(UserError, match=r"labelled.*no such file"):
        arguments("audit-verifier", tmp_path, "experiment.labelled=/nowhere.jsonl")
