"""The optimizer files of the original programs: every layout, every moment at its own parameter."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from diffcli.errors import CorruptError, UsageError
from diffcli.interchange.identify import published_shapes
from diffcli.interchange.original_optimizer import OriginalMoments, optimizer_content, read_moments
from golden_models import GOLDEN, golden_config
from original_training import counted, masters, write_optimizer

TRAIN = json.loads((GOLDEN / "train" / "index.json").read_text())
FP16 = json.loads((GOLDEN / "train" / "fp16_index.json").read_text())
LAYOUTS = ("one entry each", "one vector", "a vector and a matrix")
NAME = "improved_ssn1_sig1_cls1_h4"


def moments_of(name):
    """Two moments for a golden network, no two numbers of them the same."""
    shapes = published_shapes(golden_config(name))
    first = counted({key: torch.empty(shape) for key, shape in shapes.items()})
    return shapes, first, {key: -tensor for key, tensor in first.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_gives_every_parameter_its_own_moments(layout, tmp_path):
    shapes, first, second = moments_of(NAME)
    path = write_optimizer(tmp_path, 7, first, second, updates=8, layout=layout)
    found = read_moments(path, shapes)
    assert found.updates == 8
    assert list(found.exp_avg) == list(found.exp_avg_sq) == list(shapes)
    for name in shapes:
        assert torch.equal(found.exp_avg[name], first[name]), name
        assert torch.equal(found.exp_avg_sq[name], second[name]), name


@pytest.mark.parametrize("case", FP16)
def test_the_flat_layouts_have_the_recorded_sizes(case):
    facts = FP16[case]
    _, first, _ = moments_of(facts["model"])
    layout = "one vector" if facts["lib"] == "improved" else "a vector and a matrix"
    assert [list(tensor.shape) for tensor in masters(first, layout)] == facts["master_param_shapes"]


@pytest.mark.parametrize("case", [name for name in TRAIN if "param_order" in TRAIN[name]])
def test_moments_follow_the_recorded_order_of_the_parameters(case):
    assert list(moments_of(TRAIN[case]["model"])[0]) == TRAIN[case]["param_order"]


def test_what_is_written_is_what_an_optimizer_takes_and_what_is_read_again(tmp_path):
    shapes, first, second = moments_of(NAME)
    written = optimizer_content(
        OriginalMoments(updates=12, exp_avg=first, exp_avg_sq=second), learning_rate=2e-4, weight_decay=0.05
    )
    torch.save(written, tmp_path / "opt000011.pt")
    found = read_moments(tmp_path / "opt000011.pt", shapes)
    assert found.updates == 12
    assert all(torch.equal(found.exp_avg[name], first[name]) for name in shapes)
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes.values()]
    optimizer = AdamW(parameters)
    optimizer.load_state_dict(torch.load(tmp_path / "opt000011.pt", weights_only=True))
    assert optimizer.param_groups[0]["lr"] == 2e-4
    assert optimizer.param_groups[0]["weight_decay"] == 0.05
    for parameter, name in zip(parameters, shapes, strict=True):
        assert torch.equal(optimizer.state[parameter]["exp_avg_sq"], second[name])
        assert float(optimizer.state[parameter]["step"]) == 12
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert float(optimizer.state[parameters[0]]["step"]) == 13


def test_an_optimizer_of_another_network_is_refused(tmp_path):
    _, first, second = moments_of("improved_headsup")
    for layout in LAYOUTS:
        path = write_optimizer(tmp_path, 7, first, second, updates=8, layout=layout)
        with pytest.raises(UsageError, match="not the optimizer of this network"):
            read_moments(path, moments_of(NAME)[0])


def damaged(content, damage):
    state = content["state"]
    match damage:
        case "no second moment":
            del state[3]["exp_avg_sq"]
        case "a parameter without state":
            del state[3]
        case "counts that differ":
            state[3]["step"] = 9
        case "no count":
            state[3]["step"] = float("nan")
        case "a count that is a tensor of several":
            state[3]["step"] = torch.zeros(2)
        case "no groups":
            content["param_groups"] = []
        case "groups that are none":
            content["param_groups"] = ["params"]
        case "state that is none":
            content["state"] = [1, 2]
        case "a moment that is no tensor":
            state[3]["exp_avg"] = [0.0]
        case "whole numbers":
            state[3]["exp_avg"] = torch.zeros(state[3]["exp_avg"].shape, dtype=torch.int64)
        case "a moment without numbers":
            state[3]["exp_avg"] = state[3]["exp_avg"].to("meta")
        case "one list in many groups":
            content["param_groups"] *= 1000
    return content


@pytest.mark.parametrize(
    "damage",
    [
        "no second moment",
        "a parameter without state",
        "counts that differ",
        "no count",
        "a count that is a tensor of several",
        "no groups",
        "groups that are none",
        "state that is none",
        "a moment that is no tensor",
        "whole numbers",
        "a moment without numbers",
        "one list in many groups",
    ],
)
def test_a_damaged_state_is_corrupt(damage, tmp_path):
    shapes, first, second = moments_of(NAME)
    path = write_optimizer(tmp_path, 7, first, second, updates=8)
    torch.save(damaged(torch.load(path, weights_only=True), damage), path)
    with pytest.raises(CorruptError, match=r"opt000007\.pt is no state of AdamW"):
        read_moments(path, shapes)


def test_weights_under_the_name_of_an_optimizer_are_told(tmp_path):
    shapes, first, _ = moments_of(NAME)
    torch.save(first, tmp_path / "opt000007.pt")
    with pytest.raises(UsageError, match="called like the state of an optimizer, and is none"):
        read_moments(tmp_path / "opt000007.pt", shapes)


@pytest.mark.parametrize("change", [{"betas": (0.9, 0.99)}, {"betas": None}, {"eps": 1e-6}])
def test_an_adamw_with_other_constants_is_refused(change, tmp_path):
    shapes, first, second = moments_of(NAME)
    path = write_optimizer(tmp_path, 7, first, second, updates=8)
    content = torch.load(path, weights_only=True)
    content["param_groups"][0].update(change)
    torch.save(content, path)
    with pytest.raises(UsageError, match="an AdamW with other constants"):
        read_moments(path, shapes)
