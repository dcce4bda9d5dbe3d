"""`open_store(uri)`: MinIO, any S3, or a folder behind the one face (clinical_r1.objectstore.face).

store = open_store("s3://clinical-r1/reports")      # MinIO or any S3; or a folder: open_store("runs/reports")
store.put("2026/report.html", page.encode())
"""

import re
from pathlib import Path

from clinical_r1.errors import UserError
from clinical_r1.objectstore.face import Store
from clinical_r1.objectstore.settings import StoreSettings

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*)://")


def open_store(uri: str | Path, settings: StoreSettings | None = None) -> Store:
    """The store at `s3://bucket[/prefix]`, `file:///folder` or a plain path (made on the first write).

    Endpoint, credentials and CA bundle of S3 come from `settings`, else from the environment: see StoreSettings.
    Nothing is contacted yet. Raises UserError for a URI that is none and for missing settings.
    """
    text = str(uri)
    scheme = _SCHEME.match(text)
    if scheme is None or scheme[1] == "file":
        from clinical_r1.objectstore.folder import FolderStore

        path = text.removeprefix("file://")
        if not path:
            raise UserError(f"object store '{text}': no folder given: write a path or s3://BUCKET/PREFIX")
        return FolderStore(Path(path))
    if scheme[1] not in ("s3", "minio"):
        raise UserError(f"object store {text}: unknown scheme '{scheme[1]}': write s3://BUCKET/PREFIX or a folder")
    bucket, _, prefix = text[scheme.end() :].partition("/")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket):
        raise UserError(f"object store {text}: '{bucket}' is no bucket name: write s3://BUCKET/PREFIX")
    from clinical_r1.objectstore.s3 import S3Store

    return S3Store(bucket, prefix.strip("/"), settings or StoreSettings.from_environment())
