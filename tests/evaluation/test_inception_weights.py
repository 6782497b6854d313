"""Two published layouts of one network, and files that are neither."""

from __future__ import annotations

import pytest
import torch

from diffcli.errors import CorruptError
from diffcli.evaluation.inception import InceptionFeatures
from diffcli.evaluation.inception_weights import inception_state
from inception_formula import formula_images, formula_weights, weights_of_openai

CPU = torch.device("cpu")


def of_pytorch_fid():
    weights = formula_weights(trained_gamma=False)
    return {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}


def test_the_layouts_have_as_many_tensors_as_the_published_files():
    assert len(formula_weights(trained_gamma=False)) == 566
    assert len(weights_of_openai()) == 378


def test_both_layouts_are_one_network():
    first = inception_state(of_pytorch_fid(), source="a")
    second = inception_state(weights_of_openai(), source="b")
    assert (first.layout, second.layout) == ("pytorch-fid", "openai")
    assert first.tensors.keys() == second.tensors.keys()
    assert all(torch.equal(tensor, second.tensors[name]) for name, tensor in first.tensors.items())
    extractors = [InceptionFeatures(state.tensors, CPU) for state in (first, second)]
    assert extractors[0].digest == extractors[1].digest
    images = formula_images(1, 12, 20, salt=3)
    features = [extractor(images) for extractor in extractors]
    assert torch.equal(features[0].pooled, features[1].pooled)
    assert torch.equal(features[0].spatial, features[1].spatial)


@pytest.mark.parametrize("joined", ["/", "_"])
def test_scopes_may_be_joined_in_other_ways(joined):
    weights = {name.replace(".", joined): tensor for name, tensor in weights_of_openai().items()}
    assert inception_state(weights, source="a").layout == "openai"


def without(weights, name):
    return {other: tensor for other, tensor in weights.items() if other != name}


DAMAGES = {
    "missing": (
        lambda w: without(w, "Mixed_6d.branch1x1.conv.weight"),
        "missing: Mixed_6d.branch1x1.conv.weight",
    ),
    "no classes": (lambda w: without(w, "fc.bias"), "missing: fc.bias"),
    "unknown": (lambda w: w | {"AuxLogits.fc.weight": torch.zeros(2)}, "unknown: AuxLogits.fc.weight"),
    "of 1000 classes": (
        lambda w: w | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)},
        r"wrong: fc.weight is \[1000, 2048\], not \[1008, 2048\], fc.bias is \[1000\], not \[1008\]",
    ),
    "half precision": (
        lambda w: {name: tensor.half() for name, tensor in w.items()},
        "wrong: Conv2d_1a_3x3.conv.weight is float16, not float32, .* and 469 more",
    ),
    "not a number": (
        lambda w: w | {"Mixed_5b.branch1x1.bn.bias": torch.full((64,), torch.nan)},
        "wrong: Mixed_5b.branch1x1.bn.bias is not finite",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_other_weights_are_refused_by_name(damage):
    make, told = DAMAGES[damage]
    with pytest.raises(CorruptError, match=told) as caught:
        inception_state(make(of_pytorch_fid()), source="w.pth")
    assert caught.value.what == "w.pth does not hold the Inception of 2015-12-05"


def test_the_other_layout_is_as_strict():
    weights = without(weights_of_openai(), "layers.mixed_9.tower.mixed.conv_1.mean")
    with pytest.raises(CorruptError, match=r"missing: layers\.mixed_9\.tower\.mixed\.conv_1\.mean"):
        inception_state(weights, source="w.pt")
    weights = weights_of_openai()
    weights["layers/conv/mean"] = weights["layers.conv.mean"] + 1
    with pytest.raises(CorruptError, match=r"given twice: layers\.conv\.mean"):
        inception_state(weights, source="w.pt")


def test_another_network_is_told_apart():
    weights = {"input_blocks.0.0.weight": torch.zeros(3), "input_blocks.0.0.bias": torch.zeros(3)}
    with pytest.raises(CorruptError, match=r"w\.pt is no Inception network") as caught:
        inception_state(weights, source="w.pt")
    assert "input_blocks.0.0.weight" in caught.value.where
