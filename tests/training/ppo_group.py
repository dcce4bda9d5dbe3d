"""Several jobs of PPO one after the other in one group of processes, since a launch takes longer than a tiny run:
`launch("ppo_group", FILE)` with a JSON list of jobs."""

import argparse
import json
from pathlib import Path

from ppo_fixtures import NeverStop

from clinical_r1.training.deepspeed import join_group
from clinical_r1.training.group import trainee
from clinical_r1.training.ppo.config import PPOJob
from clinical_r1.training.ppo.run import train

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    jobs = json.loads(parser.parse_args().config.read_text(encoding="utf-8"))
    with trainee():
        join_group()
        for job in jobs:
            train(PPOJob.model_validate(job), NeverStop())
