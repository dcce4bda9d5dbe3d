"""Give a tied model folder an output head of its own, for vLLM servers whose weights are reloaded.

vLLM's CPU build packs the output head when it starts. A tied head has no tensor in a checkpoint, so a reload would
leave the packed one as it was beside new embeddings (docs/log.md, "Rollouts by vLLM").
"""

import json
from pathlib import Path

from clinical_r1.atomic import write_text

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
WHOLE, BODY, HEAD_FILE = "model.safetensors", "model-body.safetensors", "model-head.safetensors"
INDEX = "model.safetensors.index.json"


def untie(folder: Path) -> None:
    """Store the embeddings as output head too, and say in config.json that they are not tied.

    `folder` is one that `save_model` wrote. Nothing is done where they are not tied, or are named otherwise than
    Qwen2's (a server that then keeps its old head is found by `rollout.check_sampler`).
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    whole, index = folder / WHOLE, folder / INDEX
    if whole.is_file():
        with safe_open(whole, "pt") as file:
            weight_map = dict.fromkeys(file.keys(), BODY)
    else:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    if not config.get("tie_word_embeddings") or EMBEDDING not in weight_map:
        return
    if whole.is_file():  # beside an index it would be taken for the whole model
        whole.rename(folder / BODY)
    with safe_open(folder / weight_map[EMBEDDING], "pt") as file:
        save_file({HEAD: file.get_tensor(EMBEDDING)}, folder / HEAD_FILE, metadata={"format": "pt"})
    write_text(index, json.dumps({"metadata": {}, "weight_map": weight_map | {HEAD: HEAD_FILE}}, indent=2) + "\n")
    write_text(folder / "config.json", json.dumps(config | {"tie_word_embeddings": False}, indent=2) + "\n")
