"""`clinical-r1 run PIPELINE`: everything around a pipeline on one machine.

Finds the cases (or samples them from the simulated world), starts the simulated endpoints where the configuration asks
for them, runs the steps through kfp.local, and puts what came out where a user finds it. Experiments share one cache of
finished steps and one folder of state: a step with equal settings and inputs is made once, by whichever comes first.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from rich.console import Console

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.records.config import Source, parse_map
from clinical_r1.records.readers.registry import check_source
from clinical_r1.runs.config import CONFIGS, RunConfig
from clinical_r1.runs.form import model_of, settle
from clinical_r1.runs.resolve import audit_arguments, check_files, resolve, settle_audit
from clinical_r1.runs.sources import fingerprint, simulated, with_cases, with_world
from clinical_r1.schema import Case, write_jsonl
from clinical_r1.settings import shown
from clinical_r1.simulator.beside import PATIENT_KEY, SimulatorConfig, arguments_of, simulated_endpoint
from clinical_r1.verifier.config import RULES_ALONE
from pipelines.local_run import LocalJob, forget_finished_steps, only_run, run_local
from pipelines.outcome import PUBLISH, short
from pipelines.progress import DEMO_SECONDS, Forecast
from pipelines.registry import EXPERIMENTS, pipeline_of, titles_of


@dataclass(frozen=True)
class Request:
    """What the command line was told."""

    config: str = ""
    """A shipped configuration by name, or a YAML file; empty: the pipeline's own."""
    cases: list[Path] = field(default_factory=list)
    case_map: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the form by name."""
    options: list[str] = field(default_factory=list)
    """`--set` words."""
    runs_dir: Path = Path("runs")
    fresh: bool = False


@dataclass(frozen=True)
class _Ready:
    """A run whose input is in order."""

    config: BaseModel
    arguments: dict[str, Any]
    state_dir: Path
    """Of this run."""
    held: Path
    """The folder that two runs at once may not share; its name is that of their cache."""
    endpoints: dict[str, SimulatorConfig] = field(default_factory=dict)
    """To start beside it, by variable."""
    key: list[Case] | None = None
    """What a simulated teacher has to know of a world not its own."""


def _console() -> Console:
    """Prints sentences as they are: no markup, no colours of numbers, no line breaks of its own."""
    return Console(soft_wrap=True, markup=False, highlight=False)


def run_pipeline(name: str, request: Request) -> Path:
    """Run a pipeline; returns the run's folder. Raises UserError for wrong input or a failed step."""
    console, runs_dir = _console(), request.runs_dir.resolve()
    # Refused input ends here, before there is anything of a run on disk.
    ready = _audit(request, runs_dir) if name == "audit" else _run(name, request, runs_dir)
    run_dir = runs_dir / time.strftime(f"%Y%m%d-%H%M%S-{name}")
    with ExitStack() as stack:
        lock = stack.enter_context(only_run(ready.held))
        if request.fresh:
            forget_finished_steps(runs_dir, ready.held)
        run_dir.mkdir(parents=True, exist_ok=True)
        write_text(run_dir / "config.yaml", shown(ready.config))
        if isinstance(ready.config, RunConfig):
            _print_head(console, name, ready.config, bool(ready.endpoints))
        console.print(f"run folder: {short(run_dir)} (full output: log.txt)")
        _start_endpoints(stack, ready, run_dir)
        kind = pipeline_of(name)
        titles, forecast = titles_of(kind), _forecast(name, request, ready.config, runs_dir)
        job = LocalJob(kind, ready.arguments, runs_dir, run_dir, titles, ready.held.name, lock, forecast, request.fresh)
        run_local(job, console)
    PUBLISH[kind](name, run_dir, runs_dir, console)
    return run_dir


def settled(name: str, request: Request) -> BaseModel:
    """The configuration of a run with its cases, for `--dry-run`: of these only the first rows are read."""
    if name == "audit":
        if request.cases or request.case_map or request.fresh or {"limit", "seed"} & request.parameters.keys():
            told = "--cases, --map, --limit, --seed and --fresh are for cases; give --set store=URI"
            raise UserError(f"run audit: {told}")
        return settle_audit(request.config, request.parameters, request.options)
    return _with_case_files(settle(name, request.config, request.parameters, request.options, "--config"), request)


def _audit(request: Request, runs_dir: Path) -> _Ready:
    config: Any = settled("audit", request)
    state = runs_dir / ".state" / "audit"
    return _Ready(config, audit_arguments(config, state), state, state)


def _run(name: str, request: Request, runs_dir: Path) -> _Ready:
    config = settle(name, request.config, request.parameters, request.options, "--config")
    check_files(config)
    config = _with_case_files(config, request)
    samples = runs_dir / ".state" / "simulated-records"
    config = with_world(config, samples)
    if config.report.simulated:
        os.environ.setdefault(config.records.phi.key_env, PATIENT_KEY)
    sources = fingerprint(config.records.sources)
    state = state_name(config, sources)
    held = runs_dir / ".state" / (EXPERIMENTS if name in CONFIGS else f"train-{state}")
    state_dir, key, wanted = held, None, simulated(config)
    if name in CONFIGS:
        state_dir = held / state
        # Two arms run at a time: a thread each is faster than two threads each, and results depend on the number.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    if wanted and not config.report.simulated:
        from clinical_r1.records.run import read_cases

        key = read_cases(config.records)  # as the records step will make them
    config, arguments = resolve(name, config, sources, state_dir, samples, str(runs_dir))
    if name not in CONFIGS:
        asked = {one: request.parameters[one] for one in ("model_name", "models_uri") if request.parameters.get(one)}
        arguments |= {"models_uri": str(runs_dir / "models"), **asked}
    return _Ready(config, arguments, state_dir, held, wanted, key)


def _with_case_files(config: RunConfig, request: Request) -> RunConfig:
    """The case files of the command line in the records section."""
    if request.case_map and not request.cases:
        raise UserError(f"--map {request.case_map}: needs --cases: it says what the columns of that file are")
    if not request.cases:
        return config
    columns = parse_map(request.case_map) if request.case_map else {}
    for path in request.cases:
        if not path.exists() and not any(mark in str(path) for mark in "*?["):
            raise UserError(f"--cases {path}: no such file: give a file of cases (JSONL, DxBench, HuatuoGPT-o1, ...)")
        if path.is_file() and path.stat().st_size == 0:
            raise UserError(f"--cases {path}: the file is empty: give a file with at least one case")
        check_source(Source(path=str(path), map=columns))
    return with_cases(config, [str(path.resolve()) for path in request.cases], columns)


def state_name(config: RunConfig, sources: str) -> str:
    """One folder of journals and checkpoints for the same cases and the same simulated endpoint.

    It is an argument of the steps, and with it part of their cache keys: were the other settings in its name, changing
    the last step's would redo them all. Steps tell themselves whether what they find there is theirs (a journal's keys
    hold the prompts, a checkpoint its settings); what the simulated endpoint is told to be nothing else knows.
    """
    simulator = config.simulator.model_dump(mode="json") if config.simulator else None
    return hashlib.sha256(json.dumps([simulator, sources], sort_keys=True).encode()).hexdigest()[:12]


def _start_endpoints(stack: ExitStack, ready: _Ready, run_dir: Path) -> None:
    ready.state_dir.mkdir(parents=True, exist_ok=True)
    further, key = [], ready.state_dir / "answer-key.jsonl"
    if ready.key is not None:
        write_jsonl(key, ready.key)
        further = ["--key", str(key)]
    for variable, endpoint in ready.endpoints.items():
        log, mark = run_dir / f"{variable.lower()}.log", ready.state_dir / f"{variable.lower()}.ready"
        stack.enter_context(simulated_endpoint([*arguments_of(endpoint), *further], log, mark, variable))


def _forecast(name: str, request: Request, config: BaseModel, runs_dir: Path) -> Forecast:
    known = hashlib.sha256(f"{name}\n{shown(config)}".encode()).hexdigest()[:12]
    as_shipped = name == "train" and request == Request(runs_dir=request.runs_dir, fresh=request.fresh)
    return Forecast(runs_dir / ".state" / "seconds" / f"{known}.json", DEMO_SECONDS if as_shipped else {})


def _print_head(console: Console, name: str, config: RunConfig, simulates: bool) -> None:
    traces, phi = config.synthesis.traces, config.records.phi
    where = f"none, traces of {traces.path}" if traces else config.synthesis.writer.base_url
    where = "the simulated endpoint on loopback" if simulates else where
    console.print(f"{name}: {len(config.records.sources)} source(s), teacher and judge: {where}")
    gate = f"off, because the data are {phi.off_because}" if phi.policy == "off" else "on"
    console.print(f"PHI gate: {gate.replace('_', ' ')}")
    # The independent judge is meant to be of another kind.
    verifiers = {"synthesis": config.synthesis.verifier, "ppo": config.ppo.judge.verifier}
    verifiers["evaluation"] = config.evaluation.reward_judge.verifier
    if alone := [section for section, verifier in verifiers.items() if verifier.kind == "rule"]:
        console.print(f"judged by rules alone: {' and '.join(alone)}; {RULES_ALONE}", style="yellow")


def run_all(names: list[str], options: list[str], runs_dir: Path, fresh: bool) -> bool:
    """Several experiments in a row (all where none is named); prints one JSON object as the last line. False where a
    planted effect was missed. Options apply to all of them. UserError for an unknown name."""
    for name in names:
        model_of(name)
    console, started = _console(), time.monotonic()
    summary: dict[str, Any] = {}
    wanted = names or list(CONFIGS)
    for number, name in enumerate(wanted, 1):
        console.print(f"== {number}/{len(wanted)} {name}")
        before = time.monotonic()
        run_dir = run_pipeline(name, Request(options=options, runs_dir=runs_dir, fresh=fresh and number == 1))
        finding = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))
        keys = ("effect", "ci", "power", "verdict", "design_points", "detectable_points", "planted")
        summary[name] = {key: finding[key] for key in keys} | {"seconds": round(time.monotonic() - before, 1)}
    missed = [name for name, one in summary.items() if not all(planted["found"] for planted in one["planted"])]
    if missed:
        console.print(f"planted effects missed: {', '.join(missed)}", style="red")
    console.print(f"{len(wanted)} experiments in {(time.monotonic() - started) / 60:.1f} min")
    print(json.dumps(summary, ensure_ascii=False), flush=True)
    return not missed
