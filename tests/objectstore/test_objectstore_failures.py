"""What can go wrong with a real MinIO, and the sentence that a user gets for it."""

import os
import shutil
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from minio_server import MinioServer, make_certificate, minio_binary

from clinical_r1.errors import UserError
from clinical_r1.objectstore.face import Conflict, StoreFull, StoreRefused, StoreUnavailable
from clinical_r1.objectstore.settings import StoreSettings
from clinical_r1.objectstore.store import open_store


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"access_key": "nobody"}, r"access key 'nobody' is unknown there: correct AWS_ACCESS_KEY_ID"),
        ({"secret_key": "wrong-wrong"}, r"the secret key of 'test-\w+' is wrong: correct AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_wrong_credentials(minio: MinioServer, bucket: str, changes: dict[str, str], words: str) -> None:
    store = open_store(bucket, minio.settings(**changes))
    for operation in (
        lambda: store.put("a", b""),
        lambda: store.put_if_absent("a", b""),
        lambda: store.stat("a"),
        lambda: list(store.list()),
    ):
        with pytest.raises(StoreRefused, match=words):
            operation()


def test_missing_bucket(minio: MinioServer) -> None:
    store = open_store("s3://no-such-bucket/models", minio.settings())
    for operation in (lambda: store.put("a", b""), lambda: store.stat("a"), lambda: list(store.list())):
        with pytest.raises(StoreRefused, match="bucket 'no-such-bucket' does not exist: create it"):
            operation()


def test_clock_skew(minio: MinioServer, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    late = datetime.now(UTC) + timedelta(minutes=20)
    monkeypatch.setattr("minio.time.utcnow", lambda: late)
    store = open_store(bucket, minio.settings())
    with pytest.raises(StoreRefused, match="clock and the store's differ"):
        store.put("a", b"")
    with pytest.raises(StoreRefused, match="clock and the store's differ"):
        store.put_if_absent("a", b"")


def test_a_key_that_may_only_read_one_prefix(minio: MinioServer, bucket: str) -> None:
    from minio.credentials import StaticProvider
    from minio.minioadmin import MinioAdmin

    name = bucket.removeprefix("s3://")
    keys = StaticProvider(minio.access_key, minio.secret_key)
    admin = MinioAdmin(endpoint=minio.endpoint.partition("://")[2], credentials=keys, secure=False)
    admin.user_add("reader", "reader-secret")
    admin.policy_add(
        "read-models",
        policy={
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [f"arn:aws:s3:::{name}/models/*"]},
                {"Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [f"arn:aws:s3:::{name}"]},
            ],
        },
    )
    admin.policy_set("read-models", user="reader")
    open_store(bucket, minio.settings()).put("models/a", b"weights")
    reader = open_store(bucket, minio.settings(access_key="reader", secret_key="reader-secret"))
    assert reader.get("models/a") == b"weights"
    for operation in (lambda: reader.put("models/a", b""), lambda: reader.get("records/a"), lambda: reader.stat("x/a")):
        with pytest.raises(StoreRefused, match="'reader' has no right for this on s3://"):
            operation()


def test_nobody_there_and_not_an_object_store(minio: MinioServer) -> None:
    dead = open_store("s3://bucket", minio.settings(endpoint="http://127.0.0.1:9", patience=0.5))
    with pytest.raises(StoreUnavailable, match=r"no usable answer for 0\.5 s .*NetworkPolicy"):
        dead.get("a")
    tls = open_store("s3://bucket", minio.settings(endpoint=minio.endpoint.replace("http:", "https:")))
    with pytest.raises(StoreRefused, match="AWS_CA_BUNDLE"):
        tls.get("a")


def test_no_space_left(tmp_path: Path) -> None:
    binary, small = minio_binary(), tmp_path / "small"
    small.mkdir()
    if binary is None:
        pytest.skip("no minio binary")
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(small)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        with MinioServer(binary, small) as server:
            store = open_store(server.make_bucket("full"), server.settings())
            with pytest.raises(StoreFull, match="no space left for s3://full/block-"):
                for index in range(10):
                    store.put(f"block-{index}", b"x" * (4 << 20))
    finally:
        subprocess.run(["umount", "-l", str(small)], capture_output=True)


def test_tls_with_an_own_authority(tmp_path: Path) -> None:
    binary = minio_binary()
    if binary is None or shutil.which("openssl") is None:
        pytest.skip("no minio or no openssl binary")
    with MinioServer(binary, tmp_path / "data", tls=make_certificate(tmp_path / "certs")) as server:
        trusted = open_store("s3://bucket", server.settings())
        with pytest.raises(StoreRefused, match="bucket 'bucket' does not exist"):
            trusted.get("a")
        server.make_bucket("bucket")
        (tmp_path / "file").write_bytes(b"weights" * (1 << 18))
        assert trusted.put_file("a", tmp_path / "file") == trusted.stat("a")
        assert trusted.get("a") == b"weights" * (1 << 18)
        with pytest.raises(UserError, match="became shorter"):
            trusted.put_file("b", tmp_path / "file", watch=lambda _: os.truncate(tmp_path / "file", 9))
        with pytest.raises(StoreRefused, match="AWS_CA_BUNDLE"):
            open_store("s3://bucket", server.settings(ca_bundle=None)).get("a")


def test_rotated_secret_files_need_no_restart(minio: MinioServer, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "accesskey").write_text("old-key\n")
    (tmp_path / "secretkey").write_text("old-secret\n")
    store = open_store(bucket, minio.settings(access_key="", secret_key="", secret_dir=tmp_path))
    with pytest.raises(StoreRefused, match="'old-key' is unknown"):
        store.put("a", b"")
    (tmp_path / "accesskey").write_text(minio.access_key)
    (tmp_path / "secretkey").write_text(minio.secret_key)
    store.put("a", b"")
    (tmp_path / "accesskey").unlink()
    with pytest.raises(UserError, match="no file AWS_ACCESS_KEY_ID or accesskey"):
        store.put("a", b"")


def test_operations_wait_for_a_restart(tmp_path: Path) -> None:
    binary = minio_binary()
    if binary is None:
        pytest.skip("no minio binary")
    with MinioServer(binary, tmp_path / "data") as server:
        store = open_store(server.make_bucket("bucket"), server.settings(patience=150))
        store.put("a", b"before")
        server.kill()
        restart = threading.Timer(2, server.start, kwargs={"wait": False})
        begun = time.monotonic()
        restart.start()
        store.put_if_absent("b", b"after")
        assert time.monotonic() - begun > 1.5
        restart.join()
        assert store.get("a") == b"before" and store.get("b") == b"after"
        with pytest.raises(Conflict):
            store.put_if_absent("b", b"again")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "AWS_ENDPOINT_URL is not set"),
        ({"AWS_ENDPOINT_URL": "http://minio:9000"}, "no credentials"),
        (
            {"AWS_ENDPOINT_URL": "minio:9000", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"},
            "http://HOST:PORT",
        ),
    ],
)
def test_settings_that_are_missing_or_wrong(environment: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        StoreSettings.from_environment(environment)


def test_settings_never_print_the_secret() -> None:
    settings = StoreSettings(endpoint="http://minio:9000", access_key="a", secret_key="hush", session_token="hush")
    assert "hush" not in repr(settings) and "hush" not in str(settings)
