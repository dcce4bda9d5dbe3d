"""Is this machine fit for `make run`, and for a real model: what `clinical-r1 doctor` says without a cluster."""

import os
import shutil
import socket
import ssl
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from urllib.request import getproxies, proxy_bypass

import psutil

from clinical_r1.cluster.finding import Finding

GIB = 1 << 30
DEMO_MEMORY_GIB, DEMO_DISK_GIB = 6.0, 5.0
"""What the demo uses at most: two steps at once in memory, one run with its checkpoints on disk."""
PORT = 8000
"""Where `clinical-r1 serve` listens unless it is told otherwise."""
_PACKAGES = ("torch", "transformers", "trl", "deepspeed", "kfp", "aiohttp")
_AUTHORITIES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "AWS_CA_BUNDLE")


def examine(runs_dir: Path = Path("runs")) -> Iterator[Finding]:
    """Python, packages, cores, memory, disk, GPU, ports, proxy, authorities: one finding each."""
    version = ".".join(map(str, sys.version_info[:3]))
    if missing := [name for name in _PACKAGES if not find_spec(name)]:
        yield Finding("Python", "fail", f"{version}, without {', '.join(missing)}", "make setup")
    else:
        yield Finding("Python", "ok", f"{version}, torch {metadata.version('torch')}")
    count, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    fix = "end what else runs, or expect to wait"
    yield Finding("cores", "warn" if load > count else "ok", f"{count}, load {load:.1f}", fix)
    yield _memory()
    yield _disk(runs_dir)
    yield _gpu()
    yield _port()
    yield from _proxies()
    yield from _authorities()


def _memory() -> Finding:
    free = psutil.virtual_memory().available
    limit = Path("/sys/fs/cgroup/memory.max")  # a container's own bound
    used = Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and limit.read_text().strip() != "max" and used.is_file():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    fix = f"free some: the demo uses up to {DEMO_MEMORY_GIB:g} GiB"
    return Finding("memory", "warn" if free < DEMO_MEMORY_GIB * GIB else "ok", f"{free / GIB:.1f} GiB free", fix)


def _disk(runs_dir: Path) -> Finding:
    place = next(folder for folder in (runs_dir.absolute(), *runs_dir.absolute().parents) if folder.exists())
    if not os.access(place, os.W_OK):
        return Finding("disk", "fail", f"{place} cannot be written to", "run where you may write")
    free = shutil.disk_usage(place).free
    fix = f"free some: a run of the demo leaves up to {DEMO_DISK_GIB:g} GiB"
    detail = f"{free / GIB:.0f} GiB free at {place}"
    return Finding("disk", "fail" if free < DEMO_DISK_GIB * GIB else "ok", detail, fix)


def _gpu() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("GPU", "warn", "cannot be looked for without torch", "make setup")
    if not torch.cuda.is_available():
        fix = "none is needed for the demo; for a real model see `clinical-r1 preflight`"
        return Finding("GPU", "warn", "none that torch can use", fix)
    cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return Finding("GPU", "ok", ", ".join(f"{card.name} {card.total_memory / GIB:.0f} GiB" for card in cards))


def _port() -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            return Finding("port", "warn", f"{PORT} is taken", "clinical-r1 serve MODEL --port 0 picks a free one")
    return Finding("port", "ok", f"{PORT} is free for `clinical-r1 serve`")


def _proxies() -> Iterator[Finding]:
    known = {scheme: url for scheme, url in getproxies().items() if scheme in ("http", "https", "all")}
    if not known:
        yield Finding("proxy", "ok", "none is set")
        return
    for scheme, url in sorted(known.items()):
        if scheme == "all" or not url.startswith(("http://", "https://")):
            kind = url.partition("://")[0]
            yield Finding("proxy", "fail", f"{scheme}_proxy is {kind}://…", "set https_proxy to an http:// proxy")
        else:
            yield Finding("proxy", "ok", f"{scheme}_proxy is set")
    if not proxy_bypass("127.0.0.1"):
        fix = "add 127.0.0.1,localhost to no_proxy: the demo's endpoint and the chat page are on loopback"
        yield Finding("proxy", "fail", "loopback would go through the proxy", fix)


def _authorities() -> Iterator[Finding]:
    for name, path in ((name, os.environ[name]) for name in _AUTHORITIES if os.environ.get(name)):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(**{"capath" if os.path.isdir(path) else "cafile": path})
        except (OSError, ssl.SSLError):
            yield Finding("authority", "fail", f"{name}: {path} is no file of certificates", "correct or unset it")
        else:
            yield Finding("authority", "ok", f"{name}: {path}")
