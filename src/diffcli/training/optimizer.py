"""AdamW and its state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from diffcli.config.sections import TrainingConfig

# Loshchilov and Hutter, arXiv 1711.05101, with the moments' decay rates of Kingma and Ba, arXiv 1412.6980
_BETAS = (0.9, 0.999)
_EPS = 1e-8
_MOMENTS = ("exp_avg", "exp_avg_sq")


def build_optimizer(model: nn.Module, config: TrainingConfig, device: torch.device) -> AdamW:
    """AdamW over all parameters; the learning rate is set before every step."""
    # a fused step hides an overflow of fp16 from the loss scaler, and MPS has none worth using
    fused = config.precision != "fp16" and device.type in ("cpu", "cuda")
    return AdamW(
        model.parameters(),
        lr=config.lr,
        betas=_BETAS,
        eps=_EPS,
        weight_decay=config.weight_decay,
        fused=fused,
    )


def set_learning_rate(optimizer: AdamW, rate: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def step_unless(optimizer: AdamW, failed: Tensor) -> None:
    """Take an optimizer step, or none at all where `failed`, a float32 scalar on the device, is 1.

    The host does not wait for it, but with an optimizer that is not fused.
    """
    if optimizer.defaults["fused"]:
        # the attribute by which torch's loss scaler tells a fused optimizer of an overflow
        optimizer.found_inf = failed  # type: ignore[attr-defined]
        optimizer.step()
    elif not failed:
        optimizer.step()


def moments(optimizer: AdamW, model: nn.Module) -> dict[str, Tensor]:
    """Both moments of every parameter, named `exp_avg.<parameter>`; zeros before the first step."""
    named: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter, {})
        for moment in _MOMENTS:
            named[f"{moment}.{name}"] = state[moment] if state else torch.zeros_like(parameter)
    return named


def updates_taken(optimizer: AdamW) -> int:
    """How many updates the moments have taken in; fewer than steps when fp16 skipped some."""
    # all of them count the same, and reading one may wait for the device
    return next((int(state["step"]) for state in optimizer.state.values()), 0)


def load_moments(optimizer: AdamW, model: nn.Module, named: Mapping[str, Tensor], *, updates: int) -> None:
    """Restore what `moments` and `updates_taken` gave."""
    if updates == 0:
        return
    for name, parameter in model.named_parameters():
        # fused AdamW keeps its counter on the device of the parameter, the plain one on the CPU
        counter_device = parameter.device if optimizer.defaults["fused"] else torch.device("cpu")
        restored: dict[str, Tensor] = {
            "step": torch.tensor(float(updates), dtype=torch.float32, device=counter_device)
        }
        for moment in _MOMENTS:
            restored[moment] = named[f"{moment}.{name}"].to(parameter.device, copy=True)
        optimizer.state[parameter] = restored
