"""The features of a set of images, made by all processes together, and read in the order of the images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffcli.commands.batch_loop import compute_missing
from diffcli.commands.sampling_process import SamplingProcess
from diffcli.data.dataset import Dataset
from diffcli.evaluation.features import FeatureExtractor, Features
from diffcli.parts import BatchParts, BatchPlan
from diffcli.registry.provenance import installed_versions

_NUMBER = np.dtype(np.float32)


@dataclass(frozen=True, kw_only=True)
class FeaturePlan(BatchPlan):
    """Which images in which batches, and how many numbers the features of each have."""

    pooled: int
    spatial: int

    @property
    def numbers(self) -> int:
        """Of one image."""
        return self.pooled + self.spatial


class FeatureParts(BatchParts[npt.NDArray[Any]]):
    """The features of the batches that are done: float32 [N, pooled and spatial], one beside the other."""

    plan: FeaturePlan

    def __init__(self, directory: Path, plan: FeaturePlan) -> None:
        super().__init__(directory, plan)

    def write(self, batch: int, content: npt.NDArray[Any]) -> None:
        """Keep the features of a batch."""
        assert content.dtype == _NUMBER
        assert content.shape == (len(self.plan.images(batch)), self.plan.numbers)
        self._write_bytes(batch, content.tobytes())

    def read(self) -> Iterator[Features]:
        """The features of all batches, in order."""
        plan = self.plan
        for batch in range(plan.batches):
            rows = len(plan.images(batch))
            content = self._read_bytes(batch, rows * plan.numbers * _NUMBER.itemsize)
            numbers = torch.frombuffer(bytearray(content), dtype=torch.float32).reshape(rows, plan.numbers)
            pooled, spatial = torch.split(numbers, [plan.pooled, plan.spatial], dim=1)
            yield Features(pooled=pooled, spatial=spatial if plan.spatial else None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Extraction:
    """The features of some images of a dataset, int64 [N] by their numbers, rising.

    spatial: whether spatial features are wanted, if the extractor has any.
    """

    dataset: Dataset
    indices: Tensor
    extractor: FeatureExtractor
    spatial: bool
    batch_size: int

    @property
    def spatial_dimensions(self) -> int | None:
        """Of what is extracted; None without spatial features."""
        return self.extractor.spatial_dimensions if self.spatial else None

    def computed(self, directory: Path, process: SamplingProcess) -> FeatureParts:
        """Compute what is missing in a directory, each batch in one of the processes, which all come back.

        Raises InterruptedRunError in all of them once one was asked to stop: the same command goes on.
        """
        plan = FeaturePlan(
            count=len(self.indices),
            batch_size=self.batch_size,
            pooled=self.extractor.dimensions,
            spatial=self.spatial_dimensions or 0,
        )
        parts = FeatureParts(directory, plan)
        process.workers.first_decides(lambda: parts.begin(self.digest(process)))
        compute_missing(
            parts,
            steps=1,
            steps_of=lambda batch: iter((self._features(plan.images(batch), process),)),
            content=_beside_each_other if plan.spatial else _pooled,
            process=process,
        )
        return parts

    def digest(self, process: SamplingProcess) -> str:
        """Of all that decides the bits."""
        indices, workers = self.indices, process.workers
        facts = (
            *(self.dataset.identity, len(indices), int(indices.sum()), self.batch_size),
            *(self.extractor.digest, self.spatial_dimensions),
            *(workers.device.type, workers.threads, installed_versions().torch),
        )
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _features(self, places: range, process: SamplingProcess) -> Features:
        pixels = self.dataset.read(self.indices[places.start : places.stop].numpy())
        return self.extractor(torch.from_numpy(pixels).to(process.workers.device))


def _pooled(features: Features) -> npt.NDArray[Any]:
    return features.pooled.cpu().numpy()


def _beside_each_other(features: Features) -> npt.NDArray[Any]:
    assert features.spatial is not None
    return torch.cat((features.pooled, features.spatial), dim=1).cpu().numpy()
