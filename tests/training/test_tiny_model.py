import hashlib

import pytest

from clinical_r1.errors import UserError
from clinical_r1.generation.load import load_model
from clinical_r1.step import record_step
from clinical_r1.training.base import TinyModelConfig, make_base_model, model_of

SMALL = {"hidden_size": 32, "layers": 2, "vocab_size": 400, "window": 128}


def digest(folder) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_the_same_config_and_corpus_give_the_same_bytes(traces, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        facts = make_base_model(TinyModelConfig(**SMALL, seed=seed), [traces], tmp_path / name)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")
    assert facts["vocabulary"] <= 400


def test_sizes_and_initialisation_are_as_configured(traces, tmp_path):
    config = TinyModelConfig(**SMALL, init_std=0.3, heads=4, kv_heads=2, rope_theta=500.0)
    facts = make_base_model(config, [traces], tmp_path / "m")
    model, tokenizer = load_model(tmp_path / "m")
    assert sum(p.numel() for p in model.parameters()) == facts["parameters"]
    assert model.config.model_type == "qwen2" and model.config.tie_word_embeddings
    assert model.config.rope_parameters["rope_theta"] == 500.0
    assert model.model.layers[0].mlp.down_proj.weight.std().item() == pytest.approx(0.3, rel=0.1)
    assert (
        model.generation_config.eos_token_id == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    )
    assert tokenizer.pad_token == "<|endoftext|>"
    assert len(tokenizer) == model.config.vocab_size


def test_numbers_are_cut_into_digits_as_qwen2_does(base_model):
    from clinical_r1.generation.load import load_tokenizer

    tokens = load_tokenizer(base_model).tokenize("120")
    assert tokens == ["1", "2", "0"]


def test_impossible_sizes_and_a_missing_corpus_are_refused(traces, tmp_path):
    with pytest.raises(UserError, match="must be a multiple"):
        make_base_model(TinyModelConfig(hidden_size=30, heads=4), [traces], tmp_path / "m")
    with pytest.raises(UserError, match=r"absent\.jsonl: no such file"):
        make_base_model(TinyModelConfig(**SMALL), [tmp_path / "absent.jsonl"], tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_new_tokens_start_as_the_mean_of_their_spelling(base_model):
    """A base model that knows no think tags (Qwen2.5) gets rows for them, in the input and the output table."""
    from transformers import AddedToken

    from clinical_r1.training.sft.build import initialise_rows

    model, tokenizer = load_model(base_model)
    tokenizer.add_tokens([AddedToken("<note>", special=False)])
    new = [tokenizer.convert_tokens_to_ids("<note>")]
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    initialise_rows(model, tokenizer, new)
    weight = model.get_input_embeddings().weight
    pieces = [piece.id for piece in tokenizer.backend_tokenizer.model.tokenize("<note>")]
    assert len(pieces) > 1 and weight[new[0]].allclose(weight[pieces].mean(0))
    assert model.get_output_embeddings().weight[new[0]].equal(weight[new[0]])


def test_a_model_is_found_in_its_artifact_or_where_the_steps_record_says(traces, tmp_path):
    step, elsewhere = tmp_path / "artifact", tmp_path / "claim" / "base"
    with pytest.raises(UserError, match="no model in it"):
        model_of(step)
    with record_step("base_model", step) as record:
        record["folder"] = str(elsewhere)
    with pytest.raises(UserError, match=r"nor where its step\.json says"):
        model_of(step)
    make_base_model(TinyModelConfig(**SMALL), [traces], elsewhere)
    assert model_of(step) == elsewhere
    make_base_model(TinyModelConfig(**SMALL), [traces], step / "model")
    assert model_of(step) == step / "model"
