"""Checkpoints of both engines, the best weights so far, and the model folder at the end."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from clinical_r1.atomic import write_text
from clinical_r1.generation.load import save_model
from clinical_r1.training import checkpoints
from clinical_r1.training.checkpoints import Remote
from clinical_r1.training.deepspeed import reshard
from clinical_r1.training.group import barrier, rank, world_size
from clinical_r1.training.ppo.engines import Engines, export_model

STATE_FILE = "trainer.json"
WARMUP_FILE = "warmup.pt"
"""Beside it while the critic is fitted alone: the batches that it is fitted to."""
TAG = "engine"
"""DeepSpeed puts an engine's files into a folder of this name."""


def fit_newest(state_dir: Path) -> bool:
    """Make the newest checkpoint fit this group of processes; True where it had to be made to. Collective."""
    folder = checkpoints.latest(state_dir)
    if folder is None or checkpoints.processes_of(folder) == world_size():
        return False
    if rank() == 0:
        for engine in sorted(folder.glob(f"*/{TAG}")):
            reshard(engine)
    barrier()
    return any(folder.glob(f"*/{TAG}_universal"))


def save_checkpoint(
    engines: Engines, state_dir: Path, step: int, state: dict[str, Any], keep: int, remote: Remote | None = None
) -> None:
    """Both engines (weights, optimizers) and the trainer's own state; collective. The last `keep` stay."""
    state = dict(state)
    warmup = state.pop("warmup")

    def write(folder: Path) -> None:
        for name, engine in engines.trained():
            frozen = any(not parameter.requires_grad for parameter in engine.module.parameters())
            engine.save_checkpoint(str(folder / name), tag=TAG, save_latest=False, exclude_frozen_parameters=frozen)
        if rank() == 0:
            write_text(folder / STATE_FILE, json.dumps(state) + "\n")
            torch.save(warmup, folder / WARMUP_FILE)

    checkpoints.save(state_dir, step, write, keep, remote)
    if rank() == 0:
        for folder in state_dir.glob("best-*"):
            if folder.name != _best_name(state["watch"]["best_step"]):
                shutil.rmtree(folder, ignore_errors=True)


def load_checkpoint(engines: Engines, state_dir: Path) -> dict[str, Any] | None:
    """Put the newest whole checkpoint back; returns the trainer's state, None where there is none. Collective."""
    folder = checkpoints.latest(state_dir)
    if folder is None:
        return None
    for name, engine in engines.trained():
        frozen = any(not parameter.requires_grad for parameter in engine.module.parameters())
        tag = f"{TAG}_universal" if engine.load_universal_checkpoint() else TAG
        loaded, _ = engine.load_checkpoint(str(folder / name), tag=tag, load_module_strict=not frozen)
        if loaded is None:
            raise RuntimeError(f"{folder}: DeepSpeed could not load the {name}")
    state: dict[str, Any] = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    return state | {"warmup": torch.load(folder / WARMUP_FILE, weights_only=True)}


def save_best(engines: Engines, state_dir: Path, step: int) -> None:
    """Keep the actor's weights as the best so far; those before it go with the next checkpoint. Collective."""
    write_model(engines, state_dir / _best_name(step))


def export(engines: Engines, start: Path, state_dir: Path, out: Path, best_step: int | None) -> None:
    """Write the resulting model folder: the weights of `best_step` (0: the SFT model itself), or the last (None)."""
    if best_step is None:
        write_model(engines, out)
    elif rank() == 0:
        source = state_dir / _best_name(best_step) if best_step else start
        fresh = out.with_name(f".{out.name}.tmp")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(source, fresh)
        shutil.rmtree(out, ignore_errors=True)
        fresh.rename(out)
    barrier()


def write_model(engines: Engines, folder: Path) -> None:
    """The actor as a plain Hugging Face folder, adapters merged; collective."""
    model = export_model(engines)
    if rank() == 0:
        folder.parent.mkdir(parents=True, exist_ok=True)
        save_model(model, engines.tokenizer, folder)
    barrier()


def _best_name(step: int) -> str:
    return f"best-{step:08d}"
