"""The network behind FID, sFID and IS, and the features that it gives."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffcli.evaluation.features import Features, full_precision
from diffcli.evaluation.inception_architecture import (
    BLOCKS,
    CLASSES,
    IMAGE_SIZE,
    SECOND_STEM,
    SPATIAL_BLOCK,
    SPATIAL_CHANNELS,
    SPATIAL_SIZE,
    STEM,
    Block,
    Branch,
    Convolution,
    Pool,
)
from diffcli.evaluation.tensorflow_resize import tensorflow_resized

_IMAGE_CHANNELS = 3
_NORM_EPSILON = 0.001
# goes into every digest: another number when any of this computes otherwise
_RECIPE = "inception-2015-12-05, tensorflow 1 bilinear 299, (x - 128) / 128, recipe 1"


class InceptionV3(nn.Module):
    """The network of `inception_architecture`, its parameters named as torchvision names them.

    Made without numbers: `load_state_dict(..., assign=True)` gives it some.
    """

    def __init__(self) -> None:
        super().__init__()
        # initial weights would cost a second, and draw from torch's generator
        with torch.device("meta"):
            width = _IMAGE_CHANNELS
            for convolution in (*STEM, *SECOND_STEM):
                self.add_module(convolution.name, _ConvNormRelu(width, convolution))
                width = convolution.outputs
            for block in BLOCKS:
                mixed = _Mixed(width, block)
                self.add_module(block.name, mixed)
                width = mixed.outputs
            self.dimensions: int = width
            # the score of the original takes these products without their bias
            self.fc = nn.Linear(width, CLASSES, bias=False)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Features:
        """x: float32 [N, 3, 299, 299], (pixel - 128) / 128 -> pool_3 [N, 2048], mixed_6/conv [N, 2023]."""
        for convolution in STEM:
            x = self.get_submodule(convolution.name)(x)
        x = _pooled("halving", x)
        for convolution in SECOND_STEM:
            x = self.get_submodule(convolution.name)(x)
        x = _pooled("halving", x)
        spatial = None
        for block in BLOCKS:
            x = self.get_submodule(block.name)(x)
            if block.name == SPATIAL_BLOCK:
                # in the order of TensorFlow: rows, columns, channels
                spatial = x[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        return Features(pooled=x.mean(dim=(2, 3)), spatial=spatial)


class InceptionFeatures:
    """pool_3 (FID, IS, precision, recall, KID) and mixed_6/conv (sFID) of the Inception of 2015-12-05."""

    name = "inception"
    spatial_dimensions: int = SPATIAL_CHANNELS * SPATIAL_SIZE**2

    def __init__(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        """tensors: the state dict of our network, float32 on the CPU."""
        # measured on a CPU: a quarter less time
        self._layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
        network = InceptionV3()
        # copies, as what was read may be a map of a file, which its owner may change
        network.load_state_dict({name: self._copy(tensor) for name, tensor in tensors.items()}, assign=True)
        self.digest: str = _digest(tensors)
        self.dimensions: int = network.dimensions
        self._device = device
        self._network = network.to(device).eval()

    def __call__(self, images: Tensor) -> Features:
        """Features of images uint8 [N, H, W, C] of any size; a single channel stands for three."""
        assert images.dtype == torch.uint8
        assert images.ndim == 4
        assert images.shape[3] in (1, _IMAGE_CHANNELS)
        with full_precision(self._device):
            # 0..255 while it is resized, as in the graph
            x = images.permute(0, 3, 1, 2).to(torch.float32)
            x = tensorflow_resized(x, IMAGE_SIZE).expand(-1, _IMAGE_CHANNELS, -1, -1)
            features: Features = self._network(((x - 128) / 128).contiguous(memory_format=self._layout))
            return features

    def probabilities(self, pooled: Tensor) -> Tensor:
        """The softmax over 1008 classes, without bias: float32 [N, 1008] on the CPU of pool_3 [N, 2048]."""
        with full_precision(self._device):
            logits = F.linear(pooled.to(self._device, torch.float32), self._network.fc.weight)
            return torch.softmax(logits, dim=1).cpu()

    def _copy(self, tensor: Tensor) -> Tensor:
        return tensor.clone(memory_format=self._layout if tensor.ndim == 4 else torch.contiguous_format)


class _ConvNormRelu(nn.Module):
    """The unit of the whole network."""

    def __init__(self, inputs: int, shape: Convolution) -> None:
        super().__init__()
        height, width = shape.kernel
        padding = (height // 2, width // 2) if shape.padded else (0, 0)
        self.conv = nn.Conv2d(inputs, shape.outputs, shape.kernel, shape.stride, padding, bias=False)
        self.bn = _FrozenNorm(shape.outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class _FrozenNorm(nn.Module):
    """A batch norm that can only be used, not trained, whatever mode it is in."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=_NORM_EPSILON)


class _Mixed(nn.Module):
    """A block of branches."""

    def __init__(self, inputs: int, block: Block) -> None:
        super().__init__()
        self._branches = block.branches
        self.outputs = 0
        for branch in block.branches:
            width = inputs
            for convolution in branch.chain:
                self.add_module(convolution.name, _ConvNormRelu(width, convolution))
                width = convolution.outputs
            for convolution in branch.fork:
                self.add_module(convolution.name, _ConvNormRelu(width, convolution))
            self.outputs += sum(convolution.outputs for convolution in branch.fork) or width

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part for branch in self._branches for part in self._along(branch, x)], dim=1)

    def _along(self, branch: Branch, x: Tensor) -> list[Tensor]:
        x = _pooled(branch.pool, x)
        for convolution in branch.chain:
            x = self.get_submodule(convolution.name)(x)
        if branch.fork:
            return [self.get_submodule(convolution.name)(x) for convolution in branch.fork]
        return [x]


def _pooled(pool: Pool, x: Tensor) -> Tensor:
    match pool:
        case "none":
            return x
        case "average":
            return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        case "maximum":
            return F.max_pool2d(x, 3, stride=1, padding=1)
        case "halving":
            return F.max_pool2d(x, 3, stride=2)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """The same for both layouts of the same numbers."""
    digest = hashlib.sha256(_RECIPE.encode())
    for name in sorted(tensors):
        digest.update(f"\n{name} {tuple(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].contiguous().numpy().data)
    return digest.hexdigest()
