import pytest
import torch

from clinical_r1.errors import UserError
from clinical_r1.generation.chat import prompt_ids
from clinical_r1.generation.decoder import StaticDecoder, build_decoder
from clinical_r1.generation.fallback import HFDecoder
from clinical_r1.generation.sampling import SamplingParams, draw

PROMPTS = [[5, 6, 7, 8, 9], [10], list(range(20, 90)), [11, 12, 13]]


def params(tokenizer, **changes) -> SamplingParams:
    options = {"max_new_tokens": 40, "eos_token_ids": (tokenizer.eos_token_id,), "pad_token_id": tokenizer.pad_token_id}
    return SamplingParams(**(options | changes))


def reference_logprobs(model, prompt, tokens, temperature=1.0):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1].float()
    return torch.log_softmax(logits / temperature, -1).gather(1, torch.tensor(tokens)[:, None])[:, 0]


@pytest.mark.parametrize("kind", [StaticDecoder, HFDecoder])
@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.7])
def test_logprobs_are_those_of_a_plain_forward_pass(loaded, kind, temperature):
    model, tokenizer = loaded
    rollouts = kind(model).generate(PROMPTS, params(tokenizer, temperature=temperature))
    for prompt, rollout in zip(PROMPTS, rollouts, strict=True):
        expected = reference_logprobs(model, prompt, rollout.token_ids, temperature or 1.0)
        assert torch.tensor(rollout.logprobs) == pytest.approx(expected, abs=1e-4)
        assert rollout.finished == (rollout.token_ids[-1] == tokenizer.eos_token_id)
        assert tokenizer.eos_token_id not in rollout.token_ids[:-1]


def test_greedy_equals_hf_generate(loaded):
    model, tokenizer = loaded
    rollouts = build_decoder(model).generate(PROMPTS, params(tokenizer, temperature=0.0))
    for prompt, rollout in zip(PROMPTS, rollouts, strict=True):
        ids = torch.tensor([prompt])
        output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=40)
        assert rollout.token_ids == output[0, len(prompt) :].tolist()


def test_rows_do_not_depend_on_their_batch(loaded):
    model, tokenizer = loaded
    many = [[token] for token in range(5, 60)]
    seeds = [1000 + token for token in range(55)]
    # Half of the vocabulary ends a row, so that rows leave all the time and compaction happens often.
    ends = tuple(range(0, len(tokenizer), 8))
    together = StaticDecoder(model).generate(many, params(tokenizer, eos_token_ids=ends), seeds=seeds)
    split = StaticDecoder(model, batch_tokens=200).generate(many, params(tokenizer, eos_token_ids=ends), seeds=seeds)
    fallback = HFDecoder(model).generate(many, params(tokenizer, eos_token_ids=ends), seeds=seeds)
    assert len({len(rollout.token_ids) for rollout in together}) > 5
    for row, rollout in enumerate(together):
        alone = StaticDecoder(model).generate([many[row]], params(tokenizer, eos_token_ids=ends), seeds=[seeds[row]])[0]
        assert rollout.token_ids == alone.token_ids == split[row].token_ids == fallback[row].token_ids
        assert rollout.logprobs == pytest.approx(alone.logprobs, abs=1e-4)


def test_same_seed_same_text_other_seed_other_text(loaded):
    model, tokenizer = loaded
    decoder = StaticDecoder(model)
    first, again, other = (
        [rollout.token_ids for rollout in decoder.generate(PROMPTS, params(tokenizer, seed=seed))] for seed in (1, 1, 2)
    )
    assert first == again != other


def test_streaming_reports_every_token_and_stops_a_row_on_request(loaded):
    model, tokenizer = loaded
    seen: dict[int, list[int]] = {}

    def on_token(row: int, token: int) -> bool:
        seen.setdefault(row, []).append(token)
        return row == 2 and len(seen[2]) == 3

    rollouts = StaticDecoder(model).generate(PROMPTS, params(tokenizer, eos_token_ids=()), on_token)
    assert [seen[row] for row in range(4)] == [rollout.token_ids for rollout in rollouts]
    assert [len(rollout.token_ids) for rollout in rollouts] == [40, 40, 3, 40]
    assert not any(rollout.finished for rollout in rollouts)


def test_refresh_takes_over_new_weights(folder):
    from clinical_r1.generation.load import load_model

    model, tokenizer = load_model(folder)
    decoder = StaticDecoder(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    decoder.refresh()
    rollout = decoder.generate([PROMPTS[0]], params(tokenizer))[0]
    expected = reference_logprobs(model, PROMPTS[0], rollout.token_ids)
    assert torch.tensor(rollout.logprobs) == pytest.approx(expected, abs=1e-4)


def test_lora_weights_are_merged_for_rollouts(folder):
    from peft import LoraConfig, get_peft_model

    from clinical_r1.generation.load import load_model

    model, tokenizer = load_model(folder)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], trainable_token_indices=[5, 6])
    wrapped = get_peft_model(model, lora)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name or "token_adapter" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    rollout = StaticDecoder(wrapped).generate([PROMPTS[0]], params(tokenizer))[0]
    expected = reference_logprobs(wrapped.eval(), PROMPTS[0], rollout.token_ids)
    assert torch.tensor(rollout.logprobs) == pytest.approx(expected, abs=1e-4)


YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1000.0, "original_max_position_embeddings": 32}


@pytest.mark.parametrize(("untied", "rope"), [(True, None), (False, None), (True, YARN)])
def test_untied_heads_grouped_queries_and_stretched_positions(untied, rope):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=100, hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=not untied, initializer_range=0.3,
        rope_parameters=rope,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    rollout = StaticDecoder(model).generate([[1, 2, 3]], SamplingParams(20, eos_token_ids=(99,)))[0]
    assert torch.tensor(rollout.logprobs) == pytest.approx(
        reference_logprobs(model, [1, 2, 3], rollout.token_ids), abs=1e-4
    )


def test_other_architectures_use_the_fallback():
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    small = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
    model = LlamaForCausalLM(LlamaConfig(**small, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3))
    decoder = build_decoder(model.eval())
    assert isinstance(decoder, HFDecoder)
    for prompt, rollout in zip([[1, 2], [3]], decoder.generate([[1, 2], [3]], SamplingParams(9)), strict=True):
        expected = reference_logprobs(model, prompt, rollout.token_ids)
        assert torch.tensor(rollout.logprobs) == pytest.approx(expected, abs=1e-4)
    windowed = Qwen2Config(
        **small, num_attention_heads=4, use_sliding_window=True, sliding_window=4, max_window_layers=0
    )
    assert isinstance(build_decoder(Qwen2ForCausalLM(windowed)), HFDecoder)


def test_draw_follows_the_distribution_and_top_p():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.15, 0.1]])).expand(4000, -1)
    uniform = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    tokens, logprobs = draw(logits, uniform, 1.0, 1.0)
    assert (torch.bincount(tokens) / 4000).tolist() == pytest.approx([0.5, 0.25, 0.15, 0.1], abs=1e-3)
    assert logprobs[0].exp().item() == pytest.approx(0.5)
    tokens, _ = draw(logits, uniform, 1.0, 0.7)
    assert torch.bincount(tokens, minlength=4).tolist() == [2667, 1333, 0, 0]


def test_too_long_a_prompt_is_refused(loaded):
    model, tokenizer = loaded
    with pytest.raises(UserError, match="window of 256"):
        StaticDecoder(model).generate([[1] * 250], params(tokenizer))


def test_chat_prompt_runs(loaded):
    model, tokenizer = loaded
    prompt = prompt_ids(tokenizer, "Fever and cough?")
    assert StaticDecoder(model).generate([prompt], params(tokenizer, max_new_tokens=3))[0].token_ids


def test_small_steps_run_on_one_thread_and_the_threads_come_back(loaded):
    model, tokenizer = loaded
    decoder, before = build_decoder(model), torch.get_num_threads()
    seen: list[int] = []
    torch.set_num_threads(2)
    try:
        decoder.generate(
            [[1, 2, 3]], params(tokenizer, max_new_tokens=4), lambda *_: seen.append(torch.get_num_threads())
        )
        assert set(seen) == {1} and torch.get_num_threads() == 2
        with pytest.raises(KeyError):
            decoder.generate([[1, 2, 3]], params(tokenizer, max_new_tokens=4), lambda *_: {}["stop"])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
