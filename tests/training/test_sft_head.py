"""Our language-model head of SFT says and learns what TRL's does."""

import pytest
import torch
from transformers import GraniteConfig, GraniteForCausalLM, Qwen2Config, Qwen2ForCausalLM
from trl.trainer.utils import add_fused_lm_head

from clinical_r1.training.logprobs import score_tokens
from clinical_r1.training.sft import head
from clinical_r1.training.sft.data import IGNORED


def make_model(tied: bool) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=tied,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).train()
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    return model


def batch() -> dict[str, torch.Tensor]:
    """Three rows of unlike lengths, padded on the right, prompts without labels; one row predicts nothing."""
    ids = torch.randint(0, 97, (3, 20), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    labels = ids.masked_fill(mask == 0, IGNORED)
    labels[:, :5] = IGNORED
    labels[2] = IGNORED
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("elements", [2**26, 97 * 4], ids=["one chunk", "chunks of 4"])
def test_scores_and_gradients_are_those_of_trl(tied: bool, elements: int, monkeypatch) -> None:
    monkeypatch.setattr(head, "CHUNK_ELEMENTS", elements)
    theirs = make_model(tied)
    ours = make_model(tied)
    head.install(ours)
    weights = torch.rand(3, 19, generator=torch.Generator().manual_seed(2))  # a gradient that differs by token
    outputs = []
    for model in (theirs, ours):
        output = model(**batch(), use_cache=False, fused_lm_head=True)
        (output.log_probs * weights).sum().backward()
        outputs.append(output)
    assert torch.equal(outputs[0].label_mask, outputs[1].label_mask)
    assert torch.equal(outputs[0].is_top1.bool(), outputs[1].is_top1)
    torch.testing.assert_close(outputs[1].log_probs, outputs[0].log_probs)
    torch.testing.assert_close(outputs[1].entropy, outputs[0].entropy)
    for (name, expected), actual in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_the_head_is_ours_where_it_applies_and_theirs_elsewhere(monkeypatch) -> None:
    model = make_model(tied=False)
    head.install(model)
    calls = []
    monkeypatch.setattr(head, "score_tokens", lambda *args, **kwargs: calls.append(1) or score_tokens(*args, **kwargs))
    model(**batch(), fused_lm_head=True)
    assert calls == [1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(**batch(), fused_lm_head=True)
    model(**batch(), fused_lm_head=True, position_ids=torch.arange(20)[None])
    assert model(**batch()).logits.shape == (3, 20, 97)
    assert calls == [1]


def test_a_model_that_scales_its_logits_is_left_to_trl() -> None:
    torch.manual_seed(0)
    config = GraniteConfig(
        vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, logits_scaling=8.0,
    )  # fmt: skip
    model = GraniteForCausalLM(config).train()
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    before = model(**batch(), fused_lm_head=True).log_probs
    head.install(model)
    assert torch.equal(model(**batch(), fused_lm_head=True).log_probs, before)
    assert before.sum() < 0


def test_a_batch_without_labels_is_a_differentiable_zero() -> None:
    model = make_model(tied=False)
    head.install(model)
    inputs = batch()
    inputs["labels"].fill_(IGNORED)
    output = model(**inputs, fused_lm_head=True)
    assert output.log_probs.sum() == 0
    output.log_probs.sum().backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())
