"""Every case of golden/sampling, guided ones too: each step from its recorded x_t, and the free chain."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch

from diffcli.diffusion.build import build_diffusion
from diffcli.diffusion.respacing import parse_timesteps
from diffcli.images.conversion import to_uint8
from diffcli.models.conditioning import Conditioning
from diffcli.sampling.encode import encode, encoding_step
from diffcli.sampling.guidance import class_gradient
from diffcli.sampling.solve import SolverSettings, solve, solver_step
from golden_models import golden_config, golden_diffusion, golden_network

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = json.loads((GOLDEN / "sampling" / "index.json").read_text())

# golden/README.md, table of tolerances, each against max(1, max abs)
ONE_STEP, WHOLE_CHAIN, NOISIEST_X_START = 2e-4, 1e-3, 5e-3
# an error of eps counts so many times in x_start in the noisiest steps
NOISIEST = 10.0


def diffusion_config_of(arguments):
    known = {"learn_sigma", "sigma_small", "predict_xstart", "steps", "noise_schedule"}
    assert arguments.keys() <= known | {"rescale_timesteps", "timestep_respacing"}
    return golden_diffusion(arguments)


class Case:
    """One recorded chain, its network and its diffusion."""

    def __init__(self, name):
        self.facts = CASES[name]
        self.arrays = {
            key: torch.from_numpy(array)
            for key, array in np.load(GOLDEN / "sampling" / f"{name}.npz").items()
        }
        config = diffusion_config_of(self.facts["diffusion"])
        kept = parse_timesteps(self.facts["diffusion"]["timestep_respacing"], config.steps)
        self.diffusion = build_diffusion(config, kept)
        self.seen = []
        self.gradients = []

    @cached_property
    def network(self):
        return golden_network(self.facts["model"])

    @cached_property
    def classifier(self):
        return golden_network(self.facts["classifier"])

    @property
    def encodes(self):
        return self.facts["kind"] == "ddim_reverse"

    @property
    def guided(self):
        return "classifier" in self.facts

    @property
    def start(self):
        return self.arrays["x_0" if self.encodes else "x_T"]

    @property
    def internal_steps(self):
        """The internal step of each recorded one, in the order computed."""
        steps = range(self.diffusion.steps)
        return steps if self.encodes else steps[::-1]

    def denoise(self, x_t, t):
        self.seen.append(t)
        y = self.arrays.get("y") if self.network.config.classes else None
        return self.network(x_t, t, Conditioning(y=y, low_res=self.arrays.get("low_res")))

    def gradient_at(self, x_t, t):
        gradient = class_gradient(self.classifier, x_t, self.diffusion.model_timesteps(t), self.arrays["y"])
        self.gradients.append(self.facts["scale"] * gradient)
        return self.gradients[-1]

    def noise_at(self, step):
        return self.arrays["noise_seq"][self.diffusion.steps - 1 - step]

    @property
    def settings(self):
        return SolverSettings(
            solver=self.facts["kind"],
            eta=self.facts.get("eta", 0.0),
            clip=self.facts["clip"],
            gradient_at=self.gradient_at if self.guided else None,
        )

    def step(self, x_t, step):
        if self.encodes:
            return encoding_step(self.denoise, self.diffusion, x_t, step, clip=self.facts["clip"])
        return solver_step(
            self.denoise, self.diffusion, x_t, step, noise_at=self.noise_at, settings=self.settings
        )

    def chain(self):
        if self.encodes:
            return encode(self.denoise, self.diffusion, self.start, clip=self.facts["clip"])
        return solve(self.denoise, self.diffusion, self.start, self.noise_at, self.settings)

    def assert_step_is_recorded(self, place, taken, tolerance):
        assert taken.step == self.internal_steps[place]
        amplified = float(self.diffusion.schedule.sqrt_recipm1_alpha_bar.values[taken.step]) > NOISIEST
        x_start_tolerance = NOISIEST_X_START if amplified else tolerance
        assert_close(taken.x, self.arrays["x_seq"][place], tolerance)
        assert_close(taken.x_start, self.arrays["pred_xstart_seq"][place], x_start_tolerance)

    def assert_gradients_are_recorded(self, tolerance):
        recorded = self.arrays["cond_grad_seq"] if self.guided else torch.zeros(0)
        assert len(self.gradients) == len(recorded)
        for gradient, of_step in zip(self.gradients, recorded, strict=True):
            # they are well below 1
            torch.testing.assert_close(gradient, of_step, atol=tolerance * float(of_step.abs().max()), rtol=0)


def assert_close(value, recorded, tolerance):
    scale = max(1.0, float(recorded.abs().max()))
    torch.testing.assert_close(value, recorded, atol=tolerance * scale, rtol=0)


def nhwc(images):
    return images.permute(0, 2, 3, 1)


@pytest.fixture(params=CASES)
def case(request):
    return Case(request.param)


def test_every_case_is_compared():
    assert {path.stem for path in (GOLDEN / "sampling").glob("*.npz")} == set(CASES)
    assert len(CASES) == 14
    guided = [name for name, facts in CASES.items() if facts.get("classifier")]
    assert len(guided) == 4
    # with classes that the network is told, and without
    assert {golden_config(CASES[name]["model"]).model.classes > 0 for name in guided} == {True, False}


def test_every_array_is_compared(case):
    inputs = {"x_0", "x_T", "y", "low_res", "noise_seq"}
    results = {"x_seq", "pred_xstart_seq", "t_seen_by_model", "final_uint8_nhwc"}
    assert case.arrays.keys() - inputs == results | ({"cond_grad_seq"} if case.guided else set())
    assert case.diffusion.timestep_map.tolist() == case.facts["timestep_map"]
    assert case.diffusion.steps == case.facts["num_timesteps"] == len(case.arrays["x_seq"])


def test_each_step_from_its_recorded_x_t(case):
    x_ts = [case.start, *case.arrays["x_seq"][:-1]]
    for place, (x_t, step) in enumerate(zip(x_ts, case.internal_steps, strict=True)):
        case.assert_step_is_recorded(place, case.step(x_t, step), ONE_STEP)
    torch.testing.assert_close(torch.stack(case.seen), case.arrays["t_seen_by_model"], rtol=1e-6, atol=0)
    case.assert_gradients_are_recorded(ONE_STEP)


def test_the_whole_chain_left_to_itself(case):
    taken = list(case.chain())
    assert len(taken) == len(case.arrays["x_seq"])
    for place, step in enumerate(taken):
        case.assert_step_is_recorded(place, step, WHOLE_CHAIN)
    case.assert_gradients_are_recorded(WHOLE_CHAIN)
    recorded = case.arrays["final_uint8_nhwc"]
    difference = nhwc(to_uint8(taken[-1].x)).int() - recorded.int()
    # a value on the edge of its bin may fall to either side
    assert difference.abs().max() <= 1
    assert (difference != 0).float().mean() < 0.01


def test_the_recorded_sample_becomes_exactly_the_recorded_image(case):
    assert torch.equal(nhwc(to_uint8(case.arrays["x_seq"][-1])), case.arrays["final_uint8_nhwc"])
