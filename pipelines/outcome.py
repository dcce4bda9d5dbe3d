"""What a finished run leaves where a user finds it: report, summary, links to the models, a few lines that say it."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from clinical_r1.atomic import write_text
from clinical_r1.evaluation.experiments.finding import PAGE, RESULT
from clinical_r1.evaluation.judging.online import REPORT, SUMMARY
from clinical_r1.records.report import account
from clinical_r1.step import STEP_FILE

NEXT = (
    ("records preview FILE", "what your own export would be read as"),
    ("run train --cases FILE --limit 300", "this run on your cases, with the simulated teacher"),
    ("experiments audit-verifier", "how often the verifier is wrong, and what it costs"),
)
"""What a new user can do with a finished run, a command and its purpose."""


def publish_train(name: str, run_dir: Path, runs_dir: Path, console: Console) -> None:
    """Copy report and summary into the run's folder, link the models, move `latest`, print what came out."""
    outputs, latest = _artifact_folders(run_dir), runs_dir / "latest"
    model = outputs["model"] / "model"
    summary = _json(outputs["report"] / "summary.json")
    summary.setdefault("seconds", {})["report"] = float(_json(outputs["report"] / STEP_FILE)["seconds"])
    write_text(run_dir / "summary.json", json.dumps(summary, ensure_ascii=False, indent=1) + "\n")
    _copy(outputs["report"] / "report.html", run_dir)
    beside = (("report", "MODEL_CARD.md"), ("report", "README.md"), ("gate", "reasoning_baseline.json"))
    for step, file in (*beside, ("gate", "gate.json")):
        _copy(outputs[step] / file, model)
    point_link(run_dir / "model", model)
    point_link(run_dir / "sft-model", outputs["sft_model"] / "model")
    point_link(latest, run_dir)
    for line in account(summary["records"]):
        console.print(line)
    for part, label in (("sft", "sft"), ("ppo", summary["algorithm"].lower())):
        found = summary[part]
        thought = f"{found['reasoning_rate']:.0%}, mean thought {found['mean_reasoning_tokens']:.0f} tokens"
        rate = "accuracy {accuracy:.3f}"
        if "accuracy" not in found:
            rate = "lower bound {lower_bound:.3f} ({undecided_share:.1%} undecided, no judge was asked)"
        console.print(f"{label}: {rate.format(**found)} of {found['n']}, thinks and then answers in {thought}")
    if summary["learning"]["said"]:
        console.print(summary["learning"]["said"], style="yellow")
    console.print(f"paired McNemar p = {summary['mcnemar_p']:.2g}")
    console.print(f"dataset: {short(Path(_json(outputs['traces'] / STEP_FILE)['metrics']['address']))}")
    gate = summary["gate"]
    console.print(f"promotion gate: {gate['decision']}" + "".join(f": {reason}" for reason in gate["reasons"][:1]))
    if unread := ", ".join(f"{name} {share:.1%}" for name, share in gate["forgetting_unread"].items()):
        console.print(f"forgetting probe, answers without a choice that can be read: {unread}")
    # How the user types our command here: by name where the shell finds it, else by its path in the environment.
    ours, known = Path(sys.executable).parent / "clinical-r1", shutil.which("clinical-r1")
    command = "clinical-r1" if known and Path(known) == ours else short(ours)
    console.print(f"report: {short(latest / 'report.html')}")
    console.print(f"serve it: {command} serve {short(latest / 'model')} --open")
    console.print("then try:")
    for words, what in NEXT:
        console.print(f"  {command} {words:<42} {what}")


def publish_experiment(name: str, run_dir: Path, runs_dir: Path, console: Console) -> None:
    """Copy the pages and the result into the run's folder, move the link, print the answer."""
    (folder,) = _artifact_folders(run_dir).values()
    for path in [*folder.glob("*.html"), folder / RESULT]:
        _copy(path, run_dir)
    link = runs_dir / f"latest-{name}"
    point_link(link, run_dir)
    finding = _json(run_dir / RESULT)
    console.print(finding["answer"])
    console.print(
        "effect {effect:+.1f} points ({ci[0]:+.1f} to {ci[1]:+.1f}): {verdict}; power {power:.0%} for "
        "{design_points:g} points, 90% from {detectable_points:.1f} points".format(**finding)
    )
    for one in finding["planted"]:
        console.print(
            "planted: {what}, {size:+g} points, power {power:.1%} (90% from {detectable:.1f} points): {was}, "
            "{effect:+.1f} points ({ci[0]:+.1f} to {ci[1]:+.1f})".format(
                **one, was="found" if one["found"] else "MISSED"
            )
        )
    console.print(f"report: {short(link / PAGE)}")


def publish_audit(name: str, run_dir: Path, runs_dir: Path, console: Console) -> None:
    """Copy page and summary into the run's folder."""
    for file in (REPORT, SUMMARY):
        _copy(_artifact_folders(run_dir)["report"] / file, run_dir)
    console.print(f"report: {short(run_dir / REPORT)}")


PUBLISH: dict[str, Callable[[str, Path, Path, Console], None]] = {
    "train": publish_train,
    "audit": publish_audit,
    "experiments": publish_experiment,
}
"""By pipeline; the experiments have one together."""


def _artifact_folders(run_dir: Path) -> dict[str, Path]:
    """Step -> artifact folder of this run, as the worker wrote them down."""
    return {name: Path(path) for name, path in _json(run_dir / "outputs.json").items()}


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _copy(file: Path, folder: Path) -> None:
    write_text(folder / file.name, file.read_text(encoding="utf-8"))


def point_link(link: Path, target: Path) -> None:
    """Make or move a link in one step; it is relative, so that the runs folder may move."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target, link.parent))
    os.replace(temporary, link)


def short(path: Path) -> str:
    """A path as the user would type it from here."""
    return os.path.relpath(path)
