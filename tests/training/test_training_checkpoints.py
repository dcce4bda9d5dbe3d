import json

import pytest

from clinical_r1.errors import UserError
from clinical_r1.training.checkpoints import (
    FORK_VARIABLE,
    claim,
    latest,
    layout_of,
    prune,
    release,
    save,
)


def test_the_newest_whole_checkpoint_wins_and_torsos_go(tmp_path):
    for step in (9, 10, 100):
        save(tmp_path, step, lambda folder: (folder / "weights").write_text("w"), keep=5)
    torso = tmp_path / "step-00000101"
    torso.mkdir()
    (torso / "weights").write_text("half")
    newest = latest(tmp_path)
    assert newest == tmp_path / "step-00000100" and (newest / "complete.json").is_file()
    prune(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000100"]
    assert latest(tmp_path / "absent") is None


def test_a_failed_write_is_no_checkpoint(tmp_path):
    def fail(folder):
        (folder / "weights").write_text("w")
        raise OSError("disk full")

    try:
        save(tmp_path, 1, fail)
    except OSError:
        assert latest(tmp_path) is None


def write(state, identity, layout=None):
    found = claim(state, identity, layout)
    save(state, 1, lambda folder: (folder / "weights").write_text(json.dumps(identity)))
    return found


def test_the_checkpoints_of_another_run_are_refused_with_the_difference_and_stay(tmp_path):
    state = tmp_path / "state"
    assert not write(state, {"config": {"rate": 1e-5, "deep": {"clip": 0.2}}, "data": "a"})
    assert claim(state, {"config": {"rate": 1e-5, "deep": {"clip": 0.2}}, "data": "a"})
    with pytest.raises(UserError, match=r"deep\.clip was 0\.2, now 0\.3; data was \"a\", now \"b\".*--fork"):
        claim(state, {"config": {"rate": 1e-5, "deep": {"clip": 0.3}}, "data": "b"})
    assert latest(state)


def test_a_fork_starts_beside_and_every_run_finds_its_own_again(tmp_path, monkeypatch):
    state = tmp_path / "state"
    for number in (1, 2, 3):
        monkeypatch.setenv(FORK_VARIABLE, "1")
        assert not write(state, {"config": number})
    for number in (1, 3, 2):
        monkeypatch.delenv(FORK_VARIABLE, raising=False)  # a run that was parked needs no word
        assert claim(state, {"config": number})
        assert (latest(state) / "weights").read_text() == json.dumps({"config": number})


def test_how_a_checkpoint_is_cut_must_fit_only_where_there_is_one(tmp_path):
    state = tmp_path / "state"
    assert not claim(state, {"config": 1}, {"deepspeed.stage": 3})
    assert claim(state, {"config": 1}, {"deepspeed.stage": 2})
    save(state, 1, lambda folder: None)
    with pytest.raises(UserError, match=r"layout\.deepspeed\.stage was 2, now 3.*--fork"):
        claim(state, {"config": 1}, {"deepspeed.stage": 3})


def test_the_number_of_processes_may_change_but_under_zero_3():
    assert layout_of(2, 4) == layout_of(2, 1) and layout_of(None, 1) == layout_of(None, 2)
    assert layout_of(3, 4) != layout_of(3, 1)


def test_checkpoints_go_when_the_results_are_safe(tmp_path):
    state = tmp_path / "state"
    write(state, {"config": 1})
    (state / "best-00000001").mkdir()
    (state / "metrics.jsonl").write_text("{}")
    release(state)
    assert not latest(state) and not list(state.glob("best-*"))
    assert (state / "metrics.jsonl").exists()
    assert not claim(state, {"config": 2})  # nothing is lost: no --fork needed


def test_what_changes_how_a_run_is_computed_is_no_other_run(tmp_path):
    from clinical_r1.training.ppo.config import PPOConfig, PPOJob

    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "cases.jsonl", "validation.jsonl"):
        (model / name).write_text("{}")

    def identity(**changes):
        files = {"cases": model / "cases.jsonl", "validation": model / "validation.jsonl", "model": model}
        settings = PPOConfig.model_validate({"batch_size": 16} | changes)
        return PPOJob(config=settings, **files, out_dir=tmp_path, state_dir=tmp_path).identity()

    plain = identity()
    for changes in (
        {"micro_batch_size": 8}, {"logits_chunk": 99}, {"steps": 900}, {"processes": 2}, {"save_every": 3},
        {"probe": {"every": 7}}, {"activation_checkpointing": True}, {"rollout": {"batch_tokens": 99}},
    ):  # fmt: skip
        assert identity(**changes) == plain, changes
    for changes in ({"learning_rate": 1e-6}, {"clip": 0.1}, {"seed": 1}, {"epochs": 1}, {"reward_table": "huatuo"}):
        assert identity(**changes) != plain, changes
    assert identity(schedule="linear", steps=900) != identity(schedule="linear")  # the rate's course depends on it
    (model / "manifest.json").write_text("{}")
    assert identity() == plain
