"""Several SFT runs in one torchrun, because starting one costs more than training it: `torchrun sft_scenarios.py JOBS`.

JOBS is a JSON list of {"job": SFTJob, "stop_at": step or 0}. A run with `stop_at` sends itself SIGTERM after that step
and must leave with a checkpoint.
"""

import json
import os
import signal
import sys
from pathlib import Path

import clinical_r1.training.launcher as launcher
import clinical_r1.training.sft.trainer as trainer_module
from clinical_r1.training.group import trainee
from clinical_r1.training.sft.config import SFTJob
from clinical_r1.training.sft.main import train

STOP_AT = 0


def progress(label: str, step: int, total: int, **numbers: float) -> None:
    if STOP_AT and step == STOP_AT:
        os.kill(os.getpid(), signal.SIGTERM)


trainer_module.report_progress = progress
launcher.report_progress = progress

with trainee() as stop:
    for entry in json.loads(Path(sys.argv[1]).read_text()):
        from accelerate.state import AcceleratorState, PartialState

        AcceleratorState._reset_state()
        PartialState._reset_state()
        STOP_AT, stop.asked = entry["stop_at"], False
        try:
            train(SFTJob.model_validate(entry["job"]), stop)
            assert not STOP_AT, "the run ignored SIGTERM"
        except launcher.Stopped:
            assert STOP_AT, "the run stopped unasked"
