"""What each sample is told or starts from: its class, its small image, its x_T."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffcli.commands.given_noise import GivenNoise, read_given_noise
from diffcli.config.sections import RunConfig
from diffcli.data.given_images import GivenImages, WantedImages, read_given_images
from diffcli.errors import UsageError
from diffcli.images.conversion import from_uint8
from diffcli.models.conditioning import Conditioning
from diffcli.sampling.archive import Labels
from diffcli.sampling.noise import initial_noise, sample_classes

DEFAULT_COUNT = 64
_SHOWN_CLASSES = 10
_CLASSES_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True)
class SampleConditions:
    """The conditions of samples 0..count-1; None where there are none.

    classes: int64 [count], what a class-conditional network is told; labels: int64 [count], what the archive
    keeps; noise: of at least count samples; low_res: count small images; remarks: what a user should know.
    """

    count: int
    classes: Tensor | None
    labels: Tensor | None
    classes_per_round: int
    noise: GivenNoise | None
    low_res: GivenImages | None
    remarks: tuple[str, ...]

    @property
    def classes_sha256(self) -> str | None:
        """Over the classes and the labels; None where there are none."""
        told = [tensor for tensor in (self.classes, self.labels) if tensor is not None]
        if not told:
            return None
        digest = hashlib.sha256()
        for tensor in told:
            digest.update(tensor.numpy().astype("<i8", copy=False).data)
        return digest.hexdigest()

    @property
    def kept_labels(self) -> Labels | None:
        """What the archive keeps, int64 [count]; None for none."""
        return None if self.labels is None else self.labels[: self.count].numpy()

    def first(self, count: int) -> SampleConditions:
        """Those of samples 0..count-1 alone, at most as many as there are."""
        return dataclasses.replace(
            self,
            count=count,
            classes=None if self.classes is None else self.classes[:count],
            labels=None if self.labels is None else self.labels[:count],
            low_res=None if self.low_res is None else self.low_res.first(count),
        )

    def of(self, samples: Tensor) -> Conditioning:
        """What the network is told of samples, int64 [N] on the CPU; padding beyond the last repeats it."""
        known = samples.clamp(max=self.count - 1)
        low_res = None
        if self.low_res is not None:
            rows = self.low_res.images[known.numpy()]
            low_res = from_uint8(torch.from_numpy(rows)).permute(0, 3, 1, 2)
        return Conditioning(y=None if self.classes is None else self.classes[known], low_res=low_res)

    def start(self, seed: int, samples: Tensor, shape: Sequence[int], device: torch.device) -> Tensor:
        """x_T of the samples, int64 [N] on the CPU, as float32 [N, *shape] on the device."""
        if self.noise is None:
            return initial_noise(seed, samples.to(device), shape)
        rows = self.noise.x[samples.clamp(max=len(self.noise.x) - 1).numpy()]
        return torch.from_numpy(np.ascontiguousarray(rows)).to(device)


@dataclass(frozen=True, kw_only=True)
class ConditionsRequest:
    """What was asked for: classes as text, where noise and small images lie.

    count: None for as many as there is noise and small images, or else 64.
    """

    count: int | None
    seed: int
    classes: str | None
    noise: Path | None
    low_res: Path | None


def find_conditions(
    request: ConditionsRequest, config: RunConfig, class_names: Sequence[str]
) -> SampleConditions:
    """Check and load the conditions; UsageError, MissingError or CorruptError for what does not fit."""
    listed = listed_classes(request.classes, config, class_names)
    noise = None if request.noise is None else read_given_noise(request.noise, config, request.count)
    low_res = _low_res(request, wanted_images("--low-res", request, config, class_names), noise)
    count = _count(request, noise, low_res)
    labels = _labels(count, noise, low_res, config) if not listed else None
    classes = _classes(request, config, listed, labels, count) if config.model.classes else None
    return SampleConditions(
        count=count,
        classes=classes,
        labels=labels if classes is None else classes,
        classes_per_round=len(listed),
        noise=noise,
        low_res=low_res,
        remarks=() if low_res is None else _remarks(low_res, chosen=classes is None or bool(listed)),
    )


def listed_classes(text: str | None, config: RunConfig, class_names: Sequence[str]) -> list[int]:
    """The numbers of the classes that `--class` lists; UsageError for what is none."""
    if text is None:
        return []
    if not config.model.classes:
        raise UsageError("this network knows no classes", where="--class", remedy="leave --class out")
    return [_class(name.strip(), config.model.classes, class_names) for name in text.split(",")]


def wanted_images(
    option: str, request: ConditionsRequest, config: RunConfig, class_names: Sequence[str]
) -> WantedImages:
    """What is asked of the images of an option, but for their count: inputs of the size that is put out."""
    return WantedImages(
        option=option,
        count=request.count,
        small=False,
        with_labels=bool(config.model.classes) and request.classes is None,
        config=config,
        class_names=class_names,
    )


def _low_res(
    request: ConditionsRequest, wanted: WantedImages, noise: GivenNoise | None
) -> GivenImages | None:
    data = wanted.config.data
    if wanted.config.model.kind != "superres":
        if request.low_res is not None:
            raise UsageError("only a super-resolution run takes small images", where="--low-res")
        return None
    if request.low_res is None:
        raise UsageError(
            "a super-resolution run needs small images",
            remedy=f"--low-res PATH: an archive, a prepared dataset, a folder or an image of at least "
            f"{data.low_resolution}x{data.low_resolution} pixels",
        )
    count = len(noise.x) if noise is not None and request.count is None else request.count
    return read_given_images(request.low_res, dataclasses.replace(wanted, small=True, count=count))


def _count(request: ConditionsRequest, noise: GivenNoise | None, low_res: GivenImages | None) -> int:
    if request.count is not None:
        return request.count
    if low_res is not None:
        return len(low_res.images)
    return DEFAULT_COUNT if noise is None else len(noise.x)


def _labels(
    count: int, noise: GivenNoise | None, low_res: GivenImages | None, config: RunConfig
) -> Tensor | None:
    """The classes of small or encoded images, which the archive keeps also from a network that knows none."""
    if low_res is not None and low_res.labels is not None:
        return low_res.labels
    if noise is None or noise.labels is None:
        return None
    labels = noise.labels[:count]
    classes = config.model.classes
    if classes and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise UsageError(
            f"the encoded images have classes from {int(labels.min())} to {int(labels.max())}, "
            f"and this network knows {classes}",
            where="--noise",
            remedy="give the classes with --class, or take the run that encoded them",
        )
    return labels


def _classes(
    request: ConditionsRequest, config: RunConfig, listed: list[int], labels: Tensor | None, count: int
) -> Tensor:
    samples = torch.arange(count)
    if listed:
        return torch.tensor(listed)[samples % len(listed)]
    if labels is not None:
        return labels
    # the random numbers behind a class take many times its place
    parts = torch.split(samples, _CLASSES_AT_ONCE)
    return torch.cat([sample_classes(request.seed, part, config.model.classes) for part in parts])


def _remarks(low_res: GivenImages, *, chosen: bool) -> tuple[str, ...]:
    drawn = "nothing tells the classes of the small images: they are drawn by the seed"
    remarks = (low_res.remark, "" if chosen or low_res.labels is not None else drawn)
    return tuple(remark for remark in remarks if remark)


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
