"""Nothing is lost and nothing is paid twice: synthesis against a faulty endpoint, and killed twenty times.

    python -m benchmarks.faults [--problems 198] [--world 400] [--kills 20] [--fresh]

1. One run without faults, one with 10% malformed JSON, 5% 429, 5% 500, 2% hangs and 1% truncated replies: every case
   has to end as a trace or as a reject with a reason (`lost` counts those that do not), and `retained` is the share of
   cases accepted without faults that are accepted with them.
2. One run without interruption, one that is killed (SIGKILL) at random moments and started again: `repeated_journaled`
   counts calls that the endpoint served although the journal on disk held them when the process was killed; `identical`
   compares the datasets, byte by byte.

The endpoint is deterministic and runs in a process of its own. The last line is one JSON object.
"""

import argparse
import json
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.synthesis import child, configuration, endpoint_says, finish, real_problems, world_cases
from clinical_r1.atomic import write_text
from clinical_r1.llm.journal import JOURNAL, journaled_keys
from clinical_r1.schema import Trace, read_jsonl, write_jsonl
from clinical_r1.simulator.beside import simulated_endpoint

WORK = Path("build/bench/faults")
FAULTS = {"malformed": 0.10, "rate-limited": 0.05, "server-error": 0.05, "hang": 0.02, "truncated": 0.01}
QUICK = {"total_timeout": 3.0, "connect_timeout": 3.0, "backoff_first": 0.2}
"""A hang costs 3 s and not 3 minutes: the benchmark is about what is lost, not about patience."""


def outcomes(out: Path) -> dict[str, str]:
    """Case id -> empty for an accepted trace, or the reason of its reject."""
    kept = {trace.case_id: "" for trace in read_jsonl(out / "traces.jsonl", Trace)}
    refused = {trace.case_id: trace.reason or "no reason" for trace in read_jsonl(out / "rejected.jsonl", Trace)}
    return refused | kept


def faulty(given: argparse.Namespace, cases: Path) -> dict[str, Any]:
    runs = {}
    for name, faults in (("clean", {}), ("faulty", FAULTS)):
        folder = given.work / name
        shutil.rmtree(folder, ignore_errors=True)
        options = ["--latency-ms", "20", "--key", str(cases), "--retry-after", "0.2"]
        options += [part for fault, share in faults.items() for part in (f"--{fault}", str(share))]
        folder.mkdir(parents=True)
        print(f"{name}: {', '.join(f'{k} {v:.0%}' for k, v in faults.items()) or 'no faults'}", flush=True)
        with simulated_endpoint(options, folder / "endpoint.log", folder / "ready.json") as url:
            figures = finish(child(configuration(url, **QUICK), cases, folder), given.limit_seconds)
        runs[name] = outcomes(folder / "out")
        print(f"{name}: {json.dumps(figures)}", flush=True)
    wanted = [json.loads(line)["id"] for line in cases.read_text(encoding="utf-8").splitlines()]
    accepted = [case for case in wanted if runs["clean"].get(case) == ""]
    kept = sum(runs["faulty"].get(case) == "" for case in accepted)
    reasons = sorted({reason for reason in runs["faulty"].values() if reason.startswith(("call_failed", "judge"))})
    return {
        "lost": sum(case not in runs["faulty"] for case in wanted),
        "retained": round(kept / max(1, len(accepted)), 4),
        "accepted_without_faults": len(accepted),
        "given_up_because": reasons,
    }


def known_keys(journal: Path) -> list[str]:
    try:
        return journaled_keys(journal)
    except sqlite3.OperationalError:  # not there, or not yet made
        return []


def kill_at(process: subprocess.Popen[str], journal: Path, calls: int, delay: float) -> bool:
    """SIGKILL the run some moments after its journal has so many calls; False where the run ended before."""
    while len(known_keys(journal)) < calls:
        if process.poll() is not None:
            return False
        time.sleep(0.005)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


def killed(given: argparse.Namespace, cases: Path) -> dict[str, Any]:
    rng = random.Random(given.seed)
    folder, whole = given.work / "killed", given.work / "whole"
    for used in (folder, whole):
        shutil.rmtree(used, ignore_errors=True)
        used.mkdir(parents=True)
    with simulated_endpoint(
        ["--latency-ms", "50", "--key", str(cases)], whole / "endpoint.log", whole / "ready.json"
    ) as url:
        config = configuration(url, in_flight=16)
        calls = finish(child(config, cases, whole), given.limit_seconds)["calls"]
        print(f"whole: {calls} calls", flush=True)
        journal = folder / "state" / JOURNAL
        kills = repeated = 0
        targets = sorted(rng.randrange(1, max(2, int(0.97 * calls))) for _ in range(given.kills))
        for target in (*targets, None):  # at last to the end
            since, known = len(endpoint_says(url, "served")), set(known_keys(journal))
            run = child(config, cases, folder)
            if target is None:
                finish(run, given.limit_seconds)
            else:
                kills += kill_at(run, journal, target, rng.uniform(0, 0.1))
            repeated += sum(key in known for key in endpoint_says(url, f"served?since={since}"))
    names = ("traces.jsonl", "rejected.jsonl", "traces.parquet")
    identical = all((whole / "out" / name).read_bytes() == (folder / "out" / name).read_bytes() for name in names)
    return {"kills": kills, "repeated_journaled": repeated, "identical": identical}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__.split("\n")[0])
    parser.add_argument("--problems", type=int, default=198, help="real problems (skipped where ../shared is absent)")
    parser.add_argument("--world", type=int, default=400, help="cases of the simulated world beside them")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--work", type=Path, default=WORK, help="where finished parts are kept")
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    parser.add_argument("--limit-seconds", type=float, default=900, help="longest single run")
    given = parser.parse_args()
    if given.fresh:
        shutil.rmtree(given.work, ignore_errors=True)
    given.work.mkdir(parents=True, exist_ok=True)
    cases = given.work / "cases.jsonl"
    write_jsonl(cases, [*real_problems(given.problems), *world_cases(given.world)])
    result: dict[str, Any] = {}
    for name, part in (("faulty", faulty), ("killed", killed)):
        kept = given.work / f"{name}-{given.problems}-{given.world}-{given.kills}-{given.seed}.json"
        if kept.is_file():
            print(f"{name}: measured before, kept in {kept} (--fresh measures again)")
        else:
            write_text(kept, json.dumps(part(given, cases)) + "\n")
        result |= json.loads(kept.read_text())
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
