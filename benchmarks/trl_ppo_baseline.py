"""TRL 1.12's PPOTrainer on the bench's model, prompts and verifier; run by `benchmarks.ppo` in TRL's environment.

TRL wants its reward as a model on tokens, so the verifier is dressed as one.
"""

import copy
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import trl.experimental.ppo.ppo_trainer as trainer_module
from datasets import Dataset
from torch import nn
from transformers import Qwen2ForSequenceClassification
from trl.experimental.ppo import PPOConfig, PPOTrainer

from clinical_r1.generation.chat import completion_text, prompt_ids
from clinical_r1.generation.load import load_model
from clinical_r1.reasoning import split
from clinical_r1.rewards import reward, reward_table
from clinical_r1.schema import Case, read_jsonl
from clinical_r1.training.ppo.scoring import judgement
from clinical_r1.verifier.config import VerifierConfig
from clinical_r1.verifier.verifier import build_verifier


class VerifierAsModel(nn.Module):
    """The five-line interface that TRL's get_reward asks of a reward model."""

    base_model_prefix = "body"

    def __init__(self, tokenizer: Any, cases: dict[tuple[int, ...], Case]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.tokenizer, self.cases = tokenizer, cases
        self.verifier: Any = build_verifier(VerifierConfig())
        self.table = reward_table("paper")
        self.lengths: list[int] = []

    def body(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> SimpleNamespace:
        self.rows = [ids[mask.bool()].tolist() for ids, mask in zip(input_ids, attention_mask, strict=True)]
        return SimpleNamespace(hidden_states=[input_ids[..., None].float()])

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        scores = torch.tensor([self._score(row) for row in self.rows])
        return scores[:, None, None].expand(-1, hidden.shape[1], 1).clone()

    def _score(self, row: list[int]) -> float:
        length = next(n for n in range(1, len(row)) if tuple(row[:n]) in self.cases)
        completion = row[length:]
        self.lengths.append(len(completion))
        if completion[-1:] != [self.tokenizer.eos_token_id]:
            return 0.0
        parts = split(completion_text(self.tokenizer, completion))
        verdict = self.verifier.judge_sync(judgement(self.cases[tuple(row[:length])], parts.response))
        return reward(self.table, parts.outcome, verdict.label, len(completion), parts.thinking) or 0.0


def main() -> None:
    """Arguments: work folder, steps, batch, micro-batch, mini-batches, new tokens."""
    work, steps = Path(sys.argv[1]), int(sys.argv[2])
    batch, micro, minibatches, new_tokens = map(int, sys.argv[3:7])
    torch.manual_seed(0)
    policy, tokenizer = load_model(work / "model")
    tokenizer.padding_side = "left"
    value = Qwen2ForSequenceClassification.from_pretrained(work / "model", num_labels=1, dtype=torch.float32)
    value.score.weight.data.zero_()
    cases = {tuple(prompt_ids(tokenizer, case.prompt)): case for case in read_jsonl(work / "rl.jsonl", Case)}
    data = Dataset.from_list([{"input_ids": list(prompt)} for prompt in cases])
    settings = PPOConfig(
        output_dir=str(work / "trl-out"), per_device_train_batch_size=micro, gradient_accumulation_steps=batch // micro,
        num_mini_batches=minibatches, num_ppo_epochs=1, total_episodes=steps * batch, response_length=new_tokens,
        stop_token="eos", temperature=1.0, kl_coef=0.03, cliprange=0.2, learning_rate=1e-6,
        local_rollout_forward_batch_size=batch, num_sample_generations=0, report_to=[], use_cpu=True, bf16=False,
        gradient_checkpointing=False, save_strategy="no", logging_steps=1, lr_scheduler_type="constant",
    )  # fmt: skip
    starts: list[float] = []
    generate = trainer_module.batch_generation

    def timed(*args: Any, **kwargs: Any) -> Any:
        starts.append(time.perf_counter())
        return generate(*args, **kwargs)

    trainer_module.batch_generation = timed
    rule = VerifierAsModel(tokenizer, cases)
    trainer = PPOTrainer(
        args=settings, processing_class=tokenizer, model=policy, ref_model=copy.deepcopy(policy), reward_model=rule,
        train_dataset=data, value_model=value, eval_dataset=data.select(range(micro)),
    )  # fmt: skip
    trainer.train()
    starts.append(time.perf_counter())
    seconds = starts[-1] - starts[1]
    counted = rule.lengths[batch:]
    speed = batch * (steps - 1) / seconds
    print(json.dumps({"samples_per_s": speed, "mean_length": sum(counted) / max(1, len(counted))}))


if __name__ == "__main__":
    main()
