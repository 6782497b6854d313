"""The published weights of the Inception of 2015-12-05, two layouts of the same numbers, under our names.

"pytorch-fid": torchvision's names. "openai": the scopes of TensorFlow's graph below `layers`, and no gamma.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from diffcli.errors import CorruptError
from diffcli.evaluation.inception import InceptionV3
from diffcli.evaluation.inception_architecture import scoped_names

InceptionLayout = Literal["pytorch-fid", "openai"]

_SHOWN = 3
_GAMMA, _BETA = "bn.weight", "bn.bias"
# of each unit: our name and that in the layout of OpenAI
_OPENAI_LEAVES = (
    ("conv.weight", "weight"),
    (_BETA, "beta"),
    ("bn.running_mean", "mean"),
    ("bn.running_var", "var"),
)
_CLASS_WEIGHT = "fc.weight"
_REMEDY = (
    "diffcli reads pt_inception-2015-12-05-6726825d.pth of pytorch-fid and inception-2015-12-05.pt of OpenAI"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class InceptionState:
    """The state dict of our network, float32 on the CPU, and the layout of the file that it came from."""

    layout: InceptionLayout
    tensors: Mapping[str, Tensor]


class _Place(NamedTuple):
    """A tensor of a published file; ours: its name in our network, "" for what that has no use for."""

    published: str
    ours: str
    shape: tuple[int, ...]


def inception_state(published: Mapping[str, Tensor], *, source: str) -> InceptionState:
    """The network in a published file, whichever of the two layouts that has.

    source: the file, for messages. CorruptError names what is missing, unknown, or of another shape or dtype.
    """
    layout = _likeliest_layout(published)
    places, given = _places(layout), _spelled(published, layout)
    if not places.keys() & given:
        raise CorruptError(
            f"{source} is no Inception network", where=f"it holds {_listed(list(published))}", remedy=_REMEDY
        )
    wrong = [
        *_listed_as("missing", [place.published for key, place in places.items() if key not in given]),
        *_listed_as("unknown", [name for key, name in given.items() if key not in places]),
        *_listed_as("wrong", list(_misfits(places, given, published))),
        *_listed_as("given twice", _repeated(published, layout)),
    ]
    if wrong:
        raise CorruptError(
            f"{source} does not hold the Inception of 2015-12-05", where="; ".join(wrong), remedy=_REMEDY
        )
    tensors = {place.ours: published[given[key]] for key, place in places.items() if place.ours}
    if layout == "openai":
        for name, _ in scoped_names():
            tensors[f"{name}.{_GAMMA}"] = torch.ones_like(tensors[f"{name}.{_BETA}"])
    return InceptionState(layout=layout, tensors=tensors)


def _likeliest_layout(published: Mapping[str, Tensor]) -> InceptionLayout:
    layouts: tuple[InceptionLayout, ...] = ("pytorch-fid", "openai")
    return max(layouts, key=lambda layout: len(_places(layout).keys() & _spelled(published, layout)))


@cache
def _places(layout: InceptionLayout) -> dict[str, _Place]:
    """All tensors of a layout by their names as `_spelling` gives them."""
    listed = _pytorch_fid_places() if layout == "pytorch-fid" else _openai_places()
    return {_spelling(place.published, layout): place for place in listed}


def _pytorch_fid_places() -> Iterator[_Place]:
    for name, tensor in InceptionV3().state_dict().items():
        yield _Place(name, name, tuple(tensor.shape))
        if name == _CLASS_WEIGHT:
            yield _Place("fc.bias", "", (tensor.shape[0],))


def _openai_places() -> Iterator[_Place]:
    state = InceptionV3().state_dict()
    for name, scope in scoped_names():
        for ours, theirs in _OPENAI_LEAVES:
            published = f"layers.{scope.replace('/', '.')}.{theirs}"
            yield _Place(published, f"{name}.{ours}", tuple(state[f"{name}.{ours}"].shape))
    classes = state[_CLASS_WEIGHT].shape
    yield _Place("output.weight", _CLASS_WEIGHT, tuple(classes))
    yield _Place("output.bias", "", (classes[0],))


def _spelled(published: Mapping[str, Tensor], layout: InceptionLayout) -> dict[str, str]:
    return {_spelling(name, layout): name for name in published}


def _spelling(name: str, layout: InceptionLayout) -> str:
    """The name under which one is looked for."""
    # how the file joins the scopes was not seen, and no two of them differ in that alone
    return re.sub(r"[./]", "_", name) if layout == "openai" else name


def _repeated(published: Mapping[str, Tensor], layout: InceptionLayout) -> list[str]:
    given = _spelled(published, layout)
    return [name for name in published if given[_spelling(name, layout)] != name]


def _misfits(
    places: Mapping[str, _Place], given: Mapping[str, str], published: Mapping[str, Tensor]
) -> Iterator[str]:
    for key, place in places.items():
        if key not in given:
            continue
        tensor = published[given[key]]
        if tuple(tensor.shape) != place.shape:
            yield f"{place.published} is {list(tensor.shape)}, not {list(place.shape)}"
        elif tensor.dtype != torch.float32:
            yield f"{place.published} is {str(tensor.dtype).removeprefix('torch.')}, not float32"
        elif not bool(tensor.isfinite().all()):
            yield f"{place.published} is not finite"


def _listed_as(heading: str, names: Sequence[str]) -> list[str]:
    return [f"{heading}: {_listed(names)}"] if names else []


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
