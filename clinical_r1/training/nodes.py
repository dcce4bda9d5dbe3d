"""A training step on many nodes: what each pod of its TrainJob runs.

    python -m clinical_r1.training.nodes '{"step": "sft", "config": ..., "inputs": ..., "out": ..., "state_dir": ...}'

The pods share the claim with checkpoints and nothing else with the step: artifacts come by their URI from the object
store, and the first node sends the model to the URI that the step was given for it. A pipeline's step makes the command
(`NodesWork.command`), runs it (clinical_r1.cluster.nodes), and reads the numbers (`launcher.read_result`).
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from clinical_r1.errors import UserError
from clinical_r1.objectstore.face import NotFound, Store
from clinical_r1.objectstore.store import open_store
from clinical_r1.objectstore.transfer import WORKERS, describe_files, upload_files
from clinical_r1.step import load_settings
from clinical_r1.strict import Strict
from clinical_r1.training.launcher import USER_ERROR_EXIT_CODE, node_rank


class NodesWork(Strict):
    """A training step without its artifacts: where they are, and where the result goes."""

    step: Literal["sft", "ppo"]
    """Which training."""
    config: str
    """The step's settings as JSON, as the pipeline hands them on: `${NAME}` is replaced in the pod."""
    inputs: dict[str, str]
    """Files and folders by the names of `train_sft` and `train_ppo`: URIs of the store, or paths on the claim."""
    out: str
    """URI that gets model/, config.json, metrics.jsonl, curves.svg."""
    state_dir: str
    """Folder on the claim: checkpoints, metrics, result.json."""

    def command(self) -> list[str]:
        """Of each pod's container."""
        return ["python", "-m", "clinical_r1.training.nodes", self.model_dump_json()]


def run_node(work: NodesWork, folder: Path) -> None:
    """Fetch, train with the other nodes, and on the first node send the result; `folder` is this pod's own.

    Raises UserError and Stopped as the training does.
    """
    inputs = {name: fetch_input(place, folder / name) for name, place in work.inputs.items()}
    told = {"out_dir": folder / "out", "state_dir": Path(work.state_dir)} | inputs
    if work.step == "sft":
        from clinical_r1.training.sft.config import SFTConfig
        from clinical_r1.training.sft.run import train_sft

        train_sft(load_settings(SFTConfig, work.config), **told)
    else:
        from clinical_r1.training.ppo.config import PPOConfig
        from clinical_r1.training.ppo.run import train_ppo

        train_ppo(load_settings(PPOConfig, work.config), **told)
    if node_rank() == 0:
        store, prefix = _split(work.out)
        upload_files(store, prefix, describe_files(folder / "out"))


def fetch_input(place: str, folder: Path) -> Path:
    """A path as it is; the object, or all objects below a URI, in `folder`. What is there already stays."""
    if "://" not in place:
        return Path(place)
    store, key = _split(place)
    found = {entry.key: entry.size for entry in store.list(key) if entry.key == key or entry.key.startswith(f"{key}/")}
    if not found:
        raise NotFound(f"{place}: nothing is there: did the step before this one end well?")

    def get(name: str) -> Path:
        target = folder / name
        if not (target.is_file() and target.stat().st_size == found[name]):
            store.get_file(name, target)
        return target

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(get, sorted(found)))
    print(f"{place}: {len(found)} files here")
    return folder / key


def _split(uri: str) -> tuple[Store, str]:
    """The store around the last part of a URI, and that part."""
    around, _, last = uri.rstrip("/").rpartition("/")
    return open_store(around), last


def main() -> None:
    """Exit code 0 done, 2 wrong input, 75 pre-empted with a checkpoint."""
    try:
        run_node(NodesWork.model_validate_json(sys.argv[1]), Path.home() / "work")
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        log = Path("/dev/termination-log")  # what `kubectl describe pod` shows as the reason, and the step after it
        if os.access(log, os.W_OK):
            log.write_text(str(error)[:4000], encoding="utf-8")
        raise SystemExit(USER_ERROR_EXIT_CODE) from None


if __name__ == "__main__":
    main()
