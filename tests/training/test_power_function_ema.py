"""Power-function averages: the profile is the paper's, and any width comes back from stored ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from diffcli.training.power_function_ema import (
    WIDEST_STD,
    PowerFunctionAverage,
    Profile,
    decay_at,
    fit_profile,
    gamma_of,
    inner_products,
    std_of,
)

STORED_STDS = (0.05, 0.1)


class Weights(nn.Module):
    """Some weights that a test moves about."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(count))

    def put(self, values) -> None:
        with torch.no_grad():
            self.w.copy_(torch.as_tensor(values))


def tracked(path, stds):
    """The averages of these widths after every step of a path [steps, weights]: [stds, steps, weights]."""
    model = Weights(path.shape[1])
    averages = [PowerFunctionAverage(model, std=std) for std in stds]
    history = torch.empty(len(stds), *path.shape)
    for step, weights in enumerate(path):
        model.put(weights)
        for row, average in enumerate(averages):
            average.update(step)
            history[row, step] = average.weights["w"]
    return history.double()


def profile_weights(gamma: float, steps: int):
    """What share each step's weights have in the average after `steps`: the integral of the profile."""
    edges = (np.arange(steps + 1) / steps) ** (gamma + 1)
    return np.diff(edges)


# ---- the profile ----


@pytest.mark.parametrize(("std", "gamma"), [(0.05, 16.97), (0.10, 6.94)])
def test_the_papers_widths_have_the_papers_exponents(std, gamma):
    assert gamma_of(std) == pytest.approx(gamma, abs=0.005)


def test_the_widest_profile_is_the_plain_mean():
    assert gamma_of(WIDEST_STD) == pytest.approx(0, abs=1e-12)
    assert std_of(0) == pytest.approx(WIDEST_STD, rel=1e-15)


@given(st.floats(1e-4, WIDEST_STD))
def test_the_exponent_of_a_width_has_that_width(std):
    assert std_of(gamma_of(std)) == pytest.approx(std, rel=1e-9)


@given(st.floats(1e-6, 1e4))
def test_the_width_of_an_exponent_has_that_exponent(gamma):
    assert gamma_of(std_of(gamma)) == pytest.approx(gamma, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("std", [0.0, -0.05, 0.2888, 1.0, math.nan, math.inf])
def test_no_profile_has_another_width(std):
    with pytest.raises(ValueError, match="relative width"):
        gamma_of(std)


@pytest.mark.parametrize("std", [0.03, 0.05, 0.1, 0.2])
def test_the_decays_unroll_to_a_profile_of_that_width_that_sums_to_one(std):
    steps = 4000
    decays = np.array([decay_at(gamma_of(std), t) for t in range(1, steps + 1)])
    # what the update of step t takes in, times all decays after it
    remains = np.append(np.cumprod(decays[:0:-1])[::-1], 1.0)
    shares = (1 - decays) * remains
    np.testing.assert_allclose(shares, profile_weights(gamma_of(std), steps), atol=1e-14)
    assert shares.sum() == pytest.approx(1, abs=1e-12)
    times = (np.arange(steps) + 0.5) / steps
    mean = (shares * times).sum()
    assert math.sqrt((shares * (times - mean) ** 2).sum()) == pytest.approx(std, rel=1e-4)


# ---- the average ----


def test_weights_that_do_not_change_stay_bit_by_bit():
    constant = torch.randn(200, generator=torch.Generator().manual_seed(0))
    assert torch.equal(tracked(constant.expand(300, -1), (0.1,))[0, -1].float(), constant)


def test_the_average_of_a_ramp_has_its_closed_form():
    steps = 500
    ramp = torch.arange(1.0, steps + 1)[:, None]
    gamma = gamma_of(0.1)
    # sum_s s (s^(g+1) - (s-1)^(g+1)) / T^(g+1), summed by parts
    expected = steps - ((np.arange(1, steps) / steps) ** (gamma + 1)).sum()
    assert tracked(ramp, (0.1,))[0, -1].item() == pytest.approx(expected, rel=1e-6)


def test_the_average_is_the_weighted_sum_of_all_steps():
    walk = torch.randn(400, 50, generator=torch.Generator().manual_seed(1)).cumsum(0)
    for std, history in zip((0.05, 0.2), tracked(walk, (0.05, 0.2)), strict=True):
        for steps in (1, 2, 7, 400):
            shares = torch.from_numpy(profile_weights(gamma_of(std), steps))
            torch.testing.assert_close(history[steps - 1], shares @ walk[:steps].double(), rtol=0, atol=2e-5)


def test_the_first_update_forgets_the_initial_weights():
    model = Weights(3)
    average = PowerFunctionAverage(model, std=0.05)
    model.put([1.0, 2.0, 3.0])
    average.update(0)
    assert average.std == 0.05
    assert average.weights["w"].dtype == torch.float32
    assert torch.equal(average.weights["w"], torch.tensor([1.0, 2.0, 3.0]))


def test_a_loaded_average_goes_on_as_if_it_had_not_stopped():
    walk = torch.randn(20, 5, generator=torch.Generator().manual_seed(2)).cumsum(0)
    unbroken = tracked(walk, (0.1,))[0]
    model = Weights(5)
    resumed = PowerFunctionAverage(model, std=0.1)
    resumed.load({"w": unbroken[9].float()})
    for step in range(10, 20):
        model.put(walk[step])
        resumed.update(step)
    assert torch.equal(resumed.weights["w"], unbroken[-1].float())


# ---- any width from stored ones ----


def every(steps: int, until: int) -> list[Profile]:
    """Both stored profiles at every so many steps."""
    return [Profile(std=std, step=step) for step in range(steps, until + 1, steps) for std in STORED_STDS]


def densities(profiles, until: int, points: int = 200_000):
    """The profiles on a grid of midpoints, and its spacing."""
    tau = (np.arange(points) + 0.5) * until / points
    gammas = [gamma_of(profile.std) for profile in profiles]
    rows = [
        np.where(tau < p.step, (g + 1) * (tau / p.step) ** g / p.step, 0.0)
        for p, g in zip(profiles, gammas, strict=True)
    ]
    return np.stack(rows), until / points


def test_inner_products_are_the_integrals():
    profiles = [Profile(std=std, step=step) for std, step in ((0.05, 40), (0.1, 40), (0.2, 100), (0.03, 77))]
    on_grid, spacing = densities(profiles, until=100)
    products = inner_products(profiles, profiles)
    np.testing.assert_allclose(products, on_grid @ on_grid.T * spacing, rtol=2e-4)
    assert np.array_equal(products, products.T)


def test_a_stored_profile_is_itself_and_nothing_else():
    stored = every(10, 80)
    fit = fit_profile(Profile(std=0.1, step=60), stored)
    assert fit.relative_error == 0
    assert [p for p, x in zip(stored, fit.coefficients, strict=True) if x] == [Profile(std=0.1, step=60)]
    assert set(fit.coefficients) == {0.0, 1.0}


@pytest.mark.parametrize("target", [Profile(std=0.08, step=800), Profile(std=0.15, step=750)])
def test_the_fit_is_the_nearest_combination_with_sum_one(target):
    stored = every(100, 750)
    fit = fit_profile(target, stored)
    x = np.array(fit.coefficients)
    assert x.sum() == pytest.approx(1, abs=1e-12)
    # at the optimum the residual has the same product with each, so that no exchange among them helps
    slope = inner_products(stored, stored) @ x - inner_products(stored, [target])[:, 0]
    np.testing.assert_allclose(slope, slope.mean(), atol=1e-12 * np.abs(x).max())
    on_grid, spacing = densities([target, *stored], until=800)
    residual = on_grid[0] - x @ on_grid[1:]
    norms = math.sqrt((residual**2).sum() * spacing), math.sqrt((on_grid[0] ** 2).sum() * spacing)
    assert fit.relative_error == pytest.approx(norms[0] / norms[1], rel=1e-3)


def test_more_snapshots_fit_better():
    target = Profile(std=0.08, step=960)
    errors = [fit_profile(target, every(apart, 960)).relative_error for apart in (480, 240, 120, 60)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.004


def test_many_snapshots_stay_well_conditioned():
    fit = fit_profile(Profile(std=0.08, step=500_000), every(1000, 500_000))
    assert fit.relative_error < 1e-4
    assert max(map(abs, fit.coefficients)) < 2
    assert sum(fit.coefficients) == pytest.approx(1, abs=1e-9)


UNSEEN_STDS = (0.04, 0.06, 0.08, 0.12, 0.15)


def reconstructed_and_tracked(path, step: int, apart: int):
    """For each unseen width: it from snapshots, it as tracked, and the predicted error."""
    history = tracked(path, (*STORED_STDS, *UNSEEN_STDS))
    stored = every(apart, step)
    snapshots = torch.stack([history[STORED_STDS.index(p.std), p.step - 1] for p in stored])
    for row, std in enumerate(UNSEEN_STDS, start=len(STORED_STDS)):
        fit = fit_profile(Profile(std=std, step=step), stored)
        weights = torch.tensor(fit.coefficients, dtype=torch.float64) @ snapshots
        yield weights, history[row, step - 1], fit.relative_error


def test_of_independent_steps_the_error_is_the_predicted_one():
    """The profile's error is that of the weights when nothing relates one step's weights to the next."""
    noise = torch.randn(1600, 400, generator=torch.Generator().manual_seed(3))
    for weights, direct, predicted in reconstructed_and_tracked(noise, step=1600, apart=200):
        actual = ((weights - direct).norm() / direct.norm()).item()
        assert 0.85 * predicted < actual < 1.1 * predicted
        assert actual < 0.05


def test_of_a_random_walk_the_error_is_far_below_the_predicted_one():
    """Measured: 5 to 9 per cent of it, relative to how far the walk has gone, wherever it began."""
    walk = torch.randn(1600, 400, generator=torch.Generator().manual_seed(4)).cumsum(0)
    for start in (0.0, 1000.0):
        for weights, direct, predicted in reconstructed_and_tracked(start + walk, step=1600, apart=200):
            actual = ((weights - direct).norm() / (direct - start).norm()).item()
            assert actual < 0.15 * predicted


def test_beyond_the_last_snapshot_the_error_says_so():
    assert fit_profile(Profile(std=0.08, step=1000), every(100, 800)).relative_error > 0.5
