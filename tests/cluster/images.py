"""Images for the node: of one static program, or those of `make images` with the code of this checkout."""

import contextlib
import fnmatch
import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from tests.cluster.build import BINARIES

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("clinical_r1", "components", "pipelines", "serving")
ENVIRONMENT = "opt/*/lib/python3*/site-packages"
"""Where our images have their Python environment."""
_NVIDIA = f"{ENVIRONMENT}/nvidia"
GPU_FILES = (
    f"{ENVIRONMENT}/triton/*",
    f"{_NVIDIA}/cudnn/lib/libcudnn_*",
    f"{_NVIDIA}/nvshmem/lib/*.bc",
    f"{_NVIDIA}/nvshmem/lib/*.a",
    f"{_NVIDIA}/cu13/lib/libcusolverMg*",
    f"{_NVIDIA}/cu13/lib/libnvperf*",
)
"""What the trainer image holds for GPUs and a CPU never loads: 2 GB of 7."""
HIDDEN = ("triton",)
"""Python packages of which GPU_FILES leaves an empty folder, which would pass for the package."""
_PIECE = 1 << 20


class Layer(Protocol):
    """One layer of an image."""

    @property
    def identity(self) -> str:
        """Changes with the content; found without reading all of it."""
        ...

    def write(self, out: IO[bytes]) -> None:
        """The layer as a tar, the same bytes each time."""
        ...


@dataclass(frozen=True)
class ProgramLayer:
    """One static program and nothing else: no builder is needed."""

    binary: Path
    folder: str = ""
    """Where in the image the program lies, such as usr/bin."""

    @property
    def identity(self) -> str:
        """The binary's folder names its version."""
        return f"{self.binary} in /{self.folder}"

    @property
    def place(self) -> str:
        """The program's path in the image, without the first slash."""
        return f"{self.folder}/{self.binary.name}".lstrip("/")

    def write(self, out: IO[bytes]) -> None:
        """The program, /tmp and /etc."""
        with _tar(out) as tar:
            for folder in ("tmp", "etc"):
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
                tar.addfile(entry)
            tar.add(self.binary, self.place, filter=_plain)


@dataclass(frozen=True)
class BuiltLayer:
    """All files of an image that `make images` built, less those that `without` names and less our own packages."""

    source: str
    without: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """Of the files, not of the labels: a new commit alone changes nothing."""
        return f"{_inspect(self.source)['OCIv1']['rootfs']['diff_ids']} without {self.without}"

    def write(self, out: IO[bytes]) -> None:
        """The image's files as they are mounted."""
        omitted = [*self.without, *(f"{ENVIRONMENT}/{name}" for name in PACKAGES)]
        with _mounted(self.source) as root, _tar(out) as tar:
            for folder, folders, files in os.walk(root):
                inside = os.path.relpath(folder, root)
                folders.sort()
                for name in sorted([*folders, *files]):
                    path = os.path.normpath(f"{inside}/{name}")
                    if any(fnmatch.fnmatch(path, pattern) for pattern in omitted):
                        if name in folders:
                            folders.remove(name)
                    else:
                        tar.add(f"{root}/{path}", path, recursive=False)


@dataclass(frozen=True)
class CodeLayer:
    """The packages of this checkout, where the image has its own; as they were when this was made."""

    environment: str
    """Folder of the Python environment in the image."""
    files: tuple[tuple[str, bytes], ...] = field(default_factory=lambda: _code(), repr=False)
    """Path in the checkout and content."""

    @property
    def identity(self) -> str:
        """Of the files' content."""
        content = hashlib.sha256()
        for path, data in self.files:
            content.update(f"{path} {len(data)}\0".encode() + data)
        return f"{self.environment} {content.hexdigest()} without {HIDDEN}"

    def write(self, out: IO[bytes]) -> None:
        """Every file of our packages, and a whiteout for each that is hidden."""
        with _tar(out) as tar:
            for name in HIDDEN:
                _add(tar, f"{self.environment}/.wh.{name}", b"")
            for path, data in self.files:
                _add(tar, f"{self.environment}/{path}", data)


@dataclass(frozen=True)
class Image:
    """Layers, the lowest first, under a name with tag."""

    name: str
    layers: tuple[Layer, ...]
    config: tuple[tuple[str, Any], ...]
    """What the container runs: OCI's User, Env, Entrypoint, Cmd, WorkingDir."""

    @property
    def identity(self) -> str:
        """Changes with the content."""
        return json.dumps([[layer.identity for layer in self.layers], self.config])


def program_image(name: str, program: str, user: str = "1000:1000", folder: str = "") -> Image:
    """The image of a program of `build`."""
    layer = ProgramLayer(BINARIES[program].binary, folder)
    return Image(name, (layer,), (("Entrypoint", [f"/{layer.place}"]), ("User", user)))


def built_image(name: str, without: tuple[str, ...] = (), code: bool = True) -> Image:
    """An image in buildah's store; raises RuntimeError where nobody built it."""
    config = _inspect(name)["OCIv1"]["config"]
    layers: tuple[Layer, ...] = (BuiltLayer(name, without),)
    if code:
        with _mounted(name) as root:
            environment = next(root.glob(ENVIRONMENT)).relative_to(root)
        layers += (CodeLayer(str(environment)),)
    known = ("User", "Env", "Entrypoint", "Cmd", "WorkingDir")
    return Image(name, layers, tuple((key, config[key]) for key in known if config.get(key)))


def write_archive(image: Image, out: IO[bytes], known: dict[str, Any], present: set[str]) -> None:
    """An OCI archive, as `ctr images import` reads it.

    `known` remembers digest and size of a layer by its identity and is added to; layers whose digest is in `present`
    are left out of the archive.
    """
    found = []
    for layer in image.layers:
        identity = layer.identity
        if identity not in known or known[identity]["digest"] not in present:
            sink = _Measure()
            layer.write(sink)  # type: ignore[arg-type]
            known[identity] = {"digest": f"sha256:{sink.sha256.hexdigest()}", "size": sink.size}
        found.append((layer, known[identity]))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": dict(image.config),
        "rootfs": {"type": "layers", "diff_ids": [blob["digest"] for _, blob in found]},
    }
    kind = "application/vnd.oci.image"
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": _descriptor(config, f"{kind}.config.v1+json"),
        "layers": [{"mediaType": f"{kind}.layer.v1.tar", **blob} for _, blob in found],
    }
    names = {"io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": image.name}
    index = {
        "schemaVersion": 2,
        "manifests": [_descriptor(manifest, manifest["mediaType"]) | {"annotations": names}],  # type: ignore[arg-type]
    }
    with _tar(out) as tar:
        _add(tar, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        for document in (config, manifest):
            text = json.dumps(document).encode()
            _add(tar, f"blobs/sha256/{hashlib.sha256(text).hexdigest()}", text)
        for layer, blob in found:
            if blob["digest"] not in present:
                entry = tarfile.TarInfo("blobs/" + blob["digest"].replace(":", "/"))
                entry.size = blob["size"]
                with _pipe(layer) as stream:
                    tar.addfile(entry, stream)
        _add(tar, "index.json", json.dumps(index).encode())


class _Measure(io.RawIOBase):
    """Counts and hashes what is written."""

    def __init__(self) -> None:
        self.sha256, self.size = hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        self.size += len(data)
        return len(data)


@contextlib.contextmanager
def _pipe(layer: Layer) -> Iterator[IO[bytes]]:
    """What the layer writes, to be read from another process; nothing lies on the disk in between."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.close(reader)
            with os.fdopen(writer, "wb", buffering=_PIECE) as out:
                layer.write(out)
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as stream:
            yield stream
    finally:
        _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError(f"a layer could not be read: {layer}")


@contextlib.contextmanager
def _mounted(source: str) -> Iterator[Path]:
    container = "clinical-r1-cluster-" + re.sub(r"\W", "-", source)
    subprocess.run(["buildah", "rm", container], capture_output=True, check=False)  # of a run that was killed
    _buildah("from", "--pull-never", "--name", container, source)
    try:
        yield Path(_buildah("mount", container))
    finally:
        _buildah("rm", container)


def _inspect(source: str) -> Any:
    return json.loads(_buildah("inspect", "--type", "image", source))


def _buildah(*words: str) -> str:
    done = subprocess.run(["buildah", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"buildah {' '.join(words)}: {done.stderr.strip()}; is it built (`make images`)?")
    return done.stdout.strip()


def _code() -> tuple[tuple[str, bytes], ...]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *PACKAGES]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = sorted(path for path in listed.split("\0") if path and (ROOT / path).is_file())
    return tuple((path, (ROOT / path).read_bytes()) for path in paths)


def _descriptor(document: Any, media_type: str) -> dict[str, Any]:
    text = json.dumps(document).encode()
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(text).hexdigest()}", "size": len(text)}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _tar(out: IO[bytes]) -> tarfile.TarFile:
    """Written as a stream, in large pieces: gigabytes go through it."""
    tar = tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_PIECE)  # noqa: SIM115
    tar.copybufsize = _PIECE  # type: ignore[attr-defined]
    return tar


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry
