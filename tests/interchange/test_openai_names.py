"""Names, shapes and order of the published checkpoints, and the mapping to and from them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from diffcli.config.presets import PresetInfo, list_presets
from diffcli.config.resolve import resolve
from diffcli.config.sections import DataConfig, DiffusionConfig, ModelConfig, Pool, RunConfig
from diffcli.errors import CorruptError
from diffcli.interchange.openai_names import from_published, to_published
from diffcli.models.attention import AttentionBlock
from diffcli.models.build import build_network, parameter_count

_TABLE: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parents[1] / "golden" / "state_dicts.json").read_text()
)
NETWORKS = {
    f"{entry['codebase']}/{entry.get('file') or entry['name']}": entry
    for entry in _TABLE["checkpoints"] + _TABLE["extra_configs"]
}


def classifier_config_of(entry: dict[str, Any]) -> RunConfig:
    """The configuration that means the recorded flags of a classifier."""
    flags = entry["all_flags_after_defaults"]
    sizes = flags["classifier_attention_resolutions"].split(",")
    return RunConfig(
        data=DataConfig(resolution=flags["image_size"]),
        model=ModelConfig(
            kind="classifier",
            channels=flags["classifier_width"],
            channel_mult=tuple(entry["channel_mult"]),
            res_blocks=flags["classifier_depth"],
            attention_resolutions=tuple(int(size) for size in sizes),
            head_channels=64,
            scale_shift=flags["classifier_use_scale_shift_norm"],
            resblock_updown=flags["classifier_resblock_updown"],
            classes=entry["out_channels"],
            pool=flags["classifier_pool"],
        ),
    )


def config_of(entry: dict[str, Any]) -> RunConfig:
    """The configuration that means the recorded flags."""
    if entry["kind"] == "noisy classifier":
        return classifier_config_of(entry)
    flags = entry["all_flags_after_defaults"]
    is_superres = entry["kind"].startswith("super-resolution")
    return RunConfig(
        data=DataConfig(
            resolution=flags["large_size"] if is_superres else flags["image_size"],
            low_resolution=flags["small_size"] if is_superres else 0,
        ),
        model=ModelConfig(
            kind="superres" if is_superres else "unet",
            channels=flags["num_channels"],
            channel_mult=tuple(entry["channel_mult"]),
            res_blocks=flags["num_res_blocks"],
            attention_resolutions=tuple(int(size) for size in flags["attention_resolutions"].split(",")),
            heads=flags["num_heads"],
            head_channels=max(flags.get("num_head_channels", -1), 0),
            heads_up=max(flags["num_heads_upsample"], 0),
            dropout=flags["dropout"],
            scale_shift=flags["use_scale_shift_norm"],
            resblock_updown=flags.get("resblock_updown", False),
            attention_order="qkv_first" if flags.get("use_new_attention_order") else "heads_first",
            classes=1000 if flags["class_cond"] else 0,
        ),
        diffusion=DiffusionConfig(variance="learned_range" if flags["learn_sigma"] else "fixed_large"),
    )


PUBLISHED_PRESETS = [info for info in list_presets() if info.published_file]


@pytest.fixture(params=sorted(NETWORKS))
def entry(request: pytest.FixtureRequest) -> dict[str, Any]:
    return NETWORKS[request.param]


def test_every_published_network_is_compared() -> None:
    published = [name for name in NETWORKS if name.endswith(".pt")]
    assert len([name for name in published if name.startswith("improved")]) == 8
    assert len([name for name in published if name.startswith("guided")]) == 15
    assert len(NETWORKS) - len(published) == 10
    assert len(PUBLISHED_PRESETS) == 23


def test_keys_shapes_order_and_size_are_the_published_ones(entry: dict[str, Any]) -> None:
    config = config_of(entry)
    with torch.device("meta"):
        ours = build_network(config).state_dict()
    published = to_published(ours, config)
    assert [[name, list(tensor.shape)] for name, tensor in published.items()] == entry["state_dict"]
    back = from_published(published, config)
    assert [(name, tensor.shape) for name, tensor in back.items()] == [
        (name, tensor.shape) for name, tensor in ours.items()
    ]
    assert parameter_count(config) == entry["num_parameters"]


@pytest.mark.parametrize("preset", PUBLISHED_PRESETS, ids=lambda info: info.name)
def test_a_preset_has_the_published_keys(preset: PresetInfo) -> None:
    (entry,) = [entry for entry in _TABLE["checkpoints"] if entry["file"] == preset.published_file]
    config = resolve(preset=preset.name).config
    with torch.device("meta"):
        network = build_network(config)
        published = {name: torch.empty(shape) for name, shape in entry["state_dict"]}
    renamed = to_published(network.state_dict(), config)
    assert [(name, tensor.shape) for name, tensor in renamed.items()] == [
        (name, tensor.shape) for name, tensor in published.items()
    ]
    # strict: every name and shape
    network.load_state_dict(from_published(published, config), assign=True)
    assert sum(parameter.numel() for parameter in network.parameters()) == entry["num_parameters"]
    assert preset.parameters == entry["num_parameters"]


def test_heads_are_the_published_ones(entry: dict[str, Any]) -> None:
    config = config_of(entry)
    with torch.device("meta"):
        network = build_network(config)
    recorded = entry["heads_per_attention_module"]
    attention = {
        name: module for name, module in network.named_modules() if isinstance(module, AttentionBlock)
    }
    assert attention
    for name, module in attention.items():
        bias = {f"{name}.qkv.bias": module.qkv.bias}
        published = next(iter(to_published(bias, config))).removesuffix(".qkv.bias")
        expected = recorded["all"] if "all" in recorded else recorded[published]
        assert module.heads == expected, published


TINY = RunConfig(
    data=DataConfig(resolution=16),
    model=ModelConfig(
        channels=32, channel_mult=(1, 2), res_blocks=1, attention_resolutions=(8,), heads=2, classes=3
    ),
)


POOLS: tuple[Pool, ...] = ("attention", "adaptive", "spatial", "spatial_v2")
TINIES = [TINY, *(replace(TINY, model=replace(TINY.model, kind="classifier", pool=pool)) for pool in POOLS)]


@pytest.mark.parametrize("config", TINIES, ids=["unet", *POOLS])
def test_round_trip_is_exact(config: RunConfig) -> None:
    torch.manual_seed(0)
    ours = build_network(config).state_dict()
    back = from_published(to_published(ours, config), config)
    assert list(back) == list(ours)
    for name, tensor in ours.items():
        assert back[name].shape == tensor.shape
        assert torch.equal(back[name], tensor)


def test_a_name_of_another_network_is_refused() -> None:
    with pytest.raises(CorruptError, match=r"input_blocks\.9\.0\.weight"):
        from_published({"input_blocks.9.0.weight": torch.zeros(1)}, TINY)
    with pytest.raises(CorruptError, match="conv_middle"):
        to_published({"conv_middle.weight": torch.zeros(1)}, TINY)


def test_a_kernel_of_another_shape_is_left_for_the_network_to_refuse() -> None:
    ours = build_network(TINY)
    published = to_published(ours.state_dict(), TINY)
    name = "middle_block.1.qkv.weight"
    published[name] = published[name].repeat(1, 1, 3)
    with pytest.raises(RuntimeError, match=r"middle\.attention\.qkv\.weight.*\[192, 64, 3\]"):
        ours.load_state_dict(from_published(published, TINY))
