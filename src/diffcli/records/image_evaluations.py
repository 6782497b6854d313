"""What `eval` found out about images beside a reference; a file in a run's evals/ is an ImageEvaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffcli.records.evaluations import EvaluatedModel, EvaluationConditions
from diffcli.records.samples import ClassifierProvenance

IMAGE_EVALUATION_SCHEMA = 1

SetKind = Literal["samples", "archive", "prepared dataset", "folder", "statistics"]
SpreadKind = Literal["parts", "subsets"]
Arithmetic = Literal["float32", "float16"]


@dataclass(frozen=True, kw_only=True)
class MetricSpread:
    """How a value scatters: the standard deviation over `count` parts of the samples, or random subsets."""

    over: SpreadKind
    count: int
    deviation: float


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number, such as fid, or fd_pixels with other features; samples, references: images that it is of.

    references: None where only the samples count; either: None where published moments do not say it.
    """

    name: str
    value: float
    samples: int | None
    references: int | None
    spread: MetricSpread | None = None


@dataclass(frozen=True, kw_only=True)
class SkippedMetric:
    """A metric that was asked for and could not be computed, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class EvaluatedSet:
    """One side: where the images lay, and the first `count` of `total` of them.

    content_hash: over pixels, or over the file of statistics; identity: the same, or in place of a weak one a
    digest of the place and the times of change besides, "" in older records; variant, split: of a prepared
    dataset, else ""; count 0: statistics without images.
    """

    kind: SetKind
    location: Path
    count: int
    total: int
    height: int
    width: int
    channels: int
    content_hash: str
    weak_hash: bool
    identity: str = ""
    variant: str = ""
    split: str = ""


@dataclass(frozen=True, kw_only=True)
class SamplingFacts:
    """How the evaluated samples were drawn, as their archive's record has it.

    model_calls: of the network, for each image; low_res_sha256: of the small images that were enlarged, None
    where none were; start: None for x_T that were drawn, else what they were, such as `encoded`; drawn,
    world_size: how many of the images the call drew that took `seconds`, and in how many processes, None in
    older records.
    """

    fingerprint: str
    solver: str
    steps: int
    model_calls: int
    eta: float | None
    clip: bool
    seed: int
    classes: str | None
    classifier: ClassifierProvenance | None
    cfg: float | None
    precision: str
    seconds: float
    low_res_sha256: str | None = None
    start: str | None = None
    drawn: int | None = None
    world_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class ExtractorFacts:
    """What made the features; digest: over all that decides them.

    location, sha256: of the file of its weights, None where there is none; published: those weights are the
    ones that everyone's FID is computed with.
    """

    name: str
    digest: str
    dimensions: int
    location: Path | None
    sha256: str | None = None
    published: bool = False


@dataclass(frozen=True, kw_only=True)
class MetricSettings:
    """What else decides the numbers.

    seed: of random subsets; distances: the arithmetic of precision and recall; neighbours: of precision and
    recall; density_neighbours: of density and coverage; reference_rows: images of the reference that all but
    the Frechet distances look at.
    """

    seed: int
    distances: Arithmetic
    neighbours: int
    density_neighbours: int
    score_split: int
    kernel_subsets: int
    kernel_subset_size: int
    reference_rows: int


@dataclass(frozen=True, kw_only=True)
class NearestPair:
    """A sample and the training image nearest to it, by number, and their distance between features."""

    sample: int
    training: int
    distance: float


@dataclass(frozen=True, kw_only=True)
class ImageEvaluation:
    """Samples beside a reference, with all that it takes to repeat it.

    fingerprint: of everything that decides the numbers; model, sampling: None for images that are no run's;
    reference: None where only the samples count; nearest: the closest pairs, closest first, () unless asked
    for.
    """

    kind: Literal["images"] = "images"
    fingerprint: str
    model: EvaluatedModel | None
    sampling: SamplingFacts | None
    samples: EvaluatedSet
    reference: EvaluatedSet | None
    extractor: ExtractorFacts
    settings: MetricSettings
    conditions: EvaluationConditions
    metrics: tuple[Metric, ...]
    skipped: tuple[SkippedMetric, ...]
    warnings: tuple[str, ...]
    nearest: tuple[NearestPair, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageEvaluationResult:
    """An evaluation, its name, and the file that records it; path: None when nothing keeps it.

    picture: of the nearest pairs, None where none was drawn; already_there: nothing was computed; is_first:
    of several processes only the first speaks.
    """

    name: str
    path: Path | None
    picture: Path | None
    evaluation: ImageEvaluation
    already_there: bool
    is_first: bool
