"""A real MinIO (or versitygw) on loopback, for tests and benchmarks; it can be killed and started again, port and data
stay.

The binary is looked up at CLINICAL_R1_MINIO, on the PATH, and in the cache folder that the cluster tests fill
(~/.cache/clinical-r1/bin-minio-VERSION/minio).
"""

import os
import secrets
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import urllib3
from minio import Minio

from clinical_r1.objectstore.settings import StoreSettings
from tests.chart.gomodules import CACHE
from tests.ports import free_port

_START_SECONDS = 150
VERSITYGW = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"


def minio_binary() -> Path | None:
    """The newest binary there is; None where there is none."""
    return _binary("minio")


def _binary(name: str) -> Path | None:
    named = os.environ.get(f"CLINICAL_R1_{name.upper()}") or shutil.which(name)
    if named:
        return Path(named)
    built = [path for path in CACHE.glob(f"bin-{name}-*/{name}") if os.access(path, os.X_OK)]
    return max(built, key=lambda path: path.stat().st_mtime, default=None)


@contextmanager
def versitygw_or_skip(folder: Path) -> Iterator["MinioServer"]:
    """Another S3 server, versitygw, for a fixture; the test is skipped where there is no binary."""
    import pytest

    binary = _binary("versitygw")
    if binary is None:
        pytest.skip(f"no versitygw binary on the PATH or in {CACHE}/bin-versitygw-*: go install {VERSITYGW}")
    with VersityServer(binary, folder / "data") as server:
        yield server


@contextmanager
def minio_or_skip(folder: Path) -> Iterator["MinioServer"]:
    """A server for a fixture; the test is skipped where there is no binary."""
    import pytest

    binary = minio_binary()
    if binary is None:
        pytest.skip("no minio binary on the PATH or in ~/.cache/clinical-r1/bin-minio-*: the cluster tests build it")
    with MinioServer(binary, folder / "data") as server:
        yield server


def make_certificate(folder: Path) -> Path:
    """A folder for `tls`: a certificate that is its own authority (public.crt), and its key."""
    folder.mkdir()
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=minio -addext subjectAltName=IP:127.0.0.1"
    places = ["-keyout", str(folder / "private.key"), "-out", str(folder / "public.crt")]
    subprocess.run([*make.split(), *places], check=True, capture_output=True)
    return folder


class MinioServer:
    """One server process; use as a context manager."""

    ready = "/minio/health/ready"

    def __init__(self, binary: Path, folder: Path, tls: Path | None = None) -> None:
        self.certificate = tls / "public.crt" if tls else None
        self.folder, self.log = folder, folder.parent / f"{folder.name}.log"
        self.port = free_port()
        self.access_key, self.secret_key = "test-" + secrets.token_hex(4), secrets.token_hex(16)
        self.endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._command = [str(binary), "server", "--quiet", "--address", f"127.0.0.1:{self.port}", str(folder)]
        self._command += ["--certs-dir", str(tls)] if tls else []
        self._process: subprocess.Popen | None = None

    def settings(self, **changes: object) -> StoreSettings:
        """How a client reaches this server."""
        given: dict[str, object] = {
            "endpoint": self.endpoint,
            "access_key": self.access_key,
            "secret_key": self.secret_key,
        }
        given |= {"ca_bundle": self.certificate} if self.certificate else {}
        return StoreSettings.model_validate({"patience": 60} | given | changes)

    def environment(self) -> dict[str, str]:
        """The same for a child process."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            **({"AWS_CA_BUNDLE": str(self.certificate)} if self.certificate else {}),
        }

    def start(self, wait: bool = True) -> None:
        """Start and wait until it answers that it is live."""
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "MINIO_ROOT_USER": self.access_key,
            "MINIO_ROOT_PASSWORD": self.secret_key,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            "MINIO_CI_CD": "1",  # allows a folder on the machine's root disk
            "GOMAXPROCS": "2",
            "ROOT_ACCESS_KEY": self.access_key,
            "ROOT_SECRET_KEY": self.secret_key,
        }
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=environment)
        if wait:
            self._wait_until_live()

    def kill(self) -> None:
        """SIGKILL, as when a node goes away."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(120)

    def client(self) -> Minio:
        """The SDK's own client, for what a Store has no word for."""
        scheme, _, host = self.endpoint.partition("://")
        trusted = urllib3.PoolManager(ca_certs=str(self.certificate)) if self.certificate else None
        keys = (self.access_key, self.secret_key)
        return Minio(host, *keys, secure=scheme == "https", region="us-east-1", http_client=trusted)

    def make_bucket(self, name: str) -> str:
        """An empty bucket; returns its URI."""
        self.client().make_bucket(name)
        return f"s3://{name}"

    def __enter__(self) -> "MinioServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def _wait_until_live(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"minio ended with code {self._process.returncode}: {self.log.read_text()[-500:]}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=10):
                    pass
                if self.endpoint.startswith("https"):
                    return
                with urllib.request.urlopen(f"{self.endpoint}{self.ready}", timeout=10):
                    return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"minio was not ready after {_START_SECONDS} s: {self.log.read_text()[-500:]}")


class VersityServer(MinioServer):
    """versitygw on a folder, its metadata in one beside it (not every file system has attributes)."""

    ready = "/health"

    def __init__(self, binary: Path, folder: Path) -> None:
        super().__init__(binary, folder)
        beside = folder.parent / f"metadata-of-{folder.name}"
        beside.mkdir(parents=True, exist_ok=True)
        self._command = [str(binary), "--port", f"127.0.0.1:{self.port}", "--health", self.ready, "--quiet"]
        self._command += ["posix", "--sidecar", str(beside), str(folder)]
