"""What each sample is told or starts from: its class, its small image, its x_T."""

from __future__ import annotations

import difflib
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffcli import durable
from diffcli.config.sections import RunConfig
from diffcli.errors import CorruptError, MissingError, UsageError
from diffcli.images.conversion import from_uint8
from diffcli.models.conditioning import Conditioning
from diffcli.sampling.noise import initial_noise, sample_classes

_SHOWN_CLASSES = 10
# what numpy raises for files that are no arrays; TypeError for one array where an archive is needed
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, kw_only=True)
class SampleConditions:
    """The conditions of samples 0..count-1; None where there are none.

    classes: int64 [count], what a class-conditional network is told; labels: int64 [count], what the archive
    keeps; noise: float32 [>= count, C, H, W]; low_res: uint8 [>= count, h, w, C].
    """

    classes: Tensor | None
    labels: Tensor | None
    classes_per_round: int
    noise: npt.NDArray[np.float32] | None
    noise_sha256: str | None
    low_res: npt.NDArray[np.uint8] | None
    low_res_sha256: str | None

    def of(self, samples: Tensor) -> Conditioning:
        """What the network is told of samples, int64 [N] on the CPU; padding beyond the last repeats it."""
        low_res = None
        if self.low_res is not None:
            rows = self.low_res[samples.clamp(max=len(self.low_res) - 1).numpy()]
            low_res = from_uint8(torch.from_numpy(rows)).permute(0, 3, 1, 2)
        classes = None
        if self.classes is not None:
            classes = self.classes[samples.clamp(max=len(self.classes) - 1)]
        return Conditioning(y=classes, low_res=low_res)

    def start(self, seed: int, samples: Tensor, shape: Sequence[int], device: torch.device) -> Tensor:
        """x_T of the samples, int64 [N] on the CPU, as float32 [N, *shape] on the device."""
        if self.noise is None:
            return initial_noise(seed, samples.to(device), shape)
        rows = self.noise[samples.clamp(max=len(self.noise) - 1).numpy()]
        return torch.from_numpy(np.ascontiguousarray(rows)).to(device)


@dataclass(frozen=True, kw_only=True)
class ConditionsRequest:
    """What was asked for: classes as text, files of noise and of small images."""

    count: int
    seed: int
    classes: str | None
    noise: Path | None
    low_res: Path | None


def find_conditions(
    request: ConditionsRequest, config: RunConfig, class_names: Sequence[str]
) -> SampleConditions:
    """Check and load the conditions; UsageError, MissingError or CorruptError for what does not fit."""
    low_res, low_res_labels = _low_res(request, config)
    listed = _listed_classes(request, config, class_names)
    classes = None
    if config.model.classes:
        classes = _classes(request, config, listed, low_res_labels)
    return SampleConditions(
        classes=classes,
        # small images have their labels, also when the network that enlarges them knows none
        labels=low_res_labels if classes is None else classes,
        classes_per_round=len(listed),
        noise=_noise(request, config),
        noise_sha256=None if request.noise is None else durable.sha256(request.noise),
        low_res=low_res,
        low_res_sha256=None if request.low_res is None else durable.sha256(request.low_res),
    )


def _classes(
    request: ConditionsRequest, config: RunConfig, listed: list[int], low_res_labels: Tensor | None
) -> Tensor:
    if listed:
        return torch.tensor(listed)[torch.arange(request.count) % len(listed)]
    if low_res_labels is not None:
        return low_res_labels
    return sample_classes(request.seed, torch.arange(request.count), config.model.classes)


def _listed_classes(request: ConditionsRequest, config: RunConfig, class_names: Sequence[str]) -> list[int]:
    if request.classes is None:
        return []
    if not config.model.classes:
        raise UsageError("this network knows no classes", where="--class", remedy="leave --class out")
    return [_class(text.strip(), config.model.classes, class_names) for text in request.classes.split(",")]


def _class(text: str, classes: int, names: Sequence[str]) -> int:
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < classes:
        return int(text)
    near = [] if text.isdecimal() else difflib.get_close_matches(text, names, n=3)
    shown = ", ".join(names[:_SHOWN_CLASSES]) + (", ..." if len(names) > _SHOWN_CLASSES else "")
    # of an imported run the names are not known
    named = f", or one of: {shown}" if names else ""
    raise UsageError(
        f"there is no class {text!r}",
        where="--class",
        remedy=f"did you mean {' or '.join(near)}?" if near else f"a number from 0 to {classes - 1}{named}",
    )


def _noise(request: ConditionsRequest, config: RunConfig) -> npt.NDArray[np.float32] | None:
    if request.noise is None:
        return None
    try:
        noise = np.load(request.noise, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise MissingError(f"there is no file {request.noise}", where="--noise") from error
    except _UNREADABLE as error:
        raise CorruptError(f"{request.noise} is not a .npy file of numbers", where="--noise") from error
    if not isinstance(noise, np.ndarray):
        # a zip archive, which it has not looked into
        raise CorruptError(f"{request.noise} is not a .npy file of numbers", where="--noise")
    data = config.data
    needed = (request.count, data.channels, data.resolution, data.resolution)
    fits = noise.ndim == 4 and noise.dtype == np.float32
    if not fits or noise.shape[1:] != needed[1:] or noise.shape[0] < needed[0]:
        raise UsageError(
            f"{request.noise} holds {noise.dtype} {list(noise.shape)}, needed is float32 {list(needed)}",
            where="--noise",
            remedy="x_T as [N, C, H, W], at least as many as --num",
        )
    checked: npt.NDArray[np.float32] = noise
    return checked


def _low_res(
    request: ConditionsRequest, config: RunConfig
) -> tuple[npt.NDArray[np.uint8] | None, Tensor | None]:
    """The small images and their labels, if the archive has any."""
    if config.model.kind != "superres":
        if request.low_res is not None:
            raise UsageError("only a super-resolution run takes small images", where="--low-res")
        return None, None
    if request.low_res is None:
        raise UsageError(
            "a super-resolution run needs small images",
            remedy=f"--low-res FILE.npz, with arr_0 uint8 [N, {config.data.low_resolution}, "
            f"{config.data.low_resolution}, {config.data.channels}]",
        )
    images, labels = _archived(request.low_res)
    size, channels = config.data.low_resolution, config.data.channels
    fits = images.dtype == np.uint8 and images.ndim == 4 and images.shape[1:] == (size, size, channels)
    if not fits or len(images) < request.count:
        raise UsageError(
            f"{request.low_res} holds {images.dtype} {list(images.shape)}, needed is uint8 "
            f"{[request.count, size, size, channels]}",
            where="--low-res",
        )
    checked = images.astype(np.uint8, copy=False)
    return checked, None if labels is None else _checked_labels(labels, request, config)


def _archived(path: Path) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic] | None]:
    """arr_0 of a sample archive, and arr_1 if it has one."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = [archive["arr_0"], archive.get("arr_1")]
    except FileNotFoundError as error:
        raise MissingError(f"there is no file {path}", where="--low-res") from error
    except _UNREADABLE as error:
        raise _no_archive(path) from error
    # of a member that is no array numpy gives the bytes
    if not all(array is None or isinstance(array, np.ndarray) for array in arrays):
        raise _no_archive(path)
    return arrays[0], arrays[1]


def _no_archive(path: Path) -> CorruptError:
    return CorruptError(f"{path} is not a sample archive", where="--low-res")


def _checked_labels(labels: npt.NDArray[np.generic], request: ConditionsRequest, config: RunConfig) -> Tensor:
    """The labels of the small images as int64 [count]."""
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) < request.count:
        raise UsageError(
            f"{request.low_res} holds labels arr_1 of {labels.dtype} {list(labels.shape)}, needed are whole "
            f"numbers {[request.count]}",
            where="--low-res",
        )
    checked = torch.from_numpy(labels[: request.count].astype(np.int64))
    classes = config.model.classes
    if classes and not 0 <= int(checked.min()) <= int(checked.max()) < classes:
        raise UsageError(
            f"{request.low_res} holds labels from {int(checked.min())} to {int(checked.max())}",
            where=f"this network knows the classes 0 to {classes - 1}",
            remedy="give the classes with --class, or archives of the same classes",
        )
    return checked
