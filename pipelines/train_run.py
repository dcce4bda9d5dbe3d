"""`clinical-r1 run train`: everything around the pipeline on one machine.

Finds the cases (or samples them from the simulated world), starts the simulated endpoint where the configuration asks
for one, runs the pipeline through kfp.local, and puts report, summary and models where a user finds them.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from clinical_r1.atomic import file_sha256, write_text
from clinical_r1.errors import UserError
from clinical_r1.evaluation.promotion import check_gate_files
from clinical_r1.records.config import Source, parse_map
from clinical_r1.records.readers.registry import check_source
from clinical_r1.runs.config import RunConfig, SimulatedWorldConfig, as_argument, load_config
from clinical_r1.schema import Case, read_jsonl, write_jsonl
from clinical_r1.settings import shown
from clinical_r1.simulator.beside import simulated_endpoint
from clinical_r1.step import STEP_FILE
from clinical_r1.training.base import check_base_model
from clinical_r1.version import code_version
from pipelines.local_run import LocalJob, forget_finished_steps, only_run, run_local

SIMULATED_PATIENT_KEY = "patients of the simulated world are not people"
"""Hashes the patient numbers of the simulated world; records of people need a secret of the user's."""

TITLES = {
    "provide-claim": "claim",
    "plan-nodes": "nodes",
    "prepare-records": "records",
    "synthesize-shard": "synthesize",
    "merge-traces": "merge traces",
    "base-model": "base model",
    "fine-tune": "sft",
    "reinforce": "ppo",
    "evaluate-model": "evaluate sft",
    "evaluate-model-2": "evaluate ppo",
    "gate-model": "gate",
    "write-train-report": "report",
    "publish-model": "publish",
}
"""Task names as kfp derives them from the components, in the order of the pipeline (tests hold them to the YAML)."""


def run_train(
    config_name: str,
    case_files: list[Path],
    case_map: str,
    limit: int,
    seed: int | None,
    overrides: list[str],
    runs_dir: Path,
    fresh: bool,
) -> Path:
    """Run the `train` pipeline; returns the run's folder. Raises UserError for wrong input or a failed step."""
    console = Console(soft_wrap=True)
    config = load_config(config_name, seeded(seed) + overrides)
    _check_files(config)
    runs_dir = runs_dir.resolve()
    config = with_sources(config, case_files, case_map, limit, runs_dir)
    sources_hash = hash_sources(config)
    state_dir = runs_dir / ".state" / state_name(config, sources_hash)
    run_dir = runs_dir / time.strftime("%Y%m%d-%H%M%S-train")
    if config.report.simulated:
        os.environ.setdefault(config.records.phi.key_env, SIMULATED_PATIENT_KEY)
    # Refused input ends here, before there is anything of a run on disk.
    key = _answer_key(config) if config.simulator and case_files else None
    with ExitStack() as stack:
        lock = stack.enter_context(only_run(state_dir))
        if fresh:
            forget_finished_steps(runs_dir, state_dir)
        endpoint = endpoint_arguments(config.simulator, key, state_dir) if config.simulator else None
        run_dir.mkdir(parents=True, exist_ok=True)
        write_text(run_dir / "config.yaml", shown(config))
        _print_head(console, config, run_dir)
        if endpoint is not None:
            stack.enter_context(simulated_endpoint(endpoint, run_dir / "simulator.log", state_dir / "simulator.ready"))
        arguments = _arguments(config, sources_hash, state_dir, runs_dir)
        run_local(LocalJob("train", arguments, runs_dir, run_dir, TITLES, state_dir.name, lock, fresh), console)
    _publish(run_dir, runs_dir, console)
    return run_dir


def _check_files(config: RunConfig) -> None:
    """Raise UserError for a file that a late step would miss after hours of work."""
    check_base_model(config.base_model)
    check_gate_files(config.gate)
    probe = config.ppo.probe.forgetting_cases
    if probe and not (Path(probe).is_file() and read_jsonl(Path(probe), Case)):
        raise UserError(
            f"ppo.probe.forgetting_cases: {probe}: no such file, or no cases in it; give a JSONL of our cases"
        )


def seeded(seed: int | None) -> list[str]:
    """--seed N as overrides of every seed of the configuration."""
    if seed is None:
        return []
    sections = (
        "simulator",
        "simulator.endpoint",
        "records",
        "synthesis",
        "base_model.tiny",
        "sft",
        "ppo",
        "evaluation",
    )
    return [f"{section}.seed={seed}" for section in sections]


def with_sources(config: RunConfig, case_files: list[Path], case_map: str, limit: int, runs_dir: Path) -> RunConfig:
    """Put the case files of the command line, or a sample of the simulated world, into the records section."""
    updates: dict[str, object] = {}
    if case_map and not case_files:
        raise UserError(f"--map {case_map}: needs --cases: it says what the columns of that file are")
    columns = parse_map(case_map) if case_map else {}
    if case_files:
        for path in case_files:
            if not path.exists():
                raise UserError(
                    f"--cases {path}: no such file: give a file of cases (JSONL, DxBench, HuatuoGPT-o1, ...)"
                )
            if path.is_file() and path.stat().st_size == 0:
                raise UserError(f"--cases {path}: the file is empty: give a file with at least one case")
            check_source(Source(path=str(path), map=columns))
        updates["sources"] = [{"path": str(path.resolve()), "map": columns} for path in case_files]
    elif config.simulator is not None:
        updates["sources"] = [
            {"path": str(_sample_world(config.simulator, runs_dir)), "terms": "simulated, no patient"}
        ]
    if limit:
        updates["limit"] = limit
    records = type(config.records).model_validate(config.records.model_dump() | updates)
    simulated = config.simulator is not None and not case_files
    base = config.base_model.folder or "a tiny Qwen2 made from scratch"
    facts = {"simulated": simulated, "simulated_teacher": config.simulator is not None, "base_model": base}
    report = config.report.model_copy(update=facts | {"ceiling": _ceiling() if simulated else None})
    return config.model_copy(update={"records": records, "report": report})


def _sample_world(simulator: SimulatedWorldConfig, runs_dir: Path) -> Path:
    from clinical_r1.simulator.world import sample_records

    knobs = ("-twins" if simulator.twins else "") + (f"-{simulator.dialect_site}" if simulator.dialect_site else "")
    name = f"world-{simulator.cases}-{simulator.zh_share:g}-{simulator.seed}{knobs}.jsonl"
    path = runs_dir / ".state" / "simulated-records" / name
    if not path.is_file():
        settings = simulator.model_dump(include={"seed", "zh_share", "twins", "dialect_site"})
        write_jsonl(path, sample_records(simulator.cases, **settings))
    return path


def _ceiling() -> float:
    from clinical_r1.simulator.world import bayes_ceiling

    return round(bayes_ceiling(), 3)


def hash_sources(config: RunConfig) -> str:
    """SHA-256 over the contents of the case files."""
    digest = hashlib.sha256()
    for source in config.records.sources:
        path = Path(source.path)
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            if not file.is_file():
                raise UserError(f"records.sources: {file}: no such file")
            digest.update(file_sha256(file).encode())
    return digest.hexdigest()


def state_name(config: RunConfig, sources_hash: str) -> str:
    """One folder of journals and checkpoints for the same cases and the same simulated endpoint.

    It is an argument of the steps, and with it part of their cache keys: were the other settings in its name, changing
    the last step's would redo them all. Steps tell themselves whether what they find there is theirs (a journal's keys
    hold the prompts, a checkpoint its settings); what the simulated endpoint is told to be nothing else knows.
    """
    simulator = config.simulator.model_dump(mode="json") if config.simulator else None
    text = json.dumps([simulator, sources_hash], sort_keys=True)
    return "train-" + hashlib.sha256(text.encode()).hexdigest()[:12]


def _arguments(config: RunConfig, sources_hash: str, state_dir: Path, runs_dir: Path) -> dict[str, object]:
    sections = ("records", "synthesis", "base_model", "sft", "ppo", "evaluation", "gate", "report")
    arguments: dict[str, object] = {name: as_argument(getattr(config, name)) for name in sections}
    arguments["shards"] = [f"{index}/{config.shards}" for index in range(config.shards)]
    places = {"state_dir": str(state_dir), "datasets_dir": str(runs_dir), "models_uri": str(runs_dir / "models")}
    return arguments | places | {"sources_sha256": sources_hash, "code_version": code_version()}


def _answer_key(config: RunConfig) -> list[Case]:
    """The cases as the records step will make them: what a simulated teacher has to know of a world not its own."""
    from clinical_r1.records.run import read_cases

    return read_cases(config.records)


def endpoint_arguments(simulator: SimulatedWorldConfig, key: list[Case] | None, state_dir: Path) -> list[str]:
    """Command-line arguments of the simulated endpoint; cases from outside its world come with their answer key."""
    settings = simulator.endpoint.model_dump(mode="json", exclude_none=True)
    settings |= settings.pop("failures")
    arguments = [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    if key is not None:
        write_jsonl(state_dir / "answer-key.jsonl", key)
        arguments += ["--key", str(state_dir / "answer-key.jsonl")]
    return arguments


def _print_head(console: Console, config: RunConfig, run_dir: Path) -> None:
    where = "the simulated endpoint on loopback" if config.simulator else config.synthesis.synthesizer.base_url
    console.print(f"train: {len(config.records.sources)} source(s), teacher and judge: {where}", markup=False)
    console.print(f"run folder: {short(run_dir)} (full output: log.txt)", markup=False)


def _publish(run_dir: Path, runs_dir: Path, console: Console) -> None:
    """Copy report and summary into the run's folder, link the models, move `latest`, print what came out."""
    outputs = artifact_folders(run_dir)
    summary = json.loads((outputs["report"] / "summary.json").read_text(encoding="utf-8"))
    summary.setdefault("seconds", {})["report"] = _step_seconds(outputs["report"])
    write_text(run_dir / "summary.json", json.dumps(summary, ensure_ascii=False, indent=1) + "\n")
    write_text(run_dir / "report.html", (outputs["report"] / "report.html").read_text(encoding="utf-8"))
    _dress(outputs["model"] / "model", outputs)
    point_link(run_dir / "model", outputs["model"] / "model")
    point_link(run_dir / "sft-model", outputs["sft_model"] / "model")
    point_link(runs_dir / "latest", run_dir)
    latest = runs_dir / "latest"
    for name in ("sft", "ppo"):
        part = summary[name]
        console.print(
            f"{name}: accuracy {part['accuracy']:.3f} of {part['n']}, thinks and then answers in "
            f"{part['reasoning_rate']:.0%}, mean thought {part['mean_reasoning_tokens']:.0f} tokens",
            markup=False,
            highlight=False,
        )
    console.print(f"paired McNemar p = {summary['mcnemar_p']:.2g}", markup=False, highlight=False)
    dataset = json.loads((outputs["traces"] / STEP_FILE).read_text(encoding="utf-8"))["metrics"]["address"]
    console.print(f"dataset: {short(Path(dataset))}", markup=False)
    gate = summary["gate"]
    why = f": {gate['reasons'][0]}" if gate["reasons"] else ""
    console.print(f"promotion gate: {gate['decision']}{why}", markup=False, highlight=False)
    console.print(f"report: {short(latest / 'report.html')}", markup=False)
    console.print(f"serve it: {_command()} serve {short(latest / 'model')}", markup=False)


def _dress(model: Path, outputs: dict[str, Path]) -> None:
    """Put what travels with a model beside its weights: card, reasoning baseline, the gate's decision."""
    for step, names in (("report", ("MODEL_CARD.md",)), ("gate", ("reasoning_baseline.json", "gate.json"))):
        for name in names:
            write_text(model / name, (outputs[step] / name).read_text(encoding="utf-8"))


def artifact_folders(run_dir: Path) -> dict[str, Path]:
    """Step -> artifact folder of this run, as the worker wrote them down."""
    return {name: Path(path) for name, path in json.loads((run_dir / "outputs.json").read_text()).items()}


def _step_seconds(folder: Path) -> float:
    return float(json.loads((folder / STEP_FILE).read_text(encoding="utf-8"))["seconds"])


def point_link(link: Path, target: Path) -> None:
    """Make or move a link in one step; it is relative, so that the runs folder may move."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target, link.parent))
    os.replace(temporary, link)


def _command() -> str:
    """How the user types our command here: by name where the shell finds it, else by its path in the environment."""
    ours = Path(sys.executable).parent / "clinical-r1"
    found = shutil.which("clinical-r1")
    return "clinical-r1" if found and Path(found) == ours else short(ours)


def short(path: Path) -> str:
    """A path as the user would type it from here."""
    return os.path.relpath(path)
