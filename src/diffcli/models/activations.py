"""How many bytes of activations the backward pass needs kept, worked out without allocating any of them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from diffcli.config.sections import RunConfig
from diffcli.models.attention import AttentionBlock
from diffcli.models.build import build_network
from diffcli.models.classifier import Classifier
from diffcli.models.conditioning import Conditioning
from diffcli.models.encoder import Middle, ResidualAttention
from diffcli.models.resampling import Upsample
from diffcli.models.residual import ResidualBlock
from diffcli.models.unet import UNet

# what is computed again as one, if anything is
_BLOCKS = (ResidualAttention, Middle, ResidualBlock, Upsample)
_SINGLE_BYTES = 4
_HALF_BYTES = 2


def activation_bytes_per_image(config: RunConfig) -> int:
    """Bytes that training on one image needs at the peak of its backward pass, in the run's precision.

    Within some per cent of what tensors take; how an allocator places them comes on top.
    """
    keeping = _Ledger(replace(config, model=replace(config.model, checkpoint_blocks=False)))
    kept = keeping.total_bytes
    if config.model.checkpoint_blocks:
        # the blocks are computed again one at a time
        kept = _Ledger(config).total_bytes + keeping.largest_block_bytes
    # an operation reads one gradient and writes the next
    return kept + 2 * keeping.largest_tensor_bytes


class _Ledger:
    """Every storage that autograd keeps in one forward pass of one image, on the meta device."""

    def __init__(self, config: RunConfig) -> None:
        self.total_bytes = 0
        self.largest_block_bytes = 0
        self.largest_tensor_bytes = 0
        self._element_bytes = _SINGLE_BYTES if config.training.precision == "fp32" else _HALF_BYTES
        self._tokens = 0
        with torch.device("meta"):
            network = build_network(config).train()
            inputs = _one_image(config)
        self._known = {parameter.untyped_storage() for parameter in network.parameters()}
        self._watch(network)
        with saved_tensors_hooks(self._enter, lambda tensor: tensor):
            network(*inputs)

    def _watch(self, network: UNet | Classifier) -> None:
        for module in network.modules():
            if isinstance(module, _BLOCKS):
                self._watch_block(module)
            if isinstance(module, AttentionBlock):
                module.register_forward_pre_hook(self._begin_attention)
                module.register_forward_hook(self._end_attention)
        output = network.pool if isinstance(network, Classifier) else network.norm_out
        output.register_forward_pre_hook(self._begin_output)

    def _watch_block(self, block: nn.Module) -> None:
        entered_at: list[int] = []

        def begin(_block: nn.Module, _inputs: tuple[Tensor, ...]) -> None:
            entered_at.append(self.total_bytes)

        def end(_block: nn.Module, _inputs: tuple[Tensor, ...], _output: Tensor) -> None:
            self.largest_block_bytes = max(self.largest_block_bytes, self.total_bytes - entered_at.pop())

        block.register_forward_pre_hook(begin)
        block.register_forward_hook(end)

    def _begin_attention(self, _block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._tokens = inputs[0].shape[2] * inputs[0].shape[3]

    def _end_attention(self, _block: nn.Module, _inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        self._tokens = 0

    def _begin_output(self, _layer: nn.Module, _inputs: tuple[object, ...]) -> None:
        # a U-Net's last norm, SiLU and convolution, and a classifier's pool, compute in single precision
        self._element_bytes = _SINGLE_BYTES

    def _enter(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage not in self._known and not self._is_attention_map(tensor):
            self._known.add(storage)
            size = storage.nbytes() * self._element_bytes // _SINGLE_BYTES
            self.total_bytes += size
            self.largest_tensor_bytes = max(self.largest_tensor_bytes, size)
        return tensor

    def _is_attention_map(self, tensor: Tensor) -> bool:
        """Whether it is the [T, T] softmax, which no real device's kernel keeps and the meta device does."""
        # query, key and value may have its shape, and are parts of one storage
        is_whole = tensor.untyped_storage().nbytes() == tensor.nbytes
        return self._tokens > 1 and is_whole and tensor.shape[-2:] == (self._tokens, self._tokens)


def _one_image(config: RunConfig) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Conditioning]:
    """What the network is called with."""
    size, low, channels = config.data.resolution, config.data.low_resolution, config.data.channels
    x, t = torch.empty(1, channels, size, size), torch.empty(1)
    if config.model.kind == "classifier":
        return x, t
    condition = Conditioning(
        y=torch.empty(1, dtype=torch.int64) if config.model.classes else None,
        low_res=torch.empty(1, channels, low, low) if low else None,
    )
    return x, t, condition
