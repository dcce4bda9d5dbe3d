"""The gateway beside its alternatives: direct, ours (auth, limits, metrics on), KServe's OpenAI proxy model.

    python -m benchmarks.gateway [--quick] [--no-kserve]

A fast fake engine and the load client are one Go program (benchmarks/gateway_load), built into the user's cache; KServe
and the vLLM that its proxy imports are installed into an environment of their own there (about 4 GB, once). Everything
runs on loopback on one machine, so all parties share its cores: read differences and ratios. The last line is one JSON
object.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.gateway_load.parties import big_tokenizer, build_load, gateway, kserve, rss_mb, running, say
from serving.gateway.request import DROPPED, NEUTRAL

SHARED = Path(__file__).parents[1] / "../shared/cases/gateway/neutral_fields.jsonl"


class Bench:
    """One run of everything."""

    def __init__(self, load: Path, quick: bool) -> None:
        self.load, self.quick = load, quick

    def measure(self, url: str, key: str = "", **flags: Any) -> dict[str, Any]:
        """One run of the load client."""
        command = [str(self.load), "load", "-url", url]
        for name, value in {"key": key, **flags}.items():
            if value != "":
                command += [f"-{name}", str(value)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        result: dict[str, Any] = json.loads(done.stdout)
        if result["failed"]:
            say(f"  {result['failed']} failed: {result.get('first_error')}")
        return result

    def unary(self, url: str, key: str = "", **more: Any) -> dict[str, Any]:
        """c=1 latencies: the median of three rounds' quantiles, after a warm-up."""
        self.measure(url, key, n=200, **more)
        rounds = [self.measure(url, key, n=300 if self.quick else 3000, **more) for _ in range(3)]
        return {name: statistics.median(r[name] for r in rounds) for name in ("p50_ms", "p99_ms")}

    def paced(self, url: str, key: str = "", **more: Any) -> dict[str, Any]:
        """128 streams of 50 tokens a second, started over one second."""
        streams, tokens = (16, 50) if self.quick else (128, 200)
        return self.measure(url, key, mode="stream", c=streams, n=streams, tokens=tokens, rate=50, ramp=1, **more)

    def all(self, url: str, key: str = "", unary_n: int = 20000, **more: Any) -> dict[str, Any]:
        """Every measurement of one party."""
        out = {"unary": self.unary(url, key, **more)}
        out["unary_c16"] = self.measure(url, key, c=16, n=unary_n // (20 if self.quick else 1), **more)
        out["stream_c16"] = self.measure(url, key, mode="stream", c=16, n=64 if self.quick else 800, tokens=200, **more)
        out["paced"] = self.paced(url, key, **more)
        return out


def memory(bench: Bench, upstream: str, folder: Path) -> dict[str, float]:
    """RSS with token ids after the paced streams, growth over many requests, RSS with a large tokenizer."""
    out: dict[str, float] = {}
    many = 5_000 if bench.quick else 100_000
    with gateway(upstream, folder) as (url, key, pid):
        bench.paced(url, key)
        bench.measure(url, key, c=16, n=many // 10)
        before = rss_mb(pid)
        bench.measure(url, key, c=16, n=many)
        out["rss_mb"] = round(rss_mb(pid), 1)
        out["rss_growth_mb"] = round(rss_mb(pid) - before, 1)
        out["requests"] = many
    path = folder / "tokenizer.json"
    big_tokenizer(path)
    with gateway(upstream, folder, tokenizer=str(path), token_ids=False) as (url, key, pid):
        bench.measure(url, key, c=4, n=100 if bench.quick else 2000)
        out["rss_tokenizer_mb"] = round(rss_mb(pid), 1)
    return out


def neutral(url: str, key: str) -> dict[str, Any]:
    """Requests with fields that say nothing: our table's, and the handed ones where they lie beside the repository."""
    bodies = [{name: value} for name, values in NEUTRAL.items() for value in (None, *values)]
    bodies += [{name: value} for name in DROPPED for value in (None, "x", {})]
    handed = SHARED.read_text(encoding="utf-8").splitlines() if SHARED.is_file() else []
    bodies += [json.loads(line)["extra"] for line in handed]
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    refused = []
    for body in bodies:
        asked = {"model": "bench", "messages": [{"role": "user", "content": "Fever?"}], "max_tokens": 8, **body}
        data = json.dumps(asked).encode()
        try:
            urllib.request.urlopen(urllib.request.Request(f"{url}/v1/chat/completions", data, headers), timeout=10)
        except urllib.error.HTTPError as problem:
            refused.append(f"{next(iter(body))} ({problem.code})")
    return {"sent": len(bodies), "handed": len(handed), "refused": refused}


def main() -> int:
    """Run it; the exit code says whether everything ran, not whether it was fast."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--no-kserve", action="store_true", help="leave KServe's proxy out (no 4 GB installation)")
    given = parser.parse_args()
    if not shutil.which("go"):
        print("error: go: not found; install Go to build the load client", file=sys.stderr)
        return 2
    binary = build_load()
    bench = Bench(binary, given.quick)
    folder = Path(tempfile.mkdtemp())
    report: dict[str, Any] = {}
    with running([str(binary), "upstream"], stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout
        upstream = f"http://127.0.0.1:{engine.stdout.readline().strip()}"
        say("direct")
        report["direct"] = bench.all(upstream)
        say("gateway")
        with gateway(upstream, folder) as (url, key, _):
            report["gateway"] = bench.all(url, key)
            report["neutral"] = neutral(url, key)
        say("memory")
        report["memory"] = memory(bench, upstream, folder)
        if not given.no_kserve:
            say("kserve proxy")
            with kserve(upstream) as (url, pid):
                route = {"path": "/openai/v1/chat/completions"}
                report["kserve"] = {
                    "unary": bench.unary(url, **route),
                    "unary_c16": bench.measure(url, c=16, n=100 if given.quick else 1500, **route),
                    "stream_c16": bench.measure(url, mode="stream", c=16, n=16, tokens=200, **route),
                    "rss_mb": round(rss_mb(pid), 1),
                }
    shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(report, indent=1))
    print(json.dumps(summary(report)))
    return 0


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """The figures that the README quotes."""
    direct, ours, kserve_proxy = report["direct"], report["gateway"], report.get("kserve")

    def added(run: str, name: str) -> float:
        return round(ours[run][name] - direct[run][name], 3)

    streams = [ours["paced"], ours["stream_c16"]]
    return {
        "unary_added_p50_ms": added("unary", "p50_ms"),
        "unary_added_p99_ms": added("unary", "p99_ms"),
        "stream_ttft_added_p50_ms": added("paced", "first_p50_ms"),
        "stream_ttft_added_p99_ms": added("paced", "first_p99_ms"),
        "inter_token_p99_ms": round(ours["paced"]["inter_p99_ms"], 2),
        "inter_token_direct_p99_ms": round(direct["paced"]["inter_p99_ms"], 2),
        "neutral_fields_refused": len(report["neutral"]["refused"]),
        "neutral_fields_sent": report["neutral"]["sent"],
        "load_average": [round(value, 1) for value in os.getloadavg()],
        "lost": sum(run["lost"] + run["failed"] for run in streams),
        "requests_per_second": round(ours["unary_c16"]["per_second"], 1),
        "chunks_per_second": round(ours["stream_c16"]["chunks_per_second"], 1),
        "vs_kserve_proxy": (
            round(ours["unary_c16"]["per_second"] / kserve_proxy["unary_c16"]["per_second"], 1)
            if kserve_proxy
            else None
        ),
        "rss_mb": report["memory"]["rss_mb"],
        "rss_tokenizer_mb": report["memory"]["rss_tokenizer_mb"],
        "rss_growth_mb": report["memory"]["rss_growth_mb"],
        "memory_requests": report["memory"]["requests"],
    }


if __name__ == "__main__":
    sys.exit(main())
