"""The random numbers of samples: functions of seed and index, and of the right distribution."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from diffcli.sampling.noise import initial_noise, sample_classes, step_noise

SHAPE = (3, 4, 5)
SEED = 7


@given(st.lists(st.integers(0, 2**40 - 1), min_size=2, max_size=8, unique=True))
def test_a_sample_does_not_depend_on_the_others(samples):
    together = torch.tensor(samples)
    alone = together[1:2]
    assert torch.equal(initial_noise(SEED, together, SHAPE)[1:2], initial_noise(SEED, alone, SHAPE))
    assert torch.equal(step_noise(SEED, together, SHAPE, step=3)[1:2], step_noise(SEED, alone, SHAPE, step=3))
    assert torch.equal(sample_classes(SEED, together, 10)[1:2], sample_classes(SEED, alone, 10))


def test_seed_sample_step_and_purpose_all_change_the_noise():
    sample, other = torch.tensor([0]), torch.tensor([1])
    drawn = [
        initial_noise(SEED, sample, SHAPE),
        initial_noise(SEED + 1, sample, SHAPE),
        initial_noise(SEED, other, SHAPE),
        step_noise(SEED, sample, SHAPE, step=0),
        step_noise(SEED, sample, SHAPE, step=1),
    ]
    assert len({tuple(noise.flatten().tolist()) for noise in drawn}) == len(drawn)
    assert all(noise.shape == (1, *SHAPE) and noise.dtype == torch.float32 for noise in drawn)


def test_noise_is_standard_normal_and_classes_are_uniform():
    samples = torch.arange(20_000)
    for noise in (initial_noise(SEED, samples, (4,)), step_noise(SEED, samples, (4,), step=5)):
        assert abs(float(noise.mean())) < 0.02
        assert abs(float(noise.std()) - 1) < 0.02
    classes = sample_classes(SEED, samples, 10)
    assert classes.dtype == torch.int64
    counts = torch.bincount(classes, minlength=10)
    assert len(counts) == 10
    assert ((counts - 2000).abs() < 250).all()
