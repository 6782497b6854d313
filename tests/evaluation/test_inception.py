"""The Inception of 2015-12-05: what it is made of, and the laws of its features."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from diffcli.evaluation.features import FeatureExtractor
from diffcli.evaluation.inception import InceptionFeatures, InceptionV3
from diffcli.evaluation.inception_weights import inception_state
from inception_formula import formula_images, formula_weights

CPU = torch.device("cpu")
# what torch-fidelity gives for the same formulas, recorded by torch_fidelity_network.py
RECORDED = json.loads((Path(__file__).parent / "inception_formula.json").read_text())


@pytest.fixture(scope="module")
def extractor() -> InceptionFeatures:
    weights = {
        name: tensor
        for name, tensor in formula_weights(trained_gamma=True).items()
        if not name.endswith("num_batches_tracked")
    }
    return InceptionFeatures(inception_state(weights, source="formula").tensors, CPU)


def test_what_it_is(extractor):
    features: FeatureExtractor = extractor
    assert (features.name, features.dimensions, features.spatial_dimensions) == ("inception", 2048, 2023)
    # torchvision's inception_v3 has 23,834,568 without its auxiliary head, a bias for each class among them
    counted = sum(
        tensor.numel() for name, tensor in InceptionV3().state_dict().items() if "running" not in name
    )
    assert counted == 23_834_568 - 1000 + 8 * 2048


@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: f"{case['height']}x{case['width']}")
def test_the_numbers_of_another_implementation(case, extractor):
    images = formula_images(case["count"], case["height"], case["width"], salt=case["salt"])
    features = extractor(images)
    assert features.pooled.shape == (case["count"], 2048)
    assert features.spatial.shape == (case["count"], 2023)
    probabilities = extractor.probabilities(features.pooled)
    for name, found in (
        ("pooled", features.pooled),
        ("spatial", features.spatial),
        ("log_probabilities", probabilities.log()),
    ):
        expected = torch.tensor(case[name])
        shown = found[:, :: RECORDED["every"][name]]
        # relative to the size of these features
        assert (shown - expected).abs().max() < 1e-5 * expected.abs().max(), name


def test_features_do_not_depend_on_the_batch(extractor):
    images = formula_images(3, 40, 48, salt=21)
    together = extractor(images)
    for size in (1, 2):
        parts = [extractor(part) for part in images.split(size)]
        for whole, found in (
            (together.pooled, torch.cat([part.pooled for part in parts])),
            (together.spatial, torch.cat([part.spatial for part in parts])),
        ):
            assert (whole - found).abs().max() < 1e-5 * whole.abs().max()


def test_gray_images_are_three_times_their_channel(extractor):
    gray = formula_images(2, 28, 28, salt=31, channels=1)
    alone, repeated = extractor(gray), extractor(gray.expand(-1, -1, -1, 3))
    assert torch.equal(alone.pooled, repeated.pooled)
    assert torch.equal(alone.spatial, repeated.spatial)


def test_probabilities_are_a_softmax_without_bias(extractor):
    pooled = torch.linspace(-1, 1, 2 * 2048).reshape(2, 2048)
    logits = pooled.double() @ formula_weights(trained_gamma=True)["fc.weight"].double().T
    found = extractor.probabilities(pooled)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), torch.softmax(logits, dim=1), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(1, 32, 32, 3),
        torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
        torch.zeros(32, 32, 3, dtype=torch.uint8),
        torch.zeros(1, 32, 32, 3, dtype=torch.int64),
    ],
    ids=["float", "channels first", "one image", "int64"],
)
def test_only_whole_bytes_channels_last_are_images(images, extractor):
    with pytest.raises(AssertionError):
        extractor(images)


def test_no_generator_is_touched_and_nothing_can_be_trained(extractor):
    before = torch.get_rng_state()
    network = InceptionV3()
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(tensor.requires_grad for tensor in network.parameters())
    with torch.enable_grad():
        assert not extractor(formula_images(1, 8, 8, salt=1)).pooled.requires_grad


def test_the_precision_of_the_caller_does_not_matter(extractor):
    images = formula_images(1, 16, 16, salt=41)
    expected = extractor(images)
    torch.backends.cudnn.allow_tf32 = True
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = extractor(images)
            assert extractor.probabilities(found.pooled).dtype == torch.float32
        # the caller keeps what it had
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = False
    assert found.pooled.dtype == torch.float32
    assert torch.equal(found.pooled, expected.pooled)


def test_the_digest_is_of_what_decides_the_features(extractor):
    weights = dict(formula_weights(trained_gamma=True))
    weights = {name: tensor for name, tensor in weights.items() if not name.endswith("_tracked")}
    again = InceptionFeatures(inception_state(weights, source="formula").tensors, CPU)
    assert again.digest == extractor.digest
    weights["fc.bias"] = weights["fc.bias"] + 1
    assert InceptionFeatures(inception_state(weights, source="x").tensors, CPU).digest == extractor.digest
    changed = weights["Mixed_7c.branch_pool.bn.bias"].clone()
    changed[3] += 1e-6
    weights["Mixed_7c.branch_pool.bn.bias"] = changed
    assert InceptionFeatures(inception_state(weights, source="x").tensors, CPU).digest != extractor.digest
