"""A real pre-trained model: SFT teaches it to think, PPO steps, our decoding is transformers' own.

SmolLM2-135M-Instruct comes from a package on PyPI (training/base.py); where it cannot be had these tests skip.
"""

import math
from pathlib import Path

import pytest

from benchmarks.bases import ENOUGH, cases, loads, opened, traces
from clinical_r1.charts import read_metrics
from clinical_r1.errors import UserError
from clinical_r1.folders import check_model_folder
from clinical_r1.schema import write_jsonl
from clinical_r1.training.sft.config import SFTConfig
from clinical_r1.training.sft.run import train_sft


@pytest.fixture(scope="module")
def smollm2() -> Path:
    from clinical_r1.training.base import smollm2_folder

    try:
        return smollm2_folder()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smollm2")
    write_jsonl(folder / "traces.jsonl", traces(24, 0))
    write_jsonl(folder / "rl.jsonl", cases(8, 1))
    write_jsonl(folder / "validation.jsonl", cases(2, 2))
    return folder


def taught(files: Path, base: Path, name: str, **settings) -> Path:
    shared = {"epochs": 6, "batch_size": 8, "checkpoint_steps": 10**6, "eval_share": 0.0, "tensorboard": False}
    train_sft(SFTConfig(**shared | settings), files / "traces.jsonl", base, files / name, files / f"{name}.state")
    return files / name / "model"


def test_the_folder_is_whole(smollm2):
    found = check_model_folder(smollm2)
    assert (found.model_type, found.licence, found.window) == ("llama", "apache-2.0", 8192)
    assert 130e6 < found.parameters < 140e6


def test_decoding_is_transformers_own(smollm2):
    import torch

    from clinical_r1.generation.chat import end_ids, prompt_ids
    from clinical_r1.generation.decoder import Decoder, SamplingParams
    from clinical_r1.generation.load import load_model

    model, tokenizer = load_model(smollm2)
    ends = end_ids(tokenizer, model)
    prompts = [
        prompt_ids(tokenizer, text) for text in ("What causes fever?", "Name one cause of a dry cough at night.")
    ]
    params = SamplingParams(16, 0.0, eos_token_ids=ends, pad_token_id=tokenizer.pad_token_id)
    for prompt, rollout in zip(prompts, Decoder(model).generate(prompts, params), strict=True):
        told = model.generate(
            torch.tensor([prompt]), max_new_tokens=16, do_sample=False, eos_token_id=list(ends),
            pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        assert rollout.token_ids == told[0, len(prompt) :].tolist()


def test_adapters_teach_the_thinking_form_and_ppo_goes_on_from_the_merged_model(smollm2, files):
    """One test, not two with a fixture: two workers would train the adapters twice."""
    adapted = taught(files, smollm2, "adapters", lora={"rank": 8, "alpha": 16}, learning_rate=5e-3, epochs=3)
    assert opened(adapted) >= ENOUGH
    names = {path.name for path in (adapted.parent / "adapters").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors"}
    assert loads(adapted)
    ppo_steps_with_finite_kl_and_ratio_1_at_the_first_update(adapted, files)


def test_all_weights_teach_the_thinking_form(smollm2, files):
    assert opened(taught(files, smollm2, "whole", learning_rate=5e-4)) >= ENOUGH


def ppo_steps_with_finite_kl_and_ratio_1_at_the_first_update(adapted: Path, files: Path) -> None:
    from clinical_r1.training.ppo.config import PPOConfig
    from clinical_r1.training.ppo.run import train_ppo

    settings = PPOConfig.model_validate(
        {
            "steps": 2, "batch_size": 4, "micro_batch_size": 2, "minibatches": 1, "epochs": 1, "learning_rate": 1e-4,
            "warmup_steps": 0, "rollout": {"max_new_tokens": 32}, "probe": {"every": 0, "cases": 2}, "keep": "last",
            "critic": {"warmup_batches": 1, "warmup_epochs": 1}, "lora": {"rank": 4, "alpha": 8},
            "reasoning": {"min_reasoning_tokens": 1}, "deepspeed": {"stage": 1},
        }
    )  # fmt: skip
    out = files / "ppo"
    train_ppo(settings, adapted, files / "rl.jsonl", files / "validation.jsonl", out, files / "ppo.state")
    rows = [row for row in read_metrics(out / "metrics.jsonl") if "train/kl" in row]
    assert len(rows) == 2
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert rows[0]["train/sampler_gap"] < 1e-3
    assert all(row["train/approx_kl"] == 0 and row["train/clip_fraction"] == 0 for row in rows if row["train/updated"])
    assert loads(out / "model")
