"""What `diffcli eval RUN|ARCHIVE|DIR` was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffcli.commands.evaluation_reference import ReferenceChoice
from diffcli.commands.extractors import ExtractorChoice
from diffcli.commands.image_metric_names import AskedMetric
from diffcli.commands.image_set_statistics import REFERENCE_ROWS
from diffcli.commands.sampling_request import SampleRequest
from diffcli.records.image_evaluations import Arithmetic, MetricSettings

DEFAULT_SAMPLES = 10_000
_NEIGHBOURS, _DENSITY_NEIGHBOURS = 3, 5
_SCORE_SPLIT = 5000
_KERNEL_SUBSETS, _KERNEL_SUBSET_SIZE = 100, 1000


@dataclass(frozen=True, kw_only=True)
class ImageEvaluationRequest:
    """What `diffcli eval` was asked for.

    sampling: how samples of a run are drawn, and on which device; its count: images, None for all that are
    there, or 10,000 of a run; batch_size: images per forward pass of the extractor, None for 64;
    reference_num: images of the reference, None for all; out: the file for the record of images that are no
    run's.
    """

    target: str
    sampling: SampleRequest
    reference: ReferenceChoice
    metrics: tuple[AskedMetric, ...]
    extractor: ExtractorChoice
    distances: Arithmetic
    reference_num: int | None
    batch_size: int | None
    name: str | None
    out: Path | None
    force: bool

    @property
    def drawn_count(self) -> int:
        """How many samples are drawn, if any are."""
        return self.sampling.count or DEFAULT_SAMPLES

    @property
    def settings(self) -> MetricSettings:
        """What decides the numbers besides the images and their features."""
        return MetricSettings(
            seed=self.sampling.seed,
            distances=self.distances,
            neighbours=_NEIGHBOURS,
            density_neighbours=_DENSITY_NEIGHBOURS,
            score_split=_SCORE_SPLIT,
            kernel_subsets=_KERNEL_SUBSETS,
            kernel_subset_size=_KERNEL_SUBSET_SIZE,
            reference_rows=REFERENCE_ROWS,
        )
