"""Does in a step's container what the launcher of Kubeflow Pipelines 2.17 does around the user's command.

    python3 launcher.py STORE EXECUTOR_INPUT -- COMMAND...

It fetches input artifacts to /minio/<bucket>/<key>, makes the folders of outputs, puts the executor input in place of
`{{$}}` and parameters' values in place of their placeholders (by text, in that JSON too), runs the command, uploads
what lies where output artifacts belong, and prints the outputs as its last line.
STORE is the JSON of a `kfp-launcher` provider; the keys come as the environment's S3_ACCESS_KEY and S3_SECRET_KEY.
Knows nothing of this project: it runs beside the step, with the minio SDK of its image.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3
from minio import Minio

CA = "/kfp/certs/ca.crt"
"""Kubeflow's own trust, in every pod; what the pipeline mounts is the step's."""


def local_path(uri: str) -> Path:
    """Where the launcher puts an artifact: minio://bucket/key -> /minio/bucket/key."""
    parts = urlsplit(uri)
    return Path("/", parts.scheme, parts.netloc, parts.path.lstrip("/"))


def place(uri: str) -> tuple[str, str]:
    """Bucket and key."""
    parts = urlsplit(uri)
    return parts.netloc, parts.path.lstrip("/")


def fetch(store: Minio, uri: str) -> int:
    """An artifact is one object, or all objects under its key."""
    bucket, key = place(uri)
    found = [entry.object_name or "" for entry in store.list_objects(bucket, prefix=key, recursive=True)]
    mine = [name for name in found if name == key or name.startswith(key + "/")]
    for name in mine:
        store.fget_object(bucket, name, str(local_path(f"minio://{bucket}/{name}")))
    return len(mine)


def upload(store: Minio, uri: str) -> int:
    """A file as one object, a folder as its files."""
    (bucket, key), path = place(uri), local_path(uri)
    files = [path] if path.is_file() else sorted(entry for entry in path.rglob("*") if entry.is_file())
    for file in files:
        store.fput_object(bucket, key if file == path else f"{key}/{file.relative_to(path)}", str(file))
    return len(files)


def artifacts(part: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, URI) of all artifacts of inputs or outputs."""
    return [(name, item["uri"]) for name, found in part.get("artifacts", {}).items() for item in found["artifacts"]]


def filled(text: str, values: dict[str, Any]) -> str:
    """Placeholders of parameters by the text of their values, whatever stands around them."""

    def value(match: re.Match[str]) -> str:
        found = values[match[1]]
        return found if isinstance(found, str) else json.dumps(found)

    return re.sub(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}", value, text)


def main() -> int:
    """Returns the command's exit code; 1 where an input is missing."""
    settings, text = json.loads(sys.argv[1]), sys.argv[2]
    executor = json.loads(text)
    values = executor["inputs"].get("parameterValues", {})
    command = [filled(word.replace("{{$}}", text), values) for word in sys.argv[4:]]
    store = Minio(
        settings["endpoint"],
        os.environ.pop("S3_ACCESS_KEY"),
        os.environ.pop("S3_SECRET_KEY"),
        secure=not settings["disableSSL"],
        region=settings["region"],
        http_client=urllib3.PoolManager(ca_certs=CA, timeout=30),
    )
    fetched = {name: fetch(store, uri) for name, uri in artifacts(executor["inputs"])}
    if not all(fetched.values()):
        print(f"an input artifact is missing: {fetched}")
        return 1
    outputs = executor["outputs"]
    parameters = {name: Path(entry["outputFile"]) for name, entry in outputs.get("parameters", {}).items()}
    for path in [*parameters.values(), Path(outputs["outputFile"]), *(local_path(u) for _, u in artifacts(outputs))]:
        path.parent.mkdir(parents=True, exist_ok=True)
    code = subprocess.run(command, check=False).returncode
    if code:
        return code
    written = {name: path.read_text(encoding="utf-8") for name, path in parameters.items() if path.exists()}
    metadata = Path(outputs["outputFile"])
    told = json.loads(metadata.read_text(encoding="utf-8")) if metadata.exists() else {}
    result = {
        "fetched": fetched,
        "uploaded": {name: upload(store, uri) for name, uri in artifacts(outputs)},
        # What the metadata say goes before what lies in a parameter's own file.
        "parameters": written | told.get("parameterValues", {}),
        "executor_output": told,
    }
    print("\n" + json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
