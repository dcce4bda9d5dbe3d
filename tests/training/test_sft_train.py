"""Real training runs: through the launcher, resumed, sharded, on one process and on two."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from clinical_r1.charts import read_metrics, series
from clinical_r1.errors import UserError
from clinical_r1.training.launcher import PREEMPTED_EXIT_CODE
from clinical_r1.training.sft.config import SFTConfig, SFTJob
from clinical_r1.training.sft.run import train_sft
from tests.ports import free_port

SETTINGS = {
    "epochs": 2,
    "learning_rate": 3e-3,
    "batch_size": 8,
    "checkpoint_steps": 3,
    "log_steps": 1,
    "eval_share": 0.1,
    "tensorboard": False,
}


def losses(out_dir: Path) -> list[float]:
    return series(read_metrics(out_dir / "metrics.jsonl"), "train/loss")[1]


def weights(out_dir: Path) -> dict:
    return load_file(out_dir / "model" / "model.safetensors")


def assert_same_run(first: Path, second: Path, tolerance: float) -> None:
    assert losses(second) == pytest.approx(losses(first), abs=tolerance)
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) <= tolerance


def scenarios(tmp_path: Path, processes: int, entries: list[dict], nodes: int = 1) -> None:
    """Run jobs one after the other in one group of processes (of `nodes` torchruns that meet by environment)."""
    jobs = tmp_path / "jobs.json"
    jobs.write_text(json.dumps(entries, default=str))
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes // nodes}"]
    command += [] if nodes > 1 else ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
    command += [str(Path(__file__).with_name("sft_scenarios.py")), str(jobs)]
    quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
    running, port = [], str(free_port())
    for node in range(nodes):
        meeting = {"PET_NNODES": str(nodes), "PET_NODE_RANK": str(node), "PET_MASTER_ADDR": "127.0.0.1"}
        meeting |= {"PET_MASTER_PORT": port}
        environment = os.environ | quiet | (meeting if nodes > 1 else {})
        running.append(subprocess.Popen(command, env=environment, text=True, stderr=subprocess.PIPE))
    for process in running:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors[-3000:]


@pytest.fixture(scope="module")
def plain_run(traces, base_model, tmp_path_factory):
    """An uninterrupted run through the launcher, on one process."""
    root = tmp_path_factory.mktemp("run")
    return root / "out", train_sft(SFTConfig(**SETTINGS), traces, base_model, root / "out", root / "state")


def test_a_run_learns_and_leaves_the_promised_files(plain_run, base_model):
    from clinical_r1.generation.load import load_tokenizer

    out, result = plain_run
    assert losses(out)[-1] < losses(out)[0] - 1
    assert result["steps"] == len(losses(out)) == 10
    assert result["examples"] < 40 and result["eval_loss"] < losses(out)[0]
    assert result["tokens_per_s"] > 0 and result["processes"] == 1
    assert "<svg" in (out / "curves.svg").read_text(encoding="utf-8")
    assert SFTConfig.model_validate_json((out / "config.json").read_text()) == SFTConfig(**SETTINGS)
    text = "<think>\n12.5 fever</think>\n\nMeasles"
    assert load_tokenizer(out / "model")(text) == load_tokenizer(base_model)(text)
    assert sorted(path.name for path in (out.parent / "state" / "checkpoints").iterdir()) == [
        "checkpoint-10",
        "checkpoint-9",
    ]


def test_held_out_questions_are_answered_while_it_trains_and_the_disk_is_known(plain_run, base_model):
    from clinical_r1.training.preflight import Geometry, estimate

    out, result = plain_run
    shares = series(read_metrics(out / "metrics.jsonl"), "eval/thinking_form")
    assert shares[0] == [5, 10]
    assert shares[1][-1] == result["thinking_form"]
    rows = read_metrics(out / "samples.jsonl")
    assert {row["step"] for row in rows} == {5, 10}
    assert all(row["tokens"] > 0 and {"case_id", "outcome", "thinking", "response"} <= row.keys() for row in rows)
    assert (out / "samples.jsonl").stat().st_mode & 0o077 == 0
    checkpoint = out.parent / "state" / "checkpoints" / "checkpoint-10"
    taken = sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())
    assert estimate(SFTConfig(**SETTINGS), Geometry.of(base_model)).disk["checkpoints"] / 3 == pytest.approx(
        taken, rel=0.25
    )


def test_the_same_call_again_reuses_the_finished_run(plain_run, traces, base_model, tmp_path):
    out, _ = plain_run
    again = tmp_path / "out"
    result = train_sft(SFTConfig(**SETTINGS), traces, base_model, again, out.parent / "state")
    assert result["steps"] == 10
    assert_same_run(out, again, 0.0)


def test_sharding_processes_and_resuming_change_nothing(plain_run, traces, base_model, tmp_path):
    """ZeRO-2 and ZeRO-3 on two processes, runs that are stopped, and such as go on with another number of processes,
    equal one uninterrupted process."""

    def entry(name: str, stop_at: int = 0, **changes) -> dict:
        config = SFTConfig.model_validate(SETTINGS | changes)
        folders = {"traces": traces, "base_model": base_model, "out_dir": tmp_path / name}
        job = SFTJob(config=config, state_dir=tmp_path / f"{name}-state", **folders)
        return {"job": job.model_dump(mode="json"), "stop_at": stop_at}

    scenarios(tmp_path, 1, [entry("grown", stop_at=4)])
    scenarios(
        tmp_path,
        2,
        [
            entry("grown"),
            entry("shrunk2", stop_at=4, checkpoints=str(tmp_path / "store")),
            entry("stage2"),
            entry("stage3", deepspeed={"stage": 3}),
            entry("accumulated", micro_batch_size=2),
            entry("resumed", stop_at=4),
            entry("resumed", stop_at=7),
            entry("resumed"),
            entry("own", gradient_clipping=0),
            entry("constant", gradient_clipping=0, loss_norm="constant"),
        ],
    )
    shutil.rmtree(tmp_path / "shrunk2-state")  # another disk: it goes on from the store
    stored = entry("shrunk2", checkpoints=str(tmp_path / "store"))
    scenarios(tmp_path, 1, [stored])
    out, _ = plain_run
    for name in ("stage2", "stage3", "accumulated", "grown", "shrunk2"):
        assert_same_run(out, tmp_path / name, 2e-5)
    assert_same_run(tmp_path / "stage2", tmp_path / "resumed", 0.0)
    assert losses(tmp_path / "constant")[:2] == pytest.approx(losses(tmp_path / "own")[:2], abs=1e-4)
    assert losses(tmp_path / "constant") != pytest.approx(losses(tmp_path / "own"), abs=1e-4)


def test_two_nodes_of_two_processes_equal_one(plain_run, traces, base_model, tmp_path):
    """Two torchruns meet by Kubeflow Trainer's environment and share one state directory."""
    job = SFTJob(
        config=SFTConfig(**SETTINGS), traces=traces, base_model=base_model, out_dir=tmp_path / "out",
        state_dir=tmp_path / "state",
    )  # fmt: skip
    scenarios(tmp_path, 4, [{"job": job.model_dump(mode="json"), "stop_at": 0}], nodes=2)
    assert_same_run(plain_run[0], tmp_path / "out", 2e-5)


def test_sigterm_then_the_same_command(plain_run, traces, base_model, tmp_path):
    """The step is told to stop (code 75, a checkpoint); the second call ends as if nothing had happened."""
    script = (
        "import sys; from pathlib import Path; from clinical_r1.training.sft.config import SFTConfig\n"
        "from clinical_r1.training.sft.run import train_sft\n"
        f"train_sft(SFTConfig(**{SETTINGS!r}), *map(Path, sys.argv[1:]))"
    )
    folders = [str(path) for path in (traces, base_model, tmp_path / "out", tmp_path / "state")]

    def start() -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", script, *folders], text=True, stdout=subprocess.PIPE, start_new_session=True
        )

    code = 0
    for _ in range(5):
        step = start()
        assert step.stdout is not None
        step.stdout.readline()  # "sft 0/10"
        step.terminate()
        if code := step.wait(timeout=600):
            break
        for folder in ("out", "state"):  # ten steps were done before it was told: that shows nothing
            shutil.rmtree(tmp_path / folder)
    assert code == PREEMPTED_EXIT_CODE
    assert any((tmp_path / "state" / "checkpoints").glob("checkpoint-*/complete.json"))
    finished = start()
    assert finished.wait(timeout=600) == 0
    assert_same_run(plain_run[0], tmp_path / "out", 0.0)


def test_weights_of_other_shapes_are_one_sentence(traces, base_model, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(base_model, broken)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))
    with pytest.raises(UserError, match="are not those of its weights"):
        train_sft(SFTConfig(**SETTINGS), traces, broken, tmp_path / "out", tmp_path / "state")
    assert not (tmp_path / "out").exists()


def test_lora_ends_in_a_plain_folder(traces, base_model, tmp_path):
    from clinical_r1.generation.load import load_model

    config = SFTConfig(**SETTINGS | {"epochs": 1, "lora": {"rank": 4}})
    train_sft(config, traces, base_model, tmp_path / "out", tmp_path / "state")
    model, _ = load_model(tmp_path / "out" / "model")
    assert type(model).__name__ == "Qwen2ForCausalLM"
    before, after = load_file(base_model / "model.safetensors"), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    assert not before["model.layers.0.mlp.up_proj.weight"].equal(after["model.layers.0.mlp.up_proj.weight"])
    assert before["model.norm.weight"].equal(after["model.norm.weight"])
