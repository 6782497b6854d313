"""Snapshots of a run's power-function averages, and the averages of other widths that they give.

A snapshot is a directory `step-000500` in `ema-snapshots/`, written and verified like a checkpoint, with a
file `std-0.05.safetensors` for each average.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffcli.errors import CorruptError, MissingError
from diffcli.training import checkpoints
from diffcli.training.power_function_ema import Profile, fit_profile
from diffcli.training.state import profile_file

_ANY_PROFILE = "std-*.safetensors"
# with one profile the only combination whose coefficients sum to 1 is that profile
_FEWEST_PROFILES = 2


@dataclass(frozen=True, kw_only=True)
class Term:
    """One stored average and its coefficient in a reconstruction."""

    profile: Profile
    coefficient: float


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """The average of profile `target` as a sum of stored ones, newest first, none with coefficient 0.

    relative_error: of the profile, as predicted by the fit; 0 if it is stored. rejected: what is wrong with
    snapshots that were left out, newest first, for the caller to tell.
    """

    target: Profile
    terms: tuple[Term, ...]
    relative_error: float
    rejected: tuple[CorruptError, ...]

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps of the snapshots it takes, newest first."""
        return tuple(dict.fromkeys(term.profile.step for term in self.terms))

    @property
    def stds(self) -> tuple[float, ...]:
        """The widths of the averages it takes, smallest first."""
        return tuple(sorted({term.profile.std for term in self.terms}))


def stored_profiles(snapshot: Path) -> tuple[Profile, ...]:
    """The averages in a snapshot, narrowest first, unverified; nothing is loaded."""
    step = int(snapshot.name.removeprefix("step-"))
    stds = sorted(float(file.stem.removeprefix("std-")) for file in snapshot.glob(_ANY_PROFILE))
    return tuple(Profile(std=std, step=step) for std in stds)


def find_reconstruction(snapshots: Path, *, std: float, step: int | None) -> Reconstruction:
    """How to have the average of relative width `std` after `step` steps, from snapshots that verify.

    step: None for that of the newest good snapshot. Later snapshots are not used. Raises MissingError when
    there are too few, and CorruptError when there are some and none is good.
    """
    good: list[Profile] = []
    rejected: list[CorruptError] = []
    for present in reversed(_steps_up_to(snapshots, step)):
        snapshot = checkpoints.directory_of(snapshots, present)
        try:
            checkpoints.verify(snapshot)
        except CorruptError as error:
            rejected.append(error)
            continue
        step = present if step is None else step
        good += stored_profiles(snapshot)
        if Profile(std=std, step=step) in good:
            # it is stored, so the older ones need not be read
            break
    if step is None or not good:
        raise CorruptError(
            f"none of the {len(rejected)} EMA snapshots in {snapshots} is good",
            where=str(rejected[0].what),
            remedy="restore one from a backup, or choose other weights with --ema",
        )
    return _fitted(Profile(std=std, step=step), good, tuple(rejected))


def _steps_up_to(snapshots: Path, step: int | None) -> tuple[int, ...]:
    present = checkpoints.steps_present(snapshots)
    if not present:
        raise MissingError(
            f"there are no EMA snapshots in {snapshots}",
            where="--ema-std takes those that training wrote",
            remedy="runs with training.ema_snapshot_every write them; choose other weights with --ema",
        )
    if step is not None and step < present[0]:
        raise MissingError(
            f"there is no EMA snapshot up to step {step}",
            where=f"the first one is of step {present[0]}",
            remedy="choose a later step with --checkpoint",
        )
    return tuple(other for other in present if step is None or other <= step)


def _fitted(target: Profile, good: list[Profile], rejected: tuple[CorruptError, ...]) -> Reconstruction:
    if target not in good and len(good) < _FEWEST_PROFILES:
        raise MissingError(
            f"width {target.std} at step {target.step} takes at least {_FEWEST_PROFILES} stored averages",
            where=f"there is one, of width {good[0].std} at step {good[0].step}",
            remedy=f"choose it with --ema-std {good[0].std} --checkpoint {good[0].step}",
        )
    fit = fit_profile(target, good)
    terms = (
        Term(profile=profile, coefficient=coefficient)
        for profile, coefficient in zip(good, fit.coefficients, strict=True)
        if coefficient != 0
    )
    return Reconstruction(
        target=target, terms=tuple(terms), relative_error=fit.relative_error, rejected=rejected
    )


@torch.no_grad()
def reconstruct(
    snapshots: Path, reconstruction: Reconstruction, expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The weights of a reconstruction, on the CPU, reading one stored average at a time.

    expected: names, shapes and dtypes, on any device; CorruptError names the first that differ.
    """
    # the coefficients are large and of both signs: float32 sums would lose what the snapshots differ in
    sums = {
        name: torch.zeros(tensor.shape, dtype=torch.float64, device="cpu")
        for name, tensor in expected.items()
    }
    for term in reconstruction.terms:
        snapshot = checkpoints.directory_of(snapshots, term.profile.step)
        stored = checkpoints.read_fitting(snapshot, profile_file(term.profile.std), expected)
        for name, tensor in stored.items():
            sums[name].add_(tensor, alpha=term.coefficient)
    return {name: sums[name].to(tensor.dtype) for name, tensor in expected.items()}
