"""Laws of the dropout that draws four mask values at once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcli.models.dropout import Dropout


def dropped(p: float, seed: int, h: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(seed)
    result: torch.Tensor = Dropout(p).train()(h)
    return result


@pytest.mark.parametrize("p", [0.1, 0.3, 0.9])
def test_share_and_mean_are_kept(p: float) -> None:
    count = 1_000_000
    result = dropped(p, 0, torch.ones(count))
    # five standard deviations of a mean of independent values
    deviation = (p * (1 - p) / count) ** 0.5
    assert (result == 0).double().mean().item() == pytest.approx(p, abs=5 * deviation)
    assert result.double().mean().item() == pytest.approx(1, abs=5 * deviation / (1 - p))


def test_neighbours_in_one_draw_are_independent() -> None:
    kept = (dropped(0.5, 0, torch.ones(400_000)) > 0).double().view(-1, 4)
    correlation = torch.corrcoef(kept.T) - torch.eye(4)
    assert correlation.abs().max() < 5 / 100_000**0.5


def test_manual_seed_decides_the_mask() -> None:
    h = torch.ones(3, 7, 5)
    assert torch.equal(dropped(0.3, 5, h), dropped(0.3, 5, h))
    assert not torch.equal(dropped(0.3, 5, h), dropped(0.3, 6, h))


@given(
    p=st.floats(0, 1, exclude_max=True),
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
@settings(max_examples=50, deadline=None)
def test_values_are_zero_or_scaled(p: float, shape: list[int], dtype: torch.dtype) -> None:
    result = dropped(p, 0, torch.ones(shape, dtype=dtype))
    assert result.shape == torch.Size(shape)
    assert result.dtype == dtype
    kept = result[result != 0].double()
    if p <= 0.99:
        torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - p)), rtol=1e-2, atol=0)


def test_the_gradient_passes_where_the_value_does() -> None:
    h = torch.randn(64, 8, requires_grad=True)
    result = dropped(0.5, 0, h)
    (gradient,) = torch.autograd.grad(result.sum(), h)
    torch.testing.assert_close(gradient * h, result)


def test_evaluation_changes_nothing() -> None:
    h = torch.randn(4, 4)
    assert Dropout(0.9).eval()(h) is h
    assert Dropout(0.0).train()(h) is h
