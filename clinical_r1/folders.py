"""The one door to a model folder: is it a whole causal language model, and what is it? Reads no weights, no torch.

Every command that takes a model asks here before anything is paid: `check_model_folder` says in one sentence what is
wrong (pointers instead of weights, a missing shard, code of its own, no tokenizer, ...) or returns what the folder is.
`identity` is what checkpoints and journals know it by.
"""

import hashlib
import itertools
import json
import math
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from clinical_r1.errors import UserError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"), ("tekken.json",))
"""Files that make a tokenizer; one of these sets must be there."""
NO_DECODERS = ("ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
POINTER = b"version https://git-lfs"
COMPANIONS = {"manifest.json", "gate.json", "reasoning_baseline.json", "MODEL_CARD.md", "README.md", "LICENSE"}
"""Files that are laid beside weights later; they change nothing of the model."""


@dataclass(frozen=True)
class ModelFolder:
    """A folder that was found whole, and what its small files say."""

    path: Path
    config: dict[str, Any]
    """config.json."""
    parameters: int
    """Numbers in its weights, by the headers of the files (a tied output head counts once)."""

    @cached_property
    def text(self) -> dict[str, Any]:
        """The language model's part of config.json (multi-modal models nest it)."""
        nested = self.config.get("text_config")
        return {**self.config, **nested} if isinstance(nested, dict) else self.config

    @property
    def model_type(self) -> str:
        """transformers' name of the architecture."""
        return str(self.config["model_type"])

    @property
    def window(self) -> int:
        """Longest sequence in tokens; 0 where config.json does not say."""
        keys = ("max_position_embeddings", "n_positions", "seq_length", "max_sequence_length")
        return next((int(self.text[key]) for key in keys if isinstance(self.text.get(key), int)), 0)

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Every token that generation_config.json or config.json calls an end; the tokenizer may know more."""
        listed = [_json(self.path / "generation_config.json").get("eos_token_id"), self.text.get("eos_token_id")]
        ids = [one for value in listed for one in (value if isinstance(value, list) else [value])]
        return tuple(dict.fromkeys(one for one in ids if isinstance(one, int)))

    @cached_property
    def template(self) -> str:
        """The chat template; empty where the folder has none."""
        path = self.path / "chat_template.jinja"
        if path.is_file():
            return path.read_text(encoding="utf-8")
        for name in ("chat_template.json", "tokenizer_config.json"):
            found = _json(self.path / name).get("chat_template")
            if isinstance(found, list):  # several, by name
                found = next((one.get("template") for one in found if one.get("name") == "default"), None)
            if isinstance(found, str):
                return found
        return ""

    @cached_property
    def licence(self) -> str:
        """What README.md's front matter or the LICENSE file says; empty where neither does."""
        there = (self.path / name for name in ("README.md", "LICENSE", "LICENSE.txt", "LICENSE.md"))
        for file in (one for one in there if one.is_file()):
            text = file.read_text(encoding="utf-8", errors="replace")
            if file.name != "README.md":
                return next((line.strip() for line in text.splitlines() if line.strip()), "")[:80]
            if found := re.search(r"^license:\s*(\S+)", text, re.MULTILINE):
                return found[1].strip("\"'")
        return ""


def check_model_folder(folder: Path | str) -> ModelFolder:
    """What the folder is; UserError where it is no whole causal language model in safetensors with its tokenizer."""
    path = Path(folder)
    if str(folder).startswith("hf:") or (not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", str(folder))):
        name = re.sub(r"^hf:/*", "", str(folder))
        raise UserError(
            f"{folder} is no model folder here: where it is a name on the Hugging Face Hub, download it "
            f"(hf download {name} --local-dir FOLDER) and give the folder"
        )
    if not path.is_dir():
        raise UserError(f"{path} is no model folder: no such folder; give one with config.json and *.safetensors")
    config = _check_config(path)
    _check_tokenizer(path)
    return ModelFolder(path, config, _check_weights(path))


def identity(folder: Path) -> str:
    """16 hex digits for what decides a model's text: small files whole, of weights the size and both ends (training
    moves all). What is laid beside a model (a manifest, a card) does not count."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith(".") or path.name in COMPANIONS:
            continue
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}\n".encode())
        with open(path, "rb") as handle:
            digest.update(handle.read(1 << 20))
            if size > 1 << 21:
                handle.seek(-(1 << 20), 2)
                digest.update(handle.read())
    return digest.hexdigest()[:16]


def _check_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        if (folder / "adapter_config.json").is_file():
            raise UserError(f"{folder} holds adapters and no model: merge them into their base model and give that")
        if any(folder.glob("*.gguf")):
            raise UserError(f"{folder} holds GGUF files and no config.json: give the folder of the Hugging Face model")
        raise UserError(f"{folder} is no model folder: config.json missing; give the folder that save_pretrained wrote")
    config = _json(path, folder)
    if not isinstance(config.get("model_type"), str):
        raise UserError(f"{folder} is no model folder: config.json names no model_type; copy the model again")
    if "auto_map" in config:
        raise UserError(
            f"{path}: auto_map: the model brings code of its own, which is not run; take a model whose model_type "
            "transformers knows, or remove auto_map where it knows this one"
        )
    names = config.get("architectures") or []
    if config.get("is_encoder_decoder") or any(str(name).endswith(NO_DECODERS) for name in names):
        raise UserError(f"{path}: {', '.join(map(str, names)) or config['model_type']} is no causal language model")
    return config


def _check_tokenizer(folder: Path) -> None:
    if not any(all((folder / name).is_file() for name in names) for names in TOKENIZERS):
        hint = "no tokenizer (tokenizer.json or tokenizer.model); copy it beside the weights"
        raise UserError(f"{folder} is no model folder: {hint}")
    for path in (folder / name for name in itertools.chain(*TOKENIZERS)):
        if path.is_file():
            _refuse_pointer(path)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if "auto_map" in _json(folder / name, folder):
            raise UserError(f"{folder / name}: auto_map: the tokenizer brings code of its own, which is not run")


def _check_weights(folder: Path) -> int:
    """Every shard there and whole; returns how many numbers they hold."""
    index = folder / INDEX
    if not index.is_file():
        if numbered := sorted(path.name for path in folder.glob("*-of-*.safetensors")):
            raise UserError(f"{folder} is no whole model folder: {INDEX} missing beside {numbered[0]}; copy it again")
        if (folder / WHOLE).is_file():
            return _numbers(_header(folder / WHOLE))
        if pickled := sorted(path.name for pattern in PICKLED for path in folder.glob(pattern)):
            raise UserError(
                f"{folder}: {pickled[0]} is pickled, which can run code, and there is no {WHOLE}; "
                "save the model again with safetensors"
            )
        raise UserError(f"{folder} is no model folder: *.safetensors missing; copy the weights beside config.json")
    _refuse_pointer(index)
    weight_map = _json(index, folder).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise UserError(f"{index} is no index of weights: copy the model again")
    total = 0
    for name in sorted(set(weight_map.values())):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is no whole model folder: {name} missing; copy the weights again")
        header = _header(folder / name)
        if lost := [tensor for tensor, shard in weight_map.items() if shard == name and tensor not in header]:
            raise UserError(f"{folder / name}: {lost[0]} is not in it and {INDEX} says so; copy the weights again")
        total += _numbers(header)
    return total


def _header(path: Path) -> dict[str, Any]:
    """The table at the start of a safetensors file; UserError where the file is cut, a pointer, or something else."""
    _refuse_pointer(path)
    size = path.stat().st_size
    try:
        with open(path, "rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            table = json.loads(handle.read(length)) if 2 <= length <= size - 8 else {}
        tensors = {name: entry for name, entry in table.items() if name != "__metadata__"}
        end = max(entry["data_offsets"][1] for entry in tensors.values())
    except (AttributeError, KeyError, TypeError, ValueError, IndexError):
        raise UserError(f"{path}: the weights cannot be read (no safetensors file); copy the model again") from None
    if size != 8 + length + end:
        raise UserError(
            f"{path}: the weights cannot be read ({size:,} bytes, {8 + length + end:,} announced); copy the model again"
        )
    return tensors


def _numbers(header: dict[str, Any]) -> int:
    return sum(math.prod(entry.get("shape", ())) for entry in header.values())


def _refuse_pointer(path: Path) -> None:
    with open(path, "rb") as handle:
        if handle.read(len(POINTER)) == POINTER:
            hint = "run `git lfs pull` in its clone, or download it again"
            raise UserError(f"{path} is a Git LFS pointer, not the file itself: {hint}")


def _json(path: Path, folder: Path | None = None) -> dict[str, Any]:
    """A small JSON file; empty where there is none. `folder`: raise UserError where it is no JSON object."""
    if not path.is_file():
        return {}
    with suppress(json.JSONDecodeError, UnicodeDecodeError):
        if isinstance(found := json.loads(path.read_text(encoding="utf-8")), dict):
            return found
    if folder is not None:
        _refuse_pointer(path)
        raise UserError(f"{folder} is no model folder: {path.name} is not a JSON object; copy the model again")
    return {}
