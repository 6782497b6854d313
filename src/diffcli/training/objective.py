"""What a training minimizes: the loss of each image, and what is logged beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcli.config.sections import ModelKind
from diffcli.diffusion.build import GaussianDiffusion
from diffcli.diffusion.objectives import training_losses
from diffcli.diffusion.process import q_sample
from diffcli.models.conditioning import Conditioning
from diffcli.records.training import LoggedTerms, TermMeans

# a network on its device and in its precision, as it is called: what it puts out is float32
Network = Callable[..., Tensor]

_TOP = 5


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Images to learn from: x_start [N, C, H, W] in [-1, 1], and what the network is told or asked of them.

    labels: int64 [N], the classes that a classifier is to find; None for other networks.
    """

    x_start: Tensor
    conditioning: Conditioning
    labels: Tensor | None = None

    def part(self, rows: slice) -> Examples:
        """Some of the images."""
        return Examples(
            x_start=self.x_start[rows],
            conditioning=self.conditioning.part(rows),
            labels=None if self.labels is None else self.labels[rows],
        )


@dataclass(frozen=True, kw_only=True)
class Draws:
    """The random numbers of images: t int64 [N], importance weights float32 [N], noise like x_start.

    noise: None for images that stay clean; t is then 0.
    """

    t: Tensor
    weights: Tensor
    noise: Tensor | None

    def part(self, rows: slice) -> Draws:
        """Those of some of the images."""
        return Draws(
            t=self.t[rows], weights=self.weights[rows], noise=None if self.noise is None else self.noise[rows]
        )


def clean_draws(images: int, device: torch.device) -> Draws:
    """What is drawn for images that stay as they are."""
    return Draws(
        t=torch.zeros(images, dtype=torch.int64, device=device),
        weights=torch.ones(images, device=device),
        noise=None,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageLosses:
    """The loss of each image, and the two numbers logged beside it, each [N]; None for one that is not."""

    loss: Tensor
    beside: tuple[Tensor | None, Tensor | None]

    def only(self, kept: Tensor) -> ImageLosses:
        """Those of the images where `kept`, bool [N], is true."""
        first, second = (None if values is None else values[kept] for values in self.beside)
        return ImageLosses(loss=self.loss[kept], beside=(first, second))


@dataclass(frozen=True, kw_only=True)
class LossMeans:
    """The means of `ImageLosses` over many images."""

    loss: TermMeans
    beside: tuple[TermMeans | None, TermMeans | None]


class Objective(Protocol):
    """What a network is trained to do, over a chain of timesteps."""

    @property
    def chain_steps(self) -> int:
        """The length of the chain, whose quarters the logs tell apart."""

    def losses(self, network: Network, examples: Examples, draws: Draws) -> ImageLosses:
        """One forward pass over the examples, with their draws."""

    def named(self, means: LossMeans) -> LoggedTerms:
        """Means of the losses under the names that they are logged by."""


class DenoisingObjective:
    """Find the noise in noisy images: L_simple, L_hybrid or L_vlb, as the diffusion says."""

    def __init__(self, diffusion: GaussianDiffusion) -> None:
        self._diffusion = diffusion
        self.chain_steps = diffusion.steps

    def losses(self, network: Network, examples: Examples, draws: Draws) -> ImageLosses:
        """The terms of the loss at the examples' timesteps; beside it mse and vb."""
        assert draws.noise is not None
        x_t = q_sample(self._diffusion, examples.x_start, draws.t, draws.noise)
        output = network(x_t, self._diffusion.model_timesteps(draws.t), examples.conditioning)
        terms = training_losses(
            self._diffusion, output, x_start=examples.x_start, x_t=x_t, t=draws.t, noise=draws.noise
        )
        return ImageLosses(loss=terms.loss, beside=(terms.mse, terms.vb))

    def named(self, means: LossMeans) -> LoggedTerms:
        """loss, mse and vb."""
        mse, vb = means.beside
        return LoggedTerms(loss=means.loss, mse=mse, vb=vb)


class ClassificationObjective:
    """Find the class of images as noisy as those of a diffusion model that the classifier is to guide."""

    def __init__(self, diffusion: GaussianDiffusion) -> None:
        self._diffusion = diffusion
        self.chain_steps = diffusion.steps

    def losses(self, network: Network, examples: Examples, draws: Draws) -> ImageLosses:
        """The cross entropy at the examples' timesteps; beside it whether the class is the best, or among 5.

        The second is left out for a network of so few classes that it would always be.
        """
        assert examples.labels is not None
        x = examples.x_start
        if draws.noise is not None:
            # arXiv 2105.05233, section 4.3: the noise of the diffusion model
            x = q_sample(self._diffusion, x, draws.t, draws.noise)
        logits = network(x, self._diffusion.model_timesteps(draws.t))
        best = among_best(logits, examples.labels, 1)
        top = among_best(logits, examples.labels, _TOP) if logits.shape[1] > _TOP else None
        loss = F.cross_entropy(logits, examples.labels, reduction="none")
        return ImageLosses(loss=loss, beside=(best, top))

    def named(self, means: LossMeans) -> LoggedTerms:
        """loss and the accuracies."""
        acc1, acc5 = means.beside
        return LoggedTerms(loss=means.loss, acc1=acc1, acc5=acc5)


def among_best(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """1 where the label is among the `count` largest logits, else 0: float32 [N].

    logits: [N, classes]; labels: int64 [N].
    """
    found = logits.detach().topk(count, dim=1).indices == labels[:, None]
    return found.any(dim=1).to(torch.float32)


def build_objective(kind: ModelKind, diffusion: GaussianDiffusion) -> Objective:
    """What a network of that kind is trained to do."""
    return ClassificationObjective(diffusion) if kind == "classifier" else DenoisingObjective(diffusion)
