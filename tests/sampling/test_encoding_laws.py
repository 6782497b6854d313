"""Encoding undoes what DDIM without noise does: more closely, the more steps there are."""

from __future__ import annotations

import itertools

import pytest
import torch

from diffcli.config.sections import DiffusionConfig
from diffcli.diffusion.build import build_diffusion
from diffcli.diffusion.prediction import eps_from_x_start
from diffcli.diffusion.respacing import ddim_timesteps
from diffcli.sampling.encode import encode
from diffcli.sampling.noise import initial_noise
from diffcli.sampling.solve import SolverSettings, solve

SHAPE = (2, 3, 4)
# of a data set whose numbers are independent and normal with mean 0, where the best network is known
STD = 0.4
SETTINGS = SolverSettings(solver="ddim", eta=0.0, clip=False)
X_T = initial_noise(3, torch.arange(5), SHAPE)


def best_network(diffusion):
    def denoiser(x_t, model_timesteps):
        t = (diffusion.timestep_map == model_timesteps[:1]).nonzero().flatten().expand(len(x_t))
        alpha_bar = diffusion.schedule.alpha_bar.values[t].float().reshape(-1, 1, 1, 1)
        # the mean of x_start given x_t, both normal
        x_start = alpha_bar.sqrt() * STD**2 / (alpha_bar * STD**2 + 1 - alpha_bar) * x_t
        return eps_from_x_start(diffusion, x_t, t, x_start)

    return denoiser


def last(steps):
    *_, final = steps
    return final.x


def there_and_back(count):
    """x_T, the images that it draws, and the x_T that they are encoded into."""
    diffusion = build_diffusion(DiffusionConfig(steps=1000, schedule="cosine"), ddim_timesteps(1000, count))
    denoiser = best_network(diffusion)
    images = last(solve(denoiser, diffusion, X_T, lambda _step: None, SETTINGS))
    return images, last(encode(denoiser, diffusion, images, clip=False))


def test_the_steps_go_upwards_through_the_whole_chain():
    diffusion = build_diffusion(DiffusionConfig(steps=40), ddim_timesteps(40, 7))
    taken = list(encode(best_network(diffusion), diffusion, X_T, clip=False))
    assert [step.step for step in taken] == list(range(7))
    assert all(step.x.shape == X_T.shape for step in taken)


def test_more_steps_invert_more_closely():
    errors = [float((there_and_back(count)[1] - X_T).abs().mean()) for count in (10, 40, 160)]
    assert all(later < 0.4 * earlier for earlier, later in itertools.pairwise(errors))
    assert errors[-1] < 0.02


def test_images_of_the_data_set_become_standard_normal():
    images, latents = there_and_back(250)
    assert float(images.std()) == pytest.approx(STD, rel=0.15)
    assert float(latents.std()) == pytest.approx(float(X_T.std()), rel=0.03)


def test_clipping_keeps_each_predicted_image_in_range():
    diffusion = build_diffusion(DiffusionConfig(steps=40), ddim_timesteps(40, 7))
    far = 10 * X_T
    clipped = list(encode(best_network(diffusion), diffusion, far, clip=True))
    assert max(float(step.x_start.abs().max()) for step in clipped) == 1
    free = list(encode(best_network(diffusion), diffusion, far, clip=False))
    assert float(free[0].x_start.abs().max()) > 1
