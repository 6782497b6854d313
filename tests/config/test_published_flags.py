"""The eight improved-diffusion presets against the flags of the published checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffcli.config.presets import load_preset
from diffcli.config.resolve import resolve

TABLE = json.loads((Path(__file__).parents[1] / "golden" / "state_dicts.json").read_text())
IMPROVED = {
    entry["file"]: entry for entry in TABLE["checkpoints"] if entry["codebase"] == "improved-diffusion"
}
PRESETS = (
    "cifar10",
    "cifar10_vlb",
    "imagenet64",
    "imagenet64_vlb",
    "imagenet64_cond",
    "imagenet_upsample",
    "lsun_bedroom",
    "lsun_bedroom_lr2e5",
)
# data, batch size, learning rate, steps and schedule sampler as published; the flags say nothing of them
TRAINING = {
    "cifar10": ("cifar10", 128, 1e-4, 500_000, "uniform"),
    "cifar10_vlb": ("cifar10", 128, 1e-4, 500_000, "loss-second-moment"),
    "imagenet64": ("imagenet64", 128, 1e-4, 1_500_000, "uniform"),
    "imagenet64_vlb": ("imagenet64", 128, 1e-4, 1_500_000, "loss-second-moment"),
    "imagenet64_cond": ("imagenet_64", 2048, 3e-4, 250_000, "uniform"),
    "imagenet_upsample": ("imagenet_256", 256, 3e-4, 500_000, "uniform"),
    "lsun_bedroom": ("lsun_bedroom_256", 128, 1e-4, 1_200_000, "uniform"),
    "lsun_bedroom_lr2e5": ("lsun_bedroom_256", 64, 2e-5, 2_400_000, "uniform"),
}


def objective_of(flags):
    if flags["use_kl"]:
        return "vlb"
    if not flags["learn_sigma"]:
        return "simple"
    return "hybrid" if flags["rescale_learned_sigmas"] else "hybrid_unscaled"


def variance_of(flags):
    if flags["learn_sigma"]:
        return "learned_range"
    return "fixed_small" if flags["sigma_small"] else "fixed_large"


def settings_of(flags):
    """Our settings from all flags of the original, none left over."""
    flags = dict(flags)
    superres = "large_size" in flags
    # no setting of ours: recomputation is no part of a model, and training never respaces
    assert flags.pop("use_checkpoint") is False
    assert flags.pop("timestep_respacing") == ""
    settings = {
        "data.resolution": flags["large_size"] if superres else flags["image_size"],
        "data.low_resolution": flags["small_size"] if superres else 0,
        "model.kind": "superres" if superres else "unet",
        "model.channels": flags["num_channels"],
        "model.res_blocks": flags["num_res_blocks"],
        "model.heads": flags["num_heads"],
        "model.heads_up": max(0, flags["num_heads_upsample"]),
        "model.attention_resolutions": tuple(int(size) for size in flags["attention_resolutions"].split(",")),
        "model.dropout": flags["dropout"],
        "model.classes": 1000 if flags["class_cond"] else 0,
        "model.scale_shift": flags["use_scale_shift_norm"],
        "diffusion.steps": flags["diffusion_steps"],
        "diffusion.schedule": flags["noise_schedule"],
        "diffusion.predict": "x_start" if flags["predict_xstart"] else "eps",
        "diffusion.variance": variance_of(flags),
        "diffusion.objective": objective_of(flags),
        "diffusion.rescale_timesteps": flags["rescale_timesteps"],
    }
    used = {"image_size", "large_size", "small_size", "num_channels", "num_res_blocks", "num_heads"}
    used |= {"num_heads_upsample", "attention_resolutions", "dropout", "class_cond", "use_scale_shift_norm"}
    used |= {"diffusion_steps", "noise_schedule", "predict_xstart", "learn_sigma", "sigma_small", "use_kl"}
    used |= {"rescale_learned_sigmas", "rescale_timesteps"}
    assert set(flags) <= used
    return settings


def test_there_is_a_preset_for_each_published_file():
    assert sorted(load_preset(name).info.published_file for name in PRESETS) == sorted(IMPROVED)
    assert len(IMPROVED) == 8


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_published_flags(name):
    info = load_preset(name).info
    entry = IMPROVED[info.published_file]
    resolved = {setting.path: setting.value for setting in resolve(preset=name).settings}
    expected = settings_of(entry["all_flags_after_defaults"])
    assert {path: resolved[path] for path in expected} == expected
    assert resolved["model.channel_mult"] == tuple(entry["channel_mult"])
    assert resolved["data.channels"] == 3
    assert info.parameters == entry["num_parameters"]
    assert info.published_at.endswith(f"/{entry['directory']}/")
    sizes = [resolved["data.resolution"] // rate for rate in entry["attention_downsample_rates"]]
    assert list(resolved["model.attention_resolutions"]) == sizes
    # what the originals had no flag for
    assert resolved["model.head_channels"] == 0
    assert resolved["model.resblock_updown"] is False
    assert resolved["model.attention_order"] == "heads_first"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_writes_every_published_setting(name):
    given = {item.path for item in load_preset(name).requested.given}
    expected = set(settings_of(IMPROVED[load_preset(name).info.published_file]["all_flags_after_defaults"]))
    # 0 where there is none: no low resolution without super-resolution, no own number of heads on the way up
    expected -= {"data.low_resolution", "model.heads_up"}
    assert expected <= given


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_trains_and_samples_as_published(name):
    config = resolve(preset=name).config
    training = config.training
    assert (
        config.data.name,
        training.batch_size,
        training.lr,
        training.steps,
        training.schedule_sampler,
    ) == TRAINING[name]
    assert (training.ema_rates, training.weight_decay, training.grad_clip) == ((0.9999,), 0.0, 0.0)
    assert (training.lr_warmup_steps, training.lr_anneal_steps, training.ema_warmup_steps) == (0, 0, 0)
    assert (config.data.flip, config.data.crop, config.data.resize_recipe) == (False, "center", "improved")
    assert (config.sampling.steps, config.sampling.solver, config.sampling.clip) == (250, "ancestral", True)
