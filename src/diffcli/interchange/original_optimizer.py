"""The optimizer files of the original programs: AdamW's moments, by the order of the parameters alone.

Three layouts: one entry for each parameter; in half precision one flat vector of all (improved-diffusion), or
one of all parameters with at most 1 dimension and a [1, N] matrix of the rest (guided-diffusion).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from diffcli.errors import CorruptError, UsageError
from diffcli.interchange.identify import Shapes
from diffcli.interchange.tensor_files import is_optimizer_state, read_content

_MOMENTS = ("exp_avg", "exp_avg_sq")
# with which moments of ours go on; no program of the original takes others
_BETAS = (0.9, 0.999)
_EPS = 1e-8
# a step is one 32-bit word of our random numbers' counter
_MOST_UPDATES = 2**32


@dataclass(frozen=True, kw_only=True)
class GroupSettings:
    """What an optimizer's file says of a group of parameters, its rate as of the last step."""

    learning_rate: float | None
    weight_decay: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class OriginalMoments:
    """Both moments of every parameter, float32, by published name and shape; updates: that they took in.

    groups: what the file that they were read from says besides.
    """

    updates: int
    exp_avg: Mapping[str, Tensor]
    exp_avg_sq: Mapping[str, Tensor]
    groups: tuple[GroupSettings, ...] = ()


def read_moments(path: Path, shapes: Shapes) -> OriginalMoments:
    """The moments in an optimizer's file.

    shapes: of all parameters, in the published order. CorruptError when it is damaged or no state of AdamW;
    UsageError when it is the state of another network's, or of an AdamW with other constants than ours.
    """
    content: Any = read_content(path)
    if not is_optimizer_state(content):
        raise UsageError(f"{path} is called like the state of an optimizer, and is none")
    entries = _entries(path, content)
    groups = tuple(_group(path, group) for group in content["param_groups"])
    updates = _updates(path, entries)
    named = {
        moment: _by_name(path, [_tensor(path, entry, moment) for entry in entries], shapes)
        for moment in _MOMENTS
    }
    return OriginalMoments(
        updates=updates, exp_avg=named["exp_avg"], exp_avg_sq=named["exp_avg_sq"], groups=groups
    )


def optimizer_content(
    moments: OriginalMoments, *, learning_rate: float, weight_decay: float
) -> dict[str, object]:
    """What the optimizer of the original programs would give as its state, an entry for each parameter."""
    # torch knows what belongs into a group of parameters
    optimizer = AdamW(
        [nn.Parameter(tensor.to("meta")) for tensor in moments.exp_avg.values()],
        lr=learning_rate,
        weight_decay=weight_decay,
    )
    state = {
        index: {
            "step": torch.tensor(float(moments.updates)),
            "exp_avg": moments.exp_avg[name],
            "exp_avg_sq": moments.exp_avg_sq[name],
        }
        for index, name in enumerate(moments.exp_avg)
    }
    return {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}


def _entries(path: Path, content: Any) -> list[Mapping[object, object]]:
    """The state of each parameter, in the order in which the optimizer was given them."""
    state, groups = content["state"], content["param_groups"]
    if not isinstance(state, Mapping) or not isinstance(groups, Sequence):
        raise _no_moments(path, "state and param_groups are not what they should be")
    order: list[object] = []
    for group in groups:
        indices = group.get("params") if isinstance(group, Mapping) else None
        if not isinstance(indices, Sequence):
            raise _no_moments(path, "a group of parameters does not list them")
        # one list may stand in many groups, at no cost to the file
        if len(order) + len(indices) > len(state):
            raise _no_moments(path, "its groups list more parameters than have a state")
        order += indices
    entries = [state.get(index) for index in order if isinstance(index, int)]
    if not entries or len(entries) != len(order):
        raise _no_moments(path, "it lists no parameters")
    known = [entry for entry in entries if isinstance(entry, Mapping)]
    if len(known) != len(entries):
        raise _no_moments(path, f"{len(entries) - len(known)} of {len(entries)} parameters have no state")
    return known


def _group(path: Path, group: Mapping[object, object]) -> GroupSettings:
    betas = group.get("betas", _BETAS)
    found = [_number(beta) for beta in betas] if isinstance(betas, Sequence) else []
    eps = _number(group.get("eps", _EPS))
    if found != list(_BETAS) or eps != _EPS:
        raise UsageError(
            f"{path} is of an AdamW with other constants: betas {_told(found)}, eps {_told([eps])}",
            where=f"diffcli's are {_told(_BETAS)} and {_EPS}",
            remedy="import the weights without this file: the moments then begin at zero",
        )
    return GroupSettings(
        learning_rate=_number(group.get("lr")), weight_decay=_number(group.get("weight_decay"))
    )


def _number(value: object) -> float | None:
    if isinstance(value, Tensor) and value.numel() == 1 and value.device.type == "cpu":
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _told(numbers: Sequence[float | None]) -> str:
    return ", ".join("none" if number is None else f"{number:g}" for number in numbers)


def _updates(path: Path, entries: Sequence[Mapping[object, object]]) -> int:
    """How many updates the moments took in; torch once counted in whole numbers, today in tensors."""
    counts = {_count(entry.get("step")) for entry in entries}
    if None in counts:
        raise _no_moments(path, "it does not count its updates")
    if len(counts) > 1:
        raise _no_moments(path, "its parameters had different numbers of updates")
    return counts.pop() or 0


def _count(step: object) -> int | None:
    if isinstance(step, Tensor) and step.numel() == 1 and step.device.type == "cpu":
        step = step.item()
    if isinstance(step, bool) or not isinstance(step, int | float) or not 0 <= step < _MOST_UPDATES:
        return None
    return int(step) if step == int(step) else None


def _tensor(path: Path, entry: Mapping[object, object], moment: str) -> Tensor:
    tensor = entry.get(moment)
    if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided or not tensor.is_floating_point():
        raise _no_moments(path, f"{moment} is missing, so this is not the state of AdamW")
    if tensor.device.type != "cpu":
        raise _no_moments(path, f"{moment} has no numbers: it is on device {tensor.device}")
    return tensor.detach()


def _by_name(path: Path, tensors: Sequence[Tensor], shapes: Shapes) -> dict[str, Tensor]:
    """The tensors under the parameters' names, whatever the layout."""
    groups = _groups([tuple(tensor.shape) for tensor in tensors], shapes)
    if groups is None:
        found = ", ".join(str(list(tensor.shape)) for tensor in tensors[:2])
        raise UsageError(
            f"{path} is not the optimizer of this network: it holds {len(tensors)} tensors, {found}"
            f"{', ...' if len(tensors) > 2 else ''}",
            where=f"the network has {len(shapes)} parameters, {sum(map(prod, shapes.values())):,} numbers",
            remedy="put the optimizer's file of the same training beside its model file, or none",
        )
    named = {}
    for tensor, names in zip(tensors, groups, strict=True):
        start = 0
        for name in names:
            piece = tensor.flatten()[start : start + prod(shapes[name])]
            # a copy: the pieces of one vector share its memory
            named[name] = piece.view(shapes[name]).to(torch.float32, copy=True)
            start += piece.numel()
    return {name: named[name] for name in shapes}


def _groups(found: Sequence[tuple[int, ...]], shapes: Shapes) -> list[list[str]] | None:
    """The parameters that each tensor holds, one after the other; None when no layout has these shapes."""
    vectors = [name for name, shape in shapes.items() if len(shape) <= 1]
    matrices = [name for name, shape in shapes.items() if len(shape) > 1]

    def count(names: Sequence[str]) -> int:
        return sum(prod(shapes[name]) for name in names)

    layouts = (
        (list(shapes.values()), [[name] for name in shapes]),
        ([(count(list(shapes)),)], [list(shapes)]),
        ([(count(vectors),), (1, count(matrices))], [vectors, matrices]),
    )
    return next((names for expected, names in layouts if list(found) == expected), None)


def _no_moments(path: Path, reason: str) -> CorruptError:
    return CorruptError(
        f"{path} is no state of AdamW: {reason}",
        remedy="put the file of the same training there again, or none",
    )
