"""TRL's SFTTrainer with a reproducible data order, a constant loss norm, whole checkpoints, and our metrics."""

import time
from pathlib import Path
from typing import Any

import torch.distributed as dist
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import SFTTrainer

from clinical_r1.training.checkpoints import mark_complete, prune
from clinical_r1.training.launcher import report_progress
from clinical_r1.training.lora import expose_bias
from clinical_r1.training.metrics import MetricsWriter
from clinical_r1.training.sft.data import EpochOrder
from clinical_r1.training.sft.head import install
from clinical_r1.training.trainee import StopRequest

CHECKPOINTS = f"{PREFIX_CHECKPOINT_DIR}-*"

LOGGED = {
    "loss": "train/loss",
    "token_loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "grad_norm": "train/gradient_norm",
    "mean_token_accuracy": "train/token_accuracy",
    "entropy": "train/entropy",
    "eval_loss": "eval/loss",
    "eval_mean_token_accuracy": "eval/token_accuracy",
}
"""TRL's names and ours."""


class TraceTrainer(SFTTrainer):
    """SFTTrainer over examples that are tokenized already."""

    def __init__(self, *args: Any, order: EpochOrder, loss_tokens: float | None, keep: int, **kwargs: Any) -> None:
        """`loss_tokens`: what a step's summed loss is divided by; None = the tokens of its own batch."""
        self.order, self.loss_tokens, self.keep = order, loss_tokens, keep
        super().__init__(*args, **kwargs)
        causal: Any = self.model
        install(causal.get_base_model() if hasattr(causal, "peft_config") else causal)
        expose_bias(causal)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self.order

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

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Transformers' checkpoint (TRL adds a model card), marked when every process has written its part."""
        Trainer._save_checkpoint(self, model, trial)
        if dist.is_initialized():
            dist.barrier()
        if self.is_world_process_zero():
            root = Path(str(self.args.output_dir))
            mark_complete(root / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}", step=self.state.global_step)
            prune(root, self.keep, CHECKPOINTS)
        if dist.is_initialized():
            dist.barrier()


class Watch(TrainerCallback):
    """Metrics, progress, and the checkpoint on SIGTERM."""

    def __init__(self, stop: StopRequest, writer: MetricsWriter | None, order: EpochOrder, trainer_tokens: Any) -> None:
        """`writer` is None but on rank 0; `trainer_tokens` returns the tokens trained so far by all processes."""
        self.stop, self.writer, self.order, self.tokens = stop, writer, order, trainer_tokens
        self.stopped = False
        self.seconds = 0.0
        """Spent in optimizer steps: without evaluation and checkpoints."""
        self._begun = self._first_tokens = self._loss = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._first_tokens = self.tokens()
        if self.writer is not None:
            report_progress("sft", state.global_step, state.max_steps)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # accelerate's set_epoch does not reach the sampler through a resumed epoch's SkipBatchSampler on two processes:
        # the rest of that epoch would repeat the first epoch's order.
        self.order.set_epoch(state.global_step // (len(self.order) // self.order.batch_size))

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
            report_progress("sft", state.global_step, state.max_steps, loss=self._loss, tokens_per_s=self.rate())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self._loss = (logs or {}).get("token_loss", (logs or {}).get("loss", self._loss))
        if self.writer is None or not logs:
            return
        row = {ours: float(logs[theirs]) for theirs, ours in LOGGED.items() if theirs in logs}
        if row:
            row |= {"train/epoch": state.epoch or 0.0}
            if "train/loss" in row:
                row |= {"train/tokens_per_s": self.rate()}
            self.writer.write(state.global_step, row)

    def rate(self) -> float:
        """Tokens (padding excluded) a second of training, over all processes."""
        return (self.tokens() - self._first_tokens) / self.seconds if self.seconds else 0.0
