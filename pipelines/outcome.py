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
    outputs = artifact_folders(run_dir)
    summary = json.loads((outputs["report"] / "summary.json").read_text(encoding="utf-8"))
    summary.setdefault("seconds", {})["report"] = _step_seconds(outputs["report"])
    write_text(run_dir / "summary.json", json.dumps(summary, ensure_ascii=False, indent=1) + "\n")
    write_text(run_dir / "report.html", (outputs["report"] / "report.html").read_text(encoding="utf-8"))
    _dress(outputs["model"] / "model", outputs)
    point_link(run_dir / "model", outputs["model"] / "model")
    point_link(run_dir / "sft-model", outputs["sft_model"] / "model")
    latest = runs_dir / "latest"
    point_link(latest, run_dir)
    for line in account(summary["records"]):
        console.print(line, markup=False, highlight=False)
    for part, label in (("sft", "sft"), ("ppo", summary["algorithm"].lower())):
        found = summary[part]
        console.print(
            f"{label}: {_rate(found)} of {found['n']}, thinks and then answers in "
            f"{found['reasoning_rate']:.0%}, mean thought {found['mean_reasoning_tokens']:.0f} tokens",
            markup=False,
            highlight=False,
        )
    if summary["learning"]["said"]:
        console.print(summary["learning"]["said"], style="yellow", markup=False, highlight=False)
    console.print(f"paired McNemar p = {summary['mcnemar_p']:.2g}", markup=False, highlight=False)
    dataset = json.loads((outputs["traces"] / STEP_FILE).read_text(encoding="utf-8"))["metrics"]["address"]
    console.print(f"dataset: {short(Path(dataset))}", markup=False)
    gate = summary["gate"]
    why = f": {gate['reasons'][0]}" if gate["reasons"] else ""
    console.print(f"promotion gate: {gate['decision']}{why}", markup=False, highlight=False)
    unread = ", ".join(f"{name} {share:.1%}" for name, share in gate["forgetting_unread"].items())
    if unread:
        console.print(f"forgetting probe, answers without a choice that can be read: {unread}", markup=False)
    console.print(f"report: {short(latest / 'report.html')}", markup=False)
    console.print(f"serve it: {_command()} serve {short(latest / 'model')} --open", markup=False)
    console.print("then try:", markup=False)
    for words, what in NEXT:
        console.print(f"  {_command()} {words:<42} {what}", markup=False, highlight=False)


def publish_experiment(name: str, run_dir: Path, runs_dir: Path, console: Console) -> None:
    """Copy the pages and the result into the run's folder, move the link, print the answer."""
    (folder,) = artifact_folders(run_dir).values()
    for path in [*folder.glob("*.html"), folder / RESULT]:
        write_text(run_dir / path.name, path.read_text(encoding="utf-8"))
    link = runs_dir / f"latest-{name}"
    point_link(link, run_dir)
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
    console.print(f"report: {short(link / PAGE)}", markup=False)


def publish_audit(name: str, run_dir: Path, runs_dir: Path, console: Console) -> None:
    """Copy page and summary into the run's folder."""
    report = artifact_folders(run_dir)["report"]
    for file in (REPORT, SUMMARY):
        write_text(run_dir / file, (report / file).read_text(encoding="utf-8"))
    console.print(f"report: {short(run_dir / REPORT)}", markup=False)


PUBLISH: dict[str, Callable[[str, Path, Path, Console], None]] = {
    "train": publish_train,
    "audit": publish_audit,
    "experiments": publish_experiment,
}
"""By pipeline; the experiments have one together."""


def _rate(found: dict[str, Any]) -> str:
    """Accuracy, or the lower bound that stands in its place."""
    if "accuracy" in found:
        return f"accuracy {found['accuracy']:.3f}"
    return f"lower bound {found['lower_bound']:.3f} ({found['undecided_share']:.1%} undecided, no judge was asked)"


def _dress(model: Path, outputs: dict[str, Path]) -> None:
    """Put what travels with a model beside its weights: card, reasoning baseline, the gate's decision."""
    for step, names in (("report", ("MODEL_CARD.md", "README.md")), ("gate", ("reasoning_baseline.json", "gate.json"))):
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
