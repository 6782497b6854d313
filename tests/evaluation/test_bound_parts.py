"""Parts of an evaluation: what is read is what was written, to the last bit."""

from __future__ import annotations

import pytest
import torch

from diffcli.errors import CorruptError
from diffcli.evaluation.bound_parts import BoundParts
from diffcli.evaluation.likelihood import BatchBounds
from diffcli.parts import BatchPlan

CHAIN = 6
PLAN = BatchPlan(count=7, batch_size=3)


def bounds_of(batch):
    generator = torch.Generator().manual_seed(batch)
    images = len(PLAN.images(batch))

    def numbers(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return BatchBounds(
        vb=numbers(images), prior=numbers(images), images=numbers(CHAIN), sums=numbers(3, CHAIN)
    )


@pytest.fixture
def parts(tmp_path):
    begun = BoundParts(tmp_path / "parts", PLAN, chain_steps=CHAIN)
    begun.begin("a request")
    for batch in (2, 0, 1):
        begun.write(batch, bounds_of(batch))
    return begun


def test_bounds_are_read_in_order(parts):
    assert parts.missing() == ()
    found = list(parts.read())
    assert [len(bounds.vb) for bounds in found] == [3, 3, 1]
    for batch, bounds in enumerate(found):
        for name, value in vars(bounds_of(batch)).items():
            assert torch.equal(getattr(bounds, name), value), name


def test_a_truncated_part_is_told_by_name(parts, tmp_path):
    damaged = tmp_path / "parts" / "batch-000001.bin"
    damaged.write_bytes(damaged.read_bytes()[:-8])
    with pytest.raises(CorruptError, match=r"batch-000001\.bin is 232 bytes, needed are 240") as caught:
        list(parts.read())
    assert "the same command" in caught.value.remedy
