"""Classifiers: what their logits depend on, their precision, and which builder makes them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diffcli.config.sections import DataConfig, ModelConfig, Pool, RunConfig
from diffcli.errors import UsageError
from diffcli.models.build import build_classifier, build_model, build_network, parameter_count
from diffcli.models.classifier import Classifier
from diffcli.models.unet import UNet

POOLS: tuple[Pool, ...] = ("attention", "adaptive", "spatial", "spatial_v2")
TINY = RunConfig(
    data=DataConfig(resolution=8, channels=1),
    model=ModelConfig(
        kind="classifier",
        channels=32,
        channel_mult=(1, 2),
        res_blocks=1,
        attention_resolutions=(4,),
        head_channels=16,
        dropout=0.1,
        classes=10,
    ),
)


@pytest.fixture(params=POOLS)
def config(request: pytest.FixtureRequest) -> RunConfig:
    return replace(TINY, model=replace(TINY.model, pool=request.param))


def randomised(config: RunConfig) -> Classifier:
    """A classifier in evaluation mode with no parameter left at zero."""
    torch.manual_seed(1)
    network = build_classifier(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.1)
    return network


def batch(size: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    return torch.randn(size, 1, 8, 8), torch.arange(size) * 7


@torch.no_grad()
def test_logits_of_an_image_do_not_see_the_rest_of_its_batch(config: RunConfig) -> None:
    network = randomised(config)
    x, t = batch(4)
    together = network(x, t)
    assert together.shape == (4, 10)
    for i in range(4):
        alone = network(x[i : i + 1], t[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_image_and_timestep_matter(config: RunConfig) -> None:
    network = randomised(config)
    x, t = batch(2)
    logits = network(x, t)
    for other in (network(x + 0.5, t), network(x, t + 100)):
        assert (other - logits).abs().max() > 1e-4


def test_the_image_gets_a_gradient_where_the_weights_get_none(config: RunConfig) -> None:
    network = randomised(config).requires_grad_(False)
    x, t = batch(2)
    x.requires_grad_(True)
    network(x, t).log_softmax(1)[:, 3].sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.abs().amax((1, 2, 3)).min() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_pool_is_single(config: RunConfig, dtype: torch.dtype) -> None:
    network = randomised(config).train()
    x, t = batch(2)
    inside: list[torch.dtype] = []
    in_pool: list[torch.dtype] = []
    network.middle.register_forward_hook(lambda _module, _inputs, h: inside.append(h.dtype))
    for module in network.pool.modules():
        if module is not network.pool:
            module.register_forward_hook(lambda _module, _inputs, h: in_pool.append(h.dtype))
    with torch.autocast("cpu", dtype=dtype):
        logits = network(x, t)
    assert inside == [dtype]
    assert set(in_pool) == {torch.float32}
    assert logits.dtype == torch.float32
    logits.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


@torch.no_grad()
def test_a_new_adaptive_pool_prefers_no_class() -> None:
    network = build_classifier(replace(TINY, model=replace(TINY.model, pool="adaptive")))
    assert torch.equal(network(*batch(2)), torch.zeros(2, 10))


def test_each_builder_refuses_the_other_kind() -> None:
    unet = replace(TINY, model=replace(TINY.model, kind="unet"))
    assert type(build_network(TINY)) is Classifier
    assert type(build_network(unet)) is UNet
    with pytest.raises(UsageError, match="draws no images"):
        build_model(TINY)
    with pytest.raises(UsageError, match="no classifier"):
        build_classifier(unet)


def test_parameters_are_counted(config: RunConfig) -> None:
    assert parameter_count(config) == sum(parameter.numel() for parameter in randomised(config).parameters())
    # the classes are told by a classifier, not to it
    assert not any("classes" in name for name, _ in randomised(config).named_parameters())


def test_an_impossible_classifier_is_refused_by_key() -> None:
    wrong = replace(TINY, model=replace(TINY.model, classes=1, head_channels=48))
    with pytest.raises(UsageError) as refused:
        build_classifier(wrong)
    for key in ("model.classes = 1", "model.head_channels = 48"):
        assert key in refused.value.where
