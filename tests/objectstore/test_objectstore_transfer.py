"""Folders up and down: nothing is sent twice, and a MinIO that is killed in the middle loses nothing."""

import threading
from pathlib import Path

import pytest
from minio_server import MinioServer, minio_binary

from clinical_r1.errors import UserError
from clinical_r1.objectstore import transfer
from clinical_r1.objectstore.face import Damaged, Store, StoreUnavailable
from clinical_r1.objectstore.store import open_store
from clinical_r1.objectstore.transfer import describe_files, download_files, size_text, upload_files


def test_a_second_upload_sends_what_changed_and_no_more(store: Store, model_folder: Path) -> None:
    said: list[str] = []
    files = describe_files(model_folder)
    first = upload_files(store, "m/v1", files, say=said.append)
    assert first == sorted(entry.path for entry in files) and len(first) == 6
    assert said[-1] == f"uploaded 6 files, {size_text(sum(entry.size for entry in files))}; 0 were there already"
    assert upload_files(store, "m/v1", files, say=said.append) == []
    assert said[-1] == "uploaded 0 files, 0 B; 6 were there already"
    (model_folder / "tokenizer.json").write_text("[]")
    assert upload_files(store, "m/v1", describe_files(model_folder), say=said.append) == ["tokenizer.json"]


def test_down_again_checked_and_resumed(store: Store, model_folder: Path, tmp_path: Path) -> None:
    files = describe_files(model_folder, extra={"reasoning_baseline.json": model_folder / "config.json"})
    upload_files(store, "m/v1", files)
    back = tmp_path / "back"
    assert len(download_files(store, "m/v1", files, back)) == 7
    assert {entry.path: entry for entry in describe_files(back)} == {entry.path: entry for entry in files}
    (back / "config.json").write_text("{}")
    assert download_files(store, "m/v1", files, back) == ["config.json"]
    store.put("m/v1/config.json", b"tampered with")
    (back / "config.json").unlink()
    with pytest.raises(Damaged, match=r"config\.json: its SHA-256 is not the one in the manifest"):
        download_files(store, "m/v1", files, back)
    assert not (back / "config.json").exists()


def test_hidden_files_stay_and_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x").write_text("x")
    (tmp_path / ".model.tmp").write_text("x")
    with pytest.raises(UserError, match="no files to publish"):
        describe_files(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        describe_files(tmp_path / "absent")


def test_the_first_failure_stops_the_others(minio: MinioServer, model_folder: Path) -> None:
    store = open_store("s3://no-such-bucket", minio.settings())
    with pytest.raises(UserError, match="does not exist"):
        upload_files(store, "m/v1", describe_files(model_folder))


def test_killed_and_restarted_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server dies under an upload that waits and under one that gives up: nothing finished is sent again."""
    binary = minio_binary()
    if binary is None:
        pytest.skip("no minio binary")
    source = tmp_path / "model"
    source.mkdir()
    for index in range(12):
        (source / f"shard-{index:02d}.bin").write_bytes(bytes([index]) * (2 << 20))
    files = describe_files(source)
    with MinioServer(binary, tmp_path / "data") as server:
        uri = server.make_bucket("models")
        patient, hasty = (open_store(uri, server.settings(patience=seconds)) for seconds in (150, 0))
        kills = _kill_when(server, patient, counts=[3, 6])
        monkeypatch.setattr(transfer, "WORKERS", 2)
        done = upload_files(kills, "m/v1", files)
        assert len(done) == 12
        with pytest.raises(StoreUnavailable, match="goes on where this one stopped"):
            monkeypatch.setattr(transfer, "WORKERS", 1)
            upload_files(_kill_when(server, hasty, counts=[5], restart=False), "m/v2", files)
        server.start()
        rest = upload_files(patient, "m/v2", files)
        assert len(rest) == 7
        back = tmp_path / "back"
        assert len(download_files(patient, "m/v2", files, back)) == 12
        assert list(describe_files(back)) == list(files)


def _kill_when(server: MinioServer, store: Store, counts: list[int], restart: bool = True) -> Store:
    """The same store, whose server is killed just before the files of these numbers are sent."""
    sent, lock, put_file = 0, threading.Lock(), store.put_file

    def put_and_kill(*arguments: object) -> object:
        nonlocal sent
        with lock:
            if sent in counts:
                server.kill()
                if restart:
                    server.start(wait=False)
            sent += 1
        return put_file(*arguments)  # type: ignore[arg-type]

    store.put_file = put_and_kill  # type: ignore[method-assign,assignment]
    return store


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (15_200_000_000, "15.2 GB")])
def test_sizes_are_readable(count: int, text: str) -> None:
    assert size_text(count) == text
