"""Both kinds of store behave alike: the same tests run on a folder, on a real MinIO and on a real versitygw."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from minio_server import MinioServer

from clinical_r1.errors import UserError
from clinical_r1.objectstore.face import Conflict, Damaged, Entry, NotFound, Store, StoreRefused
from clinical_r1.objectstore.store import open_store


def test_what_was_put_is_got_listed_and_deleted(store: Store) -> None:
    written = store.put("2026/a.json", b"one")
    store.put("2026/b.json", b"three")
    store.put("other.json", b"")
    assert store.get("2026/a.json") == b"one" and store.get("other.json") == b""
    assert list(store.list("2026/")) == [Entry("2026/a.json", 3), Entry("2026/b.json", 5)]
    assert [entry.key for entry in store.list()] == ["2026/a.json", "2026/b.json", "other.json"]
    assert store.list_folders() == ("2026",)
    assert store.stat("2026/a.json") == written
    store.delete("2026/a.json")
    store.delete("2026/a.json")
    assert store.stat("2026/a.json") is None
    with pytest.raises(NotFound, match=r"2026/a\.json: no such object"):
        store.get("2026/a.json")


def test_put_overwrites_and_changes_the_etag(store: Store) -> None:
    first = store.put("a", b"one")
    assert store.put("a", b"two").etag != first.etag
    assert store.get("a") == b"two"


def test_conditional_writes(store: Store) -> None:
    written = store.put_if_absent("a", b"one")
    with pytest.raises(Conflict, match="already there"):
        store.put_if_absent("a", b"two")
    store.put_if_match("a", b"three", written.etag)
    with pytest.raises(Conflict, match="changed since it was read"):
        store.put_if_match("a", b"four", written.etag)
    with pytest.raises(NotFound):
        store.put_if_match("absent", b"five", written.etag)
    assert store.get("a") == b"three"


def test_of_many_writers_on_one_condition_one_wins(store: Store) -> None:
    etag = store.put("counter", b"0").etag

    def write(number: int) -> bool:
        try:
            store.put_if_match("counter", str(number).encode(), etag)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(1, 17)))
    assert sum(won) == 1
    assert store.get("counter") == str(won.index(True) + 1).encode()


@pytest.mark.parametrize("size", [0, 1, (16 << 20) + 12_345], ids=["empty", "small", "large"])
def test_files_travel_whole(store: Store, tmp_path: Path, size: int) -> None:
    source, seen = tmp_path / "source", []
    source.write_bytes(b"\x5a" * size)
    written = store.put_file("big/file.bin", source, watch=seen.append)
    assert sum(seen) == size and written.size == size
    assert store.stat("big/file.bin") == written
    back = tmp_path / "back"
    assert store.get_file("big/file.bin", back, written.sha256) == written.sha256
    assert back.read_bytes() == source.read_bytes()


def test_what_one_request_cannot_carry_goes_in_parts(
    minio: MinioServer, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clinical_r1.objectstore.s3.ONE_REQUEST", 1 << 20)
    monkeypatch.setattr("clinical_r1.objectstore.s3._PART_SIZE", 5 << 20)
    source, store = tmp_path / "source", open_store(bucket, minio.settings())
    source.write_bytes(b"\x5a" * ((11 << 20) + 7))
    written = store.put_file("a", source)
    assert written.etag.endswith("-3") and store.stat("a") == written
    assert store.get("a") == source.read_bytes()


def test_a_file_that_changes_while_it_is_sent(minio: MinioServer, bucket: str, tmp_path: Path) -> None:
    source, store = tmp_path / "source", open_store(bucket, minio.settings())
    source.write_bytes(b"a" * (2 << 20))
    with pytest.raises(StoreRefused, match="/a arrived with other bytes than were hashed"):
        store.put_file("a", source, sha256="0" * 64)

    def truncate(_: int) -> None:
        source.write_bytes(b"")

    with pytest.raises(UserError, match="source: became shorter while it was sent"):
        store.put_file("a", source, watch=truncate)
    assert store.stat("a") is None


def test_a_damaged_object_never_becomes_a_file(store: Store, tmp_path: Path) -> None:
    store.put("a", b"not what the manifest says")
    with pytest.raises(Damaged, match="SHA-256"):
        store.get_file("a", tmp_path / "back", "0" * 64)
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../../b", ".hidden", "a/.b", "a\nb", "a?b", "x" * 901]
)
def test_keys_stay_below_their_prefix(store: Store, key: str) -> None:
    with pytest.raises(UserError, match="object key"):
        store.put(key, b"")


@pytest.mark.parametrize("uri", ["gs://bucket/a", "s3://", "s3://UPPER/a", "file://"])
def test_uris_that_are_none(uri: str) -> None:
    with pytest.raises(UserError, match="object store"):
        open_store(uri)
