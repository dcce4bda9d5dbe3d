"""Images for the node: of one static program, written here; or those that `make images` built."""

import contextlib
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.cluster.build import BINARIES


class Image(Protocol):
    """An image that a node can load."""

    @property
    def name(self) -> str:
        """Name with tag."""
        ...

    @property
    def identity(self) -> str:
        """Changes with the content."""
        ...

    def archive(self) -> AbstractContextManager[Path]:
        """The image as a file, while the context lasts."""
        ...


@dataclass(frozen=True)
class ProgramImage:
    """One static program and nothing else. No builder is needed: an image is a tar of a tar and a JSON file."""

    name: str
    binary: Path
    user: str = "1000:1000"
    folder: str = ""
    """Where in the image the program lies, such as usr/bin."""

    @property
    def identity(self) -> str:
        """The binary's folder names its version."""
        return f"{self.binary} {self.user} {self.folder}"

    @contextlib.contextmanager
    def archive(self) -> Iterator[Path]:
        """A docker archive, as `ctr images import` reads it."""
        with tempfile.TemporaryDirectory() as scratch:
            layer = Path(scratch, "layer.tar")
            with tarfile.open(layer, "w") as tar:
                for folder in ("tmp", "etc"):
                    entry = tarfile.TarInfo(folder)
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
                    tar.addfile(entry)
                tar.add(self.binary, f"{self.folder}/{self.binary.name}".lstrip("/"), filter=_plain)
            with layer.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            config = {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Entrypoint": [f"/{self.folder}/{self.binary.name}".replace("//", "/")], "User": self.user},
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            }
            manifest = [{"Config": "config.json", "RepoTags": [self.name], "Layers": [f"{digest}/layer.tar"]}]
            path = Path(scratch, "image.tar")
            with tarfile.open(path, "w") as tar:
                for name, data in (("manifest.json", manifest), ("config.json", config)):
                    text = json.dumps(data).encode()
                    entry = tarfile.TarInfo(name)
                    entry.size = len(text)
                    tar.addfile(entry, io.BytesIO(text))
                tar.add(layer, f"{digest}/layer.tar", filter=_plain)
            yield path


@dataclass(frozen=True)
class BuiltImage:
    """An image in buildah's store, made by `make images`."""

    name: str

    @property
    def identity(self) -> str:
        """The image's id; raises RuntimeError where nobody built it."""
        command = ["buildah", "inspect", "--type", "image", "--format", "{{.FromImageID}}", self.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{self.name} is not built; run `make images`")
        return done.stdout.strip()

    @contextlib.contextmanager
    def archive(self) -> Iterator[Path]:
        """The image as a file; it takes as much disk as the image, for as long."""
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, "image.tar")
            subprocess.run(
                ["buildah", "push", "--quiet", self.name, f"docker-archive:{path}:{self.name}"],
                check=True,
                capture_output=True,
            )
            yield path


def program_image(name: str, program: str, user: str = "1000:1000") -> ProgramImage:
    """The image of a program of `build`."""
    return ProgramImage(name, BINARIES[program].binary, user)


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry
