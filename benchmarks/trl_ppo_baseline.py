"""TRL 1.12's PPOTrainer on the bench's model and prompts; run by `benchmarks.ppo` in TRL's environment.

TRL wants its reward as a model on tokens, so the coin that pays is dressed as one.
"""

import copy
import itertools
import json
import statistics
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import trl.experimental.ppo.ppo_trainer as trainer_module
from datasets import Dataset
from torch import nn
from transformers import AutoModelForSequenceClassification
from trl.experimental.ppo import PPOConfig, PPOTrainer

from clinical_r1.generation.chat import prompt_ids
from clinical_r1.generation.load import load_model
from clinical_r1.schema import Case, read_jsonl


class CoinAsModel(nn.Module):
    """The five-line interface that TRL's get_reward asks of a reward model; it pays half of the texts."""

    base_model_prefix = "body"

    def __init__(self, prompts: set[tuple[int, ...]]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.prompts = prompts
        self.lengths: list[int] = []

    def body(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> SimpleNamespace:
        self.rows = [ids[mask.bool()].tolist() for ids, mask in zip(input_ids, attention_mask, strict=True)]
        return SimpleNamespace(hidden_states=[input_ids[..., None].float()])

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        scores = torch.tensor([self._score(row) for row in self.rows])
        return scores[:, None, None].expand(-1, hidden.shape[1], 1).clone()

    def _score(self, row: list[int]) -> float:
        completion = row[next(n for n in range(1, len(row)) if tuple(row[:n]) in self.prompts) :]
        self.lengths.append(len(completion))
        return float(zlib.crc32(str(completion).encode()) % 2)


def main() -> None:
    """Arguments: work folder, model folder, steps, batch, micro-batch, new tokens, learning rate."""
    work, folder, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    batch, micro, new_tokens = map(int, sys.argv[4:7])
    torch.manual_seed(0)
    policy, tokenizer = load_model(folder)
    tokenizer.padding_side = "left"
    value = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32)
    value.score.weight.data.zero_()
    prompts = [prompt_ids(tokenizer, case.prompt) for case in read_jsonl(work / "rl.jsonl", Case)]
    data = Dataset.from_list([{"input_ids": prompt} for prompt in prompts])
    settings = PPOConfig(
        output_dir=str(work / "trl-out"), per_device_train_batch_size=micro, gradient_accumulation_steps=batch // micro,
        num_mini_batches=1, num_ppo_epochs=1, total_episodes=steps * batch, response_length=new_tokens,
        stop_token="eos", temperature=1.0, kl_coef=0.03, cliprange=0.2, learning_rate=float(sys.argv[7]),
        local_rollout_forward_batch_size=batch, num_sample_generations=0, report_to=[], use_cpu=True, bf16=False,
        gradient_checkpointing=False, save_strategy="no", logging_steps=1, lr_scheduler_type="constant",
    )  # fmt: skip
    starts: list[float] = []
    generate = trainer_module.batch_generation

    def timed(*args: Any, **kwargs: Any) -> Any:
        starts.append(time.perf_counter())
        return generate(*args, **kwargs)

    trainer_module.batch_generation = timed
    # TRL masks padding by its token, which for this model is a marker inside of the prompts as well.
    coin = CoinAsModel({tuple(token for token in prompt if token != tokenizer.pad_token_id) for prompt in prompts})
    trainer = PPOTrainer(
        args=settings, processing_class=tokenizer, model=policy, ref_model=copy.deepcopy(policy), reward_model=coin,
        train_dataset=data, value_model=value, eval_dataset=data.select(range(micro)),
    )  # fmt: skip
    trainer.train()
    starts.append(time.perf_counter())
    seconds = [after - before for before, after in itertools.pairwise(starts[1:])]
    found = {"seconds": statistics.median(seconds), "mean_length": statistics.mean(coin.lengths[batch:])}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
