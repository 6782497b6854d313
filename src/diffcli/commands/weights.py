"""The network of a run with the weights of a checkpoint, or of its EMA snapshots, ready to be called."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from diffcli import durable
from diffcli.commands.post_hoc_average import find_reconstruction, provenance, remarks
from diffcli.config.sections import EmaChoice, Precision, RunConfig
from diffcli.diffusion.reverse import Denoiser
from diffcli.errors import CorruptError, MissingError
from diffcli.models.build import build_classifier, build_model
from diffcli.models.classifier import Classifier
from diffcli.models.conditioning import Conditioning
from diffcli.models.unet import UNet
from diffcli.records.samples import PostHocAverage
from diffcli.registry.create import Run
from diffcli.sampling.guidance import NoisyClassifier
from diffcli.training import checkpoints, ema_snapshots
from diffcli.training.checkpoints import FoundCheckpoint
from diffcli.training.ema import NamedTensors
from diffcli.training.state import RAW_WEIGHTS, average_file, average_rates, has_raw_weights
from diffcli.workers import Workers

_HALF_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
# about what fits beside a network of some hundred million parameters on a small card
_BATCH_PIXELS = 64 * 64 * 64
_BATCH_LIMIT = 64

AnyNetwork = TypeVar("AnyNetwork", UNet, Classifier)


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedNetwork:
    """A network ready for use, in eval mode on its device, and where its weights come from.

    step: of the checkpoint, or that the average was reconstructed for; manifest_sha256: of the checkpoint's
    manifest, which has the digests of all its files, or of the manifests of the snapshots, one after the
    other; weights_name: `model` or such as `ema-0.9999` or `ema-std-0.08`; average: None unless it was
    reconstructed; rejected: what is wrong with checkpoints or snapshots passed over, newest first; remarks:
    on these and on the average, for the caller to tell.
    """

    network: UNet
    step: int
    manifest_sha256: str
    weights_name: str
    average: PostHocAverage | None
    rejected: tuple[CorruptError, ...]
    remarks: tuple[str, ...]

    def denoiser(self, conditioning: Conditioning, precision: Precision) -> Denoiser:
        """The network as the diffusion calls it, on a batch with this conditioning, on its device."""

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            with _autocast(x.device, precision):
                output: Tensor = self.network(x, t, conditioning)
            return output.float()

        return denoise


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedClassifier:
    """A classifier ready for use, in eval mode on its device; the rest as of a `LoadedNetwork`."""

    network: Classifier
    step: int
    manifest_sha256: str
    weights_name: str
    remarks: tuple[str, ...]

    def classify(self, precision: Precision) -> NoisyClassifier:
        """The classifier as guidance calls it, on images on its device."""

        def logits(x: Tensor, t: Tensor) -> Tensor:
            with _autocast(x.device, precision):
                output: Tensor = self.network(x, t)
            return output.float()

        return logits


def default_batch_size(config: RunConfig) -> int:
    """Images per forward pass where no gradients are kept, unless a user knows better."""
    return max(1, min(_BATCH_LIMIT, _BATCH_PIXELS // config.data.resolution**2))


def load_network(
    run: Run,
    config: RunConfig,
    *,
    step: int | None,
    ema: EmaChoice,
    workers: Workers,
    ema_std: float | None = None,
) -> LoadedNetwork:
    """The network of a run's configuration, with weights of a checkpoint or of its EMA snapshots.

    step: of the checkpoint, None for the newest good one; ema: as sampling.ema; ema_std: in place of ema, the
    relative width of a power-function average, at a step of a checkpoint or snapshot, None for the newest
    good snapshot's. Raises MissingError that lists what there is, and CorruptError for a damaged checkpoint
    or one whose tensors do not fit.
    """
    if ema_std is not None:
        return _with_average(run, config, step=step, std=ema_std, workers=workers)
    network = _without_weights(config, build_model)
    chosen = _chosen_weights(run, config, step=step, ema=ema, workers=workers)
    return LoadedNetwork(
        network=_ready(network, chosen.fitting(network), workers),
        step=chosen.checkpoint.step,
        manifest_sha256=chosen.manifest_sha256,
        weights_name=chosen.name,
        average=None,
        rejected=chosen.checkpoint.rejected,
        remarks=chosen.remarks,
    )


def load_classifier(
    run: Run, config: RunConfig, *, step: int | None, ema: EmaChoice, workers: Workers
) -> LoadedClassifier:
    """The classifier of a run's configuration, with weights of a checkpoint, as `load_network` finds them."""
    network = _without_weights(config, build_classifier)
    chosen = _chosen_weights(run, config, step=step, ema=ema, workers=workers)
    return LoadedClassifier(
        network=_ready(network, chosen.fitting(network), workers),
        step=chosen.checkpoint.step,
        manifest_sha256=chosen.manifest_sha256,
        weights_name=chosen.name,
        remarks=chosen.remarks,
    )


@dataclass(frozen=True, kw_only=True)
class _ChosenWeights:
    """A file of weights in a checkpoint."""

    checkpoint: FoundCheckpoint
    name: str

    def fitting(self, network: nn.Module) -> NamedTensors:
        """The weights; CorruptError if they are not this network's."""
        return checkpoints.read_fitting(self.checkpoint.directory, self.name, network.state_dict())

    @property
    def manifest_sha256(self) -> str:
        """The digest of the checkpoint's manifest."""
        return durable.sha256(self.checkpoint.directory / checkpoints.MANIFEST)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What to say of newer checkpoints."""
        return tuple(
            f"warning: a newer checkpoint is damaged and not used: {rejected.what}"
            for rejected in self.checkpoint.rejected
        )


def _chosen_weights(
    run: Run, config: RunConfig, *, step: int | None, ema: EmaChoice, workers: Workers
) -> _ChosenWeights:
    # a run in training may save another one between the looks of two processes
    found = workers.first_decides(lambda: _find_checkpoint(run, step))
    name = weights_name(config, ema)
    require_weights(found.directory, name)
    return _ChosenWeights(checkpoint=found, name=name)


def _autocast(device: torch.device, precision: Precision) -> torch.autocast:
    half = _HALF_PRECISIONS.get(precision)
    return torch.autocast(device.type, dtype=half, enabled=half is not None)


def require_weights_of(run: Run, config: RunConfig, *, step: int | None, ema: EmaChoice) -> None:
    """Raise what `load_network` would raise of the checkpoint, without loading it; the same arguments."""
    require_weights(_find_checkpoint(run, step).directory, weights_name(config, ema))


def _without_weights(config: RunConfig, build: Callable[[RunConfig], AnyNetwork]) -> AnyNetwork:
    """The network without memory or random numbers for weights that others take the place of."""
    with torch.device("meta"):
        return build(config)


def _ready(network: AnyNetwork, weights: NamedTensors, workers: Workers) -> AnyNetwork:
    network.load_state_dict(weights, assign=True)
    return network.to(workers.device).eval().requires_grad_(False)


def _find_checkpoint(run: Run, step: int | None) -> FoundCheckpoint:
    if step is None:
        return checkpoints.newest_good(run.paths.checkpoints)
    return checkpoints.at_step(run.paths.checkpoints, step)


def weights_name(config: RunConfig, ema: EmaChoice) -> str:
    """The name, in a checkpoint, of the weights that sampling.ema, or a choice like it, means."""
    rates = config.training.ema_rates
    if ema == "none" or (ema == "first" and not rates):
        return RAW_WEIGHTS
    return average_file(rates[0] if ema == "first" else float(ema))


def require_weights(checkpoint: Path, name: str) -> None:
    """Raise MissingError that lists what there is unless a checkpoint has weights of this name."""
    if (checkpoint / f"{name}.safetensors").is_file():
        return
    rates, raw = ", ".join(str(rate) for rate in average_rates(checkpoint)), has_raw_weights(checkpoint)
    raise MissingError(
        f"there are no weights {name} in {checkpoint}",
        where=f"EMA rates there: {rates or 'none'}",
        remedy="choose one of them with --ema" + (", or none for the raw weights" if raw else ""),
    )


def _with_average(
    run: Run, config: RunConfig, *, step: int | None, std: float, workers: Workers
) -> LoadedNetwork:
    snapshots = run.paths.ema_snapshots
    # the first fits for all, since another machine may round the coefficients otherwise
    reconstruction = workers.first_decides(lambda: find_reconstruction(run, std=std, step=step))
    network = _without_weights(config, build_model)
    weights = ema_snapshots.reconstruct(snapshots, reconstruction, network.state_dict())
    manifests = (
        checkpoints.directory_of(snapshots, used) / checkpoints.MANIFEST for used in reconstruction.steps
    )
    return LoadedNetwork(
        network=_ready(network, weights, workers),
        step=reconstruction.target.step,
        manifest_sha256=_sha256_of_all(manifests),
        weights_name=f"ema-std-{std}",
        average=provenance(reconstruction),
        rejected=reconstruction.rejected,
        remarks=remarks(run, reconstruction, newest=step is None),
    )


def _sha256_of_all(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
