"""A version of the code that runs in the steps, for cache keys: the hash of what the package folders hold."""

import hashlib
from pathlib import Path

_FOLDERS = ("clinical_r1", "components")
_SUFFIXES = {".py", ".yaml", ".yml", ".j2", ".json", ".html", ".css", ".js", ".md", ".tsv"}


def code_version() -> str:
    """First 12 hex digits of the SHA-256 over the library's and the components' files (names and contents)."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for folder in _FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            # What `runs` makes of a configuration stands in the arguments of the steps.
            if path.suffix in _SUFFIXES and not {"__pycache__", "runs"} & set(path.parts[len(root.parts) :]):
                digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
