"""Our parameter names and those of the files that OpenAI published, one mapping for both directions.

Published: input_blocks, middle_block and output_blocks are flat lists, attention projects with Conv1d, and a
classifier's pool is a list of layers. Ours: down, middle and up by level, attention projects with Linear, and
a pool has named layers. The order of parameters is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import Tensor

from diffcli.config.sections import ModelConfig, Pool, RunConfig
from diffcli.config.shapes import level_sizes
from diffcli.errors import CorruptError


class NamePair(NamedTuple):
    """One module with weights: its name here, and its name in the published files.

    kernel_dims: how many dimensions of size 1 the published weight has at its end, where ours is a matrix.
    """

    ours: str
    published: str
    kernel_dims: int = 0


# the layers of each kind of block
_EMBEDDING = (NamePair("hidden", "0"), NamePair("output", "2"))
_RESIDUAL = (
    NamePair("norm_1", "in_layers.0"),
    NamePair("conv_1", "in_layers.2"),
    NamePair("condition", "emb_layers.1"),
    NamePair("norm_2", "out_layers.0"),
    NamePair("conv_2", "out_layers.3"),
    NamePair("skip", "skip_connection"),
)
_ATTENTION = (NamePair("norm", "norm"), NamePair("qkv", "qkv", 1), NamePair("out", "proj_out", 1))
_POOLS: Mapping[Pool, tuple[NamePair, ...]] = {
    "attention": (
        NamePair("norm", "0"),
        NamePair("tokens", "2"),
        NamePair("qkv", "2.qkv_proj", 1),
        NamePair("out", "2.c_proj", 1),
    ),
    "adaptive": (NamePair("norm", "0"), NamePair("out", "3", 2)),
    "spatial": (NamePair("hidden", "0"), NamePair("out", "2")),
    "spatial_v2": (NamePair("hidden", "0"), NamePair("norm", "1"), NamePair("out", "3")),
}


def to_published(weights: Mapping[str, Tensor], config: RunConfig) -> dict[str, Tensor]:
    """A network's state dict under the published names, shapes and order; CorruptError on an unknown name."""
    pairs = {pair.ours: pair for pair in _module_pairs(config.model, config.data.resolution)}
    renamed = {}
    for name, tensor in weights.items():
        pair, leaf = _found(name, pairs)
        renamed[f"{pair.published}.{leaf}"] = tensor.view(tensor.shape + _kernel_size(pair, leaf))
    return renamed


def from_published(weights: Mapping[str, Tensor], config: RunConfig) -> dict[str, Tensor]:
    """A published state dict under our names and shapes; CorruptError on an unknown name."""
    pairs = {pair.published: pair for pair in _module_pairs(config.model, config.data.resolution)}
    renamed = {}
    for name, tensor in weights.items():
        pair, leaf = _found(name, pairs)
        matrix, kernel = tensor.shape[:2], _kernel_size(pair, leaf)
        # another shape is left as it is: who loads the weights into a network tells of it
        is_kernel = kernel and tensor.shape == matrix + kernel
        renamed[f"{pair.ours}.{leaf}"] = tensor.view(matrix) if is_kernel else tensor
    return renamed


def _found(name: str, pairs: Mapping[str, NamePair]) -> tuple[NamePair, str]:
    """The module that a parameter belongs to, and the parameter's own name."""
    module, _, leaf = name.rpartition(".")
    if module not in pairs:
        raise CorruptError(
            f"{name} is no parameter of this network",
            remedy="the weights and the model settings do not belong together",
        )
    return pairs[module], leaf


def _kernel_size(pair: NamePair, leaf: str) -> tuple[int, ...]:
    """The dimensions that only the published parameter has."""
    return (1,) * pair.kernel_dims if leaf == "weight" else ()


def _module_pairs(model: ModelConfig, resolution: int) -> Iterator[NamePair]:
    """Every module that can have weights, in the published order."""
    attends = [size in model.attention_resolutions for size in level_sizes(model, resolution)]
    yield from _layers("embedding", "time_embed", _EMBEDDING)
    yield NamePair("embedding.classes", "label_emb")
    yield NamePair("conv_in", "input_blocks.0.0")
    yield from _down_pairs(model, attends)
    yield from _layers("middle.before", "middle_block.0", _RESIDUAL)
    yield from _layers("middle.attention", "middle_block.1", _ATTENTION)
    yield from _layers("middle.after", "middle_block.2", _RESIDUAL)
    if model.kind == "classifier":
        yield from _layers("pool", "out", _POOLS[model.pool])
    else:
        yield from _up_pairs(model, attends[::-1])
        yield NamePair("norm_out", "out.0")
        yield NamePair("conv_out", "out.2")


def _down_pairs(model: ModelConfig, attends: list[bool]) -> Iterator[NamePair]:
    """A published input block is conv_in, or one of our blocks, or a downsampling."""
    index = 1
    for level, attend in enumerate(attends):
        for block in range(model.res_blocks):
            yield from _block(f"down.{level}.blocks.{block}", f"input_blocks.{index}", attend=attend)
            index += 1
        if level < len(attends) - 1:
            yield from _resizing(model, f"down.{level}.downsample", f"input_blocks.{index}.0", conv="op")
            index += 1


def _up_pairs(model: ModelConfig, attends: list[bool]) -> Iterator[NamePair]:
    """A published output block is one of our blocks, with the upsampling if it is the last of its level."""
    index = 0
    for level, attend in enumerate(attends):
        for block in range(model.res_blocks + 1):
            yield from _block(f"up.{level}.blocks.{block}", f"output_blocks.{index}", attend=attend)
            index += 1
        if level < len(attends) - 1:
            place = 2 if attend else 1
            published = f"output_blocks.{index - 1}.{place}"
            yield from _resizing(model, f"up.{level}.upsample", published, conv="conv")


def _block(ours: str, published: str, *, attend: bool) -> Iterator[NamePair]:
    yield from _layers(f"{ours}.residual", f"{published}.0", _RESIDUAL)
    if attend:
        yield from _layers(f"{ours}.attention", f"{published}.1", _ATTENTION)


def _resizing(model: ModelConfig, ours: str, published: str, *, conv: str) -> Iterator[NamePair]:
    if model.resblock_updown:
        yield from _layers(ours, published, _RESIDUAL)
    else:
        yield NamePair(f"{ours}.conv", f"{published}.{conv}")


def _layers(ours: str, published: str, layers: tuple[NamePair, ...]) -> Iterator[NamePair]:
    for layer in layers:
        yield NamePair(f"{ours}.{layer.ours}", f"{published}.{layer.published}", layer.kernel_dims)
