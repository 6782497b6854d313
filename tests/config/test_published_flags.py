"""The presets against the flags of the 23 published checkpoints, and against how these were trained."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from diffcli.config.presets import list_presets, load_preset
from diffcli.config.resolve import resolve

TABLE = json.loads((Path(__file__).parents[1] / "golden" / "state_dicts.json").read_text())
PUBLISHED = {entry["file"]: entry for entry in TABLE["checkpoints"]}
PRESETS = {preset.name: preset for preset in list_presets() if preset.published_file}
ENTRIES = {name: PUBLISHED[preset.published_file] for name, preset in PRESETS.items()}
DIFFUSION_MODELS = [name for name, entry in ENTRIES.items() if entry["kind"] != "noisy classifier"]
CLASSIFIERS = [name for name, entry in ENTRIES.items() if entry["kind"] == "noisy classifier"]
IMPROVED = [name for name in DIFFUSION_MODELS if ENTRIES[name]["codebase"] == "improved-diffusion"]
GUIDED = [name for name in DIFFUSION_MODELS if ENTRIES[name]["codebase"] == "guided-diffusion"]
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
    "guided_imagenet64": ("imagenet_64", 2048, 3e-4, 540_000, "uniform"),
    "guided_imagenet128": ("imagenet_128", 256, 1e-4, 4_360_000, "uniform"),
    "guided_imagenet256": ("imagenet_256", 256, 1e-4, 1_980_000, "uniform"),
    "guided_imagenet256_uncond": ("imagenet_256", 256, 1e-4, 2_000_000, "uniform"),
    "guided_imagenet512": ("imagenet_512", 256, 1e-4, 1_940_000, "uniform"),
    "guided_upsample_64_256": ("imagenet_256", 256, 1e-4, 500_000, "uniform"),
    "guided_upsample_128_512": ("imagenet_512", 256, 1e-4, 1_050_000, "uniform"),
    "guided_lsun_bedroom": ("lsun_bedroom_256", 256, 1e-4, 500_000, "uniform"),
    "guided_lsun_cat": ("lsun_cat_256", 256, 1e-4, 200_000, "uniform"),
    "guided_lsun_horse": ("lsun_horse_256", 256, 1e-4, 250_000, "uniform"),
    "guided_lsun_horse_nodropout": ("lsun_horse_256", 256, 1e-4, 250_000, "uniform"),
    "guided_imagenet64_classifier": ("imagenet_80", 1024, 6e-4, 300_000, "uniform"),
    "guided_imagenet128_classifier": ("imagenet_160", 256, 3e-4, 300_000, "uniform"),
    "guided_imagenet256_classifier": ("imagenet_320", 256, 3e-4, 500_000, "uniform"),
    "guided_imagenet512_classifier": ("imagenet_640", 256, 3e-4, 500_000, "uniform"),
}
CLASSIFIER_DECAY = {64: 0.2, 128: 0.05, 256: 0.05, 512: 0.05}
# the chain of the diffusion model that a classifier guides
CLASSIFIER_NOISE = {64: "cosine", 128: "linear", 256: "linear", 512: "linear"}


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


def sizes_of(text):
    return tuple(int(size) for size in text.split(","))


def settings_of(flags):
    """Our settings from all flags of the original's diffusion models, none left over."""
    flags = dict(flags)
    superres = "large_size" in flags
    # no setting of ours: recomputation and precision are no part of a model, and training never respaces
    assert flags.pop("use_checkpoint") is False
    flags.pop("use_fp16", None)
    assert flags.pop("timestep_respacing") == ""
    # the table has the multiples that the empty flag stands for
    assert flags.pop("channel_mult", "") == ""
    settings = {
        "data.resolution": flags["large_size"] if superres else flags["image_size"],
        "data.low_resolution": flags["small_size"] if superres else 0,
        "model.kind": "superres" if superres else "unet",
        "model.channels": flags["num_channels"],
        "model.res_blocks": flags["num_res_blocks"],
        "model.heads": flags["num_heads"],
        "model.heads_up": max(0, flags["num_heads_upsample"]),
        "model.head_channels": max(0, flags.get("num_head_channels", 0)),
        "model.attention_resolutions": sizes_of(flags["attention_resolutions"]),
        "model.attention_order": "qkv_first" if flags.get("use_new_attention_order") else "heads_first",
        "model.dropout": flags["dropout"],
        "model.classes": 1000 if flags["class_cond"] else 0,
        "model.scale_shift": flags["use_scale_shift_norm"],
        "model.resblock_updown": flags.get("resblock_updown", False),
        "diffusion.steps": flags["diffusion_steps"],
        "diffusion.schedule": flags["noise_schedule"],
        "diffusion.predict": "x_start" if flags["predict_xstart"] else "eps",
        "diffusion.variance": variance_of(flags),
        "diffusion.objective": objective_of(flags),
        "diffusion.rescale_timesteps": flags["rescale_timesteps"],
    }
    used = {"image_size", "large_size", "small_size", "num_channels", "num_res_blocks", "num_heads"}
    used |= {"num_heads_upsample", "attention_resolutions", "dropout", "class_cond", "use_scale_shift_norm"}
    used |= {"num_head_channels", "use_new_attention_order", "resblock_updown"}
    used |= {"diffusion_steps", "noise_schedule", "predict_xstart", "learn_sigma", "sigma_small", "use_kl"}
    used |= {"rescale_learned_sigmas", "rescale_timesteps"}
    assert set(flags) <= used
    return settings


def classifier_settings_of(flags):
    """Our settings from all flags of the original's classifiers, none left over."""
    flags = dict(flags)
    assert flags.pop("classifier_use_fp16") is False
    return {
        "data.resolution": flags.pop("image_size"),
        "model.kind": "classifier",
        "model.channels": flags.pop("classifier_width"),
        "model.res_blocks": flags.pop("classifier_depth"),
        "model.attention_resolutions": sizes_of(flags.pop("classifier_attention_resolutions")),
        "model.scale_shift": flags.pop("classifier_use_scale_shift_norm"),
        "model.resblock_updown": flags.pop("classifier_resblock_updown"),
        "model.pool": flags.pop("classifier_pool"),
        # these had no flags
        "model.head_channels": 64,
        "model.attention_order": "heads_first",
        "model.dropout": 0.0,
        "left over": sorted(flags),
    }


def settings_of_entry(entry):
    flags = entry["all_flags_after_defaults"]
    return (classifier_settings_of if entry["kind"] == "noisy classifier" else settings_of)(flags)


def test_there_is_a_preset_for_each_published_file():
    assert sorted(preset.published_file for preset in PRESETS.values()) == sorted(PUBLISHED)
    assert (len(IMPROVED), len(GUIDED), len(CLASSIFIERS)) == (8, 11, 4)
    assert set(TRAINING) == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_published_flags(name):
    info, entry = PRESETS[name], ENTRIES[name]
    resolved = {setting.path: setting.value for setting in resolve(preset=name).settings}
    expected = settings_of_entry(entry)
    assert expected.pop("left over", []) == []
    assert {path: resolved[path] for path in expected} == expected
    assert resolved["model.channel_mult"] == tuple(entry["channel_mult"])
    assert resolved["data.channels"] == entry["in_channels"] // (2 if resolved["data.low_resolution"] else 1)
    if name in CLASSIFIERS:
        assert resolved["model.classes"] == entry["out_channels"]
    assert info.parameters == entry["num_parameters"]
    assert info.published_at.endswith(f"/{entry['directory']}/")
    sizes = [resolved["data.resolution"] // rate for rate in entry["attention_downsample_rates"]]
    assert sorted(resolved["model.attention_resolutions"]) == sorted(sizes)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_writes_every_published_setting(name):
    given = {item.path: item.value for item in load_preset(name).requested.given}
    expected = set(settings_of_entry(ENTRIES[name])) - {"left over"}
    # 0 where there is none: no low resolution without super-resolution, no own number of heads on the way up
    expected -= {"data.low_resolution", "model.heads_up"}
    # the number of heads or their channels, whichever counts
    expected -= {"model.heads"} if given.get("model.head_channels") else {"model.head_channels"}
    if name in IMPROVED:
        # what those originals had no flag for
        expected -= {"model.resblock_updown", "model.attention_order"}
    assert expected <= set(given)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_trains_as_published(name):
    config = resolve(preset=name).config
    training = config.training
    assert (
        config.data.name,
        training.batch_size,
        training.lr,
        training.steps,
        training.schedule_sampler,
    ) == TRAINING[name]
    assert (training.lr_warmup_steps, training.ema_warmup_steps, training.grad_clip) == (0, 0, 0.0)
    is_guided = name not in IMPROVED
    assert config.data.flip == is_guided
    assert config.data.resize_recipe == ("guided" if is_guided else "improved")


@pytest.mark.parametrize("name", DIFFUSION_MODELS)
def test_a_diffusion_model_keeps_its_rate_and_one_average_and_samples_as_published(name):
    config = resolve(preset=name).config
    training = config.training
    assert (training.ema_rates, training.weight_decay, training.lr_anneal_steps) == ((0.9999,), 0.0, 0)
    assert config.data.crop == "center"
    steps = 1000 if name.startswith("guided_lsun") else 250
    assert (config.sampling.steps, config.sampling.solver, config.sampling.clip) == (steps, "ancestral", True)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_anneals_its_rate_keeps_no_average_and_sees_random_crops(name):
    config = resolve(preset=name).config
    training, size = config.training, config.data.resolution
    assert training.lr_anneal_steps == training.steps
    assert training.weight_decay == CLASSIFIER_DECAY[size]
    assert (training.ema_rates, config.sampling.ema) == ((), "none")
    assert config.data.crop == "random"
    assert config.data.name == f"imagenet_{math.ceil(size / 0.8)}"


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_sees_the_noise_of_the_model_that_it_guides(name):
    classifier = resolve(preset=name).config
    guided = resolve(preset=name.removesuffix("_classifier")).config
    assert classifier.diffusion.schedule == CLASSIFIER_NOISE[classifier.data.resolution]
    for setting in ("steps", "schedule", "rescale_timesteps"):
        assert getattr(classifier.diffusion, setting) == getattr(guided.diffusion, setting)
    assert classifier.data.resolution == guided.data.resolution
    assert classifier.model.classes == guided.model.classes
