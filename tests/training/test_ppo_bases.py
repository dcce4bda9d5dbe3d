"""PPO on other architectures: two processes under ZeRO-3, log-probabilities with scaled or capped logits."""

import json

import pytest
import torch
from ppo_fixtures import _group, _one_thread, cases, config  # noqa: F401

from benchmarks.bases import make_base
from clinical_r1.charts import read_metrics
from clinical_r1.generation.chat import prompt_ids
from clinical_r1.generation.decoder import Decoder, SamplingParams
from clinical_r1.generation.load import load_model
from clinical_r1.schema import write_jsonl
from clinical_r1.training.ppo.batch import Episode, new_batch, part
from clinical_r1.training.ppo.engines import Policy
from clinical_r1.training.ppo.run import train_ppo


def rollout(model, tokenizer, count: int = 4) -> list[Episode]:
    prompts = [prompt_ids(tokenizer, case.question) for case in cases(count, 5)]
    made = Decoder(model).generate(prompts, SamplingParams(24, 1.0, 1.0, 0, (), tokenizer.pad_token_id))
    return [Episode(0, p, r.token_ids, r.logprobs, r.finished) for p, r in zip(prompts, made, strict=True)]


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama3", "qwen3", "gemma3", "gemma2", "mistral", "granite", "cohere"])
def test_the_trainers_logprobs_are_the_decoders_and_the_models_own(name, tmp_path):
    model, tokenizer = load_model(make_base(name, tmp_path / name))
    made = rollout(model, tokenizer)
    batch = new_batch(made, 2, tokenizer.pad_token_id)
    for micro in batch.micro_batches:
        logprobs = Policy(model, 1.0, 7)(micro)[0]
        torch.testing.assert_close(logprobs * micro.mask, part(batch.sampled, micro), atol=1e-4, rtol=0)
        for index, row in enumerate(micro.rows):
            ids = torch.tensor([made[row].prompt + made[row].completion])
            own = model(input_ids=ids).logits[0, len(made[row].prompt) - 1 : -1].float().log_softmax(-1)
            chosen = own.gather(-1, torch.tensor(made[row].completion)[:, None])[:, 0]
            torch.testing.assert_close(logprobs[index, : len(chosen)], chosen, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["llama3", "qwen3"])
def test_two_processes_under_zero_3_leave_decoding_when_they_like(name, tmp_path):
    """Rows of random weights end at the window or by chance, so the two processes decode for different times."""
    write_jsonl(tmp_path / "rl.jsonl", cases(12, seed=1))
    write_jsonl(tmp_path / "validation.jsonl", cases(3, seed=2))  # one process looks at two of them, one at one
    base = make_base(name, tmp_path / name)
    runs = {}
    for processes in (1, 2):
        folder = tmp_path / f"run-{processes}"
        settings = config(
            steps=1, batch_size=8, micro_batch_size=2, minibatches=1, processes=processes,
            critic={"warmup_batches": 1, "warmup_epochs": 1}, deepspeed={"stage": 3}, keep="last",
            probe={"every": 0, "cases": 3},
            reasoning={"min_reasoning_tokens": 1}, rollout={"max_new_tokens": 24, "batch_tokens": 240},
        )  # fmt: skip
        files = (tmp_path / "rl.jsonl", tmp_path / "validation.jsonl", folder / "out", folder / "state")
        assert train_ppo(settings, base, *files)["steps"] == 1
        runs[processes] = read_metrics(folder / "out" / "metrics.jsonl")
        exported, tokenizer = load_model(folder / "out" / "model")
        assert json.loads((folder / "out" / "model" / "config.json").read_text())["model_type"] == name.rstrip("3") + (
            "3" if name == "qwen3" else ""
        )
        assert len(rollout(exported, tokenizer, 1)[0].completion) == 24
    for one, two in zip(*runs.values(), strict=True):
        for key in ("train/length", "train/entropy", "train/kl", "validation/length", "critic/loss"):
            assert one.get(key, 0) == pytest.approx(two.get(key, 0), abs=2e-3), key
