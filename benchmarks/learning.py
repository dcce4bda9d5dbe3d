"""Does PPO make the model more accurate because it reasons more carefully? Five seeds of the simulated world.

    python -m benchmarks.learning [--seeds 5] [--cases 1000] [--minutes 45] [--work build/bench/learning] [--jobs 2]

For each seed: fresh traces, SFT, PPO, GRPO with four answers a prompt (as many episodes a step), all with the settings
of the shipped configuration; then on unseen cases (greedy, rule verifier) the accuracy of each, the share of
careful traces, reasoning length, and accuracy where the model has to answer at once. The critic is held against its
ceiling (`learning_stages.critic_ceiling`). On the first seed SFT goes on for one more epoch, which should change little
(greedy, and sampled at temperature 1). `--jobs` processes run side by side with an equal share of the cores each: a
model of this size makes little of a second thread. Finished stages are kept in --work and not repeated. After
`--minutes` the bench stops and reports the seeds that are whole; the same command goes on, trainings from a checkpoint
and other stages (minutes each) from their start. The last line is one JSON object.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

CHAINS = ("sft", "ppo", "grpo", "more")
"""What one process does of a seed (benchmarks/learning_stages.py); the others need the first. `more` is one more epoch
of SFT."""
STUDENT_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36}
"""Two-sided 95% quantiles of Student's t for a mean of n seeds."""
MORE = ("one_more_epoch_points", "one_more_epoch_sampled_points", "one_more_epoch_n")
"""Of the first seed only."""
NEEDED = ("bayes", "look-sft", "look-ppo", "look-at-once", "ceiling", "look-grpo")
"""Stages without which a seed is not reported."""
SECONDS_TO_STOP, MOST_SECONDS_TO_STOP = 20, 120
"""A training that is stopped writes a checkpoint first: what is set aside for that, and when it is killed instead."""


class OutOfTimeError(Exception):
    """The time of this call is spent; what was running has stopped at a checkpoint."""


def main() -> None:
    """Command line; `--chain NAME --only SEED` is one chain of stages in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cases", type=int, default=1000, help="unseen cases a seed")
    parser.add_argument("--config", default="demo", help="a shipped run configuration, or a file")
    parser.add_argument("--work", type=Path, default=Path("build/bench/learning"))
    parser.add_argument("--minutes", type=float, default=45.0, help="stop then, and report the seeds that are whole")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--chain", choices=CHAINS, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--only", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.chain:
        from benchmarks.learning_stages import run_chain  # torch and all: for the chain's own process

        run_chain(options.chain, options.only, options.work, options.config, options.overrides, options.cases)
        return
    started = time.monotonic()
    try:
        run_all(options, started + 60 * options.minutes - SECONDS_TO_STOP)
    except OutOfTimeError:
        print(f"stopped after {options.minutes:g} minutes; the same command goes on", file=sys.stderr, flush=True)
    folders = [options.work / f"seed-{seed}" for seed in range(options.seeds)]
    whole = [all((folder / f"{name}.json").is_file() for name in NEEDED) for folder in folders]
    rows = [seed_row(folder, seed) for seed, folder in enumerate(folders) if whole[seed]]
    if not rows:
        raise SystemExit("error: no seed is whole yet: call it again, or give it more --minutes")
    minutes = round((time.monotonic() - started) / 60, 1)
    print(json.dumps(summary(rows) | {"seeds_missing": options.seeds - len(rows), "minutes_this_time": minutes}))


def run_all(options: argparse.Namespace, deadline: float) -> None:
    """All chains of all seeds; the first failure ends the rest before they start.

    Raises:
        OutOfTimeError: `deadline` (of the monotonic clock) came first.
    """
    with ThreadPoolExecutor(options.jobs) as pool:
        started: dict[tuple[int, str], Future[None]] = {}
        for seed, name in plan(options.seeds, options.jobs):
            started[seed, name] = pool.submit(_chain, options, seed, name, deadline, started.get((seed, CHAINS[0])))
        try:
            wait(started.values(), return_when=FIRST_EXCEPTION)
        finally:
            pool.shutdown(cancel_futures=True)
    broken = [one.exception() for one in started.values() if not one.cancelled() and one.exception()]
    # A failure is told even where the time ran out beside it.
    for error in sorted(broken, key=lambda error: isinstance(error, OutOfTimeError)):
        raise error


def plan(seeds: int, jobs: int) -> list[tuple[int, str]]:
    """(seed, chain) in the order in which they start.

    As many seeds as there are jobs come first and whole, so that a call that runs out of time has something to report.
    Of the others the longest chains come first, and all of SFT, so that there waiting for one's own holds up nobody.
    """
    groups = range(min(jobs, seeds)), range(jobs, seeds)
    return [(seed, name) for group in groups for name in CHAINS for seed in group if name != "more" or seed == 0]


def _chain(options: argparse.Namespace, seed: int, name: str, deadline: float, taught: "Future[None] | None") -> None:
    """One chain in a process of its own, its output in the seed's folder; prints what each stage took."""
    if taught is not None:
        taught.result()
    if time.monotonic() >= deadline:
        raise OutOfTimeError
    command = [sys.executable, "-m", "benchmarks.learning", "--chain", name, "--only", str(seed)]
    command += ["--work", str(options.work), "--config", options.config, "--cases", str(options.cases)]
    command += [part for text in options.overrides for part in ("--set", text)]
    threads = str(max(1, (os.cpu_count() or 1) // options.jobs))
    calm = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", "OMP_NUM_THREADS": threads}
    log = options.work / f"seed-{seed}" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen(command, env=os.environ | calm, stdout=out, stderr=subprocess.STDOUT)
        try:
            code = process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                process.wait(timeout=MOST_SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise OutOfTimeError from None
    if code:
        raise SystemExit(f"seed {seed}: {name} failed with exit code {code}; see {log}")
    lines = log.read_text(encoding="utf-8").splitlines()
    took = [line.removeprefix("stage ") for line in lines if line.startswith("stage ")]
    print(f"seed {seed}: {', '.join(took) or f'{name} done before'}", flush=True)


def seed_row(folder: Path, seed: int) -> dict[str, float]:
    """What came of a seed, from its finished stages; prints its line."""

    stored = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}
    before, after, ceiling = stored["look-sft"], stored["look-ppo"], stored["ceiling"]
    bayes, grpo = stored["bayes"]["accuracy"], stored["look-grpo"]["accuracy"]
    row = {
        "seed": seed,
        "n": before["n"],
        "bayes": bayes,
        "sft": before["accuracy"],
        "ppo": after["accuracy"],
        "grpo": grpo,
        "gap_closed": (after["accuracy"] - before["accuracy"]) / (bayes - before["accuracy"]),
        "gap_closed_grpo": (grpo - before["accuracy"]) / (bayes - before["accuracy"]),
        "length_ratio": after["reasoning_tokens"] / max(before["reasoning_tokens"], 1e-9),
        "careful_before": before["careful"],
        "careful_after": after["careful"],
        "within_careful_before": before["within_careful"],
        "within_careful_after": after["within_careful"],
        "no_thinking_accuracy": stored["look-at-once"]["accuracy"],
        "explained_variance": ceiling["online"],
        "ev_ceiling": ceiling["ceiling"],
        "ev_of_ceiling": ceiling["online"] / ceiling["ceiling"] if ceiling["ceiling"] > 0 else 0.0,
        "seconds": sum(stage.get("stage_seconds", 0) for stage in stored.values()),
    }
    if "more" in stored:
        row |= {name: stored["more"].get(name, math.nan) for name in MORE}
    print("seed " + "  ".join(f"{key} {value:.3f}" if key != "seed" else str(value) for key, value in row.items()))
    return row


def summary(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Means over seeds; intervals are Student's t over the seeds."""

    def mean(key: str) -> float:
        return statistics.fmean(row[key] for row in rows)

    effects = [row["ppo"] - row["grpo"] for row in rows]
    low, high = _interval(effects)
    result: dict[str, Any] = {
        "gap_closed": mean("gap_closed"),
        "gap_closed_grpo": mean("gap_closed_grpo"),
        "gap_closed_low": _interval([row["gap_closed"] for row in rows])[0],
        "gain_points": statistics.fmean(100 * (row["ppo"] - row["sft"]) for row in rows),
        "sft_accuracy": mean("sft"),
        "ppo_accuracy": mean("ppo"),
        "grpo_accuracy": mean("grpo"),
        "bayes": mean("bayes"),
    }
    names = ("length_ratio", "careful_before", "careful_after", "within_careful_before", "within_careful_after")
    result |= {name: mean(name) for name in (*names, "no_thinking_accuracy", "explained_variance", "ev_ceiling")}
    # A ratio of means: both are near zero, so a seed's own ratio is mostly noise.
    result["ev_of_ceiling"] = mean("explained_variance") / mean("ev_ceiling") if mean("ev_ceiling") > 0 else 0.0
    result |= {"ppo_over_grpo": statistics.fmean(effects), "ppo_over_grpo_low": low, "ppo_over_grpo_high": high}
    result |= {name: rows[0].get(name, math.nan) for name in MORE}
    return _rounded(result) | {"seeds": len(rows), "n": rows[0]["n"], "by_seed": [_rounded(row) for row in rows]}


def _rounded(numbers: dict[str, float]) -> dict[str, float | None]:
    return {key: round(value, 4) if math.isfinite(value) else None for key, value in numbers.items()}


def _interval(values: list[float]) -> tuple[float, float]:
    """95% interval of a mean; that of one value is unknown (NaN)."""
    if len(values) < 2:
        return math.nan, math.nan
    half = STUDENT_T.get(len(values), 2.0) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values) - half, statistics.fmean(values) + half


if __name__ == "__main__":
    main()
