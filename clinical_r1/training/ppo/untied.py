"""Give a tied model folder an output head of its own, for vLLM servers whose weights are reloaded.

vLLM's CPU build packs the output head when it starts. A tied head has no tensor in a checkpoint, so a reload would
leave the packed one as it was beside new embeddings (docs/log.md, "Rollouts by vLLM").
"""

import json
from pathlib import Path

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
WHOLE, BODY, HEAD_FILE = "model.safetensors", "model-body.safetensors", "model-head.safetensors"
INDEX = "model.safetensors.index.json"


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
