"""Our parameter names and those of the files that OpenAI published, one mapping for both directions.

Published: input_blocks, middle_block and output_blocks are flat lists, attention projects with Conv1d.
Ours: down, middle and up by level, attention projects with Linear. The order of parameters is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import Tensor

from diffcli.config.sections import ModelConfig, RunConfig
from diffcli.config.shapes import level_sizes
from diffcli.errors import CorruptError


class NamePair(NamedTuple):
    """One module with weights: its name here, and its name in the published files."""

    ours: str
    published: str


# the layers of each kind of block: (ours, published)
_EMBEDDING = (("hidden", "0"), ("output", "2"))
_RESIDUAL = (
    ("norm_1", "in_layers.0"),
    ("conv_1", "in_layers.2"),
    ("condition", "emb_layers.1"),
    ("norm_2", "out_layers.0"),
    ("conv_2", "out_layers.3"),
    ("skip", "skip_connection"),
)
_ATTENTION = (("norm", "norm"), ("qkv", "qkv"), ("out", "proj_out"))


def to_published(weights: Mapping[str, Tensor], config: RunConfig) -> dict[str, Tensor]:
    """A network's state dict under the published names, shapes and order; CorruptError on an unknown name."""
    published = {pair.ours: pair.published for pair in _module_pairs(config.model, config.data.resolution)}
    renamed = {}
    for name, tensor in weights.items():
        new = _renamed(name, published)
        renamed[new] = tensor.unsqueeze(-1) if _is_projection(new) else tensor
    return renamed


def from_published(weights: Mapping[str, Tensor], config: RunConfig) -> dict[str, Tensor]:
    """A published state dict under our names and shapes; CorruptError on an unknown name."""
    ours = {pair.published: pair.ours for pair in _module_pairs(config.model, config.data.resolution)}
    return {
        _renamed(name, ours): tensor.squeeze(-1) if _is_projection(name) else tensor
        for name, tensor in weights.items()
    }


def _renamed(name: str, modules: Mapping[str, str]) -> str:
    module, _, leaf = name.rpartition(".")
    if module not in modules:
        raise CorruptError(
            f"{name} is no parameter of this network",
            remedy="the weights and the model settings do not belong together",
        )
    return f"{modules[module]}.{leaf}"


def _is_projection(published: str) -> bool:
    """Whether a published name is the kernel [out, in, 1] of an attention block's Conv1d."""
    return published.endswith((".qkv.weight", ".proj_out.weight"))


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


def _layers(ours: str, published: str, names: tuple[tuple[str, str], ...]) -> Iterator[NamePair]:
    for our_layer, published_layer in names:
        yield NamePair(f"{ours}.{our_layer}", f"{published}.{published_layer}")
