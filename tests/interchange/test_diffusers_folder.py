"""Folders for diffusers' UNet2DModel: the same output in the real package, or a refusal that says why."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from diffcli.config.presets import list_presets
from diffcli.config.resolve import resolve
from diffcli.errors import UsageError
from diffcli.interchange.diffusers_folder import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    diffusers_settings,
    diffusers_weights,
)
from diffcli.interchange.exported_files import by_itself
from diffcli.models.build import build_network
from diffcli.models.conditioning import Conditioning
from golden_models import GOLDEN, UNET_INDEX, golden_config, golden_network

# one head, or heads of one width, in every attention of the network
REPRESENTED = (
    "guided_conv_h4_legacy",
    "guided_updown_hc8_legacy",
    "guided_updown_hc8_neworder",
    "improved_ssn0_sig0_cls0_h1",
    "improved_ssn0_sig0_cls1_h4",
    "improved_ssn0_sig1_cls0_h4",
    "improved_ssn0_sig1_cls1_h1",
    "improved_ssn1_sig0_cls0_h4",
    "improved_ssn1_sig0_cls1_h1",
    "improved_ssn1_sig1_cls0_h1",
    "improved_ssn1_sig1_cls1_h4",
)
REASONS = {
    "guided_fracmult_hc16": ("model.channel_mult begins with 0.5",),
    "guided_superres": ("model.kind = superres",),
    "improved_superres": ("model.kind = superres",),
    "improved_headsup": ("attention heads are 8, 16 channels wide",),
    "guided_classifier_attention": ("model.kind = classifier",),
}


def write_folder(directory, config, network):
    (directory / CONFIG_FILE).write_text(json.dumps(dataclasses.asdict(diffusers_settings(config))))
    weights = by_itself(diffusers_weights(network.state_dict(), config))
    save_file(weights, directory / WEIGHTS_FILE, metadata={"format": "pt"})


def test_each_golden_network_is_represented_or_refused():
    classifiers = {name for name in UNET_INDEX if "classifier" in name}
    assert set(REPRESENTED) | set(REASONS) | classifiers == set(UNET_INDEX)


@pytest.mark.parametrize("name", REPRESENTED)
def test_the_real_package_computes_the_same(name, tmp_path):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra `bench`)")
    config, ours = golden_config(name), golden_network(name)
    write_folder(tmp_path, config, ours)
    theirs, info = diffusers.UNet2DModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    arrays = np.load(GOLDEN / "unet" / f"{name}.npz")
    x = torch.from_numpy(arrays["x"])
    y = torch.from_numpy(arrays["y"]) if "y" in arrays else None
    for t in ("t_int", "t_float"):
        timesteps = torch.from_numpy(arrays[t])
        with torch.no_grad():
            expected = ours(x, timesteps, Conditioning(y=y))
            found = theirs.eval()(x, timesteps, class_labels=y).sample
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(found.numpy(), arrays[f"out_{t.replace('_', '')}"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", REASONS)
def test_what_cannot_be_represented_is_refused_and_named(name):
    with pytest.raises(UsageError, match="UNet2DModel cannot represent this network") as told:
        diffusers_settings(golden_config(name))
    for reason in REASONS[name]:
        assert reason in told.value.where


def test_all_reasons_are_told_at_once():
    config = golden_config("guided_superres")
    model = dataclasses.replace(
        config.model, channels=64, channel_mult=(0.5, 1.0, 2.0), head_channels=0, heads=4
    )
    with pytest.raises(UsageError) as told:
        diffusers_settings(dataclasses.replace(config, model=model))
    assert [line.partition(" ")[0] for line in told.value.where.splitlines()] == [
        "model.kind",
        "model.channel_mult",
        "attention",
    ]


def test_the_embedding_of_no_class_is_counted():
    config = resolve(preset="digits", overrides=["training.label_drop=0.1"]).config
    weights = diffusers_weights(build_network(config).state_dict(), config)
    assert diffusers_settings(config).num_class_embeds == len(weights["class_embedding.weight"]) == 11


# of the published networks those with heads of one width, and no other obstacle
PRESETS_REPRESENTED = {
    "cifar10",
    "cifar10_vlb",
    "digits",
    "guided_imagenet256",
    "guided_imagenet256_uncond",
    "guided_imagenet64",
    "guided_lsun_bedroom",
    "guided_lsun_cat",
    "guided_lsun_horse",
    "guided_lsun_horse_nodropout",
    "lsun_bedroom",
    "lsun_bedroom_lr2e5",
}


@pytest.mark.parametrize("preset", [info.name for info in list_presets()])
def test_which_presets_can_go_to_diffusers(preset):
    config = resolve(preset=preset).config
    if preset not in PRESETS_REPRESENTED:
        with pytest.raises(UsageError, match="cannot represent"):
            diffusers_settings(config)
        return
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra `bench`)")
    with torch.device("meta"):
        theirs = diffusers.UNet2DModel.from_config(
            json.loads(json.dumps(dataclasses.asdict(diffusers_settings(config))))
        )
        ours = diffusers_weights(build_network(config).state_dict(), config)
    expected = {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()}
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == expected
