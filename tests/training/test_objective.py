"""The two objectives: their losses against what torch and a hand work out, and what they are logged as."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from diffcli.config.sections import DiffusionConfig
from diffcli.diffusion.build import build_diffusion
from diffcli.diffusion.objectives import training_losses
from diffcli.diffusion.process import q_sample
from diffcli.models.conditioning import Conditioning
from diffcli.records.training import LoggedTerms, TermMeans
from diffcli.training.objective import (
    ClassificationObjective,
    DenoisingObjective,
    Draws,
    Examples,
    LossMeans,
    among_best,
    build_objective,
    clean_draws,
)

CPU = torch.device("cpu")
IMAGES, CLASSES = 6, 10
DIFFUSION = build_diffusion(
    DiffusionConfig(
        steps=40,
        schedule="cosine",
        variance="learned_range",
        objective="hybrid",
        rescale_timesteps=True,
    )
)


def examples(*, labels=True):
    generator = torch.Generator().manual_seed(1)
    return Examples(
        x_start=torch.rand(IMAGES, 1, 4, 4, generator=generator) * 2 - 1,
        conditioning=Conditioning(),
        labels=torch.tensor([3, 1, 4, 1, 5, 9]) if labels else None,
    )


def draws():
    generator = torch.Generator().manual_seed(2)
    return Draws(
        t=torch.tensor([0, 5, 11, 20, 33, 39]),
        weights=torch.ones(IMAGES),
        noise=torch.randn(IMAGES, 1, 4, 4, generator=generator),
    )


class LinearReader:
    """Logits that depend on every pixel and on the timestep; notes what it was shown."""

    def __init__(self, classes=CLASSES):
        generator = torch.Generator().manual_seed(3)
        self.weight = torch.randn(16, classes, generator=generator).requires_grad_()
        self.seen = []

    def __call__(self, x, t):
        self.seen.append((x, t))
        return x.flatten(1) @ self.weight + t[:, None] / 1000


def test_a_classifier_minimizes_the_cross_entropy_at_the_noise_of_the_diffusion():
    network, given, drawn = LinearReader(), examples(), draws()
    losses = ClassificationObjective(DIFFUSION).losses(network, given, drawn)
    ((x, t),) = network.seen
    assert torch.equal(x, q_sample(DIFFUSION, given.x_start, drawn.t, drawn.noise))
    # rescaled: 25 model timesteps for each of the chain's
    assert t.tolist() == [25.0 * step for step in drawn.t.tolist()]
    logits = x.flatten(1) @ network.weight + t[:, None] / 1000
    by_hand = logits.logsumexp(dim=1) - logits[torch.arange(IMAGES), given.labels]
    torch.testing.assert_close(losses.loss, by_hand)
    # and its gradient: softmax minus the label, in place of the logits
    losses.loss.sum().backward()
    excess = logits.softmax(dim=1) - F.one_hot(given.labels, CLASSES)
    torch.testing.assert_close(network.weight.grad, x.flatten(1).T @ excess)


def test_clean_images_are_shown_as_they_are_at_timestep_0():
    network, given = LinearReader(), examples()
    losses = ClassificationObjective(DIFFUSION).losses(network, given, clean_draws(IMAGES, CPU))
    ((x, t),) = network.seen
    assert torch.equal(x, given.x_start)
    assert t.tolist() == [0.0] * IMAGES
    torch.testing.assert_close(
        losses.loss, F.cross_entropy(network(given.x_start, t), given.labels, reduction="none")
    )


# the label's place among the logits of each row, best first: 1, 2, 5, 6, 1
LOGITS = torch.tensor(
    [
        [9.0, 1, 2, 3, 4, 5, 6],
        [8.0, 9, 1, 2, 3, 4, 5],
        [3.0, 9, 8, 7, 6, 2, 1],
        [2.0, 9, 8, 7, 6, 5, 1],
        [-1.0, -2, -3, -4, -5, -6, -7],
    ]
)


def test_accuracies_by_hand():
    labels = torch.zeros(5, dtype=torch.int64)
    assert among_best(LOGITS, labels, 1).tolist() == [1, 0, 0, 0, 1]
    assert among_best(LOGITS, labels, 5).tolist() == [1, 1, 1, 0, 1]
    assert among_best(LOGITS, torch.tensor([6, 1, 2, 1, 6]), 1).tolist() == [0, 1, 0, 1, 0]
    losses = ClassificationObjective(DIFFUSION).losses(
        lambda _x, _t: LOGITS, examples().part(slice(5)), clean_draws(5, CPU)
    )
    # of the labels 3, 1, 4, 1, 5
    assert [values.tolist() for values in losses.beside] == [[0, 1, 0, 1, 0], [1, 1, 1, 1, 0]]


@pytest.mark.parametrize(("classes", "logged"), [(2, False), (5, False), (6, True)])
def test_the_accuracy_of_five_guesses_is_logged_where_five_may_be_wrong(classes, logged):
    objective = ClassificationObjective(DIFFUSION)
    labels = torch.zeros(IMAGES, dtype=torch.int64)
    given = Examples(x_start=examples().x_start, conditioning=Conditioning(), labels=labels)
    losses = objective.losses(LinearReader(classes), given, draws())
    assert losses.beside[0] is not None
    assert (losses.beside[1] is not None) == logged


def test_denoising_losses_are_those_of_the_diffusion():
    given, drawn = examples(labels=False), draws()
    output = torch.randn(IMAGES, 2, 4, 4, generator=torch.Generator().manual_seed(4))
    told = []

    def network(x, t, conditioning):
        told.append((t, conditioning))
        return output

    losses = DenoisingObjective(DIFFUSION).losses(network, given, drawn)
    x_t = q_sample(DIFFUSION, given.x_start, drawn.t, drawn.noise)
    expected = training_losses(
        DIFFUSION, output, x_start=given.x_start, x_t=x_t, t=drawn.t, noise=drawn.noise
    )
    for found, term in zip(
        (losses.loss, *losses.beside), (expected.loss, expected.mse, expected.vb), strict=True
    ):
        assert torch.equal(found, term)
    ((t, conditioning),) = told
    assert torch.equal(t, DIFFUSION.model_timesteps(drawn.t))
    assert conditioning is given.conditioning


@pytest.mark.parametrize("kind", ["unet", "superres", "classifier"])
def test_each_kind_of_network_logs_its_own_terms(kind):
    objective = build_objective(kind, DIFFUSION)
    assert objective.chain_steps == 40
    loss, first, second = (TermMeans(overall=float(n), quartiles=(None,) * 4) for n in range(3))
    named = objective.named(LossMeans(loss=loss, beside=(first, second)))
    if kind == "classifier":
        assert named == LoggedTerms(loss=loss, acc1=first, acc5=second)
    else:
        assert named == LoggedTerms(loss=loss, mse=first, vb=second)


def test_parts_of_a_batch_together_are_the_batch():
    given, drawn = examples(), draws()
    objective, network = ClassificationObjective(DIFFUSION), LinearReader()
    whole = objective.losses(network, given, drawn)
    rows = [slice(0, 4), slice(4, 6)]
    parts = [objective.losses(network, given.part(part), drawn.part(part)) for part in rows]
    torch.testing.assert_close(torch.cat([part.loss for part in parts]), whole.loss)
    assert torch.equal(torch.cat([part.beside[0] for part in parts]), whole.beside[0])
    kept = torch.tensor([True, False, True, False, False, True])
    assert torch.equal(whole.only(kept).loss, whole.loss[kept])
    assert math.isclose(float(whole.only(kept).beside[1].sum()), float(whole.beside[1][kept].sum()))
