"""Checkpoints in an object store: a folder, and S3 where there is a server for the tests."""

import itertools
import json
import shutil
from pathlib import Path

import pytest

from clinical_r1.errors import UserError
from clinical_r1.training.checkpoints import FILES, FORK_VARIABLE, Remote, claim, latest, release, save
from tests.objectstore.minio_server import minio_or_skip, versitygw_or_skip

_numbers = itertools.count()


@pytest.fixture(scope="module")
def minio(tmp_path_factory):
    with minio_or_skip(tmp_path_factory.mktemp("minio")) as server:
        yield server


@pytest.fixture(scope="module")
def versitygw(tmp_path_factory):
    with versitygw_or_skip(tmp_path_factory.mktemp("versitygw")) as server:
        yield server


@pytest.fixture(params=["folder", "minio", "versitygw"])
def uri(request, tmp_path, monkeypatch):
    """An empty place; the servers stay for all tests, each has a bucket of its own."""
    if request.param == "folder":
        return str(tmp_path / "store")
    server = request.getfixturevalue(request.param)
    told = server.settings()
    monkeypatch.setenv("AWS_ENDPOINT_URL", told.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", told.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", told.secret_key)
    return f"{server.make_bucket(f'states-{next(_numbers)}')}/team"


def begin(uri: str, state: Path, rate: float = 1.0) -> Remote:
    claim(state, {"config": {"rate": rate}})
    remote = Remote(uri, state, state)
    remote.fetch()
    return remote


def write(remote: Remote, step: int) -> None:
    (remote.state_dir / "metrics.jsonl").write_text("".join(f'{{"step": {n}}}\n' for n in range(step)))
    best = remote.state_dir / f"best-{step:08d}"
    best.mkdir()
    (best / "model.safetensors").write_text(str(step))

    def part(folder: Path) -> None:
        assert not list(remote.root.glob("step-*/complete.json"))  # at most one is on the disk
        (folder / "actor").mkdir()
        (folder / "actor" / "weights.pt").write_bytes(bytes([step]) * 1000)

    save(remote.root, step, part, 2, remote)
    for old in remote.state_dir.glob("best-*"):
        if old != best:
            shutil.rmtree(old)


def test_a_new_disk_goes_on_from_the_newest_whole_checkpoint(uri, tmp_path):
    state = tmp_path / "ward" / "sft"
    remote = begin(uri, state)
    for step in (1, 2, 3):
        write(remote, step)
    assert [path.name for path in state.glob("step-*")] == ["step-00000003"]
    steps = {entry.key.split("/")[3] for entry in remote.store.list(f"{remote.place}/step")}
    assert steps == {"step-00000002", "step-00000003"}
    remote.store.put(f"{remote.place}/step-00000009/actor/weights.pt", b"torso")
    shutil.rmtree(state)
    again = begin(uri, state)
    newest = latest(state)
    assert newest and newest.name == "step-00000003"
    assert (newest / "actor" / "weights.pt").read_bytes() == bytes([3]) * 1000
    assert len((state / "metrics.jsonl").read_text().splitlines()) == 3
    assert (state / "best-00000003" / "model.safetensors").read_text() == "3"
    (state / "step-00000003" / "mine").touch()
    again.fetch()  # what is here is as new
    assert (state / "step-00000003" / "mine").exists()
    release(state, uri)
    assert not list(again.store.list()) and latest(state) is None


def test_a_step_that_is_saved_once_more_is_what_was_saved_last(uri, tmp_path):
    """As the critic's warm-up is, all of which is step 0."""
    state = tmp_path / "ward" / "ppo"
    remote = begin(uri, state)
    for content in ({"a": 1, "b": 1}, {"a": 2}):

        def part(folder: Path, content=content) -> None:
            for name, value in content.items():
                (folder / name).write_bytes(bytes([value]) * 1000)

        save(remote.root, 0, part, 2, remote)
    shutil.rmtree(state)
    begin(uri, state)
    newest = latest(state)
    assert newest and {path.name for path in newest.iterdir()} == {"a", "complete.json"}
    assert (newest / "a").read_bytes() == bytes([2]) * 1000


def test_another_run_is_refused_with_the_difference_and_its_checkpoints_stay(uri, tmp_path, monkeypatch):
    state = tmp_path / "ward" / "sft"
    write(begin(uri, state), 1)
    shutil.rmtree(state)
    with pytest.raises(UserError, match=r"rate was 1\.0, now 2\.0.*--fork"):
        begin(uri, state, 2.0)
    monkeypatch.setenv(FORK_VARIABLE, "1")
    write(begin(uri, state, 2.0), 5)
    release(state, uri)
    monkeypatch.delenv(FORK_VARIABLE)
    shutil.rmtree(state)
    begin(uri, state)
    assert latest(state).name == "step-00000001"


def test_a_damaged_checkpoint_is_told(uri, tmp_path):
    state = tmp_path / "ward" / "sft"
    remote = begin(uri, state)
    write(remote, 1)
    shutil.rmtree(state)
    entries = json.loads(remote.store.get(f"{remote.place}/step-00000001/{FILES}"))
    assert {entry["path"] for entry in entries} == {"actor/weights.pt", "complete.json"}
    remote.store.put(f"{remote.place}/step-00000001/actor/weights.pt", b"x" * 1000)
    with pytest.raises(UserError, match="SHA-256"):
        begin(uri, state)
    assert latest(state) is None
