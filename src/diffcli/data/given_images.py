"""Images that a user gives to `sample`: an archive, a prepared dataset, a folder of images, or one image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from diffcli.config.sections import DataConfig, RunConfig
from diffcli.config.suggest import did_you_mean, nearest
from diffcli.data.given_sources import GivenSource, find_source
from diffcli.data.squares import decoding_threads
from diffcli.errors import CorruptError, DiffcliError, StorageError, UsageError
from diffcli.images.decode import printable
from diffcli.images.resize import Size, area_downsampled, center_crop, cropped_square
from diffcli.records.samples import GivenImagesOrigin

_SHOWN = 4
_AT_ONCE = 1024
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class WantedImages:
    """What is asked of given images.

    option: what names them on the command line; count: so many from the first on, None for all; small: the
    inputs of a super-resolution network, else images of the size that the network puts out; with_labels: the
    classes that the network is told are those of the images.
    """

    option: str
    count: int | None
    small: bool
    with_labels: bool
    config: RunConfig
    class_names: Sequence[str]

    @property
    def size(self) -> int:
        """Height and width, pixels."""
        data = self.config.data
        return data.low_resolution if self.small else data.resolution


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenImages:
    """Images at the size that was asked for: uint8 [N, H, W, C].

    labels: int64 [N], or None when nothing tells the classes; sha256: over size, pixels and labels.
    """

    images: Pixels
    labels: Tensor | None
    sha256: str
    origin: GivenImagesOrigin

    @property
    def remark(self) -> str:
        """What became of images that were larger, if any was."""
        resized, (count, height, width, _) = self.origin.resized, self.images.shape
        which = f"{'all' if resized == count else f'{resized} of'} {count} images were"
        which = "the image was" if count == 1 else which
        return f"{which} larger, and brought to {width}x{height}" if resized else ""

    def first(self, count: int) -> GivenImages:
        """The first `count` of them alone, with the digest of these."""
        if count == len(self.images):
            return self
        images, labels = self.images[:count], None if self.labels is None else self.labels[:count]
        digest = _digest(images, None if labels is None else labels.numpy())
        return GivenImages(images=images, labels=labels, sha256=digest, origin=self.origin)


def read_given_images(path: Path, wanted: WantedImages) -> GivenImages:
    """Read them and bring larger ones to size, as training does.

    MissingError for what is not there, CorruptError for what cannot be read, and UsageError for too few, too
    small, or of other channels or classes.
    """
    source = find_source(path, wanted.option, wanted.config.data)
    count = source.count if wanted.count is None else wanted.count
    if count > source.count:
        raise UsageError(
            f"{printable(path)} holds {_counted(source.count)}, and --num is {count}",
            where=wanted.option,
            remedy=f"give at most {source.count}, or leave --num out for all of them",
        )
    fitted = _fitted(source, count, wanted)
    labels = _labels(source, count, wanted)
    return GivenImages(
        images=fitted.pixels,
        labels=None if labels is None else torch.from_numpy(labels),
        sha256=_digest(fitted.pixels, labels),
        origin=GivenImagesOrigin(
            path=printable(source.path.absolute()),
            kind=source.kind,
            fingerprint=source.fingerprint,
            resized=fitted.resized,
        ),
    )


# ---- pixels ----


@dataclass(frozen=True, kw_only=True, eq=False)
class _Fitted:
    """Images at size, and how many of them were larger."""

    pixels: Pixels
    resized: int


def _fitted(source: GivenSource, count: int, wanted: WantedImages) -> _Fitted:
    """The first images at size, in order; the error lists those that cannot be used."""
    shape = (wanted.size, wanted.size, wanted.config.data.channels)
    if source.pixels is not None and source.pixels.shape[1:] == shape:
        # as they are, without a copy of all of them
        return _Fitted(pixels=source.pixels[:count], resized=0)
    pixels = np.empty((count, *shape), dtype=np.uint8)

    def fit(index: int) -> bool | DiffcliError:
        try:
            pixels[index], resized = _fit(source.image(index), wanted)
        except (CorruptError, StorageError, UsageError) as error:
            return error
        return resized

    results: list[bool | DiffcliError] = []
    with ThreadPoolExecutor(decoding_threads(), thread_name_prefix="decode") as pool:
        # what waits to be fitted takes some memory too
        for start in range(0, count, _AT_ONCE):
            results += pool.map(fit, range(start, min(start + _AT_ONCE, count)))
    bad = {index: found for index, found in enumerate(results) if isinstance(found, DiffcliError)}
    if bad:
        worst = max(bad.values(), key=lambda error: error.exit_code)
        shown = [f"{source.name(index)}: {error.what}" for index, error in list(bad.items())[:_SHOWN]]
        more = [f"and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []
        raise type(worst)(
            f"{len(bad)} of {_counted(len(results))} in {printable(source.path)} cannot be used",
            where="\n".join([wanted.option, *shown, *more]),
            remedy=worst.remedy,
        )
    return _Fitted(pixels=pixels, resized=results.count(True))


def _fit(image: Image.Image | Pixels, wanted: WantedImages) -> tuple[Pixels, bool]:
    """One image at size, and whether it was larger."""
    size, data = wanted.size, wanted.config.data
    if isinstance(image, np.ndarray):
        if image.shape == (size, size, data.channels):
            return image, False
        if image.shape[2] != data.channels:
            raise UsageError(
                f"it has {_channels(image.shape[2])}, the network takes {data.channels}",
                remedy="give images with as many channels",
            )
        image = Image.fromarray(image[:, :, 0] if data.channels == 1 else image)
    if min(image.size) < size:
        raise UsageError(
            f"{image.width}x{image.height} is too small",
            remedy=f"the network takes {size}x{size} pixels, and nothing is enlarged before",
        )
    pixels = _small_square(image, data) if wanted.small else _square(image, data.resolution, data)
    return pixels, image.size != (size, size)


def _square(image: Image.Image, side: int, data: DataConfig) -> Pixels:
    crop = center_crop(Size(*image.size), side)
    return cropped_square(image, side, crop, recipe=data.resize_recipe, channels=data.channels)


def _small_square(image: Image.Image, data: DataConfig) -> Pixels:
    """What training would make the small image of this one; of less than data.resolution, all there is."""
    square = _square(image, min(*image.size, data.resolution), data)
    planes = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float()
    means = area_downsampled(planes, data.low_resolution)
    small: Pixels = means[0].permute(1, 2, 0).round().to(torch.uint8).numpy()
    return small


# ---- classes ----


def _labels(source: GivenSource, count: int, wanted: WantedImages) -> npt.NDArray[np.int64] | None:
    """The classes of the images by the numbers of the run; None when nothing tells them."""
    labels, classes = source.labels, wanted.config.model.classes
    if labels is None or (classes and not wanted.with_labels):
        return None
    checked = _whole_numbers(labels, count, source, wanted)
    if source.class_names is not None and wanted.class_names:
        return _renumbered(checked, source, wanted)
    if source.class_names is not None and source.kind in ("folder", "image"):
        # file names, of which nobody has said that they tell classes
        return None
    if wanted.with_labels and not 0 <= checked.min() <= checked.max() < classes:
        raise UsageError(
            f"{printable(source.path)} holds labels from {checked.min()} to {checked.max()}",
            where=f"{wanted.option}; this network knows the classes 0 to {classes - 1}",
            remedy="give the classes with --class, or images of the same classes",
        )
    return checked


def _whole_numbers(
    labels: npt.NDArray[np.generic], count: int, source: GivenSource, wanted: WantedImages
) -> npt.NDArray[np.int64]:
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) < count:
        raise UsageError(
            f"{printable(source.path)} holds labels arr_1 of {labels.dtype} {list(labels.shape)}, needed are "
            f"whole numbers {[count]}",
            where=wanted.option,
        )
    return labels[:count].astype(np.int64)


def _renumbered(
    labels: npt.NDArray[np.int64], source: GivenSource, wanted: WantedImages
) -> npt.NDArray[np.int64] | None:
    """Labels that count the source's class names, as those that count the run's."""
    assert source.class_names is not None
    used = [source.class_names[label] for label in sorted(set(labels.tolist()))]
    known = {name: number for number, name in enumerate(wanted.class_names)}
    strange = [name for name in used if name not in known]
    if not strange:
        return np.array([known[source.class_names[label]] for label in labels], dtype=np.int64)
    # file names without any class in them are just names
    only_names = len(strange) == len(used) and source.kind in ("folder", "image")
    if only_names or not wanted.with_labels:
        return None
    near = nearest(strange[0], known)
    raise UsageError(
        f"{printable(source.path)} has classes that the run does not know: "
        + ", ".join(strange[:_SHOWN])
        + (", ..." if len(strange) > _SHOWN else ""),
        where=wanted.option,
        remedy=f"{did_you_mean(near)} Or give the classes with --class".strip(),
    )


# ---- words ----


def _digest(images: Pixels, labels: npt.NDArray[np.int64] | None) -> str:
    digest = hashlib.sha256(json.dumps(images.shape).encode())
    digest.update(np.ascontiguousarray(images).data)
    if labels is not None:
        digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _counted(images: int) -> str:
    return "1 image" if images == 1 else f"{images} images"


def _channels(count: int) -> str:
    return "1 channel" if count == 1 else f"{count} channels"
