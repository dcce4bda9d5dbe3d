"""Where SFT starts from: a folder with a pretrained model, or a tiny model made on the spot."""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from clinical_r1.errors import UserError
from clinical_r1.objectstore.models import fetch
from clinical_r1.objectstore.store import open_store
from clinical_r1.step import STEP_FILE
from clinical_r1.training.tiny import TinyModelConfig, make_base_model


class BaseModelConfig(BaseModel):
    """The model that SFT starts from."""

    model_config = ConfigDict(extra="forbid")

    folder: str = ""
    """A Hugging Face model folder such as Qwen2.5-7B-Instruct, or the URI of a published model such as
    s3://clinical-r1/models/qwen2-5-7b-instruct/v-3f9a12c04b7d; empty = make a tiny model from scratch."""
    tiny: TinyModelConfig = Field(default_factory=TinyModelConfig)
    """Size and seed of the tiny model; used only where `folder` is empty."""


def resolve_base_model(config: BaseModelConfig, texts: list[Path], out_dir: Path) -> Path:
    """The folder that SFT loads.

    `texts` are JSONL files of cases and traces for the tiny model's tokenizer; `out_dir` is where a tiny model goes,
    and a published one, checked against its manifest (what is there already is not fetched again).
    Raises UserError where `folder` is no model folder.
    """
    if not config.folder:
        make_base_model(config.tiny, texts, out_dir)
        return out_dir
    if "://" in config.folder:
        root, name, version = config.folder.rstrip("/").rsplit("/", 2)
        fetch(open_store(root), name, version, out_dir)
        return out_dir
    check_base_model(config)
    return Path(config.folder)


def check_base_model(config: BaseModelConfig) -> None:
    """Raise UserError where `folder` is no model folder; a run asks before it pays for traces."""
    if not config.folder or "://" in config.folder:
        return
    folder = Path(config.folder)
    for name in ("config.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise UserError(
                f"base_model.folder: {folder} is no model folder ({name} is missing): "
                "give the folder of a downloaded Hugging Face model, or leave it empty for a tiny model"
            )


def model_of(step: Path) -> Path:
    """The model that an earlier step left in its folder (an artifact), or elsewhere and named in its record, as the
    base model's does. UserError where there is none."""
    found = sorted(path.parent for path in step.glob("*/config.json"))
    record = step / STEP_FILE
    if not found and record.is_file():
        folder = Path(json.loads(record.read_text(encoding="utf-8"))["metrics"].get("folder", ""))
        found = [folder] if (folder / "config.json").is_file() else []
    if not found:
        raise UserError(f"{step}: no model in it, nor where its {STEP_FILE} says: run the step that makes it again")
    return found[0]
