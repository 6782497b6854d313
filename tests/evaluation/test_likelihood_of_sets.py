"""The bound on a set of images: its noise, its means, and closed forms of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffcli.config.sections import DiffusionConfig
from diffcli.diffusion.build import build_diffusion
from diffcli.diffusion.likelihood import bits_per_dim, likelihood_steps
from diffcli.diffusion.respacing import section_timesteps
from diffcli.evaluation.likelihood import (
    exact_bits_per_dim,
    likelihood_noise,
    mean_likelihood,
    standard_error,
)
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


def bounds(diffusion, images, indices, seed=0, denoiser=shrinking):
    noise_at = likelihood_noise(diffusion, seed, torch.tensor(indices), SHAPE)
    chosen = images[indices]
    steps = likelihood_steps(denoiser, diffusion, chosen, noise_at, clip=True)
    return exact_bits_per_dim(diffusion, chosen, steps)


def test_noise_belongs_to_seed_image_and_original_timestep(diffusion):
    shorter = build_diffusion(
        DiffusionConfig(steps=STEPS, schedule="cosine", variance="fixed_small"),
        section_timesteps(STEPS, (7,)),
    )
    full = likelihood_noise(diffusion, 3, torch.arange(COUNT), SHAPE)
    respaced = likelihood_noise(shorter, 3, torch.arange(COUNT), SHAPE)
    assert shorter.timestep_map.tolist() == [0, 5, 10, 14, 19, 24, 29]
    for step, timestep in enumerate(shorter.timestep_map.tolist()):
        assert torch.equal(respaced(step), full(timestep))
    one = likelihood_noise(diffusion, 3, torch.tensor([5]), SHAPE)
    assert torch.equal(one(11), full(11)[5:6])
    assert not torch.equal(full(11), full(12))
    assert not torch.equal(full(11), likelihood_noise(diffusion, 4, torch.arange(COUNT), SHAPE)(11))


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
    noise_at = likelihood_noise(diffusion, 0, torch.arange(COUNT), SHAPE)
    steps = likelihood_steps(shrinking, diffusion, images, noise_at, clip=True)
    single = bits_per_dim(diffusion, images, steps)
    assert found.bits_per_dim == pytest.approx(float(single.total.mean()), rel=1e-5)
    assert found.prior_bits_per_dim == pytest.approx(float(single.prior.mean()), rel=1e-4, abs=1e-7)
    assert found.curve.timesteps == tuple(range(STEPS))
    assert found.curve.vb_bits_per_dim == pytest.approx(single.terms.vb.mean(dim=0).tolist(), rel=1e-5)
    assert found.curve.eps_mse == pytest.approx(single.terms.eps_mse.mean(dim=0).tolist(), rel=1e-5)
    expected = single.total.double().numpy().std(ddof=1) / np.sqrt(COUNT)
    assert found.standard_error == pytest.approx(expected, rel=1e-4)
    assert found.bits_per_dim == pytest.approx(found.vb_bits_per_dim + found.prior_bits_per_dim, rel=1e-12)


def test_a_network_that_knows_the_noise_pays_for_the_decoder_only(diffusion, images):
    noise_at = likelihood_noise(diffusion, 0, torch.arange(COUNT), SHAPE)
    found = mean_likelihood(
        diffusion,
        [bounds(diffusion, images, list(range(COUNT)), denoiser=lambda _x, t: noise_at(int(t[0])))],
    )
    # with the variance of the posterior, arXiv 2006.11239, equation 8, the KL vanishes with the error of eps
    assert max(found.curve.vb_bits_per_dim[1:]) < 1e-4
    assert max(found.curve.eps_mse) < 1e-4
    assert found.bits_per_dim == pytest.approx(
        found.curve.vb_bits_per_dim[0] + found.prior_bits_per_dim, abs=1e-3
    )


def test_standard_error_of_the_mean():
    values = torch.tensor([1.0, 2.0, 4.0, 9.0], dtype=torch.float64)
    # variance 38 / 3, divided by 4
    assert standard_error(values) == pytest.approx((38 / 3 / 4) ** 0.5, rel=1e-12)
    assert standard_error(values[:1]) is None
