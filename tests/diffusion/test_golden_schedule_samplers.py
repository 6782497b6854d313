"""Every array of golden/schedule_samplers, and the laws of drawing and remembering."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffcli.diffusion.schedule_samplers import (
    LossSecondMomentSampler,
    UniformSampler,
    build_schedule_sampler,
    inverse_cdf,
)
from diffcli.errors import UsageError

GOLDEN = Path(__file__).parents[1] / "golden"
FACTS = json.loads((GOLDEN / "schedule_samplers.json").read_text())
ARRAYS = {key: torch.from_numpy(array) for key, array in np.load(GOLDEN / "schedule_samplers.npz").items()}


def recorded_uniforms(seed, count):
    """The numbers behind numpy's legacy `choice`, which inverts the distribution function as we do."""
    return torch.from_numpy(np.random.RandomState(int(seed)).random_sample(count))


def assert_probabilities(sampler, recorded_weights):
    torch.testing.assert_close(
        sampler.probabilities, recorded_weights / recorded_weights.sum(), rtol=1e-12, atol=0
    )


def under(prefix):
    return {key for key in ARRAYS if key.startswith(f"{prefix}/")}


def test_every_recorded_array_belongs_to_a_test_below():
    assert len(under("lsm")) == 11
    assert len(under("uniform")) == 4
    assert len(under("two_ranks")) == 5
    assert len(ARRAYS) == 20


def test_loss_second_moment():
    facts = FACTS["lsm"]
    sampler = LossSecondMomentSampler(facts["num_timesteps"], facts["history_per_term"])
    assert_probabilities(sampler, ARRAYS["lsm/weights_after_each_update"][0])
    for update, (t, losses) in enumerate(zip(ARRAYS["lsm/ts"], ARRAYS["lsm/losses"], strict=True)):
        sampler.update(t, losses)
        state = sampler.state_tensors()
        assert torch.equal(state["history"], ARRAYS["lsm/history_after_each_update"][update])
        assert torch.equal(state["counts"], ARRAYS["lsm/counts_after_each_update"][update])
        assert_probabilities(sampler, ARRAYS["lsm/weights_after_each_update"][update + 1])
        warmed_up = update >= facts["first_warm_update_index"]
        assert warmed_up == bool(ARRAYS["lsm/warmed_up"][update])
        assert warmed_up == (sampler.probabilities.unique().numel() > 1)
    torch.testing.assert_close(sampler.probabilities, ARRAYS["lsm/final_p"], rtol=1e-12, atol=0)
    probabilities = sampler.probabilities
    torch.testing.assert_close(
        1 / (len(probabilities) * probabilities),
        ARRAYS["lsm/importance_weight_for_every_t_float64"],
        rtol=1e-12,
        atol=0,
    )
    assert_draws(sampler, "lsm")


def test_uniform():
    sampler = UniformSampler(len(ARRAYS["uniform/weights"]))
    torch.testing.assert_close(
        sampler.probabilities, ARRAYS["uniform/weights"] / ARRAYS["uniform/weights"].sum()
    )
    assert_draws(sampler, "uniform")


def assert_draws(sampler, prefix):
    indices = ARRAYS[f"{prefix}/sample_indices"]
    drawn = sampler.draw(recorded_uniforms(ARRAYS[f"{prefix}/sample_numpy_seed"], len(indices)))
    assert torch.equal(drawn.t, indices)
    torch.testing.assert_close(drawn.weights, ARRAYS[f"{prefix}/sample_weights"], rtol=1e-6, atol=0)


def test_two_ranks_in_the_order_of_their_ranks():
    facts = FACTS["two_ranks"]
    sampler = LossSecondMomentSampler(facts["num_timesteps"], facts["history_per_term"])
    for t, losses in zip(ARRAYS["two_ranks/ts"], ARRAYS["two_ranks/losses"], strict=True):
        assert len(t) == facts["world_size"]
        sampler.update(t.flatten(), losses.flatten())
    assert torch.equal(sampler.state_tensors()["history"], ARRAYS["two_ranks/history"])
    assert torch.equal(sampler.state_tensors()["counts"], ARRAYS["two_ranks/counts"])
    assert_probabilities(sampler, ARRAYS["two_ranks/weights"])


def test_names():
    kinds = {"UniformSampler": UniformSampler, "LossSecondMomentResampler": LossSecondMomentSampler}
    for name, recorded in FACTS["create_named_schedule_sampler"].items():
        if recorded in kinds:
            assert isinstance(build_schedule_sampler(name, 10), kinds[recorded])
        else:
            with pytest.raises(UsageError):
                build_schedule_sampler(name, 10)
    with pytest.raises(UsageError, match="did you mean loss-second-moment"):
        build_schedule_sampler("loss_second_moment", 10)


uniforms = st.floats(0, 1, exclude_max=True)


@given(st.integers(1, 5000), st.lists(uniforms, min_size=1, max_size=20))
def test_uniform_draws_are_steps_of_weight_one(steps, numbers):
    drawn = build_schedule_sampler("uniform", steps).draw(torch.tensor(numbers, dtype=torch.float64))
    assert drawn.t.dtype == torch.int64
    assert drawn.weights.dtype == torch.float32
    assert ((drawn.t >= 0) & (drawn.t < steps)).all()
    assert (drawn.weights == 1).all()


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=30))
def test_the_weighted_mean_over_all_draws_is_the_mean_over_the_timesteps(shares):
    probabilities = torch.tensor(shares, dtype=torch.float64)
    probabilities /= probabilities.sum()
    middles = probabilities.cumsum(0) - probabilities / 2
    drawn = inverse_cdf(probabilities, middles)
    assert torch.equal(drawn.t, torch.arange(len(shares)))
    torch.testing.assert_close(
        drawn.weights.double() * probabilities,
        torch.full_like(probabilities, 1 / len(shares)),
        rtol=1e-6,
        atol=0,
    )


batches = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=30), min_size=1, max_size=6)


@given(batches, st.integers(1, 5))
def test_the_history_is_each_timesteps_latest_losses_however_they_are_batched(batches, history_length):
    sampler = LossSecondMomentSampler(4, history_length)
    seen = {step: [] for step in range(4)}
    loss = 0.0
    for batch in batches:
        losses = []
        for step in batch:
            loss += 1.0
            losses.append(loss)
            seen[step].append(loss)
        sampler.update(torch.tensor(batch), torch.tensor(losses))
    state = sampler.state_tensors()
    for step, latest in seen.items():
        expected = latest[-history_length:]
        assert int(state["counts"][step]) == len(expected)
        assert state["history"][step].tolist() == expected + [0.0] * (history_length - len(expected))


def test_a_restored_sampler_goes_on_as_the_first_and_alone():
    t, losses = torch.arange(3).repeat(12), torch.arange(36.0)
    first, second = (build_schedule_sampler("loss-second-moment", 3) for _ in range(2))
    first.update(t, losses)
    kept = first.state_tensors()
    second.load_state_tensors(kept)
    first.update(t[:5], losses[:5])
    second.update(t[:5], losses[:5])
    numbers = torch.linspace(0, 0.999, 50, dtype=torch.float64)
    assert torch.equal(first.draw(numbers).weights, second.draw(numbers).weights)
    second.update(t, losses * 2)
    assert not torch.equal(first.state_tensors()["history"], second.state_tensors()["history"])
    assert kept["history"].dtype == torch.float64
    assert kept["counts"].dtype == torch.int64


def test_a_uniform_sampler_has_nothing_to_keep():
    sampler = build_schedule_sampler("uniform", 3)
    sampler.update(torch.tensor([0]), torch.tensor([1.0]))
    assert sampler.state_tensors() == {}
    sampler.load_state_tensors({})
    assert not sampler.learns
    assert build_schedule_sampler("loss-second-moment", 3).learns
