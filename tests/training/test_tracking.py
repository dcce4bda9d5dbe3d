"""MLflow and W&B, both offline; their tests need the extra `tracking`."""

import importlib.util
import json
from pathlib import Path

import pytest

from clinical_r1.errors import UserError
from clinical_r1.training.metrics import MetricsWriter, TrackingConfig, check_trackers, flat, open_trackers, utilisation

SETTINGS = {"learning_rate": 5e-7, "rollout": {"max_new_tokens": 48}}


def test_settings_are_told_under_dotted_names():
    assert flat(SETTINGS) == {"learning_rate": 5e-7, "rollout.max_new_tokens": 48}


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_refused_before_training(name):
    if importlib.util.find_spec(name):
        pytest.skip(f"{name} is installed")
    with pytest.raises(UserError, match=rf"tracking\.to names {name}, .* install clinical-r1\[tracking\]"):
        check_trackers(TrackingConfig(to=[name]))


def test_no_utilisation_is_told_of_a_machine_without_a_known_gpu():
    import torch

    if not torch.cuda.is_available():
        assert utilisation(1_000_000, 100.0, 1) is None


def write(folder: Path, name: str, steps: list[int], resume: int) -> None:
    trackers = open_trackers(TrackingConfig(to=[name], project="tests"), folder, SETTINGS)
    writer = MetricsWriter(folder, resume, tensorboard=False, trackers=trackers)
    for step in steps:
        writer.write(step, {"train/loss": 1 / step, "bad": float("nan")})
    writer.close()


def test_mlflow_gets_every_step_into_one_run_over_a_resume(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write(tmp_path, "mlflow", [1, 2], 0)
    write(tmp_path, "mlflow", [3], 2)
    client = mlflow.MlflowClient((tmp_path / "mlruns").resolve().as_uri())
    experiment = client.get_experiment_by_name("tests")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(one.step, one.value) for one in history] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert run.data.params["rollout.max_new_tokens"] == "48"
    assert "bad" not in run.data.metrics


def test_wandb_stays_offline_and_goes_on_in_one_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    write(tmp_path, "wandb", [1, 2], 0)
    write(tmp_path, "wandb", [3], 2)
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    known = (tmp_path / "wandb.run").read_text()
    assert all(folder.name.endswith(known) for folder in folders)
    assert any(b"train/loss" in file.read_bytes() for folder in folders for file in folder.glob("*.wandb"))
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 3
