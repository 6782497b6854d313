"""The networks reproduce the published code's numbers on every U-Net and classifier of golden/unet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffcli.interchange.openai_names import to_published
from diffcli.models.classifier import Classifier
from diffcli.models.conditioning import Conditioning
from diffcli.models.unet import UNet
from golden_models import golden_config, golden_network

GOLDEN = Path(__file__).parents[1] / "golden" / "unet"
INDEX: dict[str, Any] = json.loads((GOLDEN / "index.json").read_text())
CASES = sorted(INDEX)
# the arrays of a case that are inputs or recorded results, all of which this file uses
INPUTS = {"x", "y", "low_res", "t_int", "t_float", "grad_probe"}
RESULTS = {"out_tint", "out_tfloat", "out_tfloat_fp16torso", "grad_probe_param_norms"}


def required(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


class Case:
    """One golden network with its weights, inputs and recorded results."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.index = INDEX[name]
        self.config = golden_config(name)
        self.arrays = {key: torch.from_numpy(array) for key, array in np.load(GOLDEN / f"{name}.npz").items()}

    def network(self) -> UNet | Classifier:
        return golden_network(self.name)

    def output(self, network: UNet | Classifier, t: str, dtype: torch.dtype = torch.float32) -> Tensor:
        x, low_res = self.arrays["x"].to(dtype), self.arrays.get("low_res")
        output: Tensor
        if isinstance(network, Classifier):
            output = network(x, self.arrays[t])
        else:
            condition = Conditioning(
                y=self.arrays.get("y"), low_res=None if low_res is None else low_res.to(dtype)
            )
            output = network(x, self.arrays[t], condition)
        return output

    def gradient_norms(self, dtype: torch.dtype = torch.float32) -> dict[str, float]:
        """L2 norms of the gradient of sum(out_tfloat * grad_probe), by published name."""
        network = self.network().to(dtype)
        (self.output(network, "t_float", dtype) * self.arrays["grad_probe"]).sum().backward()
        gradients = {name: required(parameter.grad) for name, parameter in network.named_parameters()}
        published = to_published(gradients, self.config)
        return {name: float(gradient.double().norm()) for name, gradient in published.items()}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_every_recorded_network_is_compared() -> None:
    assert {path.stem for path in GOLDEN.glob("*.npz")} == set(CASES)
    assert len(CASES) == 19
    pools = [golden_config(name).model.pool for name in CASES if name.startswith("guided_classifier")]
    assert sorted(pools) == ["adaptive", "attention", "spatial", "spatial_v2"]


def test_every_recorded_array_is_compared(case: Case) -> None:
    optional = {"y", "low_res"}
    assert set(case.arrays) | optional == INPUTS | RESULTS


@torch.no_grad()
def test_forward(case: Case) -> None:
    network = case.network()
    for t, recorded in (("t_int", "out_tint"), ("t_float", "out_tfloat")):
        assert case.arrays[t].dtype == (torch.int64 if t == "t_int" else torch.float32)
        torch.testing.assert_close(case.output(network, t), case.arrays[recorded], atol=2e-5, rtol=0)


@torch.no_grad()
def test_forward_in_half_precision(case: Case) -> None:
    network = case.network()
    with torch.autocast("cpu", dtype=torch.float16):
        output = case.output(network, "t_float")
    torch.testing.assert_close(output.float(), case.arrays["out_tfloat_fp16torso"], atol=2e-2, rtol=0)


def test_gradient_norms(case: Case) -> None:
    norms = case.gradient_norms()
    assert list(norms) == case.index["param_order"]
    # a bias that the next norm takes away again has no gradient: what single precision leaves of it is noise
    exact = case.gradient_norms(torch.float64)
    for (name, norm), recorded in zip(
        norms.items(), case.arrays["grad_probe_param_norms"].tolist(), strict=True
    ):
        if exact[name] < 1e-10:
            assert max(norm, recorded) < 1e-4, name
        else:
            assert recorded > 1e-5, name
            assert norm == pytest.approx(recorded, rel=1e-4), name


def test_parameters_have_the_published_order_and_number(case: Case) -> None:
    network = case.network()
    assert list(to_published(network.state_dict(), case.config)) == case.index["param_order"]
    assert sum(parameter.numel() for parameter in network.parameters()) == case.index["num_params"]
