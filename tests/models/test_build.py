"""Building networks: their outputs at the start, their sizes, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import nn

from diffcli.config.sections import DataConfig, DiffusionConfig, ModelConfig, RunConfig
from diffcli.errors import UsageError
from diffcli.models.attention import AttentionBlock
from diffcli.models.build import build_model, output_channels, parameter_count
from diffcli.models.conditioning import Conditioning
from diffcli.models.residual import ResidualBlock
from diffcli.models.super_resolution import SuperResolutionUNet
from diffcli.models.unet import UNet

TINY = RunConfig(
    data=DataConfig(resolution=8, channels=1),
    model=ModelConfig(
        channels=32, channel_mult=(1, 2), res_blocks=1, attention_resolutions=(4,), dropout=0.1, classes=10
    ),
    diffusion=DiffusionConfig(variance="learned_range", objective="hybrid"),
)
TINY_SUPERRES = replace(
    TINY, data=replace(TINY.data, low_resolution=4), model=replace(TINY.model, kind="superres")
)


def randomised(network: UNet) -> UNet:
    """The network with no parameter left at zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.1)
    return network.eval()


def batch(size: int) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    """x, t and conditioning of that many images."""
    torch.manual_seed(2)
    x, low_res = torch.randn(size, 1, 8, 8), torch.randn(size, 1, 4, 4)
    return x, torch.arange(size) * 7, Conditioning(y=torch.arange(size) % 10, low_res=low_res)


@torch.no_grad()
def test_a_new_network_predicts_zero_through_blocks_that_change_nothing() -> None:
    network = build_model(TINY)
    x, t, condition = batch(2)
    assert torch.equal(network(x, t, condition), torch.zeros(2, 2, 8, 8))
    zeroed = [network.conv_out]
    zeroed += [module.conv_2 for module in network.modules() if isinstance(module, ResidualBlock)]
    projections = [module.out for module in network.modules() if isinstance(module, AttentionBlock)]
    assert len(zeroed) == 9
    assert len(projections) == 4
    layers: list[nn.Conv2d | nn.Linear] = [*zeroed, *projections]
    assert all(not layer.weight.any() and layer.bias is not None and not layer.bias.any() for layer in layers)


@torch.no_grad()
def test_an_image_does_not_see_the_rest_of_its_batch() -> None:
    for config in (TINY, TINY_SUPERRES):
        network = randomised(build_model(config))
        x, t, condition = batch(4)
        together = network(x, t, condition)
        assert condition.y is not None
        assert condition.low_res is not None
        for i in range(4):
            alone = Conditioning(y=condition.y[i : i + 1], low_res=condition.low_res[i : i + 1])
            torch.testing.assert_close(
                network(x[i : i + 1], t[i : i + 1], alone), together[i : i + 1], atol=1e-5, rtol=1e-5
            )


@torch.no_grad()
def test_every_input_matters() -> None:
    network = randomised(build_model(TINY_SUPERRES))
    x, t, condition = batch(2)
    assert condition.y is not None
    assert condition.low_res is not None
    output = network(x, t, condition)
    for other in (
        network(x + 0.1, t, condition),
        network(x, t + 1, condition),
        network(x, t, replace(condition, y=condition.y + 1)),
        network(x, t, replace(condition, low_res=condition.low_res + 0.1)),
    ):
        assert (other - output).abs().max() > 1e-4


def test_dropout_follows_the_seed_and_only_while_training() -> None:
    network = randomised(build_model(TINY)).train()
    x, t, condition = batch(2)

    def output(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        result: torch.Tensor = network(x, t, condition)
        return result

    assert torch.equal(output(0), output(0))
    assert not torch.equal(output(0), output(1))
    network.eval()
    assert torch.equal(output(0), output(1))


def test_the_generator_decides_the_initial_weights() -> None:
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        weights.append(build_model(TINY).conv_in.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_output_and_gradients_are_single(dtype: torch.dtype) -> None:
    network = randomised(build_model(TINY)).train()
    x, t, condition = batch(2)
    inside: list[torch.dtype] = []
    network.middle.register_forward_hook(lambda _module, _inputs, h: inside.append(h.dtype))
    with torch.autocast("cpu", dtype=dtype):
        output = network(x, t, condition)
    assert inside == [dtype]
    assert output.dtype == torch.float32
    output.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


def test_kinds_and_widths_follow_the_configuration() -> None:
    assert type(build_model(TINY)) is UNet
    assert type(build_model(TINY_SUPERRES)) is SuperResolutionUNet
    variances: list[tuple[Literal["fixed_small", "learned", "learned_range"], int]] = [
        ("fixed_small", 1),
        ("learned", 2),
        ("learned_range", 2),
    ]
    for variance, expected in variances:
        assert output_channels(replace(TINY, diffusion=DiffusionConfig(variance=variance))) == expected


def test_parameters_are_counted_without_memory() -> None:
    assert parameter_count(TINY) == sum(parameter.numel() for parameter in build_model(TINY).parameters())
    assert not any(parameter.is_meta for parameter in build_model(TINY).parameters())


def test_an_impossible_network_is_refused_by_key() -> None:
    wrong = replace(TINY, data=replace(TINY.data, resolution=7), model=replace(TINY.model, heads=5))
    with pytest.raises(UsageError) as refused:
        build_model(wrong)
    for key in ("data.resolution = 7", "model.heads = 5"):
        assert key in refused.value.where


def test_classes_and_labels_go_together() -> None:
    x, t, _ = batch(2)
    with pytest.raises(AssertionError):
        build_model(TINY)(x, t)
