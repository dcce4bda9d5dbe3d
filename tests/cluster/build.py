"""Builds the cluster's programs from their Go modules, once per version, into a cache outside the checkout.

    python -m tests.cluster.build --minutes 30            # all of them, at most half an hour
    python -m tests.cluster.build kubernetes kserve       # these only

A program that is there already costs nothing. When the time runs out, the rest is named and skipped with exit code 3:
a later call goes on where this one stopped (Go keeps what it has compiled).
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.chart.gomodules import CACHE, module

PROGRAMS = Path(__file__).with_name("programs")
OUT_OF_TIME = 3
JOBS = ["-p", os.environ["GO_JOBS"]] if os.environ.get("GO_JOBS") else []
"""GO_JOBS=1 builds one package at a time and leaves the other cores to others."""


@dataclass(frozen=True)
class Program:
    """One binary: an own `main` under programs/ that imports a module, or a command of the module itself."""

    name: str
    module: str
    version: str
    package: str = ""
    """The command's folder in the module; empty: the own main in `programs/<name>`."""
    variables: tuple[str, ...] = ()
    """String variables that the linker sets, such as the version that the program tells."""

    @property
    def sources(self) -> Path:
        """The folder with the own main, its go.mod and its go.sum."""
        return PROGRAMS / self.name

    @property
    def binary(self) -> Path:
        """Where the finished binary is, or would be: `bin-<name>-<version>[-<hash of the own sources>]/<name>`."""
        own = b"".join(p.read_bytes() for p in sorted(self.sources.glob("*"))) if not self.package else b""
        own += " ".join(self.variables).encode()
        key = f"{self.version}-{hashlib.sha256(own).hexdigest()[:8]}" if own else self.version
        return CACHE / f"bin-{self.name}-{key}" / self.name


def _kubernetes_version(major: str, minor: str, patch: str) -> tuple[str, ...]:
    """Helm asks the API server for its version; without these it says v0.0.0."""
    place = "k8s.io/component-base/version.git"
    return (f"{place}Version=v{major}.{minor}.{patch}", f"{place}Major={major}", f"{place}Minor={minor}")


BINARIES = {
    program.name: program
    for program in (
        Program("kubernetes", "k8s.io/kubernetes", "v1.34.4", variables=_kubernetes_version("1", "34", "4")),
        Program("kserve", "github.com/kserve/kserve", "v0.20.0", package="./cmd/manager"),
        Program("minio", "github.com/minio/minio", "v0.0.0-20260212201848-7aac2a2c5b7c", package="."),
        Program("coredns", "github.com/coredns/coredns", "v1.12.4"),
        Program("pause", "", "v1"),
    )
}


def build(program: Program, seconds: float) -> bool:
    """Builds one program within a time limit; the binary appears whole or not at all. False: out of time."""
    program.binary.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.binary.parent, prefix=".build-") as scratch:
        sources, package = program.sources, "."
        if program.package:  # `go install` refuses modules with replace lines: build in a copy, with its own go.sum
            sources, package = Path(scratch, "module"), program.package
            shutil.copytree(module(program.module, program.version), sources, copy_function=shutil.copyfile)
            subprocess.run(["chmod", "-R", "u+w", str(sources)], check=True)
        target = Path(scratch, program.name)
        flags = [
            *JOBS,
            "-trimpath",
            "-buildvcs=false",
            "-mod=readonly",
            "-ldflags",
            " ".join(["-s -w", *("-X " + v for v in program.variables)]),
        ]
        command = ["go", "build", *flags, "-o", str(target), package]
        environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
        process = subprocess.Popen(command, cwd=sources, env=environment, process_group=0)
        try:
            code = process.wait(timeout=max(seconds, 1))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 15)
            process.wait()
            return False
        if code:
            raise RuntimeError(f"{program.name}: go build ended with {code}")
        target.replace(program.binary)
    return True


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(BINARIES)} (default: all)")
    parser.add_argument("--minutes", type=float, default=60.0, help="give up after this time (default 60)")
    args = parser.parse_args()
    if unknown := sorted(set(args.names) - set(BINARIES)):
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(BINARIES)}")
    start = time.monotonic()
    late = []
    for name in args.names or BINARIES:
        program = BINARIES[name]
        if program.binary.exists():
            print(f"{name} {program.version}: in the cache", flush=True)
            continue
        left = args.minutes * 60 - (time.monotonic() - start)
        print(f"{name} {program.version}: building, at most {left / 60:.0f} min", flush=True)
        began = time.monotonic()
        if left > 0 and build(program, left):
            size = program.binary.stat().st_size / 2**20
            print(f"{name} {program.version}: {size:.0f} MiB after {time.monotonic() - began:.0f} s", flush=True)
        else:
            late.append(name)
    if late:
        print(f"OUT OF TIME after {args.minutes:g} min, not built: {', '.join(late)}", flush=True)
    return OUT_OF_TIME if late else 0


if __name__ == "__main__":
    sys.exit(main())
