"""Looking up a table: shape, precision, and copies that are made once."""

from __future__ import annotations

import pytest
import torch

from diffcli.diffusion.table import Table

VALUES = torch.tensor([0.1, 1 / 3, 1e-9, 5.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
)
def test_entries_broadcast_in_the_precision_of_the_images_but_never_in_half(images, expected):
    t = torch.tensor([3, 1])
    found = Table(VALUES).at(t, torch.zeros(2, 3, 4, 5, dtype=images))
    assert found.shape == (2, 1, 1, 1)
    assert found.dtype == expected
    assert torch.equal(found.flatten(), VALUES[t].to(expected))


def test_a_copy_is_made_once():
    table = Table(VALUES)
    images, t = torch.zeros(1, 3, 2, 2), torch.tensor([0])
    table.at(t, images)
    copies = dict(table._copies)
    table.at(t, images)
    assert table._copies.keys() == copies.keys()
    assert all(table._copies[key] is copy for key, copy in copies.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_first_look_in_inference_mode_does_not_spoil_training(dtype):
    table = Table(VALUES)
    t = torch.tensor([1])
    with torch.inference_mode():
        table.at(t, torch.zeros(1, 1, 1, 1, dtype=dtype))
    weights = torch.ones(1, 1, 1, 1, dtype=dtype, requires_grad=True)
    (weights * table.at(t, weights)).sum().backward()
    assert weights.grad == pytest.approx(1 / 3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_later_lookups_on_cuda_neither_copy_nor_wait():
    table = Table(VALUES)
    t, images = torch.tensor([1, 2], device="cuda"), torch.zeros(2, 3, 4, 4, device="cuda")
    first = table.at(t, images)
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = table.at(t, images)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(first, again)
    assert torch.equal(again.flatten().cpu(), VALUES[1:3].float())
