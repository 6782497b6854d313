"""The bound on a set of images: its noise, its means, and closed forms of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from diffcli.config.sections import DiffusionConfig
from diffcli.diffusion.build import build_diffusion
from diffcli.diffusion.likelihood import bits_per_dim, likelihood_steps
from diffcli.diffusion.respacing import section_timesteps
from diffcli.evaluation.likelihood import (
    batch_bounds,
    likelihood_noise,
    mean_likelihood,
    on_host,
    standard_error,
)
from diffcli.evaluation.timestep_strata import TimestepStrata
from diffcli.images.conversion import from_uint8

STEPS = 30
SHAPE = (2, 4, 4)
COUNT = 7


@pytest.fixture
def diffusion():
    return build_diffusion(DiffusionConfig(steps=STEPS, schedule="cosine", variance="fixed_small"))


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return from_uint8(torch.randint(0, 256, (COUNT, *SHAPE), generator=generator, dtype=torch.uint8))


def shrinking(x, t):
    """A denoiser that depends on image and timestep."""
    return 0.9 * x + 0.01 * t.reshape(-1, 1, 1, 1)


def terms_at(diffusion, images, indices, at, *, seed=0, denoiser=shrinking):
    """The terms of some images at internal steps [N, K]."""
    noise_of = likelihood_noise(diffusion, seed, torch.tensor(indices), SHAPE)
    steps = likelihood_steps(denoiser, diffusion, images[indices], at, noise_of, clip=True)
    return [on_host(step) for step in steps]


def bounds(diffusion, images, indices, *, denoiser=shrinking, count=None):
    """The bound on some images, at all steps of the chain or at `count` that are drawn."""
    strata = TimestepStrata(chain_steps=diffusion.steps, count=count or diffusion.steps)
    at = strata.drawn(0, torch.tensor(indices))
    steps = terms_at(diffusion, images, indices, at, denoiser=denoiser)
    return batch_bounds(diffusion, images[indices], at, steps, strata.weights)


def everywhere(diffusion, images):
    """All internal steps for so many images."""
    return torch.arange(diffusion.steps).expand(images, -1)


def test_noise_belongs_to_seed_image_and_original_timestep(diffusion):
    shorter = build_diffusion(
        DiffusionConfig(steps=STEPS, schedule="cosine", variance="fixed_small"),
        section_timesteps(STEPS, (7,)),
    )
    full = likelihood_noise(diffusion, 3, torch.arange(COUNT), SHAPE)
    respaced = likelihood_noise(shorter, 3, torch.arange(COUNT), SHAPE)
    assert shorter.timestep_map.tolist() == [0, 5, 10, 14, 19, 24, 29]
    for step, timestep in enumerate(shorter.timestep_map.tolist()):
        assert torch.equal(respaced(all_at(step)), full(all_at(timestep)))
    one = likelihood_noise(diffusion, 3, torch.tensor([5]), SHAPE)
    assert torch.equal(one(torch.tensor([11])), full(all_at(11))[5:6])
    each_its_own = torch.arange(COUNT) + 11
    assert torch.equal(full(each_its_own)[5], full(all_at(16))[5])
    assert not torch.equal(full(all_at(11)), full(all_at(12)))
    other = likelihood_noise(diffusion, 4, torch.arange(COUNT), SHAPE)
    assert not torch.equal(full(all_at(11)), other(all_at(11)))


def all_at(step):
    return torch.full((COUNT,), step)


def test_the_means_do_not_depend_on_how_the_images_are_cut_into_batches(diffusion, images):
    whole = mean_likelihood(diffusion, [bounds(diffusion, images, list(range(COUNT)))])
    parts = mean_likelihood(
        diffusion, [bounds(diffusion, images, part) for part in ([0, 1, 2], [3, 4, 5], [6])]
    )
    assert whole.images == parts.images == COUNT
    assert parts.bits_per_dim == pytest.approx(whole.bits_per_dim, rel=1e-6)
    assert parts.standard_error == pytest.approx(whole.standard_error, rel=1e-6)
    for name in ("vb_bits_per_dim", "x_start_mse", "eps_mse"):
        assert getattr(parts.curve, name) == pytest.approx(getattr(whole.curve, name), rel=1e-5)


def test_the_means_are_those_of_the_bounds(diffusion, images):
    indices = list(range(COUNT))
    found = mean_likelihood(diffusion, [bounds(diffusion, images, indices)])
    noise_of = likelihood_noise(diffusion, 0, torch.arange(COUNT), SHAPE)
    at = everywhere(diffusion, COUNT)
    steps = likelihood_steps(shrinking, diffusion, images, at, noise_of, clip=True)
    single = bits_per_dim(diffusion, images, steps, torch.ones(STEPS))
    assert found.bits_per_dim == pytest.approx(float(single.total.mean()), rel=1e-5)
    assert found.prior_bits_per_dim == pytest.approx(float(single.prior.mean()), rel=1e-4, abs=1e-7)
    assert found.curve.timesteps == tuple(range(STEPS))
    assert found.curve.vb_bits_per_dim == pytest.approx(single.terms.vb.mean(dim=0).tolist(), rel=1e-5)
    assert found.curve.eps_mse == pytest.approx(single.terms.eps_mse.mean(dim=0).tolist(), rel=1e-5)
    expected = single.total.double().numpy().std(ddof=1) / np.sqrt(COUNT)
    assert found.standard_error == pytest.approx(expected, rel=1e-4)
    assert found.bits_per_dim == pytest.approx(found.vb_bits_per_dim + found.prior_bits_per_dim, rel=1e-12)
    assert found.vb_bits_per_dim == pytest.approx(sum(found.curve.vb_bits_per_dim), rel=1e-12)
    assert found.image_bits_per_dim == pytest.approx(single.total.tolist(), rel=1e-5)
    assert found.curve.images == (COUNT,) * STEPS


def test_a_network_that_knows_the_noise_pays_for_the_decoder_only(diffusion, images):
    noise_of = likelihood_noise(diffusion, 0, torch.arange(COUNT), SHAPE)
    found = mean_likelihood(
        diffusion, [bounds(diffusion, images, list(range(COUNT)), denoiser=lambda _x, t: noise_of(t))]
    )
    # with the variance of the posterior, arXiv 2006.11239, equation 8, the KL vanishes with the error of eps
    assert max(found.curve.vb_bits_per_dim[1:]) < 1e-4
    assert max(found.curve.eps_mse) < 1e-4
    assert found.bits_per_dim == pytest.approx(
        found.curve.vb_bits_per_dim[0] + found.prior_bits_per_dim, abs=1e-3
    )


@pytest.mark.parametrize("kept", [None, (0, 3, 4, 11, 17, 25, 28, 29)])
def test_drawn_timesteps_have_the_terms_of_the_whole_chain(images, kept):
    config = DiffusionConfig(steps=STEPS, schedule="cosine", variance="fixed_small")
    diffusion, indices = build_diffusion(config, kept), list(range(COUNT))
    strata = TimestepStrata(chain_steps=diffusion.steps, count=4)
    at = strata.drawn(8, torch.arange(COUNT))
    drawn = {step.column: step.terms for step in terms_at(diffusion, images, indices, at)}
    whole = terms_at(diffusion, images, indices, everywhere(diffusion, COUNT))
    by_step = {step.column: step.terms for step in whole}
    for column, terms in drawn.items():
        for image, step in enumerate(at[:, column].tolist()):
            for name, value in vars(terms).items():
                expected = float(getattr(by_step[step], name)[image])
                assert float(value[image]) == pytest.approx(expected, rel=1e-5, abs=1e-9), (name, step)


def test_the_mean_over_all_draws_is_the_whole_bound(diffusion, images):
    # every draw of four strata, each for an image of its own, which are all the same and have one noise
    strata = TimestepStrata(chain_steps=STEPS, count=4)
    draws = math.lcm(*strata.sizes)
    shares = (torch.arange(draws, dtype=torch.float64)[:, None] + 0.5) / draws
    noise = torch.randn(STEPS, *SHAPE, generator=torch.Generator().manual_seed(2))

    def likelihood_at(at, weights):
        same = images[:1].expand(len(at), *SHAPE)
        steps = likelihood_steps(shrinking, diffusion, same, at, lambda t: noise[t], clip=True)
        return mean_likelihood(diffusion, [batch_bounds(diffusion, same, at, map(on_host, steps), weights)])

    whole = likelihood_at(everywhere(diffusion, 1), torch.ones(STEPS))
    estimate = likelihood_at(strata.steps_at(shares.expand(draws, 4)), strata.weights)
    assert estimate.bits_per_dim == pytest.approx(whole.bits_per_dim, rel=1e-6)
    assert estimate.prior_bits_per_dim == pytest.approx(whole.prior_bits_per_dim, rel=1e-12)
    assert estimate.curve.vb_bits_per_dim == pytest.approx(whole.curve.vb_bits_per_dim, rel=1e-5)
    # the draws differ among each other, which the standard error tells
    assert estimate.standard_error > 0


def test_the_curve_of_an_estimate_has_the_timesteps_that_were_seen(diffusion, images):
    found = mean_likelihood(diffusion, [bounds(diffusion, images, list(range(COUNT)), count=2)])
    at = TimestepStrata(chain_steps=STEPS, count=2).drawn(0, torch.arange(COUNT))
    seen, times = at.unique(return_counts=True)
    assert found.curve.timesteps == tuple(seen.tolist())
    assert found.curve.images == tuple(times.tolist())
    assert len(found.curve.vb_bits_per_dim) == len(seen) < STEPS
    # strata of 1 and 29 steps
    sums = np.multiply(found.curve.vb_bits_per_dim, found.curve.images)
    assert found.vb_bits_per_dim == pytest.approx((sums[0] + 29 * sums[1:].sum()) / COUNT, rel=1e-9)


def test_standard_error_of_the_mean():
    values = torch.tensor([1.0, 2.0, 4.0, 9.0], dtype=torch.float64)
    # variance 38 / 3, divided by 4
    assert standard_error(values) == pytest.approx((38 / 3 / 4) ** 0.5, rel=1e-12)
    assert standard_error(values[:1]) is None
