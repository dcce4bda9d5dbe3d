"""TRL's trainers of traces and of pairs, with a reproducible data order, a constant loss norm, whole checkpoints, and
our metrics."""

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import DPOTrainer, SFTTrainer

from clinical_r1.generation.chat import CompletionReader, end_ids
from clinical_r1.generation.decoder import Decoder, SamplingParams, causal_of
from clinical_r1.training.checkpoints import Remote, seal
from clinical_r1.training.group import StopRequest
from clinical_r1.training.launcher import report_progress
from clinical_r1.training.metrics import MetricsWriter, scrubbed, utilisation
from clinical_r1.training.sft.config import SFTJob
from clinical_r1.training.sft.data import EpochOrder, Example

LOGGED = {
    "loss": "train/loss",
    "token_loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "grad_norm": "train/gradient_norm",
    "mean_token_accuracy": "train/token_accuracy",
    "entropy": "train/entropy",
    "eval_loss": "eval/loss",
    "eval_mean_token_accuracy": "eval/token_accuracy",
    "rewards/margins": "train/margin",
    "rewards/accuracies": "train/preferred",
    "eval_rewards/margins": "eval/margin",
    "eval_rewards/accuracies": "eval/preferred",
}
"""TRL's names and ours."""


class WholeCheckpoints:
    """Beside one of TRL's trainers: data in our order, and checkpoints that are whole or not at all."""

    args: Any
    state: Any
    order: EpochOrder
    keep: int
    """Newest checkpoints that stay."""
    remote: Remote | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self.order

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Transformers' checkpoint (TRL adds a model card), made whole when every process has written its part."""
        if self.remote:
            self.remote.make_room()
        Trainer._save_checkpoint(self, model, trial)  # type: ignore[arg-type]
        folder = Path(str(self.args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        seal(folder, self.keep, self.remote)


class PairTrainer(WholeCheckpoints, DPOTrainer):
    """DPOTrainer over pairs that are tokenized already."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


class TraceTrainer(WholeCheckpoints, SFTTrainer):
    """SFTTrainer over examples that are tokenized already."""

    loss_tokens: float | None = None
    """What a step's summed loss is divided by; None = the tokens of its own batch."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """As TRL's; in training the divisor may be a constant (TRL undoes the averaging over processes)."""
        if self.loss_tokens is None or num_items_in_batch is None or not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = super().compute_loss(model, inputs, return_outputs, self.loss_tokens)
        # What is logged stays comparable: the mean over the batch's own tokens.
        value = loss[0] if return_outputs else loss
        share = value.detach() * self.loss_tokens / num_items_in_batch * self.current_gradient_accumulation_steps
        self._metrics["train"]["token_loss"].append(self.accelerator.gather(share).mean().item())
        return loss


class SFTCallback(TrainerCallback):
    """Metrics, progress, and the checkpoint on SIGTERM."""

    def __init__(
        self, job: SFTJob, trainer: Any, stop: StopRequest, writer: MetricsWriter | None, tokenizer: Any,
        held_out: Sequence[Example],
    ) -> None:  # fmt: skip
        """`writer` is None but on rank 0; the `held_out` examples are answered at each evaluation."""
        self.trainer, self.stop, self.writer = trainer, stop, writer
        self.tokenizer, self.held_out, self.texts = tokenizer, held_out, job.config.sample_texts
        self.label = "dpo" if job.preferences else "sft"
        self.parameters = 0
        """Of the model, set where training begins."""
        self.stopped = False
        self.thinking_form: float | None = None
        """Share of the held-out answers of the last evaluation that think and answer in form."""
        self.seconds = 0.0
        """Spent in optimizer steps: without evaluation and checkpoints."""
        self._loss: dict[str, float] = {}
        self._begun = self._first_tokens = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.parameters = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters()) if model else 0
        self._first_tokens = self.trainer._total_train_tokens
        if self.writer is not None:
            report_progress(self.label, state.global_step, state.max_steps)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # accelerate's set_epoch does not reach the sampler through a resumed epoch's SkipBatchSampler on two processes:
        # the rest of that epoch would repeat the first epoch's order.
        order = self.trainer.order
        order.set_epoch(state.global_step // (len(order) // order.batch_size))

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._begun = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds += time.monotonic() - self._begun
        if self.stop.anywhere():
            self.stopped = True
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False
        elif state.global_step >= state.max_steps:
            control.should_save = True
        if self.writer is not None:
            told = self._loss | {"tokens_per_s": self.rate()}
            report_progress(self.label, state.global_step, state.max_steps, **told)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        logs = logs or {}
        row = {ours: float(logs[theirs]) for theirs, ours in LOGGED.items() if theirs in logs}
        if not row:
            return
        row["train/epoch"] = state.epoch or 0.0
        if "train/loss" in row:
            self._loss = {"loss": row["train/loss"]}
            row["train/tokens_per_s"] = self.rate()
            used = utilisation(self.parameters, self.rate(), args.world_size)
            row |= {"train/mfu": used} if used is not None else {}
        if self.writer is not None:
            self.writer.write(state.global_step, row)

    def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Answer a few held-out questions: does the model think and conclude in the form that it is taught?

        Every process decodes the same, because under ZeRO-3 the weights are gathered by all.
        """
        if not self.held_out:
            return
        rows = look(model, self.tokenizer, self.held_out)
        if self.writer is None:
            return
        self.thinking_form = fmean(row["outcome"] == "ok" for row in rows)
        finished = fmean(row["finished"] for row in rows)
        self.writer.write(state.global_step, {"eval/thinking_form": self.thinking_form, "eval/finished": finished})
        texts = () if self.texts else ("thinking", "response")
        told = [{name: value for name, value in row.items() if name not in texts} for row in rows]
        self.writer.show(state.global_step, told)

    def rate(self) -> float:
        """Tokens (padding excluded) a second of training, over all processes."""
        return (self.trainer._total_train_tokens - self._first_tokens) / self.seconds if self.seconds else 0.0


def look(model: Any, tokenizer: Any, examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Greedy answers to held-out questions, each with its form; room for a quarter more than the traces took."""
    decoder = Decoder(model)
    longest = max(example.completion_length for example in examples)
    prompts = [example.input_ids[: example.prompt_length] for example in examples]
    room = min(decoder.window - max(map(len, prompts)), longest * 5 // 4 + 8)
    ends = end_ids(tokenizer, causal_of(model))
    params = SamplingParams(room, 0.0, 1.0, 0, ends, tokenizer.pad_token_id)
    reader = CompletionReader(tokenizer, "the model", strict=True)
    rows = []
    for example, rollout in zip(examples, decoder.generate(prompts, params), strict=True):
        parts = reader.read(rollout.token_ids, "stop" if rollout.finished else "length")[1]
        row: dict[str, Any] = {"case_id": example.case_id, "outcome": parts.outcome.value, "finished": rollout.finished}
        row |= {"tokens": len(rollout.token_ids), "thinking": scrubbed(parts.thinking)}
        rows.append(row | {"response": scrubbed(parts.response)})
    return rows
