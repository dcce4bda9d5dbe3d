"""How fast shards travel to a real MinIO on this machine, and what a transfer that is killed sends again.

    python -m benchmarks.objectstore                    # 1 GB, five rounds
    python -m benchmarks.objectstore --megabytes 128    # quick

    python -m benchmarks.objectstore --plain            # plain http: the store then checks the SHA-256 of each file

Where there is no MinIO it is built from its Go module first. It speaks TLS, as the chart's does. Each round measures,
with the same bytes and as many streams: writing and syncing plain files (`disk`), pushing the files into the same MinIO
by a bare client that hashes nothing (read, encrypt, send to signed URLs: `loopback`, what this server takes on this
machine), and publishing, hashing included (`upload`). MinIO computes MD5 and bitrot sums of all that it takes and
shares the machine with its client, so `loopback` is far below `disk` on few cores. In a round these two run twice
each, one between the other's runs; before each the store has thrown away what was deleted. `ratio` is the median over
the rounds of the rate of `upload` by the lower limit of its own round; `ratio_of_disk` is that by the disk's alone.
Then a transfer is killed five times with SIGKILL and begun again; the bucket keeps versions, so an object that was
finished and sent again has two.
The last line is one JSON object.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clinical_r1.objectstore.store import open_store
from clinical_r1.objectstore.transfer import WORKERS, describe_files, upload_files
from tests.cluster.build import BINARIES, build
from tests.objectstore.minio_server import MinioServer, make_certificate, minio_binary

BLOCK = 1 << 20
KILLS = 5
BUILD_SECONDS = 30 * 60


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes, begun with nothing left to write back."""
    os.sync()
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def write_shards(folder: Path, megabytes: int, shards: int) -> list[Path]:
    """Random files, as tensors are to a disk: nothing compresses."""
    folder.mkdir(parents=True)
    paths = [folder / f"model-{index + 1:05d}-of-{shards:05d}.safetensors" for index in range(shards)]
    for path in paths:
        with open(path, "wb") as handle:
            for _ in range(max(1, megabytes // shards)):
                handle.write(random.randbytes(BLOCK))
    return paths


def disk_seconds(paths: list[Path], folder: Path) -> float:
    """Copy the files with as many threads as the upload has, and sync each."""

    def copy(path: Path) -> None:
        with open(path, "rb") as source, open(folder / path.name, "wb") as target:
            shutil.copyfileobj(source, target, BLOCK)
            target.flush()
            os.fdatasync(target.fileno())

    folder.mkdir()
    with ThreadPoolExecutor(WORKERS) as pool:
        seconds = timed(lambda: list(pool.map(copy, paths)))
    shutil.rmtree(folder)
    return seconds


def loopback_seconds(paths: list[Path], server: MinioServer, bucket: str) -> float:
    """Send the files into MinIO as cheaply as a client can: nothing is hashed; over plain http the kernel copies."""
    client = server.client()
    urls = {path: client.get_presigned_url("PUT", bucket, f"bare/{path.name}") for path in paths}
    trust = ssl.create_default_context(cafile=server.certificate) if server.certificate else None

    def send(path: Path) -> None:
        head = f"PUT {urls[path].removeprefix(server.endpoint)} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        head += f"Content-Length: {path.stat().st_size}\r\nConnection: close\r\n\r\n"
        plain = socket.create_connection(("127.0.0.1", server.port))
        secure = trust and trust.wrap_socket(plain, server_hostname="127.0.0.1")
        with secure or plain as out, open(path, "rb") as source:
            out.sendall(head.encode())
            if not secure:
                out.sendfile(source)
            while block := source.read(BLOCK):
                out.sendall(block)
            status = out.recv(1 << 16).partition(b"\r\n")[0]
        if b" 200 " not in status:
            raise RuntimeError(f"MinIO answered {status!r}")

    with ThreadPoolExecutor(WORKERS) as pool:
        return timed(lambda: list(pool.map(send, paths)))


def upload(uri: str, prefix: str, source: Path) -> None:
    """What `publish` does to the files; a child process runs it too."""
    upload_files(open_store(uri), prefix, describe_files(source), say=lambda _: None)


def rounds(server: MinioServer, source: Path, paths: list[Path], count: int) -> list[dict[str, float]]:
    """MB/s of disk, loopback and upload, round by round; what is left over from the one before falls on both alike."""
    uri, size = server.make_bucket("speed"), sum(path.stat().st_size for path in paths) / 1e6
    work = {
        "loopback": lambda: loopback_seconds(paths, server, "speed"),
        "upload": lambda: timed(lambda: upload(uri, "model", source)),
    }
    measured = []
    for _ in range(count):
        rates = {"disk": size / disk_seconds(paths, source.parent / "copy")}
        seconds = dict.fromkeys(work, 0.0)
        for name in ("loopback", "upload", "upload", "loopback"):
            seconds[name] += work[name]()
            empty(server, "speed")
        rates |= {name: 2 * size / spent for name, spent in seconds.items()}
        limit = min(rates["disk"], rates["loopback"])
        rates |= {"ratio": rates["upload"] / limit, "ratio_of_disk": rates["upload"] / rates["disk"]}
        measured.append(rates)
        print("  ".join(f"{name} {value:,.2f}" for name, value in rates.items()), flush=True)
    return measured


def empty(server: MinioServer, bucket: str) -> None:
    """Take all objects out, so that nothing is skipped and the disk does not fill; then let the disk come to rest.

    MinIO throws away what is deleted over the next minutes, and a transfer beside that is a third slower.
    """
    for entry in list(server.client().list_objects(bucket, recursive=True)):
        server.client().remove_object(bucket, str(entry.object_name))
    for trash in (server.folder / ".minio.sys/tmp/.trash").glob("*"):
        shutil.rmtree(trash, ignore_errors=True)
    os.sync()
    time.sleep(1)


def killed(server: MinioServer, source: Path, shards: int) -> dict[str, int]:
    """Kill the transfer each time that further objects are finished, then let it end."""
    from minio.versioningconfig import ENABLED, VersioningConfig

    uri = server.make_bucket("killed")
    client = server.client()
    client.set_bucket_versioning("killed", VersioningConfig(ENABLED))
    command = [sys.executable, "-m", "benchmarks.objectstore", "--upload", uri, str(source)]

    def finished() -> int:
        return sum(1 for _ in client.list_objects("killed", recursive=True))

    kills = 0
    while kills < KILLS:
        target = finished() + 1
        child = subprocess.Popen(command)
        while child.poll() is None and finished() < target:
            time.sleep(0.02)
        time.sleep(random.uniform(0, 0.05))
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            kills += 1
        child.wait()
        print(f"killed {kills} times, {finished()} of {shards} objects finished", flush=True)
        if finished() >= shards:
            break
    subprocess.run(command, check=True)
    versions = list(client.list_objects("killed", recursive=True, include_version=True))
    names = {entry.object_name for entry in versions}
    store = open_store(uri, server.settings())
    wrong = sum(
        (found := store.stat(f"model/{entry.path}")) is None or found.sha256 != entry.sha256
        for entry in describe_files(source)
    )
    resent = len(versions) - len(names)
    return {"kills": kills, "objects": len(names), "resent_finished_objects": resent, "wrong": wrong}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plain", action="store_true", help="http instead of https")
    parser.add_argument("--upload", nargs=2, metavar=("URI", "FOLDER"), help="(used by the benchmark itself)")
    arguments = parser.parse_args()
    if arguments.upload:
        upload(arguments.upload[0], "model", Path(arguments.upload[1]))
        return
    minio = BINARIES["minio"]
    if not (binary := minio_binary()):
        print(f"building minio {minio.version} (once, some minutes)", flush=True)
        if shutil.which("go") is None:
            sys.exit(
                "no minio binary on the PATH, and no Go to build it: install Go, or set CLINICAL_R1_MINIO to a binary"
            )
        if not build(minio, BUILD_SECONDS):
            late = f"minio was not built within {BUILD_SECONDS / 60:.0f} minutes"
            sys.exit(f"{late}: run this again, it goes on from there")
        binary = minio.binary
    with tempfile.TemporaryDirectory() as folder:
        tls = None if arguments.plain else make_certificate(Path(folder) / "certificates")
        with MinioServer(binary, Path(folder) / "data", tls) as server:
            os.environ.update(server.environment())
            source = Path(folder) / "model"
            paths = write_shards(source, arguments.megabytes, arguments.shards)
            speeds = rounds(server, source, paths, arguments.rounds)
            result = killed(server, source, arguments.shards)
    medians = {name: round(statistics.median(row[name] for row in speeds), 2) for name in speeds[0]}
    print(json.dumps({"megabytes": arguments.megabytes, "MB_per_s": medians, "ratio": medians["ratio"], **result}))


if __name__ == "__main__":
    main()
