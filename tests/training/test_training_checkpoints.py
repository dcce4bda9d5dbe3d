from clinical_r1.training.checkpoints import claim, is_complete, latest, prune, save, step_folder


def test_the_newest_whole_checkpoint_wins_and_torsos_go(tmp_path):
    for step in (9, 10, 100):
        save(tmp_path, step, lambda folder: (folder / "weights").write_text("w"), keep=5)
    torso = step_folder(tmp_path, 101)
    torso.mkdir()
    (torso / "weights").write_text("half")
    newest = latest(tmp_path)
    assert newest == step_folder(tmp_path, 100) and is_complete(newest)
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


def test_state_of_another_run_is_removed(tmp_path):
    state = tmp_path / "state"
    assert not claim(state, {"config": 1})
    save(state / "checkpoints", 1, lambda folder: None)
    assert claim(state, {"config": 1}) and latest(state / "checkpoints")
    assert not claim(state, {"config": 2})
    assert latest(state / "checkpoints") is None
