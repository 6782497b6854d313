"""torch-fidelity's Inception on the weights of the formula; run as a program, it records numbers of it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from inception_formula import formula_images, formula_weights

RECORD = Path(__file__).parent / "evaluation" / "inception_formula.json"
# images that are made larger and smaller, and such as need no resizing
CASES = ((2, 32, 32, 101), (1, 64, 48, 102), (1, 299, 299, 103), (1, 512, 400, 104))
# every so many of 2048, 2023 and 1008 numbers
_EVERY = {"pooled": 73, "spatial": 71, "log_probabilities": 37}


def import_torch_fidelity() -> ModuleType:
    """The package; ImportError or RuntimeError where it or its torchvision cannot be imported."""
    try:
        import torch_fidelity
    except RuntimeError as error:
        # a torchvision made for another build of torch: its operators, not used here, must only be known
        if "torchvision::nms" not in str(error):
            raise
        for name in [
            name for name in sys.modules if name.partition(".")[0] in ("torchvision", "torch_fidelity")
        ]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{name}", "(Tensor boxes, Tensor scores, float overlap) -> Tensor"
            )
        import torch_fidelity
    return torch_fidelity


@dataclass(frozen=True, kw_only=True, eq=False)
class TheirFeatures:
    """Of N images: pool_3 [N, 2048], mixed_6/conv [N, 192, 17, 17], logits without bias [N, 1008]."""

    pooled: Tensor
    branch: Tensor
    logits: Tensor


def write_weights(directory: Path) -> Path:
    """The formula's weights as a file in pytorch-fid's layout."""
    path = directory / "weights.pth"
    torch.save(formula_weights(trained_gamma=True), path)
    return path


class TheirNetwork:
    """torch-fidelity's extractor, which resizes as TensorFlow 1 does."""

    def __init__(self, weights: Path) -> None:
        import_torch_fidelity()
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        self._network = FeatureExtractorInceptionV3(
            "formula",
            ["2048", "logits_unbiased"],
            feature_extractor_weights_path=str(weights),
        )
        self._branch: list[Tensor] = []
        self._network.Mixed_6d.branch1x1.register_forward_hook(
            lambda _module, _inputs, output: self._branch.append(output)
        )

    def features(self, images: Tensor) -> TheirFeatures:
        """Of images uint8 [N, H, W, 3]."""
        self._branch.clear()
        with torch.no_grad():
            pooled, logits = self._network(images.permute(0, 3, 1, 2))
        return TheirFeatures(pooled=pooled, branch=self._branch[0], logits=logits)


def record(directory: Path) -> None:
    """Write what inception_formula.json holds."""
    network = TheirNetwork(write_weights(directory))
    cases = []
    for count, height, width, salt in CASES:
        found = network.features(formula_images(count, height, width, salt=salt))
        numbers = {
            "pooled": found.pooled,
            "spatial": found.branch[:, :7].permute(0, 2, 3, 1).flatten(1),
            "log_probabilities": found.logits.double().log_softmax(dim=1),
        }
        shown = {name: tensor[:, :: _EVERY[name]].double().tolist() for name, tensor in numbers.items()}
        rounded = {name: [[float(f"{x:.9g}") for x in row] for row in rows] for name, rows in shown.items()}
        cases.append({"count": count, "height": height, "width": width, "salt": salt, **rounded})
    content = {
        "made_by": f"torch-fidelity {import_torch_fidelity().__version__}",
        "every": _EVERY,
        "cases": cases,
    }
    RECORD.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    record(Path(sys.argv[1]))
