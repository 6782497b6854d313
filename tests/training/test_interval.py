"""Sums of an interval: their means, what an overflow of fp16 leaves out, and another number of processes."""

from __future__ import annotations

import pytest
import torch

from diffcli.training.interval import IntervalSums
from diffcli.training.objective import ImageLosses

CPU = torch.device("cpu")
STEPS = 8


def sums_of(losses, t, *, may_overflow=False):
    sums = IntervalSums(CPU)
    loss = torch.tensor(losses)
    both = ImageLosses(loss=loss, beside=(loss / 2, None))
    sums.add_losses(both, torch.ones(len(losses)), torch.tensor(t), STEPS, may_overflow=may_overflow)
    return sums


def test_means_overall_and_by_quartile_of_the_timesteps():
    sums = sums_of([1.0, 2.0, 3.0, 6.0], [0, 1, 4, 7])
    sums.add_gradient_norm(torch.tensor(5.0))
    means = sums.means(sums.tensor())
    assert means.losses.loss.overall == 3.0
    assert means.losses.loss.quartiles == (1.5, None, 3.0, 6.0)
    assert means.losses.beside[0].overall == 1.5
    assert means.losses.beside[1] is None
    assert means.grad_norm == 5.0


def test_a_loss_that_overflowed_is_passed_over_where_its_update_is():
    sums = sums_of([1.0, float("inf"), float("nan")], [0, 1, 7], may_overflow=True)
    means = sums.means(sums.tensor())
    assert means.losses.loss.overall == 1.0
    assert means.losses.loss.quartiles == (1.0, None, None, None)
    assert means.grad_norm is None


def test_a_loss_that_is_not_finite_shows_where_nothing_may_overflow():
    sums = sums_of([1.0, float("inf")], [0, 1])
    assert sums.means(sums.tensor()).losses.loss.overall == float("inf")


def test_an_interval_of_nothing_but_overflows_has_no_means():
    sums = sums_of([float("inf")], [0], may_overflow=True)
    assert sums.means(sums.tensor()) is None


@pytest.mark.parametrize("world_size", [1, 3])
def test_gradient_norms_of_other_processes_count_as_often_as_those_to_come(world_size):
    parts = []
    for _ in range(4):
        part = sums_of([1.0], [0])
        part.add_gradient_norm(torch.tensor(2.0))
        parts.append(part.tensor())
    going_on = IntervalSums(CPU)
    going_on.load_total(torch.stack(parts), world_size=world_size)
    total = going_on.tensor().clone()
    for _ in range(world_size):
        later = sums_of([1.0], [0])
        later.add_gradient_norm(torch.tensor(4.0))
        total += later.tensor()
    # one step of norm 2 before, one of norm 4 after
    assert going_on.means(total).grad_norm == pytest.approx(3.0)
    assert going_on.means(total).losses.loss.overall == 1.0
