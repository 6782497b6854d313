"""Features and FID beside torch-fidelity's, from the same weights and images (extra `crosscheck`)."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from diffcli.evaluation.inception import InceptionFeatures
from diffcli.evaluation.inception_weights import inception_state
from inception_formula import formula_images, formula_weights
from torch_fidelity_network import RECORD, TheirNetwork, import_torch_fidelity, write_weights

try:
    torch_fidelity = import_torch_fidelity()
except (ImportError, RuntimeError) as error:
    pytest.skip(f"torch-fidelity cannot be imported: {error}", allow_module_level=True)

# two sample archives' worth of images
SETS = (formula_images(8, 32, 32, salt=501), formula_images(8, 80, 64, salt=601))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def theirs(weights):
    network = TheirNetwork(weights)
    return [network.features(images) for images in SETS]


@pytest.fixture(scope="module")
def extractor():
    weights = formula_weights(trained_gamma=True)
    plain = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    return InceptionFeatures(inception_state(plain, source="formula").tensors, torch.device("cpu"))


@pytest.fixture(scope="module")
def ours(extractor):
    return [extractor(images) for images in SETS]


def assert_close(found: Tensor, expected: Tensor) -> None:
    """To 1e-5 of the largest."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_pooled_features(ours, theirs):
    for found, expected in zip(ours, theirs, strict=True):
        assert_close(found.pooled, expected.pooled)


def test_spatial_features(ours, theirs):
    for found, expected in zip(ours, theirs, strict=True):
        channels_last = expected.branch.permute(0, 2, 3, 1)[..., :7].reshape(len(found.spatial), 2023)
        assert_close(found.spatial, channels_last)


def test_probabilities(extractor, ours, theirs):
    for found, expected in zip(ours, theirs, strict=True):
        probabilities = extractor.probabilities(found.pooled)
        assert_close(probabilities, torch.softmax(expected.logits, dim=1))


class Images(Dataset):
    """A set as torch-fidelity takes it: uint8 [3, H, W] each."""

    def __init__(self, images: Tensor) -> None:
        self._images = images.permute(0, 3, 1, 2)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        return self._images[index]


def test_the_frechet_distance(weights, ours):
    from diffcli.evaluation.frechet import frechet_distance_of_features

    metrics = torch_fidelity.calculate_metrics(
        input1=Images(SETS[0]),
        input2=Images(SETS[1]),
        fid=True,
        cuda=False,
        cache=False,
        verbose=False,
        batch_size=8,
        feature_extractor_weights_path=str(weights),
    )
    found = frechet_distance_of_features(ours[0].pooled.double(), ours[1].pooled.double())
    assert found == pytest.approx(metrics["frechet_inception_distance"], rel=1e-5)


def test_the_recorded_numbers_are_those_of_today(weights):
    recorded = json.loads(RECORD.read_text())
    network = TheirNetwork(weights)
    for case in recorded["cases"]:
        images = formula_images(case["count"], case["height"], case["width"], salt=case["salt"])
        pooled = network.features(images).pooled[:, :: recorded["every"]["pooled"]]
        assert_close(pooled.double(), torch.tensor(case["pooled"], dtype=torch.float64))
