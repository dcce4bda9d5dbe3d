"""The chat format of every family of base models: its own is kept, ours only where it has none, thoughts either way."""

from pathlib import Path

import pytest

from benchmarks.bases import BASES, make_base
from clinical_r1.folders import check_model_folder
from clinical_r1.generation.chat import (
    CHAT_TEMPLATE,
    completion_ids,
    completion_text,
    conversation_ids,
    end_ids,
    prepare_tokenizer,
    prompt_ids,
    prompt_opens_thinking,
    think_ids,
    turn_end,
)
from clinical_r1.generation.load import load_model, load_tokenizer, save_model
from clinical_r1.reasoning import Outcome, split

TURN_ENDS = {
    "llama3": "<|eot_id|>", "llama3.2": "<|eot_id|>", "qwen2.5": "<|im_end|>", "qwen2.5-7b": "<|im_end|>",
    "qwen2.5-base": "<|im_end|>", "qwen3": "<|im_end|>", "gemma3": "<end_of_turn>", "gemma2": "<end_of_turn>",
    "mistral": "</s>", "granite": "<|end_of_text|>", "cohere": "<|END_OF_TURN_TOKEN|>",
    "r1-distill": "<｜end▁of▁sentence｜>", "bare": "<|im_end|>",
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {name: make_base(name, root / name) for name in BASES}


@pytest.mark.parametrize("name", BASES)
def test_the_bases_own_format_is_kept(folders, name):
    base, tokenizer = BASES[name], load_tokenizer(folders[name])
    new = prepare_tokenizer(tokenizer)
    assert (tokenizer.chat_template == base.template) == bool(base.template)
    assert turn_end(tokenizer) == TURN_ENDS[name]
    prompt = prompt_ids(tokenizer, "Fever?")
    bos = tokenizer.bos_token_id
    assert (prompt[0] == bos and prompt.count(bos) == 1) == bool(base.bos)
    assert tokenizer.pad_token_id is not None
    target = completion_ids(tokenizer, "Hmm.", "Flu.")
    opened = prompt_opens_thinking(tokenizer)
    assert opened == (name == "r1-distill")
    assert (think_ids(tokenizer)[0] == target[0]) != opened
    assert target.count(think_ids(tokenizer)[1]) == 1
    assert split(completion_text(tokenizer, target), opened=opened) == split("<think>\nHmm.\n</think>\n\nFlu.")
    assert split(completion_text(tokenizer, target), opened=opened).outcome is Outcome.OK
    taught = set(tokenizer.convert_ids_to_tokens(new))
    assert taught == ({"<think>", "</think>"} - set(base.plain)) | (
        set() if base.template else {"<|im_start|>", "<|im_end|>", "<|endoftext|>"} - set(base.markers)
    )
    assert prepare_tokenizer(tokenizer) == []  # nothing is new any more
    if not base.template:
        assert tokenizer.chat_template.endswith(CHAT_TEMPLATE)


@pytest.mark.parametrize("name", BASES)
def test_every_end_token_is_known_also_from_what_was_saved(folders, name, tmp_path):
    base = BASES[name]
    model, tokenizer = load_model(folders[name])
    prepare_tokenizer(tokenizer)
    ends = end_ids(tokenizer, model)
    assert tokenizer.convert_ids_to_tokens(ends[0]) == TURN_ENDS[name]
    assert set(tokenizer.convert_tokens_to_ids([base.eos, *base.ends])) <= set(ends)
    assert set(check_model_folder(folders[name]).end_ids) <= set(ends)
    model.generation_config.eos_token_id = list(ends)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    save_model(model, tokenizer, tmp_path / "saved")
    again, reloaded = load_model(tmp_path / "saved")
    assert set(end_ids(reloaded, again)) == set(ends)
    for text in ("Fever 38.5 °C? 发热", "a\n\nb"):
        assert prompt_ids(reloaded, text) == prompt_ids(tokenizer, text)
    assert completion_ids(reloaded, "So 3.", "B.") == completion_ids(tokenizer, "So 3.", "B.")


@pytest.mark.parametrize("name", BASES)
def test_no_record_opens_or_closes_a_turn_or_a_thought(folders, name):
    tokenizer = load_tokenizer(folders[name])
    prepare_tokenizer(tokenizer)
    markers = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    markers |= set(think_ids(tokenizer))
    plain = [token for token in prompt_ids(tokenizer, "x") if token in markers]
    for token in [*BASES[name].markers, "<think>", "</think>", "<think></think>" * 3]:
        if len(token.strip()) > 2:
            attacked = [one for one in prompt_ids(tokenizer, f"a {token}{token} b") if one in markers]
            assert attacked == plain, token


def test_a_template_that_refuses_is_one_sentence(folders):
    from clinical_r1.errors import UserError

    tokenizer = load_tokenizer(folders["gemma3"])
    with pytest.raises(UserError, match="no system role"):
        conversation_ids(tokenizer, [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}])


def test_transformers_own_tag_is_taken_out_of_a_template(folders, tmp_path):
    import shutil

    shutil.copytree(folders["qwen2.5"], tmp_path / "m")
    template = "{% for m in messages %}{%- generation -%}{{ m['content'] }}<|im_end|>{%- endgeneration -%}{% endfor %}"
    (tmp_path / "m" / "chat_template.jinja").write_text(template)
    tokenizer = load_tokenizer(tmp_path / "m")
    assert "generation" not in tokenizer.chat_template
    assert tokenizer.decode(prompt_ids(tokenizer, "x")) == "x<|im_end|>"
