"""Packing: what it does to the data, and that no packed example sees another. On GPUs the same shapes go to torch's
flash attention; here attention `varlen` computes one example at a time."""

import pytest
from pydantic import ValidationError

from clinical_r1.errors import UserError
from clinical_r1.generation.load import load_tokenizer
from clinical_r1.training.sft.config import SFTConfig, SFTJob
from clinical_r1.training.sft.data import IGNORED, read_examples


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"packing": True, "attention": "sdpa", "max_length": 128}, "needs attention varlen"),
        ({"attention": "varlen"}, "set packing to true"),
    ],
)
def test_packing_that_would_mix_or_cut_is_refused(settings, words):
    with pytest.raises(ValidationError, match=words):
        SFTConfig(**settings)


def packed_job(traces, base_model, tmp_path, **changes):
    settings = {"packing": True, "attention": "varlen", "max_length": 250, "deepspeed": None, "batch_size": 2}
    return SFTJob(
        config=SFTConfig(**(settings | changes)),
        traces=traces, base_model=base_model, out_dir=tmp_path / "out", state_dir=tmp_path / "state",
    )  # fmt: skip


def test_packing_cuts_nothing_and_trains_every_completion_token(traces, base_model, tmp_path):
    from clinical_r1.training.sft.build import build_trainer

    tokenizer = load_tokenizer(base_model)
    examples = read_examples(traces, tokenizer, 256)[0]
    job = packed_job(traces, base_model, tmp_path)
    trainer = build_trainer(job, tokenizer, [], examples, [], None)
    batch = next(iter(trainer.get_train_dataloader()))
    assert "attention_mask" not in batch and (batch["position_ids"] == 0).sum() == len(batch["cu_seq_lens_q"]) - 1
    # batch_size is examples a step, packed or not
    assert len(batch["cu_seq_lens_q"]) - 1 == job.config.batch_size
    assert len(trainer.order) == -(-len(examples) // 2) * 2
    trained = sum(int((one["labels"] != IGNORED).sum()) for one in trainer.get_train_dataloader())
    drawn_again = len(trainer.order) - len(examples)
    assert trained >= sum(example.completion_length for example in examples)
    assert (trained == sum(example.completion_length for example in examples)) == (not drawn_again)


def test_a_packed_example_is_scored_as_it_is_alone(traces, base_model, tmp_path):
    """Loss and gradients of a packed batch are those of its examples one by one, each divided by the same tokens."""
    import torch

    from clinical_r1.generation.load import load_model
    from clinical_r1.training.sft.build import build_trainer

    tokenizer = load_tokenizer(base_model)
    examples = read_examples(traces, tokenizer, 256)[0][:12]
    trainer = build_trainer(packed_job(traces, base_model, tmp_path), tokenizer, [], examples, [], None)
    trainer.model.load_state_dict(load_model(base_model)[0].state_dict())
    alone, _ = load_model(base_model, attn_implementation="eager")
    tokens = 0
    trainer.model.zero_grad()
    for batch in trainer.get_train_dataloader():
        batch = {name: value for name, value in batch.items() if name != "seq_idx"}
        trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.tensor(1)).backward()
        tokens += int((batch["labels"] != IGNORED).sum())
    for example in examples:
        ids, labels = torch.tensor([example.input_ids]), torch.tensor([example.labels])
        logits = alone(input_ids=ids).logits[0, :-1]
        torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum", ignore_index=IGNORED).backward()
    assert tokens == sum(example.completion_length for example in examples)
    for (name, packed), one in zip(trainer.model.named_parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(packed.grad, one.grad, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: name + text)


def test_attention_varlen_refuses_a_batch_that_is_not_packed(traces, base_model):
    import torch

    from clinical_r1.generation.load import load_model
    from clinical_r1.training.varlen import register

    register()
    model, _ = load_model(base_model, attn_implementation="varlen")
    ids, bounds = torch.tensor([[1, 2, 3]]), {"cu_seq_lens_q": torch.tensor([0, 3]), "max_length_q": 3}
    with pytest.raises(ValueError, match="packed examples only"):
        model(input_ids=ids)
    assert model(input_ids=ids, **bounds).logits.shape[1] == 3
    for layer in model.model.layers:
        layer.self_attn.sliding_window = 2
    with pytest.raises(UserError, match="window is 2 tokens"):
        model(input_ids=ids, **bounds)
