"""The files that a training by the original programs leaves, made of tensors under the published names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

Layout = Literal["one entry each", "one vector", "a vector and a matrix"]
Weights = Mapping[str, Tensor]


def write_model(directory: Path, step: int, weights: Weights) -> Path:
    """model000123.pt: a plain state dict."""
    return _write(directory / f"model{step:06d}.pt", OrderedDict(weights))


def write_average(directory: Path, rate: float, step: int, weights: Weights) -> Path:
    """ema_0.9999_000123.pt: a plain state dict."""
    return _write(directory / f"ema_{rate}_{step:06d}.pt", OrderedDict(weights))


def write_optimizer(
    directory: Path,
    step: int,
    exp_avg: Weights,
    exp_avg_sq: Weights,
    *,
    updates: int,
    layout: Layout = "one entry each",
    lr: float = 1e-4,
    weight_decay: float = 0.0,
) -> Path:
    """opt000123.pt: what AdamW gives as its state, of parameters in the published order.

    updates: counted as a whole number, as torch did at the time. In half precision the optimizer had flat
    copies of the parameters: one of all, or one of those with at most 1 dimension and a [1, N] of the rest.
    """
    first, second = (masters(moment, layout) for moment in (exp_avg, exp_avg_sq))
    state = {
        index: {"step": updates, "exp_avg": m, "exp_avg_sq": v}
        for index, (m, v) in enumerate(zip(first, second, strict=True))
    }
    group: dict[str, Any] = {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": weight_decay}
    content = {"state": state, "param_groups": [{**group, "amsgrad": False, "params": list(state)}]}
    return _write(directory / f"opt{step:06d}.pt", content)


def masters(tensors: Weights, layout: Layout) -> list[Tensor]:
    """The tensors as an optimizer was given them."""
    if layout == "one entry each":
        return list(tensors.values())
    if layout == "one vector":
        return [_flat(list(tensors.values()))]
    few = [tensor for tensor in tensors.values() if tensor.ndim <= 1]
    rest = [tensor for tensor in tensors.values() if tensor.ndim > 1]
    return [_flat(few), _flat(rest).view(1, -1)]


def counted(weights: Weights, *, start: int = 0) -> dict[str, Tensor]:
    """Tensors of these names and shapes in which no number occurs twice, as far as float32 counts."""
    found = {}
    for name, tensor in weights.items():
        found[name] = torch.arange(start, start + tensor.numel(), dtype=torch.float32).view(tensor.shape)
        start += tensor.numel()
    return found


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path
