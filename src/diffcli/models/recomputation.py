"""Blocks that keep no activations for the backward pass and compute them again (Chen et al. 2016)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def called(block: nn.Module, *inputs: Tensor, recompute: bool) -> Tensor:
    """block(*inputs); with `recompute` a training keeps the inputs alone and calls it once more backwards.

    The second call draws the same random numbers, so that the gradients are the same bits.
    """
    output: Tensor
    if not (recompute and block.training and torch.is_grad_enabled()):
        output = block(*inputs)
    else:
        output = checkpoint(
            block, *inputs, use_reentrant=False, context_fn=partial(_contexts, inputs[0].device)
        )
    return output


class _RandomState(Protocol):
    """A generator's module: torch for the CPU, torch.mps."""

    def get_rng_state(self) -> Tensor: ...

    def set_rng_state(self, new_state: Tensor) -> None: ...


def _contexts(device: torch.device) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds the first and the second call."""
    if device.type == "mps":
        # on the CPU and on CUDA torch's own checkpoint takes care of the generators, on MPS it does not
        return nullcontext(), drawing_from(torch.mps.get_rng_state(), torch.mps)
    return nullcontext(), nullcontext()


@contextlib.contextmanager
def drawing_from(state: Tensor, generator: _RandomState) -> Iterator[None]:
    """Draw what was drawn from this state of the generator on, then leave the generator as it was."""
    before = generator.get_rng_state()
    generator.set_rng_state(state)
    try:
        yield
    finally:
        generator.set_rng_state(before)
