"""Give a tied model folder an output head of its own, for vLLM servers whose weights are reloaded.

vLLM's CPU build packs the output head once, at its start. A tied head has no tensor in a checkpoint, so a reload leaves
the packed one as it was beside new embeddings (docs/log.md, "Rollouts by vLLM").

    python -m clinical_r1.training.ppo.untied SFT_MODEL COPY
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
WHOLE, BODY, HEAD_FILE = "model.safetensors", "model-body.safetensors", "model-head.safetensors"
INDEX = "model.safetensors.index.json"


def main() -> None:
    """Command line: a copy of a model folder, untied; exit code 2 where that cannot be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a model folder")
    parser.add_argument("copy", type=Path, help="a folder that does not exist yet")
    options = parser.parse_args()
    try:
        copy_untied(options.model, options.copy)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def copy_untied(model: Path, copy: Path) -> None:
    """A copy that appears whole or not at all.

    Raises:
        UserError: `model` is no model folder, its weights cannot be untied, or `copy` exists.
        OSError: `copy` cannot be written.
    """
    from clinical_r1.generation.load import check_model_folder

    check_model_folder(model)
    if copy.exists():
        raise UserError(f"{copy}: exists already; name a folder that does not")
    _embedding_file(model)
    fresh = copy.with_name(f".{copy.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        shutil.copytree(model, fresh)
        untie(fresh)
        fresh.rename(copy)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def untie(folder: Path) -> None:
    """Store the embeddings as output head too, and say in config.json that they are not tied; nothing if they are not.

    UserError where the folder holds no safetensors with such embeddings.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not config.get("tie_word_embeddings"):
        return
    with safe_open(folder / _embedding_file(folder), "pt") as file:
        save_file({HEAD: file.get_tensor(EMBEDDING)}, folder / HEAD_FILE, metadata={"format": "pt"})
    weight_map = _weight_map(folder) | {HEAD: HEAD_FILE}
    if (folder / WHOLE).is_file():  # beside an index it would be taken for the whole model
        (folder / WHOLE).rename(folder / BODY)
        weight_map = {name: BODY if file == WHOLE else file for name, file in weight_map.items()}
    write_text(folder / INDEX, json.dumps({"metadata": {}, "weight_map": weight_map}, indent=2) + "\n")
    write_text(folder / "config.json", json.dumps(config | {"tie_word_embeddings": False}, indent=2) + "\n")


def _embedding_file(folder: Path) -> str:
    """Name of the file with the embeddings; UserError where there is none that can be read."""
    name = _weight_map(folder).get(EMBEDDING)
    if name is None:
        raise UserError(f"{folder}: no tensor {EMBEDDING} in *.safetensors; only a layout like Qwen2's can be untied")
    return name


def _weight_map(folder: Path) -> dict[str, str]:
    """Which file holds which tensor."""
    from safetensors import SafetensorError, safe_open

    if (folder / INDEX).is_file():
        stored: dict[str, str] = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        return stored
    if not (folder / WHOLE).is_file():
        return {}
    try:
        with safe_open(folder / WHOLE, "pt") as file:
            return dict.fromkeys(file.keys(), WHOLE)
    except SafetensorError:
        raise UserError(f"{folder / WHOLE}: cannot be read; copy the model again") from None


if __name__ == "__main__":
    main()
