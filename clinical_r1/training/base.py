"""Where SFT starts from: a folder with a pretrained model, or a tiny model made on the spot."""

import json
import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from clinical_r1.errors import Strict, UserError
from clinical_r1.folders import check_model_folder
from clinical_r1.objectstore.models import fetch
from clinical_r1.objectstore.store import open_store
from clinical_r1.settings import Names
from clinical_r1.step import STEP_FILE
from clinical_r1.training import smollm2
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.sft.config import SFTConfig
from clinical_r1.training.tiny import TinyModelConfig, make_base_model

TOY = 20_000_000
"""Weights below which a model is one made from scratch: any rate may be right."""
SFT_RATES, PPO_RATES = (2e-3, 2e-4), (1e-4, 1e-5)
"""Highest rates of all weights, for models of up to a billion weights and for larger ones."""


class BaseModelConfig(Strict):
    """The model that SFT starts from."""

    folder: Annotated[str, Names.MODEL] = ""
    """A Hugging Face model folder such as Qwen2.5-7B-Instruct, or the URI of a published model such as
    s3://clinical-r1/models/qwen2-5-7b-instruct/v-3f9a12c04b7d; `smollm2` = SmolLM2-135M-Instruct from its package;
    empty = make a tiny model from scratch."""
    tiny: TinyModelConfig = Field(default_factory=TinyModelConfig)
    """Size and seed of the tiny model; used only where `folder` is empty."""

    @field_validator("folder")
    @classmethod
    def _named_whole(cls, folder: str) -> str:
        if published(folder) and not re.fullmatch(r"[^:]+://.+/[^/]+/v-[0-9a-f]+/?", folder):
            raise ValueError(f"{folder}: write s3://BUCKET/models/NAME/VERSION, as `import-model` printed it")
        return folder


def published(folder: str) -> bool:
    """Whether this is the URI of a model in a store."""
    return "://" in folder and not folder.startswith("hf:")


def resolve_base_model(config: BaseModelConfig, texts: list[Path], out_dir: Path) -> Path:
    """The folder that SFT loads.

    `texts` are JSONL files of cases and traces for the tiny model's tokenizer; `out_dir` is where a tiny model goes,
    and a published one, checked against its manifest (what is there already is not fetched again).
    Raises UserError where `folder` is no model folder.
    """
    if not config.folder:
        make_base_model(config.tiny, texts, out_dir)
        return out_dir
    if published(config.folder):
        root, name, version = config.folder.rstrip("/").rsplit("/", 2)
        fetch(open_store(root), name, version, out_dir)
        check_model_folder(out_dir)
        return out_dir
    folder = local_folder(config)
    assert folder is not None
    check_model_folder(folder)
    return folder


def local_folder(config: BaseModelConfig) -> Path | None:
    """The base model on this machine; None where it is made, or fetched, later."""
    if config.folder == smollm2.NAME:
        return smollm2.smollm2_folder()
    if not config.folder or published(config.folder):
        return None
    return Path(config.folder) if "://" not in config.folder else check_model_folder(config.folder).path


def check_base_model(config: BaseModelConfig, sft: SFTConfig | None = None, ppo: PPOConfig | None = None) -> None:
    """Raise UserError for a base model, or settings, that training would refuse; a run asks before it pays for traces.

    Looks at the folder's files and its tokenizer; a published model is looked at when it is fetched.
    """
    try:
        folder = local_folder(config)
        if folder is None:
            return
        found = check_model_folder(folder)
    except UserError as error:
        raise UserError(f"base_model.folder: {error}") from None
    if sft is not None:
        check_learning_rate("sft.learning_rate", sft.learning_rate, SFT_RATES, found.parameters, sft.lora is not None)
        if sft.dpo is not None:
            rate = sft.dpo.learning_rate
            check_learning_rate("sft.dpo.learning_rate", rate, PPO_RATES, found.parameters, sft.lora is not None)
        if found.window and sft.max_length > found.window:
            raise UserError(f"sft.max_length is {sft.max_length} and {folder} has a window of {found.window}; lower it")
    if ppo is not None and ppo.steps:
        check_rates(ppo, found.parameters)
        if found.window and ppo.rollout.max_new_tokens >= found.window:
            raise UserError(
                f"ppo.rollout.max_new_tokens is {ppo.rollout.max_new_tokens} and {folder} has a window of "
                f"{found.window}; lower it"
            )
    check_chat(folder)


def check_chat(folder: Path) -> None:
    """Raise UserError where the folder's tokenizer or template cannot be read, or knows no end of an answer."""
    from clinical_r1.generation.chat import prepare_tokenizer, prompt_ids, turn_end
    from clinical_r1.generation.load import load_config, load_tokenizer

    load_config(folder)
    tokenizer = load_tokenizer(folder)
    prepare_tokenizer(tokenizer)
    prompt_ids(tokenizer, "?")
    if not turn_end(tokenizer):
        raise UserError(f"{folder}: neither its chat template nor its tokenizer has an end of an answer")


def check_rates(ppo: PPOConfig, parameters: int) -> None:
    """Raise UserError for a learning rate of PPO that would ruin a pre-trained model of this size."""
    adapters = ppo.lora is not None
    check_learning_rate("ppo.learning_rate", ppo.learning_rate, PPO_RATES, parameters, adapters)
    if ppo.has_critic:
        check_learning_rate("ppo.critic.learning_rate", ppo.critic_rate, SFT_RATES, parameters, adapters)


def check_learning_rate(name: str, rate: float, limits: tuple[float, float], parameters: int, adapters: bool) -> None:
    """Raise UserError for a rate that is a toy's: `limits` are for models of up to a billion weights, and for larger
    ones; adapters, which start at zero, may have ten times as much."""
    if parameters < TOY:
        return
    limit = limits[parameters >= 1_000_000_000] * (10 if adapters else 1)
    if rate > limit:
        raise UserError(
            f"{name} is {rate:g}, which ruins a pre-trained model of {parameters / 1e6:,.0f} million weights; set "
            f"{limit / 10:g} to {limit:g}"
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
