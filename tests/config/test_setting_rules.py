"""What settings ask of each other, and which rule speaks when."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffcli.config.decode import build_config
from diffcli.config.resolve import resolve
from diffcli.config.rules import RULES, violations
from diffcli.config.sections import RunConfig
from diffcli.errors import UsageError

SCHEDULES = Path(__file__).parents[1] / "golden" / "schedules.json"


def refusal(*overrides, preset="digits"):
    with pytest.raises(UsageError) as caught:
        resolve(preset=preset, overrides=overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_defaults_keep_every_rule():
    assert violations(RunConfig()) == ()


LEARNED = ("learned", "learned_range")
FIXED = ("fixed_small", "fixed_large")


@pytest.mark.parametrize("variance", LEARNED + FIXED)
@pytest.mark.parametrize("objective", ["simple", "hybrid", "hybrid_unscaled", "vlb", "vlb_unscaled"])
def test_a_learned_variance_and_a_vlb_term_need_each_other(variance, objective):
    overrides = (f"diffusion.variance={variance}", f"diffusion.objective={objective}")
    if (variance in LEARNED) == (objective != "simple"):
        assert resolve(preset="digits", overrides=overrides).config.diffusion.objective == objective
    else:
        message = refusal(*overrides)
        assert f'diffusion.objective = "{objective}"' in message
        assert variance in message


def test_linear_schedule_is_allowed_where_the_reference_allows_it():
    errors = json.loads(SCHEDULES.read_text())["errors"]
    lengths = {
        name.removeprefix("linear_T"): error for name, error in errors.items() if name.startswith("linear_T")
    }
    assert len(lengths) == 6
    for steps, error in lengths.items():
        overrides = ("diffusion.schedule=linear", f"diffusion.steps={steps}", "sampling.steps=0")
        if error is None:
            assert resolve(preset="digits", overrides=overrides).config.diffusion.steps == int(steps)
        else:
            assert f"diffusion.steps = {steps}: needs at least 20" in refusal(*overrides)


def test_cosine_schedule_is_allowed_at_two_steps():
    overrides = ("diffusion.steps=2", "sampling.steps=2")
    assert resolve(preset="digits", overrides=overrides).config.diffusion.steps == 2


def test_only_labels_that_there_are_can_be_dropped():
    assert resolve(preset="digits", overrides=["training.label_drop=0.1"]).config.training.label_drop == 0.1
    message = refusal("training.label_drop=0.1", "model.classes=0")
    assert "training.label_drop = 0.1: needs 0, because model.classes is 0" in message
    for share in ("1", "-0.1"):
        assert "from 0 up to, but not, 1" in refusal(f"training.label_drop={share}")


@pytest.mark.parametrize(
    ("preset", "low", "allowed"),
    [
        ("imagenet_upsample", 64, True),
        ("imagenet_upsample", 255, True),
        ("imagenet_upsample", 0, False),
        ("imagenet_upsample", 256, False),
        ("imagenet_upsample", 300, False),
        ("cifar10", 0, True),
        ("cifar10", 8, False),
    ],
)
def test_low_resolution_belongs_to_super_resolution(preset, low, allowed):
    override = f"data.low_resolution={low}"
    if allowed:
        assert resolve(preset=preset, overrides=[override]).config.data.low_resolution == low
    else:
        message = refusal(override, preset=preset)
        assert message.count("data.low_resolution") == 1
        assert f"data.low_resolution = {low}" in message


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["training.microbatch=65"], ["training.microbatch = 65", "training.batch_size = 64"]),
        (["training.steps=2001"], ["training.lr_anneal_steps = 2000", "training.steps = 2001"]),
        (["training.lr_warmup_steps=2000"], ["training.lr_warmup_steps = 2000", "lr_anneal_steps = 2000"]),
        (["training.ema_rates=[]", "sampling.ema=none"], ["training.ema_warmup_steps = 10", "needs 0"]),
        (["training.ema_rates=[]", "training.ema_warmup_steps=0"], ['sampling.ema = "first"', "needs none"]),
        (["sampling.ema=0.9999"], ["sampling.ema = 0.9999", "0.995"]),
        (["sampling.steps=1001"], ["sampling.steps = 1001", "diffusion.steps = 1000"]),
        (["sampling.steps=[501, 1]"], ["sampling.steps = [501, 1]", "at most 500", "2 sections"]),
        (["sampling.steps=[335, 333, 333]"], ["at most 334", "the last 333", "3 sections"]),
        (["sampling.steps=[0, 0]"], ["at least one timestep"]),
        (["model.pool=spatial"], ['model.pool = "spatial"', "needs attention", "model.kind = classifier"]),
        (["model.kind=classifier", "model.heads_up=2"], ["model.heads_up = 2", "needs 0"]),
        (["model.kind=classifier", "model.classes=0"], ["model.classes = 0", "needs at least 2"]),
        (["model.kind=classifier", "data.low_resolution=4"], ["data.low_resolution = 4", "needs 0"]),
        (["training.noisy=false"], ["training.noisy = false", "model.kind is unet"]),
        (
            ["model.kind=classifier", "training.schedule_sampler=loss-second-moment"],
            ["training.schedule_sampler", "needs uniform", "model.kind is classifier"],
        ),
        (["training.eval_every=20"], ["training.eval_every = 20", "a data.validation_split to measure on"]),
        (
            ["training.eval_every=30", "data.validation_split=test"],
            ["training.eval_every = 30", "a multiple of training.log_every = 20"],
        ),
        (["training.eval_every=20"], ["or training.eval_samples to draw"]),
        (["training.eval_samples=1"], ["training.eval_samples = 1", "0, or at least 2"]),
        (["training.eval_samples=9", "training.eval_steps=1001"], ["at most diffusion.steps = 1000"]),
        (["model.kind=classifier", "training.eval_samples=9"], ["needs 0", "a classifier draws no images"]),
        (
            ["model.kind=superres", "data.low_resolution=4", "training.eval_samples=9"],
            ["training.eval_samples = 9", "needs 0", "without small images"],
        ),
        (["data.validation_split=train"], ["data.validation_split", "another split than data.split"]),
        (["model.attention_resolutions=[5]"], ["model.attention_resolutions = [5]", "8, 4"]),
        (["model.heads=5"], ["model.heads = 5", "divisor"]),
        (["data.resolution=9"], ["data.resolution = 9", "a multiple of 2"]),
        (["model.channel_mult=[1, 1.5]"], ["model.channel_mult", "multiple of 32"]),
    ],
)
def test_settings_that_do_not_fit_together(overrides, parts):
    message = refusal(*overrides)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    "overrides",
    [
        ["training.microbatch=64"],
        ["training.steps=20"],
        ["training.lr_anneal_steps=0", "training.steps=5000"],
        ["training.ema_rates=[]", "training.ema_warmup_steps=0", "sampling.ema=none"],
        ["training.ema_rates=[0.9, 0.99]", "sampling.ema=0.99"],
        ["model.kind=classifier", "model.pool=spatial_v2"],
        ["model.kind=classifier", "training.noisy=false"],
        ["training.eval_every=40", "data.validation_split=test"],
        ["training.eval_every=40", "training.eval_samples=2"],
        ["training.eval_steps=1001"],
        ["data.validation_split=test"],
        ["sampling.steps=1000"],
        ["sampling.steps=[334, 333, 333]"],
        ["sampling.steps=[0, 0, 1]"],
        ["sampling.steps=[1, 1]", "sampling.solver=ddim"],
    ],
)
def test_settings_that_do(overrides):
    assert resolve(preset="digits", overrides=overrides).preset == "digits"


def test_a_rule_is_silent_about_a_value_that_is_not_known():
    message = refusal(
        "diffusion.variancee=fixed_small", "training.batch_size=many", "training.microbatch=999"
    )
    assert "did you mean diffusion.variance?" in message
    assert "training.batch_size" in message
    assert "microbatch" not in message
    assert "objective" not in message


class Reads:
    """A section or configuration that notes which of its settings are read."""

    def __init__(self, record, noted, prefix=""):
        self._record, self._noted, self._prefix = record, noted, prefix

    def __getattr__(self, name):
        value = getattr(self._record, name)
        if dataclasses.is_dataclass(value):
            return Reads(value, self._noted, f"{name}.")
        self._noted.add(f"{self._prefix}{name}")
        return value


@st.composite
def configs_at_odds(draw):
    """Configurations in which the settings that rules read take values on both sides of them."""
    choose = {
        "data.low_resolution": [0, 16, 64],
        "model.kind": ["unet", "superres", "classifier"],
        "model.pool": ["attention", "spatial"],
        "model.heads_up": [0, 2],
        "diffusion.steps": [10, 1000],
        "diffusion.schedule": ["linear", "cosine"],
        "diffusion.variance": LEARNED + FIXED,
        "training.microbatch": [0, 200],
        "data.split": ["train", "test"],
        "data.validation_split": ["", "test"],
        "training.noisy": [False, True],
        "training.schedule_sampler": ["uniform", "loss-second-moment"],
        "training.eval_every": [0, 10, 15],
        "training.eval_samples": [0, 9],
        "training.lr_anneal_steps": [0, 10, 10**7],
        "training.lr_warmup_steps": [0, 20],
        "training.ema_rates": [(), (0.9,)],
        "training.ema_warmup_steps": [0, 5],
        "sampling.steps": [0, 2000, (0,), (2000, 1)],
        "sampling.ema": ["none", "first", 0.5, 0.9],
    }
    return build_config({path: draw(st.sampled_from(values)) for path, values in choose.items()})


@given(configs_at_odds())
def test_a_rule_reads_no_more_than_it_says(config):
    for rule in RULES:
        noted = set()
        rule.allowed(Reads(config, noted))
        assert noted <= rule.reads
