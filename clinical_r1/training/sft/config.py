"""Settings of supervised fine-tuning; defaults are the paper's where it states them (3 epochs, lr 5e-6; 2.2.1)."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from clinical_r1.atomic import file_sha256
from clinical_r1.folders import identity
from clinical_r1.settings import Names, Seed
from clinical_r1.strict import Strict
from clinical_r1.training.deepspeed import DeepSpeedConfig
from clinical_r1.training.lora import LoraSettings
from clinical_r1.training.metrics import TrackingConfig


class DPOConfig(Strict):
    """Direct preference optimization (arXiv 2305.18290) after SFT, on verdicts that are paid for already."""

    beta: float = Field(default=0.1, gt=0)
    """How strongly the model is held to the SFT model."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the pairs."""
    learning_rate: float = Field(default=5e-7, gt=0)
    """Peak learning rate."""
    batch_size: int = Field(default=16, ge=1)
    """Pairs an optimizer step."""
    pairs_per_case: int = Field(default=1, ge=1)
    """Most pairs of a case: its right answers with its wrong ones, in the order in which they were given."""
    min_pairs: int = Field(default=8, ge=1)
    """Fewer do not start a training."""
    completions: Annotated[list[str], Names.FILES] = Field(default_factory=list)
    """samples.jsonl of RL runs, whose answers are paired besides the attempts of synthesis."""
    cases: Annotated[str, Names.FILES] = ""
    """JSONL of the cases that those answers are to (rl.jsonl)."""

    @model_validator(mode="after")
    def _cases_of_completions(self) -> Self:
        if self.completions and not self.cases:
            raise ValueError("completions need cases: the rl.jsonl of the run that they are of")
        return self


class SFTConfig(Strict):
    """Supervised fine-tuning on verified traces."""

    epochs: float = Field(default=3.0, gt=0)
    """Passes over the traces (paper: 3)."""
    max_steps: int = Field(default=0, ge=0)
    """Stop after this many optimizer steps; 0 = by epochs."""
    learning_rate: float = Field(default=5e-6, gt=0)
    """Peak learning rate (paper: 5e-6)."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps with a rising learning rate."""
    final_learning_rate_share: float = Field(default=0.0, ge=0, lt=1)
    """Learning rate at the end as a share of the peak (cosine only)."""
    weight_decay: float = Field(default=0.1, ge=0)
    """AdamW."""
    beta2: float = Field(default=0.95, gt=0, lt=1)
    """AdamW; beta1 is 0.9."""
    gradient_clipping: float = Field(default=1.0, ge=0)
    """Largest norm of the gradient; 0 is off."""
    batch_size: int = Field(default=16, ge=1)
    """Examples an optimizer step, over all processes and accumulation steps."""
    micro_batch_size: int = Field(default=0, ge=0)
    """Examples that one process takes at once; 0 = batch_size / processes, on a CPU what 8,000 tokens and 2 GiB
    of activations allow. Accumulation makes up for the rest."""
    max_length: int = Field(default=0, ge=0)
    """Longest example in tokens; longer ones are never cut (see `unusable`). 0 = the model's window."""
    unusable: Literal["drop", "refuse"] = "drop"
    """What becomes of traces that are too long, or hold markers of this model in their text: left out and counted, or
    the run is refused before it starts. None left is refused either way."""
    min_examples: int = Field(default=1, ge=1)
    """Fewer usable traces than this do not start a training."""
    loss_norm: Literal["batch", "constant"] = "batch"
    """Divide a batch's loss by its own completion tokens (TRL's way), or by the mean of all batches, so that a batch of
    short examples does not count for more than its tokens (matters with length grouping)."""
    group_by_length: bool = True
    """Batches of similar length: less padding; the order of batches stays random."""
    packing: bool = False
    """Put the examples that a process takes at once behind one another instead of padding them (needs attention varlen
    or flash_attention_2). An optimizer step has batch_size examples either way."""
    attention: Literal["sdpa", "eager", "varlen", "flash_attention_2"] = "sdpa"
    """How attention is computed. `varlen` is for packing and needs nothing but torch (on a GPU its own flash attention,
    in bfloat16); `flash_attention_2` needs the package flash-attn."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of weights and activations; bfloat16 keeps a float32 master copy."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them."""
    lora: LoraSettings | None = None
    """Adapters instead of all weights; None = all weights."""
    deepspeed: DeepSpeedConfig | None = Field(default_factory=DeepSpeedConfig)
    """Sharding; None = plain torch (for comparison)."""
    processes: int = Field(default=1, ge=1)
    """Processes on this node (one a GPU)."""
    eval_share: float = Field(default=0.03, ge=0, lt=0.5)
    """Share of the cases whose traces are held out for the evaluation loss."""
    eval_examples: int = Field(default=200, ge=0)
    """Most examples held out."""
    samples: int = Field(default=4, ge=0)
    """Held-out questions that are answered greedily at each evaluation: does the model think in the form of the traces?
    0 asks none."""
    sample_texts: bool = True
    """Keep the answers in samples.jsonl and TensorBoard, once more through the recognisers of the PHI gate."""
    checkpoint_steps: int = Field(default=200, ge=1)
    """Steps between checkpoints."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Newest checkpoints that stay."""
    checkpoints: str = ""
    """Where the checkpoints live besides the newest one, which is on the disk: `s3://bucket/prefix`; empty: on the disk
    alone."""
    log_steps: int = Field(default=10, ge=1)
    """Steps between rows of metrics.jsonl."""
    tensorboard: bool = True
    """Write TensorBoard events as well."""
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)
    """MLflow or W&B, beside metrics.jsonl and TensorBoard."""
    dpo: DPOConfig | None = None
    """Preference pairs after the traces; None = SFT alone."""
    seed: Seed = 0
    """Of the data order and of new weights."""

    @model_validator(mode="after")
    def _packing_possible(self) -> Self:
        if self.packing and self.attention not in ("varlen", "flash_attention_2"):
            raise ValueError(f"packing needs attention varlen (with {self.attention} examples would mix)")
        if self.attention == "varlen" and not self.packing:
            raise ValueError("attention varlen is for packed examples; set packing to true, or attention to sdpa")
        return self


LAYOUT = {
    "micro_batch_size", "log_steps", "checkpoint_steps", "keep_checkpoints", "tensorboard", "processes", "deepspeed",
    "activation_checkpointing", "attention", "min_examples", "samples", "sample_texts", "tracking", "checkpoints",
}  # fmt: skip
"""Settings that change how a run is computed or watched and not what: they may change when it goes on."""


class SFTJob(Strict):
    """What one training process is told: the settings and the folders."""

    config: SFTConfig
    """The settings."""
    traces: Path
    """traces.jsonl: schema.Trace, one a line; rejected ones are skipped."""
    base_model: Path
    """Model folder that training starts from."""
    out_dir: Path
    """Gets model/, config.json, metrics.jsonl, curves.svg."""
    state_dir: Path
    """Checkpoints and metrics while training; outlives the step (and is shared by all nodes)."""
    preferences: bool = False
    """Train on pairs (config.dpo), not on traces."""

    def identity(self) -> dict[str, Any]:
        """What determines the result: a state folder with another identity is another run's."""
        dpo = self.config.dpo
        named = [*dpo.completions, dpo.cases, str(self.traces.with_name("rejected.jsonl"))] if dpo else []
        pairs = [file_sha256(path) for path in named if self.preferences and Path(path).is_file()]
        return {
            "config": self.config.model_dump(mode="json", exclude=LAYOUT if self.preferences else LAYOUT | {"dpo"}),
            "traces": file_sha256(self.traces),
            **({"preferences": True, "pairs": pairs} if self.preferences else {}),
            "base_model": identity(self.base_model),
        }
