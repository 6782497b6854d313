"""x_T that a user gives: a .npy file, or the directory that `sample --encode` has written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffcli import durable
from diffcli.config.sections import RunConfig
from diffcli.data.given_sources import UNREADABLE, archive_in, archived_labels
from diffcli.errors import CorruptError, MissingError, UsageError
from diffcli.images.decode import printable
from diffcli.sampling.archive import LATENTS

_OPTION = "--noise"


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenNoise:
    """x: float32 [N, C, H, W]; labels: int64 [N], None where nothing tells them; sha256: of the file."""

    x: npt.NDArray[np.float32]
    labels: Tensor | None = None
    sha256: str | None = None


def read_given_noise(path: Path, config: RunConfig, count: int | None) -> GivenNoise:
    """At least `count` x_T for the network of a configuration, memory-mapped; None: as many as there are.

    MissingError, CorruptError and UsageError for what is not there, no array, or of another shape.
    """
    file = path / LATENTS if path.is_dir() else path
    noise = _array(file)
    data = config.data
    shape = (data.channels, data.resolution, data.resolution)
    fits = noise.ndim == 4 and noise.dtype == np.float32
    if not fits or noise.shape[1:] != shape or len(noise) < (count or 1):
        needed = ", ".join(str(size) for size in ("N" if count is None else count, *shape))
        raise UsageError(
            f"{printable(file)} holds {noise.dtype} {list(noise.shape)}, needed is float32 [{needed}]",
            where=_OPTION,
            remedy="x_T as [N, C, H, W], at least as many as --num",
        )
    return GivenNoise(x=noise, labels=_labels(path, len(noise)), sha256=durable.sha256(file))


def _array(file: Path) -> npt.NDArray[np.float32]:
    try:
        noise: object = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise MissingError(f"there is no file {printable(file)}", where=_OPTION) from error
    except UNREADABLE as error:
        raise _no_numbers(file) from error
    if not isinstance(noise, np.ndarray):
        # a zip archive, into which it has not looked
        raise _no_numbers(file)
    return noise


def _no_numbers(file: Path) -> CorruptError:
    return CorruptError(f"{printable(file)} is not a .npy file of numbers", where=_OPTION)


def _labels(path: Path, count: int) -> Tensor | None:
    """The classes that images were encoded with, which their directory keeps."""
    archive = archive_in(path) if path.is_dir() else None
    labels = None if archive is None else archived_labels(archive, _OPTION)
    if labels is None:
        return None
    if labels.shape != (count,) or labels.dtype != np.int64:
        raise CorruptError(
            f"{printable(path)} holds {count} x_T, and labels {labels.dtype} {list(labels.shape)}",
            where=_OPTION,
        )
    return torch.from_numpy(labels.astype(np.int64))
