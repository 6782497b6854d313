"""The images that a network is trained on, as it sees them."""

from __future__ import annotations

from pathlib import Path

from diffcli.config.sections import RunConfig
from diffcli.data.centered_dataset import CenteredDataset
from diffcli.data.dataset import Dataset, open_dataset
from diffcli.data.image_sets import ImageSet
from diffcli.data.prepared import PreparedDataset
from diffcli.data.sharded import ShardedDataset
from diffcli.errors import UsageError
from diffcli.images.decode import printable
from diffcli.registry.create import Run
from diffcli.registry.run_record import DatasetFacts


def images_as_trained(dataset: Dataset, config: RunConfig) -> ImageSet:
    """The training images at the size that the network takes; none is mirrored."""
    side = config.data.resolution
    seen = (
        dataset if (dataset.height, dataset.width) == (side, side) else CenteredDataset(dataset, config.data)
    )
    if not isinstance(dataset, (PreparedDataset, ShardedDataset)):
        return ImageSet(kind="folder", dataset=seen)
    record = dataset.record
    return ImageSet(kind="prepared dataset", dataset=seen, variant=record.variant, split=record.split)


def reopened_images(run: Run, config: RunConfig, recorded: DatasetFacts, data_home: Path) -> ImageSet:
    """What a run was trained on, opened again where it lay.

    Errors: those of `open_dataset`, and UsageError for other images than were trained on.
    """
    path = Path(recorded.path)
    dataset = open_dataset(config.data, home=data_home, directory=path)
    if dataset.content_hash != recorded.content_hash:
        raise UsageError(
            f"the images in {printable(path)} are not those that {run.id} was trained on",
            where=f"{dataset.count} images, then {recorded.count}; the content hash differs",
            remedy=f"put those back, or say that these are meant: --reference {printable(path)}",
        )
    return images_as_trained(dataset, config)
