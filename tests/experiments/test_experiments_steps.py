"""The steps of an experiment, one after the other in this process, as the pipeline joins them: told by the real
configurations, cut down, on the simulated world and its endpoint."""

import json
from pathlib import Path
from typing import Any

import pytest

from clinical_r1.evaluation.experiments.finding import RESULT
from clinical_r1.runs.arms import Local, arguments
from clinical_r1.runs.config import CONFIGS, load_as
from clinical_r1.runs.resolve import simulated_argument
from clinical_r1.runs.sources import with_world
from components.data import prepare_records, synthesize_shard
from components.experiments import evaluate_arm, prepare_arms_data, train_arm, write_experiment_report
from components.training import base_model

SMALL = (
    "simulator.cases=260",
    "records.splits.counts={sft: 60, rl: 16, validation: 8, test: 24}",
    "sft.epochs=0.2",
    "ppo.steps=1",
    "ppo.warmup_steps=0",
    "ppo.probe.cases=4",
    "evaluation.max_new_tokens=24",
    "ppo.rollout.max_new_tokens=24",
)


class Artifact:
    """What a component is handed for an artifact."""

    def __init__(self, path: Path) -> None:
        self.path, self.uri, self.metadata = str(path), str(path), dict[str, Any]()

    def log_metric(self, name: str, value: float) -> None:
        self.metadata[name] = value

    def log_confusion_matrix(self, categories: list[str], matrix: list[list[int]]) -> None:
        self.metadata |= {"categories": categories, "matrix": matrix}


class Steps:
    """The graph of pipelines/experiments.py by hand."""

    def __init__(self, name: str, folder: Path, *options: str) -> None:
        config = with_world(load_as(CONFIGS[name], f"experiments/{name}", [*SMALL, *options]), folder)
        self.folder, self.told = folder, arguments(name, config, Local(folder, folder / "state", "twins"))
        self.every = {"code_version": "code", "simulator": simulated_argument(config)}

    def made(self, name: str) -> Artifact:
        return Artifact(self.folder / name)

    def run(self, component: Any, **given: Any) -> None:
        component.python_func(**self.every, **given)

    def data(self) -> tuple[Artifact, Artifact]:
        """Records, traces, the arms' data."""
        splits, traces, told = self.made("splits"), self.made("traces"), self.told
        records = {"config": told["records"], "sources_sha256": "sha", "metrics": self.made("m")}
        self.run(prepare_records, splits=splits, **records)
        state = {"state_dir": str(self.folder / "state"), "splits": splits, "traces": traces}
        self.run(synthesize_shard, config=told["synthesis"], shard="0/1", **state)
        out = (self.made("arms-splits"), self.made("arms-traces"))
        given = state | {"state_dir": told["arms_state_dir"], "arms_splits": out[0], "arms_traces": out[1]}
        self.run(prepare_arms_data, settings=told["arms_data"], **given)
        return out

    def base(self) -> Artifact:
        found = self.made("base")
        given = {"splits": self.made("splits"), "traces": self.made("traces"), "model": found}
        base_model.python_func(config=self.told["base_model"], code_version="code", **given)
        return found

    def arm(self, name: str, training: str, evaluation: str, state: str, **given: Artifact) -> tuple[Artifact, ...]:
        """(model, what it was trained on, predictions, the judges' picture)."""
        out = tuple(self.made(f"{name}-{what}") for what in ("model", "trained", "predictions", "judges"))
        outputs = {"model": out[0], "trained_on": out[1], "metrics": self.made("m")}
        self.run(train_arm, settings=training, state_dir=state, **outputs, **given)
        shown = {"predictions": out[2], "judges": out[3], "metrics": self.made("m")}
        place = {"state_dir": state, "splits": self.made("arms-splits"), "model": out[0]}
        self.run(evaluate_arm, name=name, settings=evaluation, **place, **shown)
        return out

    def report(self, before: tuple[Artifact, ...], arms: list[tuple[Artifact, ...]]) -> dict[str, Any]:
        out = self.made("report")
        write_experiment_report.python_func(
            experiment=self.told["experiment"], config=self.told["report"], code_version="code",
            splits=self.made("arms-splits"), traces=self.made("traces"), arms_traces=self.made("arms-traces"),
            reference_trained_on=before[1], reference=before[2], trained_on=[arm[1] for arm in arms],
            runs=[arm[2] for arm in arms], report=out, experiment_report=self.made("page"), metrics=self.made("m"),
        )  # fmt: skip
        return dict(json.loads((Path(out.path) / RESULT).read_text()))

    def all(self) -> dict[str, Any]:
        """The whole graph; returns the finding."""
        self.data()
        base, told = self.base(), self.told
        where = {"base": base, "splits": self.made("splits"), "traces": self.made("traces"), "reference": base}
        asked = (told["reference_training"], told["reference_evaluation"], str(self.folder / "state"))
        before = self.arm("reference", *asked, **where)
        where |= {"splits": self.made("arms-splits"), "traces": self.made("arms-traces"), "reference": before[0]}
        arms = [
            self.arm(f"arm-{number}", one["training"], one["evaluation"], one["state_dir"], **where)
            for number, one in enumerate(told["arms"])
        ]
        return self.report(before, arms)


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_a_leak_is_planted_into_the_arms_data_alone(tmp_path: Path) -> None:
    counts = "records.splits.counts={sft: 60, rl: 0, validation: 0, test: 40}"
    steps = Steps("held-out-site", tmp_path, counts, "experiment.traces=20")
    steps.data()
    leaked = {json.loads(row)["id"] for row in lines(tmp_path / "arms-splits" / "leaked.jsonl")}
    traced = {json.loads(row)["case_id"] for row in lines(tmp_path / "arms-traces" / "traces.jsonl")}
    assert leaked and leaked & traced
    assert not leaked & {json.loads(row)["case_id"] for row in lines(tmp_path / "traces" / "traces.jsonl")}
    assert lines(tmp_path / "splits" / "test.jsonl") == lines(tmp_path / "arms-splits" / "test.jsonl")


def test_a_rival_writes_traces_of_the_same_cases_and_the_chains_are_compared(tmp_path: Path) -> None:
    Steps("compare-synthesizers", tmp_path).data()
    assert lines(tmp_path / "splits" / "sft.jsonl") == lines(tmp_path / "arms-splits" / "sft.jsonl")
    one, other = (json.loads(lines(tmp_path / name / "traces.jsonl")[0]) for name in ("traces", "arms-traces"))
    assert one["synthesizer"] != other["synthesizer"]
    assert json.loads((tmp_path / "arms-traces" / "chains.json").read_text())["sections"]


def test_twins_are_records_of_their_own(tmp_path: Path) -> None:
    twins = "experiment.records.splits.counts={sft: 30, rl: 0, validation: 0, test: 20}"
    steps = Steps("cross-language", tmp_path, twins)
    data = json.loads(steps.told["arms_data"])
    data["records"]["sources"] = json.loads(steps.told["records"])["sources"]
    steps.told["arms_data"] = json.dumps(data)
    steps.data()
    assert lines(tmp_path / "arms-splits" / "test.jsonl") != lines(tmp_path / "splits" / "test.jsonl")
    assert lines(tmp_path / "arms-traces" / "traces.jsonl")


def test_an_audit_of_judges_trains_nothing_and_shows_each_judge(tmp_path: Path) -> None:
    steps = Steps("audit-verifier", tmp_path, "experiment.rows=40")
    finding = steps.all()
    assert finding["experiment"] == "audit-verifier" and finding["planted"][0]["size"] == 5
    assert lines(tmp_path / "arm-2-judges") and not list((tmp_path / "reference-model").glob("*/config.json"))


@pytest.mark.parametrize("name", ["ablate-rl"])
def test_an_arm_is_trained_from_the_reference_and_held_against_it(name: str, tmp_path: Path) -> None:
    finding = Steps(name, tmp_path, "experiment.seeds=[0]").all()
    assert finding["experiment"] == name and finding["n"] > 0
    matrix = json.loads((tmp_path / "arm-0-judges").read_text())
    assert sum(map(sum, matrix["rows"])) == len(lines(tmp_path / "arm-0-predictions" / "predictions.jsonl"))
