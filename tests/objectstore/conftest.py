"""A real MinIO for the whole session, a bucket for each test."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from minio_server import MinioServer, minio_or_skip, versitygw_or_skip

from clinical_r1.objectstore.face import Store
from clinical_r1.objectstore.store import open_store

_numbers = itertools.count()


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    with minio_or_skip(tmp_path_factory.mktemp("minio")) as server:
        yield server


@pytest.fixture
def bucket(minio: MinioServer) -> str:
    """s3:// URI of an empty bucket."""
    return minio.make_bucket(f"bucket-{next(_numbers)}")


@pytest.fixture(scope="session")
def versitygw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    with versitygw_or_skip(tmp_path_factory.mktemp("versitygw")) as server:
        yield server


@pytest.fixture(params=["folder", "s3", "versitygw"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Both kinds of store, empty; the S3 kind on two servers."""
    if request.param == "folder":
        return open_store(tmp_path / "store")
    if request.param == "versitygw":
        other: MinioServer = request.getfixturevalue("versitygw")
        return open_store(f"{other.make_bucket(f'bucket-{next(_numbers)}')}/some/prefix", other.settings())
    server: MinioServer = request.getfixturevalue("minio")
    return open_store(f"{request.getfixturevalue('bucket')}/some/prefix", server.settings())


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A checkpoint in three shards of one tensor each, and no model that anything could run."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    (folder / "tokenizer.json").write_text("{}")
    for index in (1, 2, 3):
        size = 300_000 + index
        header = json.dumps({f"w{index}": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
        whole = len(header).to_bytes(8, "little") + header + bytes([index]) * size
        (folder / f"model-0000{index}-of-00003.safetensors").write_bytes(whole)
    weights = {f"w{index}": f"model-0000{index}-of-00003.safetensors" for index in (1, 2, 3)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    return folder
