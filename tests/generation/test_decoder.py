import pytest
import torch

from clinical_r1.errors import UserError
from clinical_r1.generation.chat import prompt_ids
from clinical_r1.generation.decoder import Decoder, SamplingParams, draw

PROMPTS = [[5, 6, 7, 8, 9], [10], list(range(20, 90)), [11, 12, 13]]


def params(tokenizer, **changes) -> SamplingParams:
    options = {"max_new_tokens": 40, "eos_token_ids": (tokenizer.eos_token_id,), "pad_token_id": tokenizer.pad_token_id}
    return SamplingParams(**(options | changes))


def reference_logprobs(model, prompt, tokens, temperature=1.0):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1].float()
    return torch.log_softmax(logits / temperature, -1).gather(1, torch.tensor(tokens)[:, None])[:, 0]


@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.7])
def test_logprobs_are_those_of_a_plain_forward_pass(loaded, temperature):
    model, tokenizer = loaded
    rollouts = Decoder(model).generate(PROMPTS, params(tokenizer, temperature=temperature))
    for prompt, rollout in zip(PROMPTS, rollouts, strict=True):
        expected = reference_logprobs(model, prompt, rollout.token_ids, temperature or 1.0)
        assert torch.tensor(rollout.logprobs) == pytest.approx(expected, abs=1e-4)
        assert rollout.finished == (rollout.token_ids[-1] == tokenizer.eos_token_id)
        assert tokenizer.eos_token_id not in rollout.token_ids[:-1]


def test_greedy_equals_hf_generate(loaded):
    model, tokenizer = loaded
    rollouts = Decoder(model).generate(PROMPTS, params(tokenizer, temperature=0.0))
    for prompt, rollout in zip(PROMPTS, rollouts, strict=True):
        ids = torch.tensor([prompt])
        output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=40)
        assert rollout.token_ids == output[0, len(prompt) :].tolist()


def test_a_repetition_penalty_is_that_of_hf_generate(loaded):
    model, tokenizer = loaded
    plain = Decoder(model).generate(PROMPTS, params(tokenizer, temperature=0.0))
    rollouts = Decoder(model).generate(PROMPTS, params(tokenizer, temperature=0.0, repetition_penalty=1.5))
    assert [one.token_ids for one in plain] != [one.token_ids for one in rollouts]
    for prompt, rollout in zip(PROMPTS, rollouts, strict=True):
        ids = torch.tensor([prompt])
        how = {"do_sample": False, "max_new_tokens": 40, "repetition_penalty": 1.5}
        output = model.generate(ids, attention_mask=torch.ones_like(ids), **how)
        assert rollout.token_ids == output[0, len(prompt) :].tolist()


def test_penalised_rows_do_not_depend_on_their_batch(loaded):
    model, tokenizer = loaded
    many, seeds = [[token] for token in range(5, 25)], list(range(20))
    how = params(tokenizer, eos_token_ids=tuple(range(0, len(tokenizer), 8)), repetition_penalty=1.4, top_k=40)
    together = Decoder(model).generate(many, how, seeds=seeds)
    assert len({len(rollout.token_ids) for rollout in together}) > 5
    for row in range(20):
        alone = Decoder(model).generate([many[row]], how, seeds=[seeds[row]])[0]
        assert alone.token_ids == together[row].token_ids


def test_what_top_k_and_min_p_leave_out_is_never_drawn():
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log().repeat(1000, 1)
    uniform = torch.linspace(0, 1, 1000, dtype=torch.float64)

    def drawn(**how) -> list[int]:
        return torch.bincount(draw(logits, uniform, SamplingParams(**how))[0], minlength=4).tolist()

    assert drawn() == pytest.approx([400, 300, 200, 100], abs=2)
    assert drawn(top_k=2) == pytest.approx([571, 429, 0, 0], abs=2)
    assert drawn(min_p=0.4) == pytest.approx([444, 333, 222, 0], abs=2)
    assert drawn(top_k=3, top_p=0.7) == pytest.approx([571, 429, 0, 0], abs=2), "top_p is of what top_k keeps"
    assert drawn(top_k=9, min_p=0.0) == drawn(top_k=0) == drawn(), "off"


def test_rows_do_not_depend_on_their_batch(loaded):
    model, tokenizer = loaded
    many = [[token] for token in range(5, 60)]
    seeds = [1000 + token for token in range(55)]
    # Half of the vocabulary ends a row, so that rows leave all the time and compaction happens often.
    ends = tuple(range(0, len(tokenizer), 8))
    together = Decoder(model).generate(many, params(tokenizer, eos_token_ids=ends), seeds=seeds)
    split = Decoder(model, batch_tokens=200).generate(many, params(tokenizer, eos_token_ids=ends), seeds=seeds)
    assert len({len(rollout.token_ids) for rollout in together}) > 5
    for row, rollout in enumerate(together):
        alone = Decoder(model).generate([many[row]], params(tokenizer, eos_token_ids=ends), seeds=[seeds[row]])[0]
        assert rollout.token_ids == alone.token_ids == split[row].token_ids
        assert rollout.logprobs == pytest.approx(alone.logprobs, abs=1e-4)


def test_same_seed_same_text_other_seed_other_text(loaded):
    model, tokenizer = loaded
    decoder = Decoder(model)
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

    rollouts = Decoder(model).generate(PROMPTS, params(tokenizer, eos_token_ids=()), on_token)
    assert [seen[row] for row in range(4)] == [rollout.token_ids for rollout in rollouts]
    assert [len(rollout.token_ids) for rollout in rollouts] == [40, 40, 3, 40]
    assert not any(rollout.finished for rollout in rollouts)


def test_refresh_takes_over_new_weights(folder):
    from clinical_r1.generation.load import load_model

    model, tokenizer = load_model(folder)
    decoder = Decoder(model)
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
    rollout = Decoder(wrapped).generate([PROMPTS[0]], params(tokenizer))[0]
    expected = reference_logprobs(wrapped.eval(), PROMPTS[0], rollout.token_ids)
    assert torch.tensor(rollout.logprobs) == pytest.approx(expected, abs=1e-4)


def test_draw_follows_the_distribution_and_top_p():
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.15, 0.1]])).expand(4000, -1)
    uniform = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    tokens, logprobs = draw(logits, uniform, SamplingParams())
    assert (torch.bincount(tokens) / 4000).tolist() == pytest.approx([0.5, 0.25, 0.15, 0.1], abs=1e-3)
    assert logprobs[0].exp().item() == pytest.approx(0.5)
    tokens, _ = draw(logits, uniform, SamplingParams(top_p=0.7))
    assert torch.bincount(tokens, minlength=4).tolist() == [2667, 1333, 0, 0]


def test_too_long_a_prompt_is_refused(loaded):
    model, tokenizer = loaded
    with pytest.raises(UserError, match="window of 256"):
        Decoder(model).generate([[1] * 250], params(tokenizer))


def test_chat_prompt_runs(loaded):
    model, tokenizer = loaded
    prompt = prompt_ids(tokenizer, "Fever and cough?")
    assert Decoder(model).generate([prompt], params(tokenizer, max_new_tokens=3))[0].token_ids
