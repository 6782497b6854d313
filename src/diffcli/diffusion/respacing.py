"""Which timesteps of a long chain a short one keeps (arXiv 2102.09672, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch

from diffcli.config.sections import SamplingConfig
from diffcli.diffusion.schedules import NoiseSchedule
from diffcli.errors import UsageError


def section_sizes(chain_steps: int, sections: int) -> tuple[int, ...]:
    """The lengths of so many near-equal sections of a chain; those that are one step longer come first."""
    base, longer = divmod(chain_steps, sections)
    return tuple(base + 1 if index < longer else base for index in range(sections))


def section_timesteps(chain_steps: int, counts: Sequence[int]) -> tuple[int, ...]:
    """Cut the chain into as many near-equal sections as there are counts; keep that many timesteps of each.

    Returns ascending timesteps in 0..chain_steps-1. UsageError for a count that its section cannot give.
    """
    sizes = section_sizes(chain_steps, len(counts))
    starts = accumulate(sizes, initial=0)
    return tuple(
        start + offset
        for start, size, count in zip(starts, sizes, counts, strict=False)
        for offset in _spread(size, count)
    )


def _spread(size: int, count: int) -> list[int]:
    """`count` of the indices 0..size-1, evenly, first and last included; only the first when count is 1."""
    if not 0 <= count <= size:
        raise UsageError(
            f"cannot keep {count} of the {size} timesteps in a section",
            where="sampling.steps",
            remedy=f"a count from 0 to {size}",
        )
    stride = (size - 1) / (count - 1) if count > 1 else 0.0
    # added up one by one and rounded half to even: published samples were made with exactly these timesteps
    return [round(position) for position in accumulate([stride] * (count - 1), initial=0.0)][:count]


def ddim_timesteps(chain_steps: int, count: int) -> tuple[int, ...]:
    """`count` evenly spaced timesteps for DDIM, ascending, for any count in 1..chain_steps, else UsageError.

    Where an integer stride from 0 meets the count, these are its timesteps (arXiv 2010.02502, appendix D.2).
    Else they end at the last timestep, with gaps that differ by at most one ("trailing" in arXiv 2305.08891,
    table 2), so that one single step starts from the noisiest timestep.
    """
    if not 1 <= count <= chain_steps:
        raise UsageError(
            f"DDIM cannot take {count} steps in a chain of {chain_steps}",
            where="sampling.steps",
            remedy=f"a count from 1 to {chain_steps}",
        )
    if count > 1:
        # the smallest stride that could fit; a larger one gives fewer timesteps
        stride = -(-chain_steps // count)
        strided = range(0, chain_steps, stride)
        if len(strided) == count:
            return tuple(strided)
    return tuple(-(-(index + 1) * chain_steps // count) - 1 for index in range(count))


def parse_section_counts(text: str) -> tuple[int, ...]:
    """The section counts written as "250" or "10,15,20"; UsageError for anything else."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{text!r} is no number of steps",
            remedy='a count such as 250, or one count for each section, such as "10,15,20"',
        ) from None


def parse_timesteps(text: str, chain_steps: int) -> tuple[int, ...]:
    """The timesteps kept by "250", "10,15,20" or "ddim50" in a chain; UsageError for anything else."""
    if not text.startswith("ddim"):
        return section_timesteps(chain_steps, parse_section_counts(text))
    count = text.removeprefix("ddim")
    if not count.isdecimal():
        raise UsageError(f"{text!r} is no number of DDIM steps", remedy="ddim and a count, such as ddim50")
    return ddim_timesteps(chain_steps, int(count))


def kept_timesteps(chain_steps: int, sampling: SamplingConfig) -> tuple[int, ...] | None:
    """The timesteps that sampling keeps of a chain; None for all of them."""
    if sampling.steps == 0:
        return None
    if isinstance(sampling.steps, tuple):
        return section_timesteps(chain_steps, sampling.steps)
    if sampling.solver == "ddim":
        return ddim_timesteps(chain_steps, sampling.steps)
    return section_timesteps(chain_steps, (sampling.steps,))


def respaced(schedule: NoiseSchedule, timesteps: Sequence[int]) -> NoiseSchedule:
    """The schedule of a chain that visits only these timesteps, ascending in 0..T-1; UsageError for none."""
    if not timesteps:
        raise UsageError("a chain needs at least one timestep", where="sampling.steps")
    assert all(low < high for low, high in pairwise(timesteps))
    kept = schedule.alpha_bar.values[torch.tensor(timesteps)]
    before = torch.cat((torch.ones(1, dtype=torch.float64), kept[:-1]))
    # arXiv 2102.09672, equation 19
    return NoiseSchedule(1 - kept / before)
