"""Means of the loss terms since the last row of metrics, overall and per quartile of the timesteps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffcli.records.training import TermMeans
from diffcli.training.objective import ImageLosses, LossMeans

_TERMS = 3  # the loss, and the two numbers beside it
_QUARTILES = 4
_COLUMNS = 1 + _QUARTILES  # all timesteps, then each quartile


@dataclass(frozen=True, kw_only=True)
class IntervalMeans:
    """What `IntervalSums` amount to; `grad_norm` is None when there was none that did not overflow."""

    losses: LossMeans
    grad_norm: float | None


class IntervalSums:
    """Sums of one process, kept on the device so that adding to them never waits for it."""

    def __init__(self, device: torch.device) -> None:
        # MPS has no float64
        dtype = torch.float32 if device.type == "mps" else torch.float64
        # rows: the terms and the count of samples; one more row carries the gradient norm and its count
        self._sums = torch.zeros(_TERMS + 2, _COLUMNS, dtype=dtype, device=device)
        self._has_term = [True, False, False]

    def add_losses(
        self, losses: ImageLosses, weights: Tensor, t: Tensor, steps: int, *, may_overflow: bool = False
    ) -> None:
        """Add the importance-weighted losses of one microbatch, all [N]; t in 0..steps-1.

        may_overflow: samples whose loss is not finite are passed over, as their update is.
        """
        if may_overflow:
            kept = losses.loss.detach().isfinite()
            losses = losses.only(kept)
            weights, t = weights[kept], t[kept]
        columns = torch.zeros(t.shape[0], _COLUMNS, dtype=self._sums.dtype, device=self._sums.device)
        columns[:, 0] = 1
        columns.scatter_(1, (1 + (_QUARTILES * t) // steps).unsqueeze(1), 1)
        values = (losses.loss, *losses.beside)
        self._has_term = [value is not None for value in values]
        rows = [
            torch.zeros_like(losses.loss) if value is None else value.detach() * weights for value in values
        ]
        rows.append(torch.ones_like(losses.loss))
        self._sums[: len(rows)] += torch.stack(rows).to(self._sums.dtype) @ columns

    def add_gradient_norm(self, norm: Tensor) -> None:
        """Add the norm of one step's gradient, a scalar."""
        self._sums[-1, 0] += norm
        self._sums[-1, 1] += 1

    def tensor(self) -> Tensor:
        """The sums as one tensor, for reducing over processes and for checkpoints."""
        return self._sums

    def load(self, sums: Tensor) -> None:
        """Go on from the sums of an unfinished interval."""
        self._sums.copy_(sums)

    def load_total(self, saved: Tensor, *, world_size: int) -> None:
        """Go on alone from the sums [processes, ...] of an interval that other processes began.

        world_size: of the processes that go on. Every process adds the same gradient norm, so those of the
        earlier ones count as often as those to come.
        """
        total = saved.sum(dim=0)
        total[-1] *= world_size / saved.shape[0]
        self.load(total)

    def clear(self) -> None:
        """Begin a new interval."""
        self._sums.zero_()

    def means(self, total: Tensor) -> IntervalMeans | None:
        """The means of sums that were added over all processes; None when fp16 overflowed in every sample."""
        rows = total.tolist()
        counts = rows[_TERMS]
        if counts[0] == 0:
            return None
        terms = [
            TermMeans(
                overall=row[0] / counts[0],
                quartiles=tuple(
                    value / count if count else None for value, count in zip(row[1:], counts[1:], strict=True)
                ),
            )
            if present
            else None
            for row, present in zip(rows, self._has_term, strict=False)
        ]
        loss, first, second = terms
        assert loss is not None
        norm, steps = rows[-1][:2]
        return IntervalMeans(
            losses=LossMeans(loss=loss, beside=(first, second)), grad_norm=norm / steps if steps else None
        )
