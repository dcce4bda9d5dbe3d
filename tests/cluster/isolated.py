"""Runs a command as the first process of a machine within the machine: own network, processes and mounts.

A node started in there cannot send a packet out, and nothing of it survives: when the command ends, however it ends,
the kernel kills every process, and mounts, interfaces and firewall rules go with their namespaces. What is shared with
the machine is put back afterwards: the sysctls that kubelet writes, and the cgroups of the pods.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_SYSCTLS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
_NAMESPACES = ["--net", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]


def run_isolated(command: list[str]) -> int:
    """Runs `command` with CLUSTER_FOLDER (its state, deleted afterwards) and CLUSTER_CGROUP set; its exit code."""
    if os.geteuid():
        print("error: a node needs root; run as root, or run `make test` for the API-server level", file=sys.stderr)
        return 2
    before = {name: Path("/proc/sys", name).read_text(encoding="ascii") for name in _SYSCTLS}
    folder = Path(tempfile.mkdtemp(prefix="cr1-"))  # short: paths of Unix sockets are limited to 107 bytes
    cgroup = f"clinical-r1-{folder.name}"
    roots = _hierarchies()
    for root in roots:
        (root / cgroup).mkdir(exist_ok=True)
    environment = os.environ | {"CLUSTER_FOLDER": str(folder), "CLUSTER_CGROUP": f"/{cgroup}"}
    # Stopped by somebody: clean up as after a failure.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        return subprocess.run(["unshare", *_NAMESPACES, *command], env=environment, check=False).returncode
    finally:
        for name, value in before.items():
            Path("/proc/sys", name).write_text(value, encoding="ascii")
        for root in roots:
            for path, _, _ in os.walk(root / cgroup, topdown=False):
                _remove_cgroup(path)
        if not os.environ.get("KEEP_CLUSTER_LOGS"):
            shutil.rmtree(folder, ignore_errors=True)


def _remove_cgroup(path: str) -> None:
    """Its last processes were killed a moment ago and may still be ending."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return os.rmdir(path)
        except OSError:
            if time.monotonic() > deadline:
                print(f"left behind: {path}", file=sys.stderr)
                return None
            time.sleep(0.2)


def _hierarchies() -> list[Path]:
    """The mounted cgroup v1 controllers, and the v2 hierarchy."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    return [Path(words[1]) for words in mounts if words[2] in ("cgroup", "cgroup2")]
