"""A vLLM server that a training step starts beside itself for its rollouts, and ends with itself."""

import hashlib
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clinical_r1.errors import UserError

PATIENCE = 1800.0
"""Seconds until a server that still loads weights and compiles is given up."""


def weights_folder(state_dir: Path) -> Path:
    """Where the weights for a run's server are written: in memory where `memory_for` made room, else on the disk."""
    memory = _memory(state_dir)
    return memory if memory.is_dir() else state_dir / "rollout-weights"


@contextmanager
def memory_for(model: Path, state_dir: Path) -> Iterator[None]:
    """Room in memory for the weights of a run like `model`, if there is: twice, and the output head once more."""
    memory = _memory(state_dir)
    size = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    if memory.parent.is_dir() and shutil.disk_usage(memory.parent).free > 3 * size:
        memory.mkdir(mode=0o700, exist_ok=True)
    try:
        yield
    finally:
        shutil.rmtree(memory, ignore_errors=True)


def _memory(state_dir: Path) -> Path:
    return Path("/dev/shm") / f"clinical-r1-{hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:16]}"


def check_program(python: str) -> None:
    """Raise UserError where `rollout.vllm_python` names nothing that can be started."""
    if shutil.which(python) is None:
        raise UserError(f"ppo.rollout.vllm_python: {python}: no such program; give the python of vLLM's environment")


@contextmanager
def vllm_server(python: str, arguments: list[str], model: Path, log_path: Path) -> Iterator[str]:
    """Serve `model` on loopback by the vLLM of the interpreter `python`; yields the base URL, up to and with /v1.

    Raises UserError where the interpreter has none, or the server does not come up (its log is named).
    """
    check_program(python)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--logprobs-mode", "processed_logprobs", "--generation-config", "vllm", *arguments]
    # The development mode opens /collective_rpc, by which the weights are loaded; loopback alone sees it.
    environment = os.environ | {"VLLM_SERVER_DEV_MODE": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)  # another environment's packages
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with open(log_path, "a", encoding="utf-8") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait(server, f"http://127.0.0.1:{port}/health", log_path)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait(server: subprocess.Popen[bytes], url: str, log_path: Path) -> None:
    begin = time.monotonic()
    while server.poll() is None and time.monotonic() - begin < PATIENCE:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:  # of urllib as well
            time.sleep(0.5)
    ended = f"ended with code {server.returncode}" if server.poll() is not None else f"is not up after {PATIENCE:.0f} s"
    raise UserError(f"ppo.rollout: the vLLM server {ended}; its log is {log_path}")
