"""What we save brings no sampling of its base: vLLM would fill it into whatever a request leaves out."""

import json

from transformers import GenerationConfig

from clinical_r1.generation.load import load_model, save_model


def test_a_saved_folder_brings_no_sampling_of_its_base(base_model, tmp_path) -> None:
    model, tokenizer = load_model(base_model)
    ends = [model.generation_config.eos_token_id, 0]
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.05, eos_token_id=ends
    )
    saved = json.loads((save_model(model, tokenizer, tmp_path / "out") / "generation_config.json").read_text())
    assert saved["eos_token_id"] == ends
    assert not {"temperature", "top_p", "top_k", "repetition_penalty", "min_p"} & set(saved)
    assert not saved.get("do_sample")
