"""What a PPO run is told. The defaults are the paper's where it names a value; shipped files are in ../configs."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from clinical_r1.atomic import file_sha256
from clinical_r1.errors import UserError
from clinical_r1.folders import identity
from clinical_r1.rewards import ReasoningRule, RewardTable, reward_table
from clinical_r1.settings import Names, Seed
from clinical_r1.strict import Strict
from clinical_r1.training.deepspeed import DeepSpeedConfig
from clinical_r1.training.lora import LoraSettings
from clinical_r1.training.metrics import TrackingConfig
from clinical_r1.verifier.config import JudgeConfig


class RolloutConfig(Strict):
    """How episodes are sampled."""

    engine: Literal["local", "vllm"] = "local"
    """`local`: the actor's own forward pass, on any
    architecture. `vllm`: a vLLM server that is given the weights every step."""
    max_new_tokens: int = Field(default=1024, ge=1)
    """Longest completion; one that is cut there is null in the reward table."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature; the policy's log-probabilities are taken at the same one."""
    episodes_per_prompt: int | None = Field(default=None, ge=1)
    """Completions sampled of each prompt in a batch; None = 1 for PPO, 4 for GRPO and RLOO, which compare them."""
    batch_tokens: int = Field(default=131_072, ge=1)
    """Rows x (prompt + max_new_tokens) that the KV cache may hold at once; more rows wait."""
    vllm_url: str = ""
    """Engine vllm: base URL of a running server (up to and with /v1)."""
    vllm_python: str = ""
    """Engine vllm without vllm_url: the python of an environment with vLLM. The step starts a server of its own on this
    node and ends it; weights go to it through memory where there is room (/dev/shm)."""
    vllm_arguments: list[str] = Field(default_factory=list)
    """What else that server is started with, such as ["--gpu-memory-utilization", "0.3"] beside the trainer's GPUs."""
    importance_cap: float = Field(default=2.0, gt=0)
    """Engine vllm: largest importance weight (trainer's probability over server's) of a token."""

    @model_validator(mode="after")
    def _server_named(self) -> Self:
        if self.engine == "vllm" and not self.vllm_url and not self.vllm_python:
            raise ValueError(
                "engine vllm needs vllm_url, the address of a running server, or vllm_python, to start one"
            )
        return self


class CriticConfig(Strict):
    """The value model, which PPO alone has: the SFT model's body with a linear head, an engine of its own."""

    learning_rate: float | None = Field(default=None, gt=0)
    """Of the critic's AdamW; None = 9e-6 for all weights, 9e-5 for adapters, which start at zero."""
    schedule: Literal["constant", "linear", "cosine"] | None = None
    """Course of the critic's learning rate; None takes the policy's. One that falls averages over more batches."""
    epochs: int = Field(default=1, ge=1)
    """Passes over each batch."""
    warmup_batches: int = Field(default=4, ge=0)
    """Batches rolled out with the SFT model on which the critic alone is fitted before the first policy update."""
    warmup_epochs: int = Field(default=2, ge=1)
    """Passes over those batches."""
    warmup_learning_rate: float | None = Field(default=None, gt=0)
    """While it is fitted alone; None takes `learning_rate`."""
    clip: float | None = Field(default=0.2, gt=0)
    """A value may move this far from the rollout's in one step (on top of it the gradient stops); None is off."""
    target_lambda: float | None = Field(default=1.0, ge=0, le=1)
    """Lambda of the returns that the critic is fitted to; 1 is the whole return, None takes the advantage's."""
    initial_value: float = 0.5
    """What an untrained critic says everywhere: the linear head's bias."""


class GroupConfig(Strict):
    """How GRPO and RLOO compare the answers to one prompt."""

    scale: Literal["group", "batch", "none"] = "group"
    """GRPO divides what an answer earned beyond its group's mean by this deviation: of its group (DeepSeekMath, arXiv
    2402.03300), of the batch, or none (Dr. GRPO, 2503.20783). RLOO divides by nothing."""
    resample_rounds: int = Field(default=0, ge=0)
    """Dynamic sampling (DAPO, arXiv 2503.14476): groups whose answers all earned the same teach nothing and make room
    for other prompts' groups, at most so many times a step; 0 keeps them. Each round costs rollouts and judgements."""


class ProbeConfig(Strict):
    """Looks at `validation` (never at `test`) while training, and the forgetting probe."""

    every: int = Field(default=20, ge=0)
    """Steps between probes; 0 probes only before and after."""
    cases: int = Field(default=300, ge=1)
    """Validation cases a probe answers greedily (the first of the file; all if there are fewer)."""
    forgetting_cases: Annotated[str, Names.FILES] = ""
    """JSONL of our cases with `options` (multiple choice) that are not trained on; empty: no forgetting probe."""
    forgetting_limit: int = Field(default=200, ge=1)
    """At most so many of them."""


class JudgeProbeConfig(Strict):
    """The judge is asked what the truth is known of before it pays anything."""

    calls: int = Field(default=20, ge=0)
    """Half of them give a case's own reference as the answer, half another case's; 0 asks nothing."""
    max_error: float = Field(default=0.2, ge=0, le=1)
    """Largest share of wrong or failed verdicts with which training starts."""


class SamplesConfig(Strict):
    """Completions of each step for people to read: samples.jsonl, the report, TensorBoard."""

    per_step: int = Field(default=4, ge=0)
    """Completions of a step that are kept, spread over its batch; 0 keeps none."""
    text: Literal["scrubbed", "none"] = "scrubbed"
    """`scrubbed`: once more through the recognisers of the PHI gate, and withheld where these are in doubt. `none`:
    verdict, reward, outcome and lengths alone."""


class StopConfig(Strict):
    """When a run stops by itself; the reason goes into metrics and report."""

    max_kl: float = Field(default=60.0, gt=0)
    """Mean KL from the reference per episode, in nats."""
    min_length_ratio: float = Field(default=0.25, ge=0)
    """Mean completion length against the first step's."""
    max_cut_share: float = Field(default=0.6, gt=0, le=1)
    """Share of episodes that were cut at max_new_tokens (ignored where the first step already had more)."""
    patience: int = Field(default=3, ge=1)
    """So many steps in a row beyond one of the limits above are a collapse."""
    max_masked_share: float = Field(default=0.5, gt=0, le=1)
    """Share of a step's judgements that failed and were masked out."""
    unpaid_steps: int = Field(default=20, ge=1)
    """So many steps in a row in which all episodes earned the same (nothing, most often): nothing is learnt."""
    below_sft: bool = True
    """Stop when validation accuracy falls below the SFT model's 95% interval in two probes in a row."""


class PPOConfig(Strict):
    """One run of reinforcement learning: PPO, or GRPO or RLOO on the same engine."""

    algorithm: Literal["ppo", "grpo", "rloo"] = "ppo"
    """Whom an answer is compared with. `ppo`: a critic's expectation, token by token (the paper's). `grpo`: the mean of
    its group, in the group's deviations, with the KL penalty in the loss (arXiv 2402.03300). `rloo`: the mean of the
    other answers of its group, with the KL penalty in the reward (2402.14740). Groups need no critic."""

    seed: Seed = 0
    """Of data order, sampling and mini-batches; a run is a function of config, model and cases."""
    steps: int = Field(default=200, ge=0)
    """Batches of episodes. 0 returns the SFT model."""
    batch_size: int = Field(default=16, ge=1)
    """Episodes a step, over all processes (the paper's 16)."""
    minibatches: int = Field(default=1, ge=1)
    """Optimizer steps an epoch: the batch is cut into so many parts."""
    epochs: int = Field(default=2, ge=1)
    """PPO epochs over each batch."""
    micro_batch_size: int = Field(default=2, ge=1)
    """Episodes in one backward pass of one process."""
    learning_rate: float = Field(default=5e-7, gt=0)
    """Of the actor's AdamW (the paper's 5e-7)."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Course of the learning rate after the warm-up; linear and cosine end at a tenth."""
    warmup_steps: int = Field(default=5, ge=0)
    """Steps over which both learning rates rise linearly."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradient clipping, for each engine by itself."""
    kl_beta: float = Field(default=0.03, ge=0)
    """Weight of the KL penalty in the reward (the paper's 0.03)."""
    kl_target: float | None = Field(default=None, gt=0)
    """Adapt beta so that the mean KL per episode stays near this; None keeps it fixed, as the paper does."""
    clip: float = Field(default=0.2, gt=0)
    """Policy ratio clip (the paper's 0.2)."""
    clip_high: float | None = Field(default=None, gt=0)
    """Another clip above 1 than below it (DAPO takes 0.28), so that rare tokens may grow; None takes `clip`."""
    gamma: float = Field(default=1.0, gt=0, le=1)
    """Discount per token."""
    gae_lambda: float = Field(default=1.0, ge=0, le=1)
    """GAE's lambda of the advantages. At .95 a token 200 before the end sees 3.5e-5 of the reward: lower it only where
    the critic explains something (`critic/explained_variance`)."""
    whiten: bool = True
    """PPO: scale advantages to mean 0 and deviation 1 over the batch's tokens."""
    entropy_bonus: float = Field(default=0.0, ge=0)
    """Weight of the policy's entropy in the loss."""
    reward_table: str | RewardTable = "paper"
    """A name from reward_tables.yaml, or the five rewards written out."""
    reasoning: ReasoningRule = Field(default_factory=ReasoningRule)
    """When a thought counts as reasoning."""
    judge: JudgeConfig = Field(default_factory=JudgeConfig)
    """Who says correct or incorrect, in training and in probes."""
    judge_probe: JudgeProbeConfig = Field(default_factory=JudgeProbeConfig)
    """The judge is probed before it pays."""
    rollout: RolloutConfig = Field(default_factory=RolloutConfig)
    """How episodes are sampled."""
    critic: CriticConfig = Field(default_factory=CriticConfig)
    """The value model of PPO."""
    group: GroupConfig = Field(default_factory=GroupConfig)
    """How GRPO and RLOO compare the answers to one prompt."""
    probe: ProbeConfig = Field(default_factory=ProbeConfig)
    """What is watched, and how often."""
    samples: SamplesConfig = Field(default_factory=SamplesConfig)
    """Completions that are kept for people to read."""
    stop: StopConfig = Field(default_factory=StopConfig)
    """When a run stops by itself."""
    keep: Literal["best", "last"] = "best"
    """Which weights are the result: the best by validation accuracy (the SFT model competes), or the last."""
    save_every: int = Field(default=20, ge=1)
    """Steps between checkpoints in the state folder; SIGTERM writes one as well."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Newest checkpoints that stay; one more while a new one is written. A 7B run's take 176 GB each."""
    checkpoints: str = ""
    """Where the checkpoints live besides the newest one, which is on the disk: `s3://bucket/prefix`; empty: on the disk
    alone."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of weights and activations; bfloat16 keeps float32 master weights in the optimizer."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention kernel of the trained models."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    logits_chunk: int = Field(default=4096, ge=1)
    """Completion tokens whose logits exist at one time (a chunk takes tokens x vocabulary x 4 bytes)."""
    lora: LoraSettings | None = None
    """Train adapters of actor and critic only; the reference model is then the actor with its adapters off."""
    deepspeed: DeepSpeedConfig = Field(default_factory=DeepSpeedConfig)
    """Sharding and offloading of both engines."""
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)
    """MLflow or W&B, beside metrics.jsonl and TensorBoard."""
    processes: int = Field(default=1, ge=1)
    """Processes of this node (one a GPU)."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        try:
            mixed = reward_table(self.reward_table).mix
        except UserError as error:
            raise ValueError(str(error)) from None
        if self.batch_size % (self.minibatches * self.micro_batch_size):
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of minibatches x micro_batch_size "
                f"({self.minibatches} x {self.micro_batch_size})"
            )
        if self.batch_size % self.group_size:
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of rollout.episodes_per_prompt {self.group_size}"
            )
        if not self.has_critic and self.group_size < 2:
            raise ValueError(
                f"{self.algorithm} compares the answers to one prompt; set rollout.episodes_per_prompt to 2 or more"
            )
        if self.lora is not None and self.deepspeed.stage == 3 and self.rollout.engine == "vllm":
            raise ValueError("lora under ZeRO stage 3 cannot feed a vllm rollout; use stage 2")
        if "rubric" in mixed and self.judge.verifier.kind == "rule":
            raise ValueError(
                "reward_table mixes in rubric, which a model grades: set judge.verifier.kind to llm and name its "
                "endpoint"
            )
        return self

    @property
    def has_critic(self) -> bool:
        """Whether a value model is trained beside the policy."""
        return self.algorithm == "ppo"

    @property
    def group_size(self) -> int:
        """Completions sampled of each prompt."""
        return self.rollout.episodes_per_prompt or (1 if self.has_critic else 4)

    @property
    def critic_rate(self) -> float:
        """The critic's learning rate, by what is trained where none is set."""
        return self.critic.learning_rate or (9e-6 if self.lora is None else 9e-5)

    def accumulation(self, world_size: int) -> int:
        """Backward passes of one process between two optimizer steps; UserError where the batch does not divide."""
        parts = self.batch_size // (self.minibatches * self.micro_batch_size)
        if parts % world_size:
            raise UserError(
                f"ppo: batch_size {self.batch_size} / minibatches {self.minibatches} / micro_batch_size "
                f"{self.micro_batch_size} gives {parts} micro-batches, which {world_size} processes cannot share "
                "evenly; change one of them"
            )
        return parts // world_size


LAYOUT: dict[str, Any] = {
    "rollout": {"vllm_url", "vllm_python", "vllm_arguments", "batch_tokens"},
    **dict.fromkeys(("micro_batch_size", "logits_chunk", "processes", "deepspeed", "probe", "judge"), True),
    **dict.fromkeys(("activation_checkpointing", "attention", "stop", "samples", "judge_probe", "tracking"), True),
    **dict.fromkeys(("save_every", "keep_checkpoints", "checkpoints"), True),
}
"""Settings that change how a run is computed or watched and not what: they may change when it goes on."""


class PPOJob(Strict):
    """A run with its places; the JSON that `python -m clinical_r1.training.ppo.run --config` reads."""

    config: PPOConfig
    """The settings."""
    model: Path
    """SFT model folder: the start of actor and critic, and the reference."""
    cases: Path
    """rl.jsonl: schema.Case, one a line."""
    validation: Path
    """validation.jsonl: probes and choice of weights."""
    out_dir: Path
    """Gets model/, config.json, metrics.jsonl, curves.svg."""
    state_dir: Path
    """Checkpoints and metrics while training; outlives the step (and is shared by all nodes)."""

    def identity(self) -> dict[str, Any]:
        """What determines the result: a state folder with another identity is another run's.

        How it is computed does not (LAYOUT), nor where the judge or the rollout server listens: a simulated endpoint
        has another port in every run. A run with constant rates may be made longer.
        """
        endless = self.config.schedule == "constant" and self.config.critic.schedule in (None, "constant")
        left_out = LAYOUT | ({"steps": True} if endless else {})
        return {
            "config": self.config.model_dump(mode="json", exclude=left_out),
            "judge": self.config.judge.identity(),
            "model": identity(self.model),
            "cases": file_sha256(self.cases),
            "validation": file_sha256(self.validation),
        }
