"""The tiny networks of the golden vectors, built by us with the golden weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from diffcli.config.sections import DataConfig, DiffusionConfig, ModelConfig, RunConfig
from diffcli.interchange.openai_names import from_published
from diffcli.models.build import build_network
from diffcli.models.classifier import Classifier
from diffcli.models.unet import UNet

GOLDEN = Path(__file__).parent / "golden"
UNET_INDEX = json.loads((GOLDEN / "unet" / "index.json").read_text())


KINDS = {"UNetModel": "unet", "SuperResModel": "superres", "EncoderUNetModel": "classifier"}


def golden_config(name: str) -> RunConfig:
    """The configuration of a golden network."""
    facts = UNET_INDEX[name]
    arguments = facts["kwargs"]
    size = facts["image_size"]
    kind = KINDS[facts["cls"]]
    learned = arguments["out_channels"] == 2 * arguments["in_channels"] and kind != "classifier"
    return RunConfig(
        data=DataConfig(
            resolution=size, low_resolution=facts["low_res_size"] or 0, channels=arguments["in_channels"]
        ),
        model=ModelConfig(
            kind=kind,
            channels=arguments["model_channels"],
            channel_mult=tuple(arguments["channel_mult"]),
            res_blocks=arguments["num_res_blocks"],
            attention_resolutions=tuple(size // factor for factor in arguments["attention_resolutions"]),
            heads=max(1, arguments.get("num_heads", 1)),
            head_channels=max(0, arguments.get("num_head_channels", -1)),
            heads_up=max(0, arguments.get("num_heads_upsample", -1)),
            dropout=arguments.get("dropout", 0.0),
            scale_shift=arguments["use_scale_shift_norm"],
            resblock_updown=arguments.get("resblock_updown", False),
            attention_order="qkv_first" if arguments.get("use_new_attention_order") else "heads_first",
            classes=arguments["out_channels"] if kind == "classifier" else arguments["num_classes"] or 0,
            pool=arguments.get("pool", "attention"),
        ),
        diffusion=DiffusionConfig(
            variance="learned_range" if learned else "fixed_large",
            objective="hybrid" if learned else "simple",
        ),
    )


def golden_network(name: str) -> UNet | Classifier:
    """The network with its golden weights, float32, in evaluation mode."""
    config = golden_config(name)
    network = build_network(config)
    weights = load_file(GOLDEN / "unet" / f"{name}.safetensors")
    network.load_state_dict(
        from_published({key: tensor.to(torch.float32) for key, tensor in weights.items()}, config)
    )
    return network.eval()


def golden_diffusion(flags: dict[str, object]) -> DiffusionConfig:
    """The diffusion section that the reference's flags mean (defaults of create_gaussian_diffusion)."""
    variance = "fixed_large"
    if flags.get("learn_sigma"):
        variance = "learned_range"
    elif flags.get("sigma_small"):
        variance = "fixed_small"
    objective = "simple"
    if flags.get("use_kl"):
        objective = "vlb"
    elif flags.get("learn_sigma"):
        objective = "hybrid" if flags.get("rescale_learned_sigmas") else "hybrid_unscaled"
    return DiffusionConfig(
        steps=flags.get("steps", 1000),
        schedule=flags.get("noise_schedule", "linear"),
        predict="x_start" if flags.get("predict_xstart") else "eps",
        variance=variance,
        objective=objective,
        rescale_timesteps=bool(flags.get("rescale_timesteps")),
    )
