import re
from pathlib import Path

import pytest

from clinical_r1.errors import UserError
from clinical_r1.training.deepspeed import DeepSpeedConfig, build_config, check_attention, check_requirements
from clinical_r1.training.ppo.config import PPOConfig
from clinical_r1.training.preflight import GIB, QWEN_7B, Geometry, check, check_disk, estimate, shipped
from clinical_r1.training.sft.config import SFTConfig


def test_weights_are_counted_exactly(base_model):
    from clinical_r1.generation.load import load_model

    assert QWEN_7B.total == 7_615_616_512  # as Qwen2.5-7B's own files
    model, _ = load_model(base_model)
    assert Geometry.of(base_model).total == sum(p.numel() for p in model.parameters())
    assert Geometry.of(base_model).body == sum(p.numel() for p in model.model.parameters())


def test_adapters_are_counted_exactly(base_model):
    from peft import LoraConfig, get_peft_model

    from clinical_r1.generation.load import load_model
    from clinical_r1.training.lora import LoraSettings

    settings = LoraSettings(rank=4)
    lora = LoraConfig(r=4, target_modules=settings.target_modules)
    wrapped = get_peft_model(load_model(base_model)[0], lora)
    trained = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    assert Geometry.of(base_model).adapters(settings) == trained


def test_checkpoints_that_would_fill_the_disk_are_refused_before_the_first_step():
    """A full 7B run: 12 bytes a weight of actor and critic under ZeRO-3, one checkpoint more while writing."""
    config = PPOConfig(deepspeed={"stage": 3}, dtype="bfloat16", processes=8)
    need = estimate(config, QWEN_7B)
    assert need.disk["checkpoints"] / GIB == pytest.approx(3 * 12 * (7.6 + 7.07) / 1.0737, rel=0.03)
    check_disk(need, need.disk_gib + 1, 0.0, "/state")
    check_disk(need, 100.0, need.disk_gib - 99, "/state")  # what is there already is taken over
    with pytest.raises(
        UserError, match=r"/state: this run leaves about 5\d\d\.\d GiB .* and 465\.0 are free; .*keep_check"
    ):
        check_disk(need, 465.0, 0.0, "/state")
    one = config.model_copy(update={"keep_checkpoints": 1})
    check_disk(estimate(one, QWEN_7B), 465.0, 0.0, "/state")
    adapters = PPOConfig(lora={"rank": 32, "alpha": 64}, dtype="bfloat16")
    assert estimate(adapters, QWEN_7B).disk["checkpoints"] < 10 * GIB


@pytest.mark.parametrize(
    ("stage", "offload", "gpu"),
    [
        (0, False, 2 + 2 + 12),
        (1, False, 2 + 2 + 12 / 4),
        (2, False, 2 + (2 + 12) / 4),
        (3, False, 16 / 4),
        (2, True, 2),
    ],
)
def test_sharding_divides_what_it_shards(stage, offload, gpu):
    """ZeRO paper, figure 1: bytes per weight in mixed precision, here over 4 processes."""
    sharding = DeepSpeedConfig(stage=stage, offload_optimizer=offload)
    need = estimate(SFTConfig(dtype="bfloat16", deepspeed=sharding, processes=4), QWEN_7B)
    weights = sum(need.gpu.get(f"model {part}", 0.0) for part in ("weights", "gradients", "optimizer"))
    assert weights / QWEN_7B.total == pytest.approx(gpu)
    if offload:
        assert (need.host["model optimizer"] + need.host["model gradients"]) / QWEN_7B.total == pytest.approx(16)


def machine(name: str) -> tuple[int, float] | None:
    found = re.search(r"-(\d+)x(\d+)-", name)
    return (int(found[1]), float(found[2])) if found else None


@pytest.mark.parametrize("kind", ["sft", "ppo"])
def test_shipped_configurations_fit_the_machines_in_their_names(kind):
    machines = {}
    for name, config in shipped(kind):
        if size := machine(name):
            assert config.processes == size[0], name
            # A GPU of "80 GB" has about 79 GiB, one of 40 GB 39.4.
            need = check(config, QWEN_7B, config.processes, size[1] * 0.985, 1_000)
            machines[name] = need
    assert {machine(name) for name in machines} >= {(1, 40.0), (1, 80.0), (2, 48.0), (4, 80.0), (8, 80.0)}
    folder = Path(__file__).resolve().parents[2] / "clinical_r1" / "training" / "configs"
    for name, need in machines.items():
        text = (folder / name).read_text(encoding="utf-8")
        assert re.search(r"ran on a GPU.*docs/log\.md" if "1x80-lora" in name else "Not run on GPU", text), name
        if "offload_optimizer: true" in text:
            told = int(re.search(r"(\d+) Gi?B of (?:host )?RAM", text)[1])  # type: ignore[index]
            assert need.host_gib * GIB < told * 1e9 or need.host_gib <= told, name


def test_what_cannot_fit_is_refused_with_what_does():
    full = SFTConfig(dtype="bfloat16", max_length=4096, activation_checkpointing=True)
    with pytest.raises(
        UserError, match=r"about \d+ GiB on each GPU and there are 79 .*model optimizer.*1x80-lora\.yaml fits"
    ):
        check(full, QWEN_7B, 1, 79.0, 500.0)
    with pytest.raises(UserError, match=r"4x80-full\.yaml fits"):
        check(full, QWEN_7B, 4, 40.0, 500.0)
    with pytest.raises(UserError, match="host memory"):
        check(SFTConfig(dtype="bfloat16", max_length=4096, activation_checkpointing=True, processes=4,
                        deepspeed=DeepSpeedConfig(offload_optimizer=True)), QWEN_7B, 4, 79.0, 64.0)  # fmt: skip
    with pytest.raises(UserError, match="no shipped configuration fits"):
        check(PPOConfig(), QWEN_7B, 1, 12.0, 32.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"stage": 2, "offload_parameters": True}, "stage 3"),
        ({"stage": 0, "offload_optimizer": True}, "stage of 1 or more"),
        ({"cpu_adam": True}, "offload_optimizer"),
    ],
)
def test_impossible_sharding_is_refused(settings, words):
    with pytest.raises(UserError, match=words):
        check_requirements(DeepSpeedConfig(**settings))


def test_a_missing_toolchain_is_refused_at_the_start(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"g\+\+ and ninja is not on PATH"):
        check_requirements(DeepSpeedConfig(offload_optimizer=True, cpu_adam=True))
    with pytest.raises(UserError, match="no CUDA GPU"):
        check_attention("flash_attention_2", "bfloat16")
    check_attention("varlen", "float32")  # on a CPU; a GPU would want bfloat16
    monkeypatch.setattr("clinical_r1.training.deepspeed._has_gpu", lambda: True)
    with pytest.raises(UserError, match="set dtype to bfloat16"):
        check_attention("varlen", "float32")


def test_what_can_run_is_accepted_and_cpu_adam_gets_the_settings(monkeypatch, tmp_path):
    """Nothing is compiled here: the tools are empty files, DeepSpeed's optimizer is a recorder."""
    for tool in ("g++", "ninja"):
        (tmp_path / tool).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    offloaded = DeepSpeedConfig(stage=2, offload_optimizer=True, cpu_adam=True)
    for accepted in (offloaded, DeepSpeedConfig(stage=3, offload_optimizer=True, offload_parameters=True)):
        check_requirements(accepted)
    import deepspeed.ops.adam
    import torch

    from clinical_r1.training.ppo import engines
    from clinical_r1.training.sft import build

    told: dict = {}
    monkeypatch.setattr(deepspeed.ops.adam, "DeepSpeedCPUAdam", lambda _weights, **settings: told.update(settings))
    engines._optimizer(PPOConfig(deepspeed=offloaded, weight_decay=0.1), [], 3e-4)
    assert told == {"lr": 3e-4, "betas": (0.9, 0.95), "weight_decay": 0.1}
    kind, settings = build._cpu_adam(SFTConfig(deepspeed=offloaded, learning_rate=2e-4, beta2=0.98))
    assert kind is deepspeed.ops.adam.DeepSpeedCPUAdam
    assert settings == {"lr": 2e-4, "betas": (0.9, 0.98), "weight_decay": 0.1}
    assert build._cpu_adam(SFTConfig(deepspeed=DeepSpeedConfig(offload_optimizer=True))) is None
    plain = PPOConfig(deepspeed=DeepSpeedConfig(offload_optimizer=True))
    assert type(engines._optimizer(plain, [torch.nn.Parameter(torch.zeros(1))], 1e-3)) is torch.optim.AdamW


def test_the_deepspeed_dict_says_what_was_asked():
    config = build_config(DeepSpeedConfig(stage=3, offload_parameters=True), 2, 4, 0.5, 3, "bfloat16")
    assert config["train_batch_size"] == 24 and config["bf16"]["enabled"]
    assert config["zero_optimization"]["offload_param"]["device"] == "cpu"
    assert config["zero_allow_untested_optimizer"] and config["gradient_clipping"] == 0.5
