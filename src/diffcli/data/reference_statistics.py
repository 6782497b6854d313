"""Statistics of images that were published in place of the images: the mu and sigma of an npz file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffcli.data.sources.archives import opened
from diffcli.data.sources.npz_arrays import Npz
from diffcli.errors import CorruptError
from diffcli.images.decode import printable

_BLOCK_BYTES = 2**22


@dataclass(frozen=True, kw_only=True, eq=False)
class MeanAndCovariance:
    """float64 [D] and [D, D]."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class PublishedStatistics:
    """What a file says of Inception's features, None where it says nothing.

    has_images: whether it holds images as well; sha256: of the file.
    """

    location: Path
    pooled: MeanAndCovariance | None
    spatial: MeanAndCovariance | None
    has_images: bool
    sha256: str


def read_statistics(path: Path) -> PublishedStatistics:
    """mu, sigma, mu_s and sigma_s of an npz file, as OpenAI's reference batches and EDM's have them.

    Errors: MissingError, StorageError, and CorruptError for arrays that are no mean and covariance.
    """
    with opened(path) as file:
        npz = Npz(file, path)
        pooled, spatial = _pair(npz, "mu", "sigma"), _pair(npz, "mu_s", "sigma_s")
        has_images = "arr_0" in npz.names
        digest = hashlib.sha256()
        file.seek(0)
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return PublishedStatistics(
        location=path, pooled=pooled, spatial=spatial, has_images=has_images, sha256=digest.hexdigest()
    )


def _pair(npz: Npz, mean_name: str, covariance_name: str) -> MeanAndCovariance | None:
    if not {mean_name, covariance_name} <= set(npz.names):
        return None
    mean, covariance = npz.array(mean_name), npz.array(covariance_name)
    fits = mean.ndim == 1 and covariance.shape == (len(mean), len(mean))
    if not fits or mean.dtype.kind != "f" or covariance.dtype.kind != "f":
        raise CorruptError(
            f"{printable(npz.location)} holds no statistics",
            where=f"{mean_name} is {mean.dtype} {mean.shape}, "
            f"{covariance_name} {covariance.dtype} {covariance.shape}",
            remedy="get the file once more, from where you trust it",
        )
    found = MeanAndCovariance(mean=mean.astype(np.float64), covariance=covariance.astype(np.float64))
    if not (np.isfinite(found.mean).all() and np.isfinite(found.covariance).all()):
        raise CorruptError(f"{printable(npz.location)} holds statistics that are not finite")
    return found
