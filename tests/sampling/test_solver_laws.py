"""What the solvers make of the noise: laws of ancestral sampling and of DDIM."""

from __future__ import annotations

import pytest
import torch

from diffcli.config.sections import DiffusionConfig
from diffcli.diffusion.build import build_diffusion
from diffcli.diffusion.prediction import eps_from_x_start
from diffcli.diffusion.respacing import ddim_timesteps
from diffcli.sampling.ddim import ddim_encoding_step, ddim_sigma, ddim_step
from diffcli.sampling.noise import initial_noise, step_noise
from diffcli.sampling.solve import SolverSettings, solve

SHAPE = (3, 4, 5)
SEED = 7


def diffusion_of(*, steps=40, timesteps=None, **settings):
    return build_diffusion(DiffusionConfig(steps=steps, **settings), timesteps)


TARGET = torch.linspace(-0.9, 0.9, 60).reshape(1, *SHAPE)


def knows_the_target(diffusion):
    """A network for a data set of one image: it predicts the eps that leads there."""

    def denoiser(x_t, model_timesteps):
        t = (diffusion.timestep_map == model_timesteps[:1]).nonzero().flatten().expand(len(x_t))
        return eps_from_x_start(diffusion, x_t, t, TARGET)

    return denoiser


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 39, 40])
@pytest.mark.parametrize(("solver", "eta"), [("ancestral", 0.0), ("ddim", 0.0), ("ddim", 0.5), ("ddim", 1.0)])
def test_any_number_of_steps_leads_to_the_image(schedule, count, solver, eta):
    diffusion = diffusion_of(schedule=schedule, timesteps=ddim_timesteps(40, count))
    samples = torch.arange(2)
    steps = list(
        solve(
            knows_the_target(diffusion),
            diffusion,
            initial_noise(SEED, samples, SHAPE),
            lambda step: step_noise(SEED, samples, SHAPE, step=step),
            SolverSettings(solver=solver, eta=eta, clip=True),
        )
    )
    assert [step.step for step in steps] == list(range(count))[::-1]
    torch.testing.assert_close(steps[-1].x, TARGET.expand(2, *SHAPE), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("solver", "eta", "drawn"),
    [("ancestral", 0.0, [3, 2, 1]), ("ddim", 0.0, []), ("ddim", 0.3, [3, 2, 1])],
)
def test_noise_is_drawn_only_where_it_is_used(solver, eta, drawn):
    diffusion = diffusion_of(timesteps=[0, 10, 20, 39])
    asked = []

    def noise_at(step):
        asked.append(step)
        return torch.zeros(1, *SHAPE)

    settings = SolverSettings(solver=solver, eta=eta, clip=True)
    for _ in solve(knows_the_target(diffusion), diffusion, torch.ones(1, *SHAPE), noise_at, settings):
        pass
    assert asked == drawn


def test_ddim_with_eta_1_is_ancestral_sampling_with_the_posterior_variance():
    diffusion = diffusion_of(variance="fixed_small")
    denoiser = knows_the_target(diffusion)
    samples = torch.arange(3)
    chains = [
        solve(
            denoiser,
            diffusion,
            initial_noise(SEED, samples, SHAPE),
            lambda step: step_noise(SEED, samples, SHAPE, step=step),
            SolverSettings(solver=solver, eta=1.0, clip=True),
        )
        for solver in ("ancestral", "ddim")
    ]
    for ancestral, ddim in zip(*chains, strict=True):
        torch.testing.assert_close(ancestral.x, ddim.x, atol=1e-4, rtol=1e-4)
    for step in range(diffusion.steps):
        variance = float(diffusion.schedule.posterior_variance.values[step])
        assert ddim_sigma(diffusion, step, 1.0) ** 2 == pytest.approx(variance, rel=1e-9)


def test_a_step_across_nearly_the_whole_chain_is_finite_with_full_noise():
    diffusion = diffusion_of(steps=4000, schedule="cosine", timesteps=[0, 3999])
    x_t, x_start = torch.ones(1, *SHAPE), TARGET
    x = ddim_step(diffusion, x_t, x_start, 1, eta=1.0, noise=torch.ones_like(x_t))
    assert x.isfinite().all()


def test_encoding_turns_a_deterministic_step_round():
    diffusion = diffusion_of()
    x_t = initial_noise(SEED, torch.tensor([4]), SHAPE)
    for step in range(diffusion.steps - 1):
        x_next = ddim_encoding_step(diffusion, x_t, TARGET, step)
        back = ddim_step(diffusion, x_next, TARGET, step + 1, eta=0.0, noise=None)
        torch.testing.assert_close(back, x_t, atol=1e-4, rtol=1e-4)
