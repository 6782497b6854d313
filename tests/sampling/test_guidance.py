"""Guidance: the best classifier gives an unconditional network classes, and two predictions are one line."""

from __future__ import annotations

import pytest
import torch

from diffcli.config.sections import DiffusionConfig
from diffcli.diffusion.build import build_diffusion
from diffcli.diffusion.prediction import eps_from_x_start, predicted_x_start
from diffcli.diffusion.process import q_posterior
from diffcli.diffusion.respacing import ddim_timesteps
from diffcli.sampling.guidance import class_gradient, classifier_free
from diffcli.sampling.noise import initial_noise, step_noise
from diffcli.sampling.solve import SolverSettings, solve

SHAPE = (3, 4, 5)
SEED = 7
# a data set of two images, each a class of its own
IMAGES = torch.stack((torch.linspace(-0.9, 0.9, 60), torch.linspace(0.8, -0.6, 60).sin())).reshape(2, *SHAPE)


def diffusion_of(*, steps=40, timesteps=None, **settings):
    return build_diffusion(DiffusionConfig(steps=steps, **settings), timesteps)


class TwoImages:
    """What is exactly true of noisy images of that data set."""

    def __init__(self, diffusion):
        self.diffusion = diffusion

    def internal(self, model_timesteps):
        return torch.searchsorted(self.diffusion.timestep_map, model_timesteps)

    def log_likelihoods(self, x_t, model_timesteps):
        """log q(x_t | image), up to a constant: [N, 2], the logits of the best classifier."""
        schedule, t = self.diffusion.schedule, self.internal(model_timesteps)
        means = schedule.sqrt_alpha_bar.at(t, x_t)[:, None] * IMAGES
        squares = (x_t[:, None] - means).square().flatten(2).sum(dim=2)
        return -squares / (2 * schedule.one_minus_alpha_bar.at(t, x_t).flatten(1))

    def eps(self, x_t, model_timesteps):
        """The best prediction without a class."""
        shares = self.log_likelihoods(x_t, model_timesteps).softmax(dim=1)
        x_start = torch.einsum("nk,kchw->nchw", shares, IMAGES)
        return eps_from_x_start(self.diffusion, x_t, self.internal(model_timesteps), x_start)

    def eps_of(self, x_t, model_timesteps, y):
        """The best prediction for a class."""
        return eps_from_x_start(self.diffusion, x_t, self.internal(model_timesteps), IMAGES[y])


def sampled(diffusion, denoiser, y, **settings):
    samples = torch.arange(len(y))
    *_, last = solve(
        denoiser,
        diffusion,
        initial_noise(SEED, samples, SHAPE),
        lambda step: step_noise(SEED, samples, SHAPE, step=step),
        SolverSettings(**{"solver": "ddim", "eta": 0.0, "clip": False, **settings}),
    )
    return last.x


# ---- the gradient of a classifier ----


def test_the_gradient_is_that_of_log_softmax_at_the_wanted_class():
    weights = torch.linspace(-1, 1, 5 * 60).sin().reshape(5, 60)
    x_t, y = initial_noise(SEED, torch.arange(3), SHAPE), torch.tensor([4, 0, 4])
    with torch.no_grad():
        gradient = class_gradient(lambda x, _t: x.flatten(1) @ weights.T, x_t, torch.zeros(3), y)
    shares = (x_t.flatten(1) @ weights.T).softmax(dim=1)
    expected = weights[y] - shares @ weights
    torch.testing.assert_close(gradient.flatten(1), expected)
    assert not x_t.requires_grad
    assert not gradient.requires_grad


def test_no_images_gradient_depends_on_the_others():
    diffusion = diffusion_of()
    classifier = TwoImages(diffusion).log_likelihoods
    x_t, t = initial_noise(SEED, torch.arange(4), SHAPE), torch.tensor([0, 9, 20, 39])
    y = torch.tensor([1, 0, 0, 1])
    together = class_gradient(classifier, x_t, t, y)
    for row in range(4):
        alone = class_gradient(classifier, x_t[row : row + 1], t[row : row + 1], y[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone)


@pytest.mark.parametrize("count", [1, 5, 40])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_with_the_best_classifier_is_ddim_with_the_class_itself(count, eta):
    diffusion = diffusion_of(schedule="cosine", timesteps=ddim_timesteps(40, count))
    truth, y = TwoImages(diffusion), torch.tensor([0, 1, 1, 0, 0, 1])
    images = sampled(
        diffusion,
        truth.eps,
        y,
        eta=eta,
        gradient_at=lambda x, t: class_gradient(truth.log_likelihoods, x, diffusion.model_timesteps(t), y),
    )
    conditional = sampled(diffusion, lambda x, t: truth.eps_of(x, t, y), y, eta=eta)
    torch.testing.assert_close(images, conditional, atol=2e-3, rtol=0)
    torch.testing.assert_close(images, IMAGES[y], atol=2e-3, rtol=0)


def test_ancestral_sampling_with_the_best_classifier_ends_at_the_class():
    diffusion = diffusion_of(steps=400, variance="fixed_large")
    truth, y = TwoImages(diffusion), torch.tensor([0, 1] * 8)
    guided = sampled(
        diffusion,
        truth.eps,
        y,
        solver="ancestral",
        gradient_at=lambda x, t: class_gradient(truth.log_likelihoods, x, diffusion.model_timesteps(t), y),
    )
    torch.testing.assert_close(guided, IMAGES[y], atol=2e-2, rtol=0)
    # which without it is left to the noise
    unguided = sampled(diffusion, truth.eps, y, solver="ancestral")
    nearest = (unguided[:, None] - IMAGES).flatten(2).norm(dim=2).argmin(dim=1)
    assert 0 < (nearest == y).sum() < len(y)


@pytest.mark.parametrize("solver", ["ancestral", "ddim"])
@pytest.mark.parametrize("predict", ["eps", "x_start", "x_prev"])
def test_guidance_is_the_same_whatever_the_network_predicts(solver, predict):
    diffusion = diffusion_of(predict=predict, timesteps=[5, 15, 25, 39])
    truth, y = TwoImages(diffusion), torch.tensor([0, 1, 1])

    def denoiser(x_t, model_timesteps):
        t = truth.internal(model_timesteps)
        eps = truth.eps(x_t, model_timesteps)
        x_start = predicted_x_start(diffusion_of(timesteps=[5, 15, 25, 39]), x_t, t, eps)
        by_prediction = {
            "eps": eps,
            "x_start": x_start,
            "x_prev": q_posterior(diffusion, x_start, x_t, t).mean,
        }
        return by_prediction[predict]

    def gradient_at(x, t):
        return 3 * class_gradient(truth.log_likelihoods, x, diffusion.model_timesteps(t), y)

    images = sampled(diffusion, denoiser, y, solver=solver, gradient_at=gradient_at)
    as_eps = diffusion_of(timesteps=[5, 15, 25, 39])
    expected = sampled(as_eps, TwoImages(as_eps).eps, y, solver=solver, gradient_at=gradient_at)
    torch.testing.assert_close(images, expected, atol=1e-3, rtol=1e-3)


# ---- two predictions of one network ----


def two_predictions(x, t):
    """A network of 2 * 3 channels that tells the first half of a batch from the second."""
    half = len(x) // 2
    sign = torch.cat((torch.ones(half), -torch.ones(half)))[:, None, None, None]
    return torch.cat((x.sin() + 0.3 * sign + t[:, None, None, None], x.cos() * sign), dim=1)


def test_the_weight_goes_from_without_a_class_to_with_it_and_on():
    x, t = initial_noise(SEED, torch.arange(2), SHAPE), torch.tensor([3, 30])
    with_class, without = two_predictions(torch.cat((x, x)), torch.cat((t, t))).chunk(2)
    for weight in (0.0, 1.0, 0.25, 2.0, 7.5):
        output = classifier_free(two_predictions, weight)(x, t)
        # arXiv 2207.12598, equation 6
        w = weight - 1
        torch.testing.assert_close(output[:, :3], (1 + w) * with_class[:, :3] - w * without[:, :3])
        # the variance is that of the class
        assert torch.equal(output[:, 3:], with_class[:, 3:])
    assert torch.equal(classifier_free(two_predictions, 0.0)(x, t)[:, :3], without[:, :3])


def test_one_call_of_the_network_gives_both_predictions():
    calls = []

    def network(x, t):
        calls.append((len(x), t.tolist()))
        return x

    classifier_free(network, 2.0)(torch.zeros(3, *SHAPE), torch.tensor([4, 5, 6]))
    assert calls == [(6, [4, 5, 6, 4, 5, 6])]


@pytest.mark.parametrize("predict", ["x_start", "x_prev"])
def test_the_weighted_prediction_means_the_same_as_eps_x_start_or_x_prev(predict):
    by_eps, diffusion = diffusion_of(), diffusion_of(predict=predict)
    x, t = initial_noise(SEED, torch.arange(3), SHAPE), torch.tensor([2, 20, 39])

    def eps_network(x, t):
        return two_predictions(x, t.float() / 40)[:, :3]

    def network(x, t):
        x_start = predicted_x_start(by_eps, x, t, eps_network(x, t))
        return x_start if predict == "x_start" else q_posterior(diffusion, x_start, x, t).mean

    eps = classifier_free(eps_network, 3.0)(x, t)
    prediction = classifier_free(network, 3.0)(x, t)
    torch.testing.assert_close(
        predicted_x_start(diffusion, x, t, prediction),
        predicted_x_start(by_eps, x, t, eps),
        rtol=1e-3,
        atol=1e-3,
    )


def test_a_weight_of_1_leads_to_the_class_and_0_leaves_it_to_the_noise():
    diffusion = diffusion_of(schedule="cosine")
    truth, y = TwoImages(diffusion), torch.tensor([0, 1] * 4)

    def network(x, t):
        half = len(x) // 2
        return torch.cat((truth.eps_of(x[:half], t[:half], y), truth.eps(x[half:], t[half:])))

    guided = sampled(diffusion, classifier_free(network, 1.0), y)
    torch.testing.assert_close(guided, IMAGES[y], atol=1e-3, rtol=0)
    free = sampled(diffusion, classifier_free(network, 0.0), y)
    torch.testing.assert_close(free, sampled(diffusion, truth.eps, y), atol=1e-4, rtol=0)
    assert not torch.allclose(free, guided, atol=0.1)
