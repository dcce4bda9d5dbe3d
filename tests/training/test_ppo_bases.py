"""PPO on other architectures: two processes under ZeRO-3, log-probabilities with scaled or capped logits."""

import json

import pytest
import torch
from ppo_fixtures import NeverStop, cases, config, job, on_two_processes, result

from benchmarks.bases import make_base
from clinical_r1.charts import read_metrics
from clinical_r1.generation.chat import prompt_ids
from clinical_r1.generation.decoder import Decoder, SamplingParams
from clinical_r1.generation.load import load_model
from clinical_r1.schema import write_jsonl
from clinical_r1.training.ppo.batch import Batch, Episode, part
from clinical_r1.training.ppo.config import PPOJob
from clinical_r1.training.ppo.engines import Policy
from clinical_r1.training.ppo.run import train

pytestmark = pytest.mark.usefixtures("group_of_one")


def rollout(model, tokenizer, count: int = 4) -> list[Episode]:
    prompts = [prompt_ids(tokenizer, case.question) for case in cases(count, 5)]
    made = Decoder(model).generate(prompts, SamplingParams(24, 1.0, 1.0, 0, (), tokenizer.pad_token_id))
    return [Episode(0, p, r.token_ids, r.logprobs, r.finished) for p, r in zip(prompts, made, strict=True)]


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama3", "qwen3", "gemma3", "gemma2", "mistral", "granite", "cohere"])
def test_the_trainers_logprobs_are_the_decoders_and_the_models_own(name, tmp_path):
    model, tokenizer = load_model(make_base(name, tmp_path / name))
    made = rollout(model, tokenizer)
    batch = Batch(made, 2, tokenizer.pad_token_id)
    for micro in batch.micro_batches:
        logprobs = Policy(model, 1.0, 7)(micro)[0]
        torch.testing.assert_close(logprobs * micro.mask, part(batch.sampled, micro), atol=1e-4, rtol=0)
        for index, row in enumerate(micro.rows):
            ids = torch.tensor([made[row].prompt + made[row].completion])
            own = model(input_ids=ids).logits[0, len(made[row].prompt) - 1 : -1].float().log_softmax(-1)
            chosen = own.gather(-1, torch.tensor(made[row].completion)[:, None])[:, 0]
            torch.testing.assert_close(logprobs[index, : len(chosen)], chosen, atol=1e-4, rtol=0)


def test_two_processes_under_zero_3_leave_decoding_when_they_like(tmp_path):
    """Rows of random weights end at the window or by chance, so the two processes decode for different times."""
    splits = {"cases": tmp_path / "rl.jsonl", "validation": tmp_path / "validation.jsonl"}
    write_jsonl(splits["cases"], cases(12, seed=1))
    write_jsonl(splits["validation"], cases(3, seed=2))  # one process looks at two of them, one at one
    kinds = {"llama3": "llama", "qwen3": "qwen3"}
    bases = {name: make_base(name, tmp_path / name) for name in kinds}

    def task(name: str, processes: int) -> PPOJob:
        settings = config(
            steps=1, batch_size=8, micro_batch_size=2, minibatches=1, processes=processes,
            critic={"warmup_batches": 1, "warmup_epochs": 1}, deepspeed={"stage": 3}, keep="last",
            probe={"every": 0, "cases": 3},
            reasoning={"min_reasoning_tokens": 1}, rollout={"max_new_tokens": 24, "batch_tokens": 240},
        )  # fmt: skip
        return job(settings, bases[name], splits, tmp_path / f"{name}-{processes}")

    for name in kinds:
        train(task(name, 1), NeverStop())
    on_two_processes([task(name, 2) for name in kinds], tmp_path)
    for name, kind in kinds.items():
        runs = [tmp_path / f"{name}-{processes}" for processes in (1, 2)]
        for folder in runs:
            assert result(folder)["steps"] == 1
            exported, tokenizer = load_model(folder / "out" / "model")
            assert json.loads((folder / "out" / "model" / "config.json").read_text())["model_type"] == kind
            assert len(rollout(exported, tokenizer, 1)[0].completion) == 24
        for one, two in zip(*(read_metrics(folder / "out" / "metrics.jsonl") for folder in runs), strict=True):
            for key in ("train/length", "train/entropy", "train/kl", "validation/length", "critic/loss"):
                assert one.get(key, 0) == pytest.approx(two.get(key, 0), abs=2e-3), (name, key)
