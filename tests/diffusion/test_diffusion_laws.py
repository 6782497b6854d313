"""Identities of the diffusion process, held to double precision."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest
import torch

from diffcli.config.sections import DiffusionConfig, Objective, Predict, Schedule, Variance
from diffcli.diffusion.build import build_diffusion
from diffcli.diffusion.likelihood import (
    bits_per_dim,
    discretized_gaussian_log_likelihood,
    likelihood_steps,
    vb_term,
)
from diffcli.diffusion.objectives import training_losses
from diffcli.diffusion.prediction import eps_from_x_start, x_start_from_eps, x_start_from_x_prev
from diffcli.diffusion.process import q_mean_variance, q_posterior, q_sample
from diffcli.diffusion.reverse import p_mean_variance

STEPS = 60
T = torch.tensor([0, 1, 2, 30, STEPS - 2, STEPS - 1])


def draw(seed, channels=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(T), channels, 4, 5, generator=generator, dtype=dtype)


X_START, NOISE = draw(0).tanh(), draw(1)


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_one_jump_of_the_forward_process_is_all_its_steps(schedule):
    diffusion = build_diffusion(DiffusionConfig(steps=STEPS, schedule=schedule))
    betas = diffusion.schedule.betas
    mean, variance = X_START[:1], torch.zeros(())
    for step in range(STEPS):
        # arXiv 2006.11239, equation 2
        mean, variance = (1 - betas[step]).sqrt() * mean, (1 - betas[step]) * variance + betas[step]
        jump = q_mean_variance(diffusion, X_START[:1], torch.tensor([step]))
        torch.testing.assert_close(jump.mean, mean)
        torch.testing.assert_close(jump.variance.squeeze(), variance)
        torch.testing.assert_close(jump.log_variance.exp().squeeze(), variance)


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_predictions_are_inverses(schedule):
    diffusion = build_diffusion(DiffusionConfig(steps=STEPS, schedule=schedule))
    x_t = q_sample(diffusion, X_START, T, NOISE)
    torch.testing.assert_close(eps_from_x_start(diffusion, x_t, T, X_START), NOISE)
    torch.testing.assert_close(x_start_from_eps(diffusion, x_t, T, NOISE), X_START)
    x_prev = q_posterior(diffusion, X_START, x_t, T).mean
    torch.testing.assert_close(x_start_from_x_prev(diffusion, x_t, T, x_prev), X_START)


@pytest.mark.parametrize("predict", get_args(Predict))
def test_a_perfect_network_walks_the_posterior_and_costs_nothing(predict):
    diffusion = build_diffusion(DiffusionConfig(steps=STEPS, predict=predict, variance="fixed_small"))
    x_t = q_sample(diffusion, X_START, T, NOISE)
    posterior = q_posterior(diffusion, X_START, x_t, T)
    truth = {"eps": NOISE, "x_start": X_START, "x_prev": posterior.mean}[predict]
    reverse = p_mean_variance(diffusion, truth, x_t, T, clip=False)
    torch.testing.assert_close(reverse.mean, posterior.mean)
    torch.testing.assert_close(reverse.x_start, X_START)
    kl = vb_term(diffusion, reverse, X_START, x_t, T)[T > 0]
    torch.testing.assert_close(kl, torch.zeros_like(kl))


def test_learned_range_lies_between_its_bounds():
    diffusion = build_diffusion(DiffusionConfig(steps=STEPS, variance="learned_range"))
    x_t = q_sample(diffusion, X_START, T, NOISE)
    for value, bound in (
        (-1.0, diffusion.schedule.posterior_log_variance),
        (1.0, diffusion.schedule.log_beta),
    ):
        output = torch.cat((NOISE, torch.full_like(NOISE, value)), dim=1)
        log_variance = p_mean_variance(diffusion, output, x_t, T, clip=True).log_variance
        torch.testing.assert_close(log_variance, bound.at(T, x_t).expand_as(log_variance))


def test_hybrid_trains_the_mean_on_the_error_alone_and_the_variance_on_the_bound_alone():
    output = torch.cat((draw(2), draw(3)), dim=1)
    gradients = {}
    for objective in ("simple", "hybrid_unscaled", "vlb_unscaled"):
        config = DiffusionConfig(steps=STEPS, variance="learned_range", objective=objective)
        diffusion = build_diffusion(config)
        leaf = output.clone().requires_grad_()
        x_t = q_sample(diffusion, X_START, T, NOISE)
        training_losses(diffusion, leaf, x_start=X_START, x_t=x_t, t=T, noise=NOISE).loss.sum().backward()
        gradients[objective] = leaf.grad
    assert torch.equal(gradients["hybrid_unscaled"][:, :3], gradients["simple"][:, :3])
    torch.testing.assert_close(gradients["hybrid_unscaled"][:, 3:], gradients["vlb_unscaled"][:, 3:])
    assert (gradients["simple"][:, 3:] == 0).all()


def test_the_bins_of_the_decoder_are_a_distribution():
    x = (torch.arange(256, dtype=torch.float64) / 127.5 - 1)[:, None]
    means = torch.linspace(-1.2, 1.2, 7, dtype=torch.float64)
    for log_scale in (-4.0, -1.0, 1.0):
        probability = discretized_gaussian_log_likelihood(x, means, torch.full_like(means, log_scale)).exp()
        torch.testing.assert_close(probability.sum(dim=0), torch.ones(7, dtype=torch.float64))


@pytest.mark.parametrize(
    ("predict", "variance", "objective"),
    list(product(get_args(Predict), get_args(Variance), get_args(Objective))),
)
def test_a_chain_of_one_step_has_finite_losses_and_gradients(predict, variance, objective):
    config = DiffusionConfig(steps=50, predict=predict, variance=variance, objective=objective)
    diffusion = build_diffusion(config, [49])
    channels = 6 if variance in ("learned", "learned_range") else 3
    output = draw(4, channels, torch.float32).requires_grad_()
    t, x_start, noise = torch.zeros_like(T), X_START.float(), NOISE.float()
    x_t = q_sample(diffusion, x_start, t, noise)
    terms = training_losses(diffusion, output, x_start=x_start, x_t=x_t, t=t, noise=noise)
    terms.loss.sum().backward()
    assert terms.loss.shape == (len(T),)
    assert terms.loss.isfinite().all()
    assert output.grad.isfinite().all()


def test_the_bound_does_not_depend_on_the_order_of_the_steps():
    diffusion = build_diffusion(DiffusionConfig(steps=STEPS), [10, 30, 59])

    def denoiser(x_t, t):
        return 0.5 * x_t + t.view(-1, 1, 1, 1) / STEPS

    def noise_of(t):
        return draw(10 + int(t[0]))

    at = torch.arange(3).expand(len(X_START), -1)
    steps = list(likelihood_steps(denoiser, diffusion, X_START, at, noise_of, clip=True))
    assert [step.column for step in steps] == [2, 1, 0]
    forward, backward = (
        bits_per_dim(diffusion, X_START, order, torch.ones(3)) for order in (steps, steps[::-1])
    )
    assert torch.equal(forward.total, backward.total)
    torch.testing.assert_close(forward.total, forward.prior + forward.terms.vb.sum(dim=1))
    assert forward.terms.vb.shape == (len(T), 3)
