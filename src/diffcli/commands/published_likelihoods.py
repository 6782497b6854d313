"""What papers report of the models that presets are, to be held against what is measured here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from diffcli.commands.evaluation_images import EvaluationImages
from diffcli.config.resolve import resolve
from diffcli.config.sections import RunConfig
from diffcli.data.dataset import Dataset
from diffcli.data.prepared import PreparedDataset
from diffcli.data.sharded import ShardedDataset
from diffcli.data.sources.published import published_rule
from diffcli.records.evaluations import LikelihoodSettings, PublishedLikelihood

_IMPROVED_VLB = "improved-diffusion paper, L_vlb cosine"


@dataclass(frozen=True, kw_only=True)
class _Published:
    """A number of a paper, and the images that it is of: a dataset by name and variant, and its split."""

    name: str
    variant: str
    split: str
    bits_per_dim: float
    source: str


_BY_PRESET: Mapping[str, _Published] = {
    "cifar10_vlb": _Published(
        name="cifar10", variant="", split="test", bits_per_dim=2.94, source=_IMPROVED_VLB
    ),
    "imagenet64_vlb": _Published(
        name="imagenet64", variant="pixelrnn", split="val", bits_per_dim=3.53, source=_IMPROVED_VLB
    ),
}


def published_likelihood(preset: str, dataset: Dataset) -> PublishedLikelihood | None:
    """The number of a preset's model on the images of a dataset; None unless they are the published split."""
    published = _BY_PRESET.get(preset)
    if published is None or not isinstance(dataset, PreparedDataset | ShardedDataset):
        return None
    record = dataset.record
    found = (record.name, record.variant, record.split, record.split_rule)
    if found != (published.name, published.variant, published.split, published_rule(published.split)):
        return None
    return PublishedLikelihood(bits_per_dim=published.bits_per_dim, source=published.source)


def published_beside(
    preset: str, config: RunConfig, images: EvaluationImages, settings: LikelihoodSettings
) -> PublishedLikelihood | None:
    """The number to be held against one that was measured; None unless both are of the same.

    That is the bound of the whole chain, with clipping, on all images of the published split, and a network
    as the preset has it; how long it was trained may differ.
    """
    if not (settings.full_chain and settings.clip) or settings.estimate:
        return None
    published = published_likelihood(preset, images.dataset)
    if published is None or images.count != images.dataset.count:
        return None
    return published if _decisive(config) == _decisive(resolve(preset=preset).config) else None


def _decisive(config: RunConfig) -> tuple[object, ...]:
    """What makes two runs of the same model, on images that are cut and turned alike."""
    data = config.data
    look = (data.resolution, data.channels, data.flip, data.crop, data.resize_recipe)
    return config.model, config.diffusion, look
