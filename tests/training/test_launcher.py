import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from clinical_r1.errors import UserError
from clinical_r1.training.launcher import PREEMPTED_EXIT_CODE, launch

ROOT = Path(__file__).parents[2]
HEADER = """
    import argparse, os, time
    from clinical_r1.errors import UserError
    from clinical_r1.training.group import trainee
    from clinical_r1.training.launcher import Stopped, report_progress
    with trainee() as stop:
"""


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Launch a trainee with the given body; its module is on the path of the processes."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    config = tmp_path / "job.json"
    config.write_text("{}")

    def go(body: str, processes: int = 1) -> Path:
        text = textwrap.dedent(HEADER) + textwrap.indent(textwrap.dedent(body), "    ")
        (tmp_path / "trainee_module.py").write_text(text)
        launch("trainee_module", config, processes, label="demo")
        return tmp_path / "job.log"

    return go


def test_progress_is_told_and_the_rest_goes_to_the_log(start, capfd):
    log = start("print('noise')\nreport_progress('demo', 3, 3, loss=1.5, tokens_per_s=12345.0)")
    assert capfd.readouterr().out == "demo 3/3  loss 1.5  tokens_per_s 12,345\n"
    assert "noise" in log.read_text()


def test_nothing_is_imported_from_the_folder_that_the_user_stands_in(start, tmp_path, monkeypatch):
    own = tmp_path / "desk"
    for package in ("clinical_r1", "torch", "trainee_module"):
        (own / package).mkdir(parents=True)
        (own / package / "__init__.py").write_text("raise SystemExit('the user has a folder of this name')")
    monkeypatch.chdir(own)
    start("report_progress('demo', 1, 1)")


def test_one_process_is_a_group_of_its_own_under_a_torchrun_of_the_users(start, monkeypatch):
    outer = {"RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "8", "MASTER_PORT": "29500"}
    for name, value in (outer | {"MASTER_ADDR": "node-7", "TORCHELASTIC_USE_AGENT_STORE": "True"}).items():
        monkeypatch.setenv(name, value)
    log = start("""
        import datetime
        import torch.distributed as dist
        dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=20))
        print("processes", dist.get_world_size(), os.environ["LOCAL_WORLD_SIZE"])
    """)
    assert "processes 1 1" in log.read_text()


def test_a_user_error_comes_back_as_itself(start):
    with pytest.raises(UserError, match=r"^cases\.jsonl: wrong; fix it$"):
        start("raise UserError('cases.jsonl: wrong; fix it')", processes=2)


@pytest.mark.parametrize("error", ["RuntimeError('CUDA out of memory. Tried')", "MemoryError()"])
def test_out_of_memory_becomes_advice(start, error):
    with pytest.raises(UserError, match="lower micro_batch_size"):
        start(f"raise {error}")


def test_a_crash_names_the_exception_and_the_log(start):
    with pytest.raises(
        UserError, match=r"demo broke \(exit code 1\): ZeroDivisionError: .*; the whole log is .*job\.log"
    ):
        start("1 / 0")


def test_sigterm_lets_the_trainee_write_its_checkpoint(tmp_path):
    body = """
        report_progress('demo', 0, 1)
        for _ in range(6000):
            time.sleep(0.1)
            if stop.anywhere():
                time.sleep(1)  # writing
                open(os.path.join(os.path.dirname(__file__), 'checkpoint'), 'w').close()
                raise Stopped
    """
    text = textwrap.dedent(HEADER) + textwrap.indent(textwrap.dedent(body), "    ")
    (tmp_path / "trainee_module.py").write_text(text)
    (tmp_path / "job.json").write_text("{}")
    start = "from pathlib import Path; from clinical_r1.training.launcher import launch; import sys; "
    start += "launch('trainee_module', Path(sys.argv[1]))"
    command = [sys.executable, "-c", start, tmp_path / "job.json"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline().startswith("demo 0/1")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == PREEMPTED_EXIT_CODE  # the loop alone would take longer
    assert (tmp_path / "checkpoint").exists()
