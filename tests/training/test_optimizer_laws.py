"""Closed forms of what surrounds a gradient: learning rate, moving averages and clipping."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from test_golden_traces import INDEX, TRAIN, global_norm, replay_of
from torch import Tensor, nn

from diffcli.config.sections import TrainingConfig
from diffcli.training.ema import MovingAverage, decay_at
from diffcli.training.learning_rate import learning_rate
from golden_models import golden_diffusion

LR, WARMUP, ANNEAL = 3e-4, 5, 20


def warmed(step: int) -> float:
    return (step + 1) / WARMUP if step < WARMUP else 1.0


def annealed(step: int) -> float:
    return 1 - step / ANNEAL if step < ANNEAL else 0.0


@pytest.mark.parametrize("warmup", [0, WARMUP])
@pytest.mark.parametrize("anneal", [0, ANNEAL])
def test_the_learning_rate_is_warm_up_times_annealing(warmup, anneal):
    config = TrainingConfig(lr=LR, lr_warmup_steps=warmup, lr_anneal_steps=anneal)
    for step in range(ANNEAL + 5):
        factor = (warmed(step) if warmup else 1.0) * (annealed(step) if anneal else 1.0)
        assert learning_rate(config, step) == pytest.approx(LR * factor, rel=1e-12, abs=0)


def test_the_learning_rate_reaches_its_ends_exactly():
    both = TrainingConfig(lr=LR, lr_warmup_steps=WARMUP, lr_anneal_steps=ANNEAL)
    assert learning_rate(both, 0) == LR / WARMUP
    assert [learning_rate(both, step) for step in (ANNEAL, ANNEAL + 1, 10 * ANNEAL)] == [0.0, 0.0, 0.0]
    warmed_only = TrainingConfig(lr=LR, lr_warmup_steps=WARMUP)
    assert learning_rate(warmed_only, WARMUP - 2) < LR
    assert learning_rate(warmed_only, WARMUP - 1) == LR


def test_the_decay_is_held_down_until_it_reaches_the_rate():
    assert [decay_at(0.9, step, 0) for step in (0, 1, 1000)] == [0.9, 0.9, 0.9]
    held = [decay_at(0.9, step, 10) for step in (0, 1, 79, 80, 81, 1000)]
    assert held == pytest.approx([1 / 10, 2 / 11, 80 / 89, 0.9, 0.9, 0.9], rel=1e-12)


@pytest.mark.parametrize(
    ("warmup_steps", "expected"),
    [
        # decay 1/2 throughout
        (0, [2.0, 3.5, 1.25, 1.875]),
        # decays 1/4, 2/5, 3/6, and 1/2 because 4/7 is more than the rate
        (4, [2.5, 4.0, 1.5, 2.0]),
    ],
)
def test_a_moving_average_follows_its_recursion(warmup_steps, expected):
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    average = MovingAverage(model, rate=0.5, warmup_steps=warmup_steps)
    seen = []
    for step, weight in enumerate([3.0, 5.0, -1.0, 2.5]):
        nn.init.constant_(model.weight, weight)
        average.update(step)
        assert model.weight.item() == weight
        seen.append(average.weights["weight"].item())
    assert seen == pytest.approx(expected, rel=1e-6)


def test_a_moving_average_starts_as_a_copy_and_can_be_replaced():
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    average = MovingAverage(model, rate=0.5, warmup_steps=0)
    nn.init.constant_(model.weight, 7.0)
    assert average.weights["weight"].item() == 1.0
    average.load({"weight": torch.tensor([[-3.0]])})
    average.update(0)
    assert average.weights["weight"].item() == 2.0


@dataclass(frozen=True, kw_only=True)
class TakenStep:
    """What one training step left: every parameter's gradient, and the norm that it logged."""

    gradients: list[Tensor]
    logged_norm: float


def taken_step(grad_clip: float) -> TakenStep:
    """The first step of a golden trace, its gradient clipped to a norm."""
    facts = INDEX["train_improved_hybrid"]
    training = TrainingConfig(batch_size=facts["batch_size"], lr=facts["lr"], grad_clip=grad_clip)
    replay = replay_of(facts["model"], golden_diffusion(facts["diffusion"]), None, training)
    replay.take(np.load(TRAIN / "train_improved_hybrid.npz"), 0)
    sums = replay.state.sums
    return TakenStep(
        gradients=[parameter.grad for parameter in replay.state.model.parameters()],
        logged_norm=sums.means(sums.tensor()).grad_norm,
    )


@pytest.fixture(scope="module")
def unclipped() -> TakenStep:
    return taken_step(0.0)


def test_without_clipping_the_logged_norm_is_the_gradients(unclipped):
    norm = global_norm(unclipped.gradients)
    # with a norm of 1 or less, a clipping to 1 by default would not be seen
    assert norm > 1.01
    assert unclipped.logged_norm == pytest.approx(norm, rel=1e-5)


def test_a_long_gradient_is_shortened_and_logged_as_it_was(unclipped):
    norm = global_norm(unclipped.gradients)
    clipped = taken_step(norm / 4)
    assert global_norm(clipped.gradients) == pytest.approx(norm / 4, rel=1e-5)
    assert clipped.logged_norm == pytest.approx(norm, rel=1e-5)
    for short, long in zip(clipped.gradients, unclipped.gradients, strict=True):
        torch.testing.assert_close(short, long / 4, rtol=1e-5, atol=1e-8)


def test_a_short_gradient_stays_as_it_is(unclipped):
    untouched = taken_step(4 * global_norm(unclipped.gradients))
    assert all(map(torch.equal, untouched.gradients, unclipped.gradients))
