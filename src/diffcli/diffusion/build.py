"""A Gaussian diffusion, and how it follows from a run's configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffcli.config.sections import DiffusionConfig, Objective, Predict, Variance
from diffcli.diffusion.respacing import respaced
from diffcli.diffusion.schedules import NoiseSchedule, named_betas
from diffcli.errors import UsageError

# the timesteps that networks trained with rescale_timesteps see, whatever the length of their chain
_RESCALED_STEPS = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianDiffusion:
    """A chain, what the network predicts of it, and how it is trained.

    timestep_map: int64 [n], the original timestep, in 0..original_steps-1, behind each internal step 0..n-1.
    """

    schedule: NoiseSchedule
    timestep_map: Tensor
    original_steps: int
    predict: Predict
    variance: Variance
    objective: Objective
    rescale_timesteps: bool
    _maps: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False)

    @property
    def steps(self) -> int:
        """The length n of the chain, after respacing."""
        return self.schedule.steps

    def model_timesteps(self, t: Tensor) -> Tensor:
        """What the network sees at the internal steps t, int64 [N] in 0..n-1.

        Returns original timesteps, int64 [N]; with rescale_timesteps float32 [N] in 0..1000.
        """
        if t.device not in self._maps:
            # copied once, as the tables of the schedule are
            with torch.inference_mode(False):
                self._maps[t.device] = self.timestep_map.to(t.device, copy=True)
        original = self._maps[t.device][t]
        if self.rescale_timesteps:
            return original.float() * (_RESCALED_STEPS / self.original_steps)
        return original


def build_diffusion(config: DiffusionConfig, timesteps: Sequence[int] | None = None) -> GaussianDiffusion:
    """The diffusion of a configuration, on all timesteps or only on the given ones (ascending, in 0..T-1).

    UsageError for a chain that its schedule cannot have.
    """
    betas = named_betas(config.schedule, config.steps)
    try:
        schedule = NoiseSchedule(betas)
    except UsageError as error:
        raise UsageError(
            error.what,
            where=f"diffusion.schedule = {config.schedule!r} with diffusion.steps = {config.steps}",
            remedy="the linear schedule needs at least 20 steps; the cosine schedule takes any number",
        ) from None
    kept = range(config.steps) if timesteps is None else timesteps
    return GaussianDiffusion(
        schedule=schedule if timesteps is None else respaced(schedule, timesteps),
        timestep_map=torch.tensor(kept, dtype=torch.int64),
        original_steps=config.steps,
        predict=config.predict,
        variance=config.variance,
        objective=config.objective,
        rescale_timesteps=config.rescale_timesteps,
    )
