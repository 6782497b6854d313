"""The network of a run with the weights of one of its checkpoints, ready to be called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffcli import durable
from diffcli.config.sections import EmaChoice, Precision, RunConfig
from diffcli.diffusion.reverse import Denoiser
from diffcli.errors import CorruptError, MissingError
from diffcli.models.build import build_model
from diffcli.models.conditioning import Conditioning
from diffcli.models.unet import UNet
from diffcli.registry.create import Run
from diffcli.training import checkpoints
from diffcli.training.checkpoints import FoundCheckpoint
from diffcli.training.state import average_file, average_rates
from diffcli.workers import Workers

_RAW_WEIGHTS = "model"
_HALF_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
# about what fits beside a network of some hundred million parameters on a small card
_BATCH_PIXELS = 64 * 64 * 64
_BATCH_LIMIT = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedNetwork:
    """A network ready for use, in eval mode on its device, and where its weights come from.

    step: of the checkpoint; manifest_sha256: of its manifest, which has the digests of all its files;
    weights_name: `model` or such as `ema-0.9999`; rejected: what is wrong with newer checkpoints, newest
    first, for the caller to tell.
    """

    network: UNet
    step: int
    manifest_sha256: str
    weights_name: str
    rejected: tuple[CorruptError, ...]

    def denoiser(self, conditioning: Conditioning, precision: Precision) -> Denoiser:
        """The network as the diffusion calls it, on a batch with this conditioning, on its device."""
        half = _HALF_PRECISIONS.get(precision)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            with torch.autocast(x.device.type, dtype=half, enabled=half is not None):
                output: Tensor = self.network(x, t, conditioning)
            return output.float()

        return denoise


def default_batch_size(config: RunConfig) -> int:
    """Images per forward pass where no gradients are kept, unless a user knows better."""
    return max(1, min(_BATCH_LIMIT, _BATCH_PIXELS // config.data.resolution**2))


def load_network(
    run: Run, config: RunConfig, *, step: int | None, ema: EmaChoice, workers: Workers
) -> LoadedNetwork:
    """The network of a run's configuration, with weights of one of its checkpoints.

    step: of the checkpoint, None for the newest good one; ema: as sampling.ema. Raises MissingError that
    lists the checkpoints or the moving averages there are, and CorruptError for a damaged checkpoint or one
    whose tensors do not fit.
    """
    # a run in training may save another one between the looks of two processes
    found = workers.first_decides(lambda: _find_checkpoint(run, step))
    name = _weights_name(config, ema)
    _require_present(found.directory, name)
    # without memory or random numbers for initial weights: those of the checkpoint take their place
    with torch.device("meta"):
        network = build_model(config)
    weights = checkpoints.read_fitting(found.directory, name, network.state_dict())
    network.load_state_dict(weights, assign=True)
    return LoadedNetwork(
        network=network.to(workers.device).eval().requires_grad_(False),
        step=found.step,
        manifest_sha256=durable.sha256(found.directory / checkpoints.MANIFEST),
        weights_name=name,
        rejected=found.rejected,
    )


def _find_checkpoint(run: Run, step: int | None) -> FoundCheckpoint:
    if step is None:
        return checkpoints.newest_good(run.paths.checkpoints)
    return checkpoints.at_step(run.paths.checkpoints, step)


def _weights_name(config: RunConfig, ema: EmaChoice) -> str:
    rates = config.training.ema_rates
    if ema == "none" or (ema == "first" and not rates):
        return _RAW_WEIGHTS
    return average_file(rates[0] if ema == "first" else float(ema))


def _require_present(checkpoint: Path, name: str) -> None:
    if name == _RAW_WEIGHTS or (checkpoint / f"{name}.safetensors").is_file():
        return
    rates = ", ".join(str(rate) for rate in average_rates(checkpoint))
    raise MissingError(
        f"there are no weights {name} in {checkpoint}",
        where=f"EMA rates there: {rates or 'none'}",
        remedy="choose one of them with --ema, or none for the raw weights",
    )
