"""A network as the folder that diffusers' UNet2DModel loads, where that class can represent it.

Worked out from the documentation and the source of diffusers 0.42.1, and compared with it in the tests. Its
blocks compute what ours do. The names differ, attention has three projections in place of one, and heads of
attention have one width in the whole network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from diffcli.config.sections import ModelConfig, RunConfig
from diffcli.config.shapes import NORM_GROUPS, embedded_classes, level_sizes, level_widths
from diffcli.errors import UsageError
from diffcli.models.build import output_channels

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
_COMPARED_WITH = "0.42.1"

_RESIDUAL = {
    "norm_1": "norm1",
    "conv_1": "conv1",
    "condition": "time_emb_proj",
    "norm_2": "norm2",
    "conv_2": "conv2",
    "skip": "conv_shortcut",
}
_ATTENTION = {"norm": "group_norm", "out": "to_out.0"}
_PROJECTIONS = ("to_q", "to_k", "to_v")
_OUTSIDE = {
    "embedding.hidden": "time_embedding.linear_1",
    "embedding.output": "time_embedding.linear_2",
    "embedding.classes": "class_embedding",
    "conv_in": "conv_in",
    "norm_out": "conv_norm_out",
    "conv_out": "conv_out",
}
_MIDDLE = {"before": "resnets.0", "attention": "attentions.0", "after": "resnets.1"}


@dataclass(frozen=True, kw_only=True)
class UNet2DSettings:
    """config.json: the arguments of UNet2DModel, by the names that it has for them."""

    _class_name: str
    _diffusers_version: str
    sample_size: int
    in_channels: int
    out_channels: int
    time_embedding_type: str
    freq_shift: int
    flip_sin_to_cos: bool
    down_block_types: tuple[str, ...]
    up_block_types: tuple[str, ...]
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    downsample_padding: int
    downsample_type: str
    upsample_type: str
    dropout: float
    act_fn: str
    attention_head_dim: int
    norm_num_groups: int
    attn_norm_num_groups: int
    norm_eps: float
    resnet_time_scale_shift: str
    add_attention: bool
    num_class_embeds: int | None


def diffusers_settings(config: RunConfig) -> UNet2DSettings:
    """The arguments with which UNet2DModel is this network; UsageError names all that it cannot represent."""
    obstacles = tuple(_obstacles(config))
    if obstacles:
        raise UsageError(
            "diffusers' UNet2DModel cannot represent this network",
            where="\n".join(obstacles),
            remedy="--format openai and --format safetensors hold any network",
        )
    model = config.model
    attends = [size in model.attention_resolutions for size in level_sizes(model, config.data.resolution)]
    kind = "resnet" if model.resblock_updown else "conv"
    down, up = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
    if not model.resblock_updown:
        down, up = ("DownBlock2D", "UpBlock2D")
    return UNet2DSettings(
        _class_name="UNet2DModel",
        _diffusers_version=_COMPARED_WITH,
        sample_size=config.data.resolution,
        in_channels=config.data.channels,
        out_channels=output_channels(config),
        time_embedding_type="positional",
        # cosines first, frequencies from 1 downwards
        freq_shift=0,
        flip_sin_to_cos=True,
        down_block_types=tuple("AttnDownBlock2D" if attend else down for attend in attends),
        up_block_types=tuple("AttnUpBlock2D" if attend else up for attend in reversed(attends)),
        block_out_channels=level_widths(model),
        layers_per_block=model.res_blocks,
        downsample_padding=1,
        downsample_type=kind,
        upsample_type=kind,
        dropout=model.dropout,
        act_fn="silu",
        attention_head_dim=_head_widths(config)[0],
        norm_num_groups=NORM_GROUPS,
        # unset, the attention of the middle would have no norm when the embedding scales and shifts
        attn_norm_num_groups=NORM_GROUPS,
        norm_eps=1e-5,
        resnet_time_scale_shift="scale_shift" if model.scale_shift else "default",
        add_attention=True,
        num_class_embeds=embedded_classes(config) or None,
    )


def diffusers_weights(weights: Mapping[str, Tensor], config: RunConfig) -> dict[str, Tensor]:
    """A network's state dict, under our names, as UNet2DModel names and shapes its own."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        module, _, leaf = name.rpartition(".")
        if module.endswith("attention.qkv"):
            place = _place(module.removesuffix(".qkv"))
            projections = _split(tensor, config.model, head_width=_head_widths(config)[0])
            for projection, rows in zip(_PROJECTIONS, projections, strict=True):
                renamed[f"{place}.{projection}.{leaf}"] = rows
        else:
            renamed[f"{_place(module)}.{leaf}"] = tensor
    return renamed


def _obstacles(config: RunConfig) -> Iterator[str]:
    """Each thing that it cannot represent, in the user's words."""
    model = config.model
    if model.kind == "superres":
        yield "model.kind = superres: it does not enlarge a small image and put it beside the noisy one"
    elif model.kind != "unet":
        yield f"model.kind = {model.kind}: it is no denoiser"
        return
    first = level_widths(model)[0]
    if first != model.channels:
        yield (
            f"model.channel_mult begins with {model.channel_mult[0]:g}: its embedding of the timestep is as "
            f"wide as the first level, {first}, and not {model.channels}"
        )
    widths = _head_widths(config)
    if len(widths) > 1:
        yield (
            f"attention heads are {', '.join(map(str, widths))} channels wide: "
            "it has one width for all (model.head_channels)"
        )


def _head_widths(config: RunConfig) -> tuple[int, ...]:
    """The widths of attention heads that occur in the network, in channels; the middle always attends."""
    model = config.model
    sizes, widths = level_sizes(model, config.data.resolution), level_widths(model)
    attending = [
        width for size, width in zip(sizes, widths, strict=True) if size in model.attention_resolutions
    ]
    if model.head_channels:
        return (model.head_channels,)
    on_the_way_down = {width // model.heads for width in (*attending, widths[-1])}
    on_the_way_up = {width // (model.heads_up or model.heads) for width in attending}
    return tuple(sorted(on_the_way_down | on_the_way_up))


def _split(rows: Tensor, model: ModelConfig, *, head_width: int) -> tuple[Tensor, ...]:
    """The rows of a joint projection, weight [3C, C] or bias [3C], as those of q, k and v, heads in order."""
    channels = rows.shape[0] // 3
    heads = channels // head_width
    if model.attention_order == "heads_first":
        by_kind = rows.reshape(heads, 3, head_width, -1).transpose(0, 1)
    else:
        by_kind = rows.reshape(3, heads, head_width, -1)
    return tuple(kind.reshape(channels, *rows.shape[1:]) for kind in by_kind)


def _place(module: str) -> str:
    """Our name of a module with weights as UNet2DModel's."""
    if module in _OUTSIDE:
        return _OUTSIDE[module]
    way, *parts = module.split(".")
    if way == "middle":
        return f"mid_block.{_MIDDLE[parts[0]]}.{_layer(parts[0], parts[1:])}".rstrip(".")
    level, kind, *rest = parts
    if kind == "blocks":
        number, block, *layer = rest
        block_list = "attentions" if block == "attention" else "resnets"
        return f"{way}_blocks.{level}.{block_list}.{number}.{_layer(block, layer)}".rstrip(".")
    return f"{way}_blocks.{level}.{kind}rs.0.{_layer(kind, rest)}"


def _layer(block: str, layer: list[str]) -> str:
    """A layer of a block; nothing for the block itself."""
    if not layer:
        return ""
    if layer == ["conv"]:
        return "conv"
    return (_ATTENTION if block == "attention" else _RESIDUAL)[layer[0]]
