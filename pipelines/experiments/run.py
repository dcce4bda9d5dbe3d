"""`clinical-r1 run <experiment>`: everything around an experiment's pipeline on one machine; and all of them in a row.

Experiments share one cache of finished steps and one folder of state under the runs folder, so that a step with equal
settings and inputs (the records, the SFT model, one seed of RL) is made once, by whichever comes first.
"""

import json
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.evaluation.experiments.finding import PAGE, RESULT
from clinical_r1.records.run import read_cases
from clinical_r1.runs.arms import ARGUMENTS, Local
from clinical_r1.runs.config import RunConfig, load_as
from clinical_r1.runs.experiments import CONFIGS, CrossLanguageConfig, ExperimentConfig
from clinical_r1.settings import shown
from clinical_r1.simulator.beside import ADDRESS_VARIABLE, simulated_endpoint
from clinical_r1.training.base import check_base_model
from clinical_r1.version import code_version
from pipelines import train_run
from pipelines.local_run import LocalJob, forget_finished_steps, only_run, run_local
from pipelines.registry import load_pipeline

STATE = "experiments"
_ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Two arms run at a time: a thread each is faster than two threads each, and results depend on the number."""


def run_experiment(
    name: str,
    config_name: str = "",
    case_files: list[Path] | None = None,
    case_map: str = "",
    limit: int = 0,
    seed: int | None = None,
    overrides: list[str] | None = None,
    runs_dir: Path = Path("runs"),
    fresh: bool = False,
) -> dict[str, Any]:
    """Run one experiment; returns its result.json. Raises UserError for wrong input or a failed step."""
    console = Console(soft_wrap=True)
    config = load_as(CONFIGS[name], config_name or f"experiments/{name}", train_run.seeded(seed) + (overrides or []))
    check_base_model(config.base_model)
    runs_dir = runs_dir.resolve()
    state_root = runs_dir / ".state" / STATE
    config = train_run.with_sources(config, case_files or [], case_map, limit, runs_dir)  # type: ignore[assignment]
    config, twins_sha256 = _with_twins(config, runs_dir)
    sources = train_run.hash_sources(config)
    state_dir = state_root / train_run.state_name(config, sources).removeprefix("train-")
    run_dir = runs_dir / time.strftime(f"%Y%m%d-%H%M%S-{name}")
    if config.report.simulated:
        os.environ.setdefault(config.records.phi.key_env, train_run.SIMULATED_PATIENT_KEY)
    for variable, value in _ONE_THREAD.items():
        os.environ.setdefault(variable, value)
    with ExitStack() as stack:
        lock = stack.enter_context(only_run(state_root))
        if fresh:
            forget_finished_steps(runs_dir, state_root)
        local = Local(runs_dir, state_dir, sources, code_version(), twins_sha256)
        arguments = ARGUMENTS[name](config, local)
        run_dir.mkdir(parents=True, exist_ok=True)
        write_text(run_dir / "config.yaml", shown(config))
        console.print(f"{name}: run folder {train_run.short(run_dir)} (full output: log.txt)", markup=False)
        _start_endpoints(stack, config, bool(case_files), run_dir, state_dir)
        titles = titles_of(name)
        run_local(LocalJob(name, arguments, runs_dir, run_dir, titles, STATE, lock, fresh), console)
    return _publish(name, run_dir, runs_dir, console)


def _with_twins(config: ExperimentConfig, runs_dir: Path) -> tuple[ExperimentConfig, str]:
    """cross-language: sample the id-aligned cases where they are simulated; their hash."""
    if not isinstance(config, CrossLanguageConfig):
        return config, ""
    settings = config.experiment
    aside: RunConfig = config.model_copy(update={"records": settings.records, "simulator": settings.twins})
    aside = train_run.with_sources(aside, [], "", 0, runs_dir)
    experiment = settings.model_copy(update={"records": aside.records})
    return config.model_copy(update={"experiment": experiment}), train_run.hash_sources(aside)


def _start_endpoints(stack: ExitStack, config: ExperimentConfig, outside: bool, run_dir: Path, state_dir: Path) -> None:
    """The simulated endpoints that the configuration asks for, each with a variable of its own."""
    if config.simulator is None:
        if config.endpoints:
            raise UserError("endpoints: simulated endpoints need a simulator section; name real endpoints instead")
        return
    key = read_cases(config.records) if outside else None
    state_dir.mkdir(parents=True, exist_ok=True)
    knobs = {ADDRESS_VARIABLE: config.simulator.endpoint}
    knobs |= {f"{ADDRESS_VARIABLE}_{name.upper()}": one for name, one in config.endpoints.items()}
    for variable, endpoint in knobs.items():
        world = config.simulator.model_copy(update={"endpoint": endpoint})
        told = train_run.endpoint_arguments(world, key, state_dir)
        ready = state_dir / f"{variable.lower()}.ready"
        stack.enter_context(simulated_endpoint(told, run_dir / f"{variable.lower()}.log", ready, variable))


def titles_of(name: str) -> dict[str, str]:
    """Task -> what the user reads, from the pipeline itself, in the order of the steps."""
    spec = load_pipeline(name).pipeline_spec
    titles: dict[str, str] = {}
    for dag in [spec.root.dag, *(part.dag for part in spec.components.values() if part.HasField("dag"))]:
        for task, content in dag.tasks.items():
            if not task.startswith("for-loop"):
                titles[task] = content.task_info.name
    return titles


def _publish(name: str, run_dir: Path, runs_dir: Path, console: Console) -> dict[str, Any]:
    """Copy the pages and the result into the run's folder, move the link, print the answer."""
    (folder,) = train_run.artifact_folders(run_dir).values()
    for path in [*folder.glob("*.html"), folder / RESULT]:
        write_text(run_dir / path.name, path.read_text(encoding="utf-8"))
    link = runs_dir / f"latest-{name}"
    train_run.point_link(link, run_dir)
    finding = json.loads((run_dir / RESULT).read_text(encoding="utf-8"))
    console.print(finding["answer"], markup=False, highlight=False)
    low, high = finding["ci"]
    console.print(
        f"effect {finding['effect']:+.1f} points ({low:+.1f} to {high:+.1f}): {finding['verdict']}; power "
        f"{finding['power']:.0%} for {finding['design_points']:g} points, 90% from "
        f"{finding['detectable_points']:.1f} points",
        markup=False,
        highlight=False,
    )
    for one in finding["planted"]:
        console.print(
            f"planted: {one['what']}, {one['size']:+g} points, power {one['power']:.1%} (90% from "
            f"{one['detectable']:.1f} points): {'found' if one['found'] else 'MISSED'}, {one['effect']:+.1f} points "
            f"({one['ci'][0]:+.1f} to {one['ci'][1]:+.1f})",
            markup=False,
            highlight=False,
        )
    console.print(f"report: {train_run.short(link / PAGE)}", markup=False)
    return finding


def run_all(names: list[str], overrides: list[str], runs_dir: Path, fresh: bool) -> bool:
    """Several experiments in a row; prints one JSON object as the last line. False where a planted effect was missed.

    Overrides apply to all of them.
    """
    console = Console(soft_wrap=True)
    summary: dict[str, Any] = {}
    started = time.monotonic()
    for number, name in enumerate(names, 1):
        console.print(f"== {number}/{len(names)} {name}", markup=False, highlight=False)
        before = time.monotonic()
        finding = run_experiment(name, overrides=overrides, runs_dir=runs_dir, fresh=fresh and number == 1)
        seconds = round(time.monotonic() - before, 1)
        keys = ("effect", "ci", "power", "verdict", "design_points", "detectable_points", "planted")
        summary[name] = {key: finding[key] for key in keys} | {"seconds": seconds}
    missed = [name for name, one in summary.items() if not all(planted["found"] for planted in one["planted"])]
    if missed:
        console.print(f"planted effects missed: {', '.join(missed)}", style="red", markup=False)
    console.print(f"{len(names)} experiments in {(time.monotonic() - started) / 60:.1f} min", markup=False)
    print(json.dumps(summary, ensure_ascii=False), flush=True)
    return not missed


def check_names(names: list[str]) -> list[str]:
    """The named experiments, all where none is named; UserError for an unknown one."""
    unknown = [name for name in names if name not in CONFIGS]
    if unknown:
        raise UserError(f"unknown experiment '{unknown[0]}': choose of {', '.join(CONFIGS)}")
    return names or list(CONFIGS)
