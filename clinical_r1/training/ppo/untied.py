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
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def copy_untied(model: Path, copy: Path) -> None:
    """A copy that appears whole or not at all. UserError where `model` is no model folder or `copy` exists."""
    from clinical_r1.generation.load import check_model_folder

    check_model_folder(model)
    if copy.exists():
        raise UserError(f"{copy}: exists already; name a folder that does not")
    fresh = copy.with_name(f".{copy.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(model, fresh)
    untie(fresh)
    fresh.rename(copy)


def untie(folder: Path) -> None:
    """Store the embeddings as output head too, and say in config.json that they are not tied; nothing if they are not.

    UserError where the folder holds no safetensors with such embeddings.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not config.get("tie_word_embeddings"):
        return
    weight_map = _weight_map(folder)
    if EMBEDDING not in weight_map:
        raise UserError(f"{folder}: no tensor {EMBEDDING} in its safetensors; only Qwen2's layout can be untied")
    if (folder / WHOLE).is_file():
        (folder / WHOLE).rename(folder / BODY)
    with safe_open(folder / weight_map[EMBEDDING], "pt") as file:
        save_file({HEAD: file.get_tensor(EMBEDDING)}, folder / HEAD_FILE, metadata={"format": "pt"})
    weight_map[HEAD] = HEAD_FILE
    write_text(folder / INDEX, json.dumps({"metadata": {}, "weight_map": weight_map}, indent=2) + "\n")
    write_text(folder / "config.json", json.dumps(config | {"tie_word_embeddings": False}, indent=2) + "\n")


def _weight_map(folder: Path) -> dict[str, str]:
    """Which file holds a tensor, with a single file under the name that it will have."""
    from safetensors import safe_open

    if (folder / INDEX).is_file():
        stored: dict[str, str] = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        return stored
    if not (folder / WHOLE).is_file():
        return {}
    with safe_open(folder / WHOLE, "pt") as file:
        return dict.fromkeys(file.keys(), BODY)


if __name__ == "__main__":
    main()
