"""The end of a run: curves, resolved config, and the numbers that the pipeline's report shows."""

from typing import Any

from clinical_r1.atomic import write_text
from clinical_r1.training.curves import Panel, write_curves
from clinical_r1.training.metrics import METRICS_FILE, read_metrics, series
from clinical_r1.training.ppo.job import PPOJob
from clinical_r1.training.ppo.watch import Watch

PANELS = [
    Panel("reward", ("train/reward", "train/accuracy"), ("reward", "correct")),
    Panel("validation accuracy (greedy)", ("validation/accuracy",)),
    Panel("KL from the SFT model, nats an episode", ("train/kl",)),
    Panel("tokens", ("train/length", "train/reasoning_tokens"), ("completion", "reasoning")),
    Panel("share with reasoning", ("train/reasoning_rate",)),
    Panel("entropy, nats a token", ("train/entropy",)),
    Panel("explained variance of the critic", ("critic/explained_variance",)),
    Panel("clipped share", ("train/clip_fraction",)),
    Panel("gradient norm", ("train/grad_norm", "critic/grad_norm"), ("actor", "critic")),
    Panel("forgetting probe (multiple choice)", ("forgetting/accuracy",)),
]
ENDS = 10
"""First and last values are means over so many steps: single steps are noisy."""


def publish(job: PPOJob, watch: Watch, too_long: int) -> dict[str, Any]:
    """Write config.json and curves.svg into the output folder (metrics are there); returns the run's numbers."""
    rows = read_metrics(job.state_dir / METRICS_FILE)
    job.out_dir.mkdir(parents=True, exist_ok=True)
    write_text(job.out_dir / "config.json", job.config.model_dump_json(indent=1) + "\n")
    write_curves(rows, PANELS, job.out_dir / "curves.svg")
    return summarize(rows, watch) | {"steps_planned": job.config.steps, "prompts_too_long": too_long}


def summarize(rows: list[dict[str, Any]], watch: Watch) -> dict[str, Any]:
    """First and last values of what matters, the probes before and after, and why the run ended."""
    summary: dict[str, Any] = {
        "steps": max((row["step"] for row in rows), default=0),
        "stop_reason": watch.stop_reason,
        "best_step": watch.best_step,
        "best_validation_accuracy": watch.best_accuracy,
    }
    ends = {
        "reward": "train/reward", "kl": "train/kl", "length": "train/length", "entropy": "train/entropy",
        "reasoning_rate": "train/reasoning_rate", "explained_variance": "critic/explained_variance",
    }  # fmt: skip
    for name, key in ends.items():
        values = series(rows, key)[1]
        if values:
            first, last = values[:ENDS], values[-ENDS:]
            summary[f"{name}_first"], summary[f"{name}_last"] = sum(first) / len(first), sum(last) / len(last)
    for name in ("validation", "forgetting"):
        values = series(rows, f"{name}/accuracy")[1]
        if values:
            summary[f"{name}_accuracy_before"], summary[f"{name}_accuracy_after"] = values[0], values[-1]
    for name in ("validation", "forgetting"):
        values = series(rows, f"{name}/undecided_share")[1]
        if any(values):
            summary[f"{name}_undecided_before"], summary[f"{name}_undecided_after"] = values[0], values[-1]
    summary["masked_judgements"] = sum(series(rows, "train/masked")[1])
    for phase in ("step", "rollout", "forward", "verify", "policy", "value", "probe"):
        summary[f"seconds_{phase}"] = sum(series(rows, f"time/{phase}")[1])
    return summary
