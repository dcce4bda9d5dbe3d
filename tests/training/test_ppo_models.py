"""The models of PPO: log-probabilities are the same padded or alone, chunked or whole, sampled or recomputed."""

import pytest
import torch
from ppo_fixtures import cases, config

from clinical_r1.generation.chat import prompt_ids
from clinical_r1.generation.decoder import Decoder, SamplingParams
from clinical_r1.generation.load import load_model
from clinical_r1.training.lora import merged_state
from clinical_r1.training.ppo.batch import Batch, Episode, part
from clinical_r1.training.ppo.engines import Engines, Policy, write_model
from clinical_r1.training.ppo.trainer import Learner

pytestmark = pytest.mark.usefixtures("group_of_one")


@pytest.fixture(scope="module")
def loaded(sft_model):
    return load_model(sft_model)


def rollout(model, tokenizer, count=6, temperature=1.0) -> list[Episode]:
    prompts = [prompt_ids(tokenizer, case.prompt) for case in cases(count, 5)]
    params = SamplingParams(48, temperature, 1.0, 0, (tokenizer.eos_token_id,), tokenizer.pad_token_id)
    rollouts = Decoder(model).generate(prompts, params)
    return [Episode(0, p, r.token_ids, r.logprobs, r.finished) for p, r in zip(prompts, rollouts, strict=True)]


def flat_logprobs(model, episode: Episode, temperature=1.0) -> torch.Tensor:
    """Each sequence alone, through the model's own logits."""
    ids = torch.tensor([episode.prompt + episode.completion])
    logits = model(input_ids=ids).logits[0, len(episode.prompt) - 1 : -1].float() / temperature
    return logits.log_softmax(-1).gather(-1, torch.tensor(episode.completion)[:, None])[:, 0]


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_padded_equals_flat_and_rollout_equals_trainer(loaded, temperature):
    model, tokenizer = loaded
    made = rollout(model, tokenizer, temperature=temperature)
    assert len({episode.length for episode in made}) > 1
    batch = Batch(made, 3, tokenizer.pad_token_id)
    policy = Policy(model, temperature)
    for micro in batch.micro_batches:
        logprobs = policy(micro)[0]
        for index, row in enumerate(micro.rows):
            count = len(made[row].completion)
            torch.testing.assert_close(
                logprobs[index, :count], flat_logprobs(model, made[row], temperature), atol=1e-4, rtol=0
            )
        torch.testing.assert_close(logprobs * micro.mask, part(batch.sampled, micro), atol=1e-4, rtol=0)


@pytest.mark.parametrize("with_entropy", [True, False])
def test_chunks_change_neither_values_nor_gradients(loaded, with_entropy):
    model, tokenizer = loaded
    micro = Batch(rollout(model, tokenizer), 6, tokenizer.pad_token_id).micro_batches[0]
    results = []
    for chunk in (10_000, 7):
        model.zero_grad()
        logprobs, entropy = Policy(model, 0.8, chunk)(micro, with_entropy)
        ((logprobs * logprobs.detach()).sum() + entropy.sum()).backward()
        results.append([logprobs.detach(), entropy.detach(), *(p.grad.clone() for p in model.parameters())])
    model.zero_grad()
    for whole, chunked in zip(*results, strict=True):
        torch.testing.assert_close(whole, chunked, atol=2e-4, rtol=1e-4)


def test_entropy_is_that_of_the_distribution(loaded):
    model, tokenizer = loaded
    made = rollout(model, tokenizer, 1)
    micro = Batch(made, 1, tokenizer.pad_token_id).micro_batches[0]
    ids = torch.tensor([made[0].prompt + made[0].completion])
    with torch.no_grad():
        entropy = Policy(model)(micro, entropy=True)[1]
        logits = model(input_ids=ids).logits[0, len(made[0].prompt) - 1 : -1]
    torch.testing.assert_close(entropy[0], torch.distributions.Categorical(logits=logits).entropy(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_first_updates_ratio_is_exactly_1(sft_model, stage):
    settings = config(batch_size=4, minibatches=1, deepspeed={"stage": stage})
    engines = Engines(settings, sft_model)
    decoder = Decoder(engines.policy.model)
    prompts = [prompt_ids(engines.tokenizer, case.prompt) for case in cases(4, 5)]
    params = SamplingParams(48, 1.0, 1.0, 0, (engines.tokenizer.eos_token_id,), engines.tokenizer.pad_token_id)
    made = [
        Episode(0, p, r.token_ids, r.logprobs, r.finished)
        for p, r in zip(prompts, decoder.generate(prompts, params), strict=True)
    ]
    batch = Batch(made, 2, engines.tokenizer.pad_token_id)
    batch.advantages = torch.randn_like(batch.sampled) * batch.mask
    batch.returns = torch.randn_like(batch.sampled) * batch.mask
    with engines.as_reference() as reference:
        for micro in batch.micro_batches:
            torch.testing.assert_close(reference(micro)[0], part(batch.sampled, micro), atol=1e-4, rtol=0)
    learner = Learner(settings, engines)
    before = learner.policy(batch, 0, 1, 0.03)
    assert before["clip_fraction"] == 0
    assert before["approx_kl"] == 0
    second, value = learner.policy(batch, 0, 2, 0.03), learner.value(batch, 0, 1, 1)
    assert value["loss"] > 0
    if stage > 0:  # DeepSpeed does not tell it at stage 0
        assert 0 < second["grad_norm"] < 1e4
        assert 0 < value["grad_norm"] < 1e4
    decoder.refresh()
    changed = decoder.generate(prompts[:1], params)[0]
    assert changed.token_ids != made[0].completion or changed.logprobs != made[0].logprobs


def test_adapters_off_is_the_reference_and_export_merges_them(sft_model, tmp_path):
    settings = config(batch_size=4, minibatches=1, lora={"rank": 4, "alpha": 8})
    engines = Engines(settings, sft_model)
    plain, tokenizer = load_model(sft_model)
    made = rollout(plain, tokenizer, 4)
    batch = Batch(made, 2, tokenizer.pad_token_id)
    batch.advantages = torch.randn_like(batch.sampled) * batch.mask
    learner = Learner(settings, engines)
    for step in range(3):
        learner.policy(batch, 0, step, 0.03)
    micro = batch.micro_batches[0]
    with torch.no_grad(), engines.as_reference() as reference:
        torch.testing.assert_close(reference(micro)[0], Policy(plain)(micro)[0], atol=1e-5, rtol=0)
    with torch.no_grad():
        trained = engines.actor(micro)[0]
    assert (trained - part(batch.sampled, micro)).abs().max() > 1e-3
    write_model(engines, tmp_path / "merged")
    merged = load_model(tmp_path / "merged")[0]
    with torch.no_grad():
        torch.testing.assert_close(Policy(merged)(micro)[0], trained, atol=1e-4, rtol=0)
    assert not any("lora" in name for name in merged_state(engines.policy.model))


def test_a_sharded_actor_exports_whole_weights(sft_model, tmp_path):
    engines = Engines(config(deepspeed={"stage": 3}), sft_model)
    write_model(engines, tmp_path / "whole")
    first, second = load_model(sft_model)[0].state_dict(), load_model(tmp_path / "whole")[0].state_dict()
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name])
