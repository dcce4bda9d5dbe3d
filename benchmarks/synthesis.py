"""How fast and how lean synthesis is, against the simulated endpoint in a process of its own.

    python -m benchmarks.synthesis [--problems 198] [--small 5000] [--large 20000] [--fresh]

1. The 198 real problems of HuatuoGPT-o1's demo (../shared/data) at 200 ms latency and 128 calls in flight: wall time,
   and the ideal over it (the longer of the longest chain of calls and calls / concurrency, at that latency).
2. 4,000 replies of 2 KB through the journal alone, 128 in flight: wall time and CPU a call, to its being on disk.
3. 5,000 and 20,000 cases of the simulated world at 2 ms latency: peak RSS of the one over the other, CPU a call.

Each measurement is a process of its own; time is that of `synthesize` (reading, searching, journaling, writing the
dataset), without interpreter start and imports. Finished measurements are kept in --work and not repeated. The last
line is one JSON object.
"""

import argparse
import asyncio
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from clinical_r1.atomic import write_text
from clinical_r1.llm.journal import Entry, open_journal
from clinical_r1.schema import Case, Usage, write_jsonl
from clinical_r1.simulator.beside import simulated_endpoint
from clinical_r1.synthesis.config import SynthesisConfig

PROBLEMS = Path(__file__).parents[1] / "../shared/data/huatuogpt_o1_demo_198.json"
WORK = Path("build/bench/synthesis")
CONCURRENCY = 128


def real_problems(most: int) -> list[Case]:
    """The first `most` problems of HuatuoGPT-o1's demo set; none, with a message, where the file is absent."""
    from clinical_r1.records.config import Source
    from clinical_r1.records.readers.registry import read_source
    from clinical_r1.records.row import Row

    if not PROBLEMS.is_file():
        print(f"skipped: {PROBLEMS.name} is not in ../shared/data beside the repository")
        return []
    rows = read_source(Source(path=str(PROBLEMS), format="huatuo"))
    return [Case(**row.fields) for row in rows if isinstance(row, Row)][:most]


def world_cases(count: int) -> Iterator[Case]:
    """Cases of the simulated world, English and Chinese."""
    from clinical_r1.simulator.world import sample_records

    return sample_records(count, seed=0)


def configuration(base_url: str, in_flight: int = CONCURRENCY, **endpoint: Any) -> SynthesisConfig:
    """The paper's search with an LLM judge on the same endpoint: every judgement is a call, as in the peer's script."""
    entry = {"name": "simulated", "base_url": base_url, "model": "simulated-clinician", "terms": "train"}
    settings = {
        "synthesizer": {**entry, "trusted": True, "max_concurrency": in_flight, **endpoint},
        "verifier": {"kind": "llm"},
        "max_guided_share": 1.0,
        "concurrency": 2 * in_flight,
        "filters": dict.fromkeys(("ungrounded_numbers", "disagreement"), False),
    }
    return SynthesisConfig.model_validate(settings)


def child(config: SynthesisConfig, cases: Path, folder: Path) -> subprocess.Popen[str]:
    """Start one run in a process of its own; its last line is a JSON object (see `worker`)."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.json", config.model_dump_json())
    command = [sys.executable, "-m", "benchmarks.synthesis", "--worker", str(folder), str(cases)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], limit: float) -> dict[str, Any]:
    """Wait for a child and read its figures; a child that fails or takes too long ends the benchmark."""
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise SystemExit(f"error: a run took longer than {limit:.0f} s (--limit-seconds)") from None
    if process.returncode:
        raise SystemExit(f"error: a run ended with code {process.returncode}")
    return json.loads(output.splitlines()[-1])


def worker(folder: Path, cases: Path) -> int:
    """The child: run, and print what it took. CPU and RSS are this process's alone, the endpoint's are not in them."""
    # Everything that is imported on first use, before the clock starts.
    import pyarrow.json
    import pyarrow.parquet  # noqa: F401

    import clinical_r1.llm.transport  # noqa: F401
    from clinical_r1.synthesis.run import synthesize

    config = SynthesisConfig.model_validate_json((folder / "config.json").read_text())
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    report = synthesize(config, cases, folder / "out", folder / "state")
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    figures = report.model_dump(include={"cases", "traces", "rejected", "dataset_hash"}) | {
        "seconds": round(seconds, 3),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 3),
        "rss_mb": round(after.ru_maxrss / 1024, 1),
        "calls": sum(int(str(client["calls"])) for client in report.endpoints),
    }
    print(json.dumps(figures))
    return 0


def longest_chain(out: Path) -> int:
    return max(
        json.loads(line)["usage"]["calls"]
        for name in ("traces.jsonl", "rejected.jsonl")
        for line in (out / name).read_text(encoding="utf-8").splitlines()
    )


def endpoint_says(base_url: str, what: str) -> Any:
    """`stats` of the simulated endpoint, or the keys that it has `served`."""
    with urllib.request.urlopen(f"{base_url.removesuffix('/v1')}/sim/{what}") as response:
        return json.load(response)


def measure(name: str, cases: Iterable[Case], latency_ms: int, given: argparse.Namespace) -> dict[str, Any]:
    """One measurement, kept in `work/<name>/figures.json`."""
    folder = given.work / name
    kept = folder / "figures.json"
    if kept.is_file():
        print(f"{name}: measured before, kept in {kept} (--fresh measures again)")
        return json.loads(kept.read_text())
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    count = write_jsonl(folder / "cases.jsonl", cases)
    print(f"{name}: {count} cases at {latency_ms} ms, {CONCURRENCY} calls in flight", flush=True)
    options = ["--latency-ms", str(latency_ms), "--key", str(folder / "cases.jsonl")]
    with simulated_endpoint(options, folder / "endpoint.log", folder / "ready.json") as url:
        figures = finish(child(configuration(url), folder / "cases.jsonl", folder), given.limit_seconds)
        figures["replies"] = endpoint_says(url, "stats").get("replies", 0)
    latency = latency_ms / 1000
    figures["longest_chain"] = longest_chain(folder / "out")
    figures["ideal_seconds"] = round(max(figures["longest_chain"], figures["calls"] / CONCURRENCY) * latency, 3)
    for leftover in ("out", "state"):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    write_text(kept, json.dumps(figures, indent=1) + "\n")
    print(f"{name}: {json.dumps(figures)}", flush=True)
    return figures


async def journal_figures(work: Path, calls: int = 4_000) -> dict[str, float]:
    usage = Usage(calls=1, prompt_tokens=900, completion_tokens=600)
    reply = Entry("What a model says. " * 100, "m", "stop", usage, "v-1", room=2048)
    numbers = iter(range(calls))

    async def call() -> Entry:
        return reply

    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as folder, open_journal(folder) as journal:

        async def worker() -> None:
            for number in numbers:
                key = journal.call_key(b"request " * 400, "v-1", number)
                await journal.once(key, f"patient-{number % 50}", call, lambda kept: kept.fits(2048, False))

        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
        seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"journal_ms": round(1000 * seconds / calls, 3), "journal_cpu_ms": round(1000 * cpu / calls, 3)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synthesis", description=__doc__.split("\n")[0])
    parser.add_argument("--problems", type=int, default=198)
    parser.add_argument("--small", type=int, default=5_000)
    parser.add_argument("--large", type=int, default=20_000)
    parser.add_argument("--work", type=Path, default=WORK, help="where finished measurements are kept")
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    parser.add_argument("--limit-seconds", type=float, default=1800, help="longest single run")
    parser.add_argument("--worker", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        return worker(*given.worker)
    if given.fresh:
        shutil.rmtree(given.work, ignore_errors=True)
    result: dict[str, Any] = dict.fromkeys(("seconds", "ideal_ratio", "calls_per_trace"))
    if problems := real_problems(given.problems):
        real = measure(f"real-{len(problems)}", problems, 200, given)
        result["seconds"] = real["seconds"]
        result["ideal_ratio"] = round(real["ideal_seconds"] / real["seconds"], 3)
        result["calls_per_trace"] = round(real["calls"] / real["cases"], 2)
    result |= asyncio.run(journal_figures(given.work))
    small = measure(f"world-{given.small}", world_cases(given.small), 2, given)
    large = measure(f"world-{given.large}", world_cases(given.large), 2, given)
    result |= {
        "cpu_ms_per_call": round(1000 * large["cpu_seconds"] / large["calls"], 3),
        "rss_growth": round(large["rss_mb"] / small["rss_mb"], 3),
        "rss_mb": [small["rss_mb"], large["rss_mb"]],
        "large_seconds": large["seconds"],
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
