"""PPO's arithmetic against plain loops and hand-computed cases."""

import math

import pytest
import torch

from clinical_r1.training.ppo.algorithm import (
    adapted_beta,
    advantages_and_returns,
    explained_variance,
    group_advantages,
    importance_weights,
    learning_rate_factor,
    length_mask,
    policy_loss,
    reference_kl,
    token_rewards,
    value_loss,
    whiten,
)
from clinical_r1.training.ppo.batch import Batch, Episode, draw_order, micro_batches, part, put, stream_seeds


def test_mask_goes_by_length():
    assert length_mask(torch.tensor([1, 3]), 3).tolist() == [[1, 0, 0], [1, 1, 1]]


def test_kl_penalty_and_reward_on_the_last_real_token():
    kl = torch.tensor([[0.5, -0.25, 0.0], [1.0, 2.0, 4.0]])
    rewards = token_rewards(torch.tensor([1.0, 0.1]), kl, torch.tensor([2, 3]), beta=0.1)
    expected = torch.tensor([[-0.05, 0.025 + 1.0, 0.0], [-0.1, -0.2, -0.4 + 0.1]])
    torch.testing.assert_close(rewards, expected)


def plain_gae(rewards, values, gamma, lam):
    """Schulman et al. 2016, equation 16, by its definition."""
    result = []
    for start in range(len(rewards)):
        total = 0.0
        for offset in range(len(rewards) - start):
            at = start + offset
            following = values[at + 1] if at + 1 < len(rewards) else 0.0
            total += (gamma * lam) ** offset * (rewards[at] + gamma * following - values[at])
        result.append(total)
    return result


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (1.0, 0.95), (0.9, 0.5), (1.0, 0.0)])
def test_gae_equals_its_definition(gamma, lam):
    torch.manual_seed(0)
    lengths = torch.tensor([5, 1, 7])
    mask = length_mask(lengths, 7)
    rewards, values = torch.randn(3, 7) * mask, torch.randn(3, 7)
    advantage, returns = advantages_and_returns(rewards, values, mask, gamma, lam)
    for row, length in enumerate(lengths.tolist()):
        expected = plain_gae(rewards[row, :length].tolist(), values[row, :length].tolist(), gamma, lam)
        torch.testing.assert_close(advantage[row, :length], torch.tensor(expected))
        assert not advantage[row, length:].any()
    torch.testing.assert_close(returns * mask, (advantage + values) * mask)


def test_lambda_1_returns_are_the_whole_reward_to_go():
    rewards = torch.tensor([[0.1, 0.0, 1.0]])
    _, returns = advantages_and_returns(rewards, torch.randn(1, 3), torch.ones(1, 3), 1.0, 1.0)
    torch.testing.assert_close(returns, torch.tensor([[1.1, 1.0, 1.0]]))


def test_clip_by_hand():
    """Ratios 1.5 and 0.5 with clip 0.2: a gain stops at 1.2, a loss is not forgiven."""
    logprobs = torch.log(torch.tensor([[1.5, 1.5, 0.5, 0.5]])).requires_grad_()
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    loss, clipped, _ = policy_loss(logprobs, torch.zeros(1, 4), advantages, torch.ones(1, 4), 0.2)
    assert float(loss) == pytest.approx(-(1.2 - 1.5 + 0.5 - 0.8))
    assert float(clipped) == 4
    loss.backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([[0.0, 1.5, -0.5, 0.0]]))


def test_masked_tokens_have_no_loss_even_where_the_numbers_are_wild():
    logprobs = torch.tensor([[0.0, 500.0]], requires_grad=True)
    loss, _, _ = policy_loss(logprobs, torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([[1.0, 0.0]]), 0.2)
    loss.backward()
    assert loss == -1.0
    assert logprobs.grad[0, 1] == 0


def test_approximate_kl_is_k3():
    logprobs = torch.tensor([[0.3]])
    _, _, approx_kl = policy_loss(logprobs, torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1, 1), 0.2)
    assert float(approx_kl) == pytest.approx(math.exp(0.3) - 1 - 0.3, rel=1e-5)


def test_value_loss_takes_the_worse_of_free_and_clipped():
    values, old, returns = torch.tensor([[1.0, 0.1]]), torch.zeros(1, 2), torch.tensor([[1.0, 1.0]])
    mask = torch.ones(1, 2)
    assert float(value_loss(values, old, returns, mask, None)) == pytest.approx(0.5 * 0.81)
    assert float(value_loss(values, old, returns, mask, 0.2)) == pytest.approx(0.5 * (0.64 + 0.81))


def test_whitening_ignores_the_mask_and_scales():
    values, mask = torch.tensor([[1.0, 3.0, 99.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    torch.testing.assert_close(whiten(values, mask), torch.tensor([[-1.0, 1.0, 0.0]]), atol=1e-4, rtol=0)


def test_explained_variance():
    returns, mask = torch.tensor([[0.0, 1.0, 5.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    assert explained_variance(returns, returns, mask) == pytest.approx(1.0)
    assert explained_variance(torch.full((1, 3), 0.5), returns, mask) == pytest.approx(0.0)
    assert math.isnan(explained_variance(torch.randn(1, 3), torch.ones(1, 3), mask))


def test_grpo_by_hand():
    """Rewards 1, 0, 0, 0: mean 1/4, deviation with n - 1 is 1/2."""
    scores, kept = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]), torch.ones(8)
    expected = [1.5, -0.5, -0.5, -0.5, 0, 0, 0, 0]
    torch.testing.assert_close(group_advantages(scores, kept, 4, "grpo"), torch.tensor(expected), atol=1e-3, rtol=0)
    unscaled = group_advantages(scores, kept, 4, "grpo", "none")
    torch.testing.assert_close(unscaled, torch.tensor([0.75, -0.25, -0.25, -0.25, 0, 0, 0, 0]))
    batch = group_advantages(scores, kept, 4, "grpo", "batch")
    torch.testing.assert_close(batch, unscaled / (scores.std() + 1e-4))


def test_rloo_by_hand():
    """Less the mean of the three others."""
    scores = torch.tensor([1.0, 0.0, 0.0, 0.5])
    expected = [1 - 1 / 6, -0.5, -0.5, 0.5 - 1 / 3]
    torch.testing.assert_close(group_advantages(scores, torch.ones(4), 4, "rloo"), torch.tensor(expected))


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_failed_judgements_are_in_no_group(algorithm):
    """They earn nothing, change nobody's baseline, and who is left alone is compared with nobody."""
    scores, kept = torch.tensor([1.0, 0.0, 9.0, 1.0, 9.0, 9.0]), torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    found = group_advantages(scores, kept, 3, algorithm)
    pair = group_advantages(scores[:2], kept[:2], 2, algorithm)
    torch.testing.assert_close(found, torch.cat([pair, torch.zeros(4)]))
    assert not group_advantages(scores, torch.zeros(6), 3, algorithm).any()


def test_clip_higher_lets_rare_tokens_grow():
    logprobs = torch.log(torch.tensor([[1.25, 0.5]])).requires_grad_()
    loss, clipped, _ = policy_loss(
        logprobs, torch.zeros(1, 2), torch.tensor([[1.0, -1.0]]), torch.ones(1, 2), 0.2, None, 0.28
    )
    assert float(loss) == pytest.approx(-(1.25 - 0.8))
    assert float(clipped) == 1
    loss.backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([[-1.25, 0.0]]))


def test_grpos_penalty_is_k3_of_the_reference_with_a_gradient():
    logprobs, reference = torch.tensor([[-1.0, -2.0]], requires_grad=True), torch.tensor([[-0.5, -9.0]])
    found = reference_kl(logprobs, reference, torch.tensor([[1.0, 0.0]]))
    found.backward()
    assert float(found) == pytest.approx(math.exp(0.5) - 0.5 - 1, rel=1e-5)
    torch.testing.assert_close(logprobs.grad, torch.tensor([[1 - math.exp(0.5), 0.0]]))


def test_importance_weights_are_capped():
    weights = importance_weights(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.0]), 2.0)
    torch.testing.assert_close(weights, torch.tensor([math.exp(-0.5), 2.0]))


def test_adaptive_beta_moves_towards_its_target():
    assert adapted_beta(0.03, 99.0, None, 64) == 0.03
    assert adapted_beta(0.03, 20.0, 10.0, 64) == pytest.approx(0.03 * (1 + 0.2 * 64 / 10_000))
    assert adapted_beta(0.03, 1.0, 10.0, 64) < 0.03


def test_learning_rates():
    assert learning_rate_factor(1, 10, 4, "constant") == 0.25
    assert learning_rate_factor(9, 10, 4, "constant") == 1
    assert learning_rate_factor(10, 10, 0, "linear") == pytest.approx(0.1)
    assert learning_rate_factor(10, 10, 0, "cosine") == pytest.approx(0.1)


def episodes(lengths):
    return [Episode(0, [5] * (3 + i % 2), [7] * n, [-1.0] * n, True) for i, n in enumerate(lengths)]


def test_micro_batches_hold_rows_of_similar_length_and_all_rows_once():
    micros = micro_batches(episodes([9, 1, 5, 2, 7, 3]), 2, pad=0)
    assert sorted(row for micro in micros for row in micro.rows) == list(range(6))
    assert [micro.ids.shape[1] for micro in micros] == sorted(micro.ids.shape[1] for micro in micros)


def test_pad_equal_to_eos_is_safe():
    """The end of the turn is a token of the completion also where padding has the same id."""
    made = [Episode(0, [5, 6], [8, 2], [-1.0, -2.0], True), Episode(0, [5], [8, 9, 9, 2], [-1.0] * 4, True)]
    batch = Batch(made, 2, pad=2)
    micro = batch.micro_batches[0]
    for index, row in enumerate(micro.rows):
        count = len(made[row].completion)
        assert micro.mask[index].sum() == count
        assert micro.targets[index, :count].tolist() == made[row].completion
    assert batch.mask.sum(1).tolist() == [2, 4]


def test_parts_of_a_batch_go_back_where_they_came_from():
    batch = Batch(episodes([4, 2, 6, 1]), 2, pad=0)
    for micro in batch.micro_batches:
        put(batch.values, micro, torch.full_like(micro.mask, 1.0) * (torch.tensor(micro.rows)[:, None] + 1))
    torch.testing.assert_close(batch.values, batch.mask * torch.arange(1, 5)[:, None])
    micro = batch.micro_batches[0]
    torch.testing.assert_close(part(batch.values, micro), batch.values[micro.rows, : micro.time])


def test_prompt_order_is_an_endless_stream_of_shuffled_passes():
    whole = draw_order(10, seed=3, stream=0, first=0, size=25)
    assert sorted(whole[:10]) == sorted(whole[10:20]) == list(range(10))
    assert whole[:10] != whole[10:20]
    assert draw_order(10, 3, 0, 7, 9) == whole[7:16]
    assert draw_order(10, 3, 1, 0, 10) != whole[:10]
    assert stream_seeds(1, 0, 2, 4) == stream_seeds(1, 0, 2, 4) != stream_seeds(1, 0, 3, 4)
