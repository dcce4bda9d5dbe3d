"""Packing runs on GPUs only (flash attention); what can be held here is what it does to the data."""

import pytest
from pydantic import ValidationError

from clinical_r1.generation.load import load_tokenizer
from clinical_r1.training.sft.config import SFTConfig, SFTJob
from clinical_r1.training.sft.data import IGNORED, read_examples
from clinical_r1.training.trainee import StopRequest


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"attention": "sdpa", "max_length": 128}, "flash_attention_2"),
        ({"attention": "flash_attention_2"}, "max_length"),
        ({"attention": "flash_attention_2", "max_length": 128, "loss_norm": "constant"}, "loss_norm"),
    ],
)
def test_packing_that_would_mix_or_cut_is_refused(settings, words):
    with pytest.raises(ValidationError, match=words):
        SFTConfig(packing=True, **settings)


def test_packing_cuts_nothing_and_trains_every_completion_token(traces, base_model, tmp_path):
    from clinical_r1.training.sft.build import build_trainer

    tokenizer = load_tokenizer(base_model)
    examples = read_examples(traces, tokenizer, 256)
    config = SFTConfig(packing=True, attention="flash_attention_2", max_length=250, deepspeed=None, batch_size=2)
    job = SFTJob.model_construct(
        config=config.model_copy(update={"attention": "sdpa"}),  # nothing is computed here
        traces=traces, base_model=base_model, out_dir=tmp_path / "out", state_dir=tmp_path / "state",
    )  # fmt: skip
    trainer, _ = build_trainer(job, tokenizer, [], examples, [], 1, StopRequest(), None)
    rows = trainer.train_dataset
    assert len(rows) < len(examples)
    trained = sum(label != IGNORED for row in rows for label in row["labels"])
    assert trained == sum(example.completion_length for example in examples)
    assert sum(len(row["input_ids"]) for row in rows) == sum(len(example.input_ids) for example in examples)
    batch = next(iter(trainer.get_train_dataloader()))
    assert "attention_mask" not in batch and (batch["position_ids"] == 0).sum() == len(batch["cu_seq_lens_q"]) - 1
    assert len(trainer.order) == -(-len(rows) // 2) * 2
