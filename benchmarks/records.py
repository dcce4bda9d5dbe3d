"""Speed and memory of the records step: `make bench NAME=records`.

    python -m benchmarks.records [--cases 20000] [--characters 8000] [--jsonl-mb 300]

Made-up notes (words drawn by a seed, with names, dates and numbers in them) go through the whole step, gate on, each
size in a process of its own whose memory, with its workers', is watched from outside (proportional set size, so that
shared pages count once):

- `rss_mb` of `--cases` notes of `--characters` characters with the gate off (it holds nothing from one note to the
  next, and takes some ten times as long), `rss_growth` over a quarter of as many
- `cases_per_s`: `--gated` notes of 1,000 characters through the whole step, gate on, all cores
- `jsonl_mb_rss` of a JSONL file of `--jsonl-mb` megabytes, `limit_s` the seconds that `limit: 100` of it takes
- `phi_ms_per_case`: the gate alone on notes of 1,000 characters, milliseconds of one core (other work does not count)

The last line is one JSON object.
"""

import argparse
import json
import multiprocessing
import os
import random
import re
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from clinical_r1.privacy.config import PhiConfig
from clinical_r1.privacy.gate import Record, open_gate

KEY = "a key of the bench, no secret"
WORDS = re.findall(
    r"\w+",
    """cough fever sputum dyspnoea chest pain radiating to the left arm nausea vomiting denies weight loss night sweats
    examination lungs clear heart regular abdomen soft tender guarding rebound labs show elevated white cells
    creatinine sodium potassium imaging reveals consolidation effusion mass lesion started treatment antibiotics
    fluids oxygen improved stable discharged follow up clinic family history smoker drinks alcohol works as farmer""",
)


def main() -> None:
    """Make the notes, run each size, print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=20000)
    parser.add_argument("--characters", type=int, default=8000)
    parser.add_argument("--jsonl-mb", type=int, default=300)
    parser.add_argument("--gated", type=int, default=1000)
    arguments = parser.parse_args()
    os.environ["CLINICAL_R1_PATIENT_KEY"] = KEY
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        result: dict[str, float] = {"phi_ms_per_case": round(gate_ms(), 2)}
        print(f"gate: {result['phi_ms_per_case']} ms a note of 1,000 characters", flush=True)
        path = write_notes(folder / "notes.jsonl", arguments.gated, 1000)
        seconds, _ = watched(lambda path=path: run(path, folder / "out", gate=True))
        result["cases_per_s"] = round(arguments.gated / seconds, 1)
        print(f"{arguments.gated} notes of 1,000 characters, gate on: {seconds:.1f} s", flush=True)
        peaks = []
        for cases in (arguments.cases // 4, arguments.cases):
            path = write_notes(folder / "notes.jsonl", cases, arguments.characters)
            seconds, peak = watched(lambda path=path: run(path, folder / "out"))
            peaks.append(peak)
            result |= {"rss_mb": round(peak), "seconds": round(seconds, 1)}
            print(f"{cases} notes: {seconds:.1f} s, {peak:.0f} MB", flush=True)
        result["rss_growth"] = round(peaks[1] / peaks[0], 3)
        if arguments.jsonl_mb:
            path = write_notes(folder / "notes.jsonl", arguments.jsonl_mb * 1_000_000 // 2000, 1900)
            result["limit_s"] = round(watched(lambda: run(path, folder / "out", 100))[0], 1)
            print(f"a limit of 100 rows of {arguments.jsonl_mb} MB: {result['limit_s']} s", flush=True)
            seconds, peak = watched(lambda: run(path, folder / "out"))
            result["jsonl_mb_rss"] = round(peak)
            print(f"all of it: {seconds:.1f} s, {peak:.0f} MB", flush=True)
    print(json.dumps(result))


def write_notes(path: Path, cases: int, characters: int) -> Path:
    """`cases` notes of about `characters` characters, 200 diagnoses."""
    rng = random.Random(cases)
    with path.open("w", encoding="utf-8") as handle:
        for number in range(cases):
            row = {"question": note(rng, number, characters), "patient": f"P{number // 2}", "language": "en"}
            row["reference"] = f"disease {number % 200} of the {WORDS[number % 7]}"
            handle.write(json.dumps(row) + "\n")
    return path


def note(rng: random.Random, number: int, characters: int) -> str:
    """One note: prose, with a name, a date, a telephone number and values every few hundred characters."""
    parts: list[str] = []
    while sum(map(len, parts)) < characters:
        parts.append(" ".join(rng.choices(WORDS, k=40)) + ".")
        pressure, sodium = f"{rng.randrange(90, 180)}/{rng.randrange(50, 99)}", rng.randrange(120, 150)
        parts.append(f"Seen by Dr. Weber on 2021-03-{rng.randrange(1, 28):02d}; BP {pressure}, Na {sodium} mmol/L;")
        parts.append(f"call 617-555-{rng.randrange(10000):04d} ({number}).")
    return " ".join(parts)[:characters]


def run(path: Path, out: Path, limit: int | None = None, gate: bool = False) -> None:
    """The whole step; imported here, so that the memory of its code counts as the child's."""
    from clinical_r1.records.config import RecordsConfig, Source
    from clinical_r1.records.run import prepare

    phi = PhiConfig() if gate else PhiConfig(policy="off", off_because="synthetic")
    sources = [Source(path=str(path))]
    prepare(RecordsConfig(sources=sources, group_by=["patient"], limit=limit, phi=phi), out)


def gate_ms() -> float:
    """Milliseconds of the gate on one note of 1,000 characters, one core."""
    gate, rng = open_gate(PhiConfig(), KEY.encode(), set()), random.Random(0)
    records = [
        Record(f"bench:{i}", {"language": "en", "question": note(rng, i, 1000), "reference": "gout"}, f"P{i}")
        for i in range(100)
    ]
    gate.pass_through(records[0])
    start = time.process_time()
    for record in records:
        gate.pass_through(record)
    return (time.process_time() - start) / len(records) * 1000


def watched(work: Callable[[], None]) -> tuple[float, float]:
    """Run in a child process; seconds, and the highest sum of its and its workers' memory in MB."""
    child = multiprocessing.get_context("fork").Process(target=work)
    peak, start = 0.0, time.perf_counter()
    child.start()
    process = psutil.Process(child.pid)
    while child.is_alive():
        with suppress(psutil.Error):  # one of them has just ended
            family = [process, *process.children(recursive=True)]
            peak = max(peak, sum(one.memory_full_info().pss for one in family) / 1e6)
        child.join(0.1)
    if child.exitcode:
        raise SystemExit(f"the step failed with exit code {child.exitcode}")
    return time.perf_counter() - start, peak


if __name__ == "__main__":
    main()
