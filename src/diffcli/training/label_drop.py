"""Labels that training hides, so that one network learns with and without classes (arXiv 2207.12598)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from diffcli.config.sections import RunConfig
from diffcli.data.batches import Batch
from diffcli.randomness.streams import Stream, uniform


def dropped_labels(seed: int, positions: range, *, step: int, share: float) -> Tensor:
    """Which of these positions of a global batch lose their label: bool [N], `share` of them on average."""
    items = torch.arange(positions.start, positions.stop)
    # arXiv 2207.12598, algorithm 1, line 3
    return uniform(seed, Stream.LABEL_DROP, items, step=step)[:, 0] < share


def with_dropped_labels(batch: Batch, config: RunConfig, positions: range, *, step: int) -> Batch:
    """These positions of a step's global batch, with the number of no class in place of dropped labels."""
    training = config.training
    if not training.label_drop or batch.labels is None:
        return batch
    dropped = dropped_labels(training.seed, positions, step=step, share=training.label_drop)
    # the last embedding is that of no class
    return dataclasses.replace(batch, labels=torch.where(dropped, config.model.classes, batch.labels))
