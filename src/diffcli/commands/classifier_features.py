"""What a classifier of ours reads off images, as features: for images that are no photographs of things."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from diffcli.commands.weights import LoadedClassifier
from diffcli.config.sections import RunConfig
from diffcli.diffusion.build import build_diffusion
from diffcli.evaluation.features import Features, full_precision
from diffcli.images.conversion import from_uint8


class ClassifierFeatures:
    """The numbers that the last layer of a classifier makes its logits of. Implements `FeatureExtractor`.

    Images are looked at as they are, at timestep 0.
    """

    spatial_dimensions = None

    def __init__(self, run_id: str, loaded: LoadedClassifier, config: RunConfig) -> None:
        last = loaded.network.pool.out
        assert isinstance(last, nn.Linear)
        self.name = run_id
        self.digest = hashlib.sha256(f"{loaded.manifest_sha256} {loaded.weights_name}".encode()).hexdigest()
        self.dimensions = last.in_features
        self._last = last
        self._network = loaded.network
        self._diffusion = build_diffusion(config.diffusion)

    def __call__(self, images: Tensor) -> Features:
        """As `FeatureExtractor`."""
        x = from_uint8(images.permute(0, 3, 1, 2))
        t = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        read: list[Tensor] = []
        hook = self._last.register_forward_pre_hook(lambda _layer, inputs: read.append(inputs[0]))
        try:
            with full_precision(x.device):
                self._network(x, self._diffusion.model_timesteps(t))
        finally:
            hook.remove()
        return Features(pooled=read[0].float(), spatial=None)

    def probabilities(self, pooled: Tensor) -> Tensor:
        """As `FeatureExtractor`."""
        weight = self._last.weight
        with full_precision(weight.device):
            logits: Tensor = self._last(pooled.to(weight.device, weight.dtype))
        return logits.float().softmax(dim=1).cpu()
