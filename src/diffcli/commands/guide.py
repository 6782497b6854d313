"""What guides a batch of samples, loaded and on its device."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from diffcli.commands.guidance import Guidance
from diffcli.commands.weights import LoadedClassifier, LoadedNetwork, load_classifier
from diffcli.config.sections import Precision, RunConfig
from diffcli.diffusion.build import GaussianDiffusion, build_diffusion
from diffcli.diffusion.respacing import kept_timesteps
from diffcli.diffusion.reverse import Denoiser
from diffcli.models.conditioning import Conditioning
from diffcli.records.samples import ClassifierProvenance
from diffcli.sampling.guidance import GradientAt, class_gradient, classifier_free
from diffcli.workers import Workers


@dataclass(frozen=True, kw_only=True, eq=False)
class GuidingClassifier:
    """A classifier on its device, with the diffusion whose timesteps it was trained on, respaced alike."""

    loaded: LoadedClassifier
    diffusion: GaussianDiffusion
    scale: float
    provenance: ClassifierProvenance
    remarks: tuple[str, ...]

    def gradient_at(self, y: Tensor, precision: Precision) -> GradientAt:
        """The gradient towards the wanted classes of a batch, y int64 [N] on its device."""
        classify = self.loaded.classify(precision)

        def gradient(x_t: Tensor, t: Tensor) -> Tensor:
            return self.scale * class_gradient(classify, x_t, self.diffusion.model_timesteps(t), y)

        return gradient


@dataclass(frozen=True, kw_only=True, eq=False)
class Guide:
    """Makes of a run's network what the solver is to follow."""

    config: RunConfig
    cfg: float | None
    classifier: GuidingClassifier | None
    precision: Precision

    @property
    def provenance(self) -> ClassifierProvenance | None:
        """Where the classifier comes from, if there is one."""
        return None if self.classifier is None else self.classifier.provenance

    @property
    def doubles(self) -> bool:
        """Whether a batch takes about twice the memory: two predictions, or the gradient of a classifier."""
        return self.classifier is not None or self.cfg not in (None, 0, 1)

    @property
    def remarks(self) -> tuple[str, ...]:
        """For the caller to tell."""
        return () if self.classifier is None else self.classifier.remarks

    @property
    def name_part(self) -> str:
        """What an archive's own name says of the guidance."""
        if self.classifier is not None:
            return f"-guidance-{self.classifier.scale:g}"
        return "" if self.cfg is None else f"-cfg-{self.cfg:g}"

    def denoiser(self, network: LoadedNetwork, wanted: Conditioning, images: int) -> Denoiser:
        """The prediction for a batch of so many images; wanted.y: the classes they are to show, if any."""
        if self.cfg is None:
            return network.denoiser(self._told(wanted), self.precision)
        if self.cfg == 1:
            return network.denoiser(wanted, self.precision)
        without = dataclasses.replace(wanted, y=self._no_class(images, network))
        if self.cfg == 0:
            return network.denoiser(without, self.precision)
        return classifier_free(network.denoiser(wanted.followed_by(without), self.precision), self.cfg)

    def gradient_at(self, wanted: Conditioning) -> GradientAt | None:
        """Where the classifier leads the batch; None without one."""
        if self.classifier is None:
            return None
        assert wanted.y is not None, "a classifier always gives classes to draw"
        return self.classifier.gradient_at(wanted.y, self.precision)

    def _told(self, wanted: Conditioning) -> Conditioning:
        """What the network is told; one without classes is not told those that a classifier leads to."""
        return wanted if self.config.model.classes else dataclasses.replace(wanted, y=None)

    def _no_class(self, images: int, network: LoadedNetwork) -> Tensor:
        # the last embedding is that of no class
        device = next(network.network.parameters()).device
        return torch.full((images,), self.config.model.classes, device=device)


def load_guide(guidance: Guidance, config: RunConfig, precision: Precision, workers: Workers) -> Guide:
    """The guide of a run's samples; MissingError or CorruptError for the classifier's checkpoint."""
    chosen = guidance.classifier
    classifier = None
    if chosen is not None:
        loaded = load_classifier(
            chosen.run, chosen.config, step=chosen.step, ema=chosen.config.sampling.ema, workers=workers
        )
        kept = kept_timesteps(config.diffusion.steps, config.sampling)
        classifier = GuidingClassifier(
            loaded=loaded,
            diffusion=build_diffusion(chosen.config.diffusion, kept),
            scale=chosen.scale,
            provenance=ClassifierProvenance(
                run=chosen.run.id,
                checkpoint=loaded.step,
                checkpoint_manifest_sha256=loaded.manifest_sha256,
                weights=loaded.weights_name,
                scale=chosen.scale,
            ),
            remarks=(*chosen.remarks, *loaded.remarks),
        )
    return Guide(config=config, cfg=guidance.cfg, classifier=classifier, precision=precision)
