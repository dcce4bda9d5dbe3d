"""The CPU kernels compute what transformers computes: outputs, gradients, and the cases where they step aside."""

import copy

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from clinical_r1.generation import kernels


@pytest.fixture(scope="module")
def model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.3, tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def test_logits_and_gradients_are_those_of_transformers(model: Qwen2ForCausalLM) -> None:
    fast = kernels.install(copy.deepcopy(model))
    plain = copy.deepcopy(model)
    ids = torch.randint(97, (3, 29))
    for one in (plain, fast):
        one(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    ours, theirs = (one(input_ids=ids, use_cache=False).logits for one in (fast, plain))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    for (name, ours), theirs in zip(fast.named_parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None
        scale = float(theirs.grad.abs().max())
        assert float((ours.grad - theirs.grad).abs().max()) < 1e-4 * max(1.0, scale), name


def test_padding_changes_neither_the_gradients_nor_the_order_in_which_they_arrive(model: Qwen2ForCausalLM) -> None:
    """ZeRO-2 adds up what processes send in this order, and one of them may have a batch without padding."""
    fast, plain = kernels.install(copy.deepcopy(model)), copy.deepcopy(model)
    ids = torch.randint(97, (3, 29))
    mask = torch.ones_like(ids)
    mask[1, 20:] = 0
    arrived: list[str] = []
    for name, parameter in fast.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: arrived.append(name))
    fast(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    unpadded = arrived.copy()
    arrived.clear()
    fast.zero_grad()
    labels = ids.masked_fill(mask == 0, -100)
    for one in (plain, fast):
        one(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
    assert arrived == unpadded and len(arrived) == len(list(fast.parameters()))
    for (name, ours), theirs in zip(fast.named_parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None
        scale = float(theirs.grad.abs().max())
        assert float((ours.grad - theirs.grad).abs().max()) < 1e-4 * max(1.0, scale), name


def test_rms_norm_gradients_against_finite_differences() -> None:
    x = torch.randn(2, 3, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: kernels._RMSNorm.apply(x, w, 1e-6), (x, weight))
    both = torch.randn(2, 3, 10, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(kernels._GatedUp.apply, (both,))


def test_padding_masks_caches_and_packed_positions_change_nothing(model: Qwen2ForCausalLM) -> None:
    fast = kernels.install(copy.deepcopy(model)).eval()
    plain = copy.deepcopy(model).eval()
    ids = torch.randint(97, (2, 12))
    left = torch.ones_like(ids)
    left[0, :4] = 0
    packed = torch.cat((torch.arange(7), torch.arange(5)))[None]
    with torch.no_grad():
        for options in (
            {"input_ids": ids, "attention_mask": left, "use_cache": False},
            {"input_ids": ids[:1], "position_ids": packed, "use_cache": False},
        ):
            ours, theirs = fast(**options).logits, plain(**options).logits
            real = options.get("attention_mask", torch.ones_like(options["input_ids"])).bool()
            torch.testing.assert_close(ours[real], theirs[real], atol=1e-4, rtol=1e-4)
        ours = fast.generate(ids, max_new_tokens=6, do_sample=False)
        assert ours.tolist() == plain.generate(ids, max_new_tokens=6, do_sample=False).tolist()


def test_other_types_and_adapters_step_aside(model: Qwen2ForCausalLM) -> None:
    import peft

    ids = torch.randint(97, (2, 9))
    half, plain_half = (copy.deepcopy(model).to(torch.bfloat16) for _ in range(2))
    with torch.no_grad():
        assert torch.equal(
            kernels.install(half)(input_ids=ids, use_cache=False).logits,
            plain_half(input_ids=ids, use_cache=False).logits,
        )
    settings = peft.LoraConfig(r=2, target_modules=["q_proj", "gate_proj"], init_lora_weights=False)
    torch.manual_seed(1)
    adapted = peft.get_peft_model(copy.deepcopy(model), settings)
    with torch.no_grad():
        expected = adapted(input_ids=ids, use_cache=False).logits
        kernels.install(adapted)
        torch.testing.assert_close(adapted(input_ids=ids, use_cache=False).logits, expected, atol=1e-4, rtol=1e-4)
