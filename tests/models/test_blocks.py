"""Laws of attention and normalisation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diffcli.config.sections import AttentionOrder, ModelConfig
from diffcli.models.attention import AttentionBlock
from diffcli.models.normalization import AdaptiveGroupNorm, GroupNorm
from diffcli.models.resampling import double, halve
from diffcli.models.residual import ResidualBlock


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def naive_attention(block: AttentionBlock, h: Tensor, order: AttentionOrder) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, head by head and image by image."""
    batch, channels, height, width = h.shape
    depth = channels // block.heads
    result = torch.empty_like(h)
    for image in range(batch):
        tokens = block.norm(h)[image].flatten(1).T
        rows = (tokens @ block.qkv.weight.T + block.qkv.bias).T
        heads = []
        for head in range(block.heads):
            if order == "heads_first":
                query, key, value = rows[3 * depth * head : 3 * depth * (head + 1)].chunk(3)
            else:
                query, key, value = (part[depth * head : depth * (head + 1)] for part in rows.chunk(3))
            weights = torch.softmax(query.T @ key / depth**0.5, dim=1)
            heads.append(weights @ value.T)
        joined = torch.cat(heads, dim=1) @ block.out.weight.T + block.out.bias
        result[image] = h[image] + joined.T.reshape(channels, height, width)
    return result


@torch.no_grad()
@pytest.mark.parametrize("order", ["heads_first", "qkv_first"])
@pytest.mark.parametrize("heads", [1, 4])
def test_attention_is_softmax_attention(order: AttentionOrder, heads: int) -> None:
    block = AttentionBlock(64, heads=heads, order=order)
    for parameter in block.parameters():
        parameter.normal_(std=0.3)
    h = torch.randn(2, 64, 3, 5)
    torch.testing.assert_close(block(h), naive_attention(block, h, order), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_norm_makes_each_group_standard() -> None:
    groups = GroupNorm(64)(7 + 3 * torch.randn(2, 64, 8, 8)).view(2, 32, -1)
    torch.testing.assert_close(groups.mean(-1), torch.zeros(2, 32), atol=1e-5, rtol=0)
    torch.testing.assert_close(groups.var(-1, correction=0), torch.ones(2, 32), atol=1e-4, rtol=0)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_adaptive_norm_is_norm_then_scale_and_shift(memory_format: torch.memory_format) -> None:
    plain, adaptive = GroupNorm(64), AdaptiveGroupNorm(64)
    with torch.no_grad():
        plain.weight.normal_()
        plain.bias.normal_()
    adaptive.load_state_dict(plain.state_dict())
    inputs = torch.randn(3, 64, 4, 4).to(memory_format=memory_format), torch.randn(3, 64), torch.randn(3, 64)
    h, scale, shift = (tensor.requires_grad_() for tensor in inputs)
    expected = plain(h) * (1 + scale)[:, :, None, None] + shift[:, :, None, None]
    result = adaptive(h, scale, shift)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)
    probe = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad((result * probe).sum(), (h, scale, shift, *adaptive.parameters())),
        torch.autograd.grad((expected * probe).sum(), (h, scale, shift, *plain.parameters())),
        atol=1e-4,
        rtol=1e-4,
    )


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_norm_keeps_half_precision_outside_and_single_inside(dtype: torch.dtype) -> None:
    norm = GroupNorm(32)
    # far from zero, where statistics in half precision would be useless
    h = (100 + torch.randn(1, 32, 16, 16)).to(dtype)
    with torch.autocast("cpu", dtype=dtype):
        result = norm(h)
    assert result.dtype == dtype
    torch.testing.assert_close(result.float(), norm(h.float()), atol=2e-2, rtol=1e-2)


@torch.no_grad()
def test_a_resizing_block_resizes_both_ways() -> None:
    config = ModelConfig(channels=32)
    h, embedding = torch.randn(2, 32, 6, 6), torch.randn(2, 128)
    for resize, size in ((halve, 3), (double, 12)):
        # with its last convolution at zero a new block only passes the skip on
        passed = ResidualBlock(32, 32, config, resize=resize)(h, embedding)
        assert passed.shape == (2, 32, size, size)
        assert torch.equal(passed, resize(h))
    torch.testing.assert_close(halve(double(h)), h)
    torch.testing.assert_close(double(h)[..., ::2, 1::2], h)
    torch.testing.assert_close(halve(h), F.interpolate(h, scale_factor=0.5, mode="area"))
