"""`--set`: what is read as TOML, what as a bare word, and what is refused."""

from __future__ import annotations

import pytest

from diffcli.config.catalog import run_settings
from diffcli.config.given import FROM_SET, Given
from diffcli.config.overrides import parse_overrides


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("training.lr=2e-4", "training.lr", 2e-4),
        (" training.lr = 2e-4 ", "training.lr", 2e-4),
        ("training.steps=1_000", "training.steps", 1000),
        ("model.channel_mult=[1, 2.5]", "model.channel_mult", [1, 2.5]),
        ("data.flip=true", "data.flip", True),
        ("diffusion.schedule=cosine", "diffusion.schedule", "cosine"),
        ('diffusion.schedule="cosine"', "diffusion.schedule", "cosine"),
        ("data.name=/data/a=b/imagenet_64", "data.name", "/data/a=b/imagenet_64"),
        ("data.name='two words'", "data.name", "two words"),
        ("data.name=64x64", "data.name", "64x64"),
        ('data.name=""', "data.name", ""),
        ("training.schedule_sampler=loss-second-moment", "training.schedule_sampler", "loss-second-moment"),
    ],
)
def test_right_side_is_toml_or_a_bare_word(text, path, value):
    parsed = parse_overrides([text], run_settings())
    assert parsed.problems == ()
    assert parsed.given == (Given(path=path, value=value, origin=FROM_SET),)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("training.lr", ["--set training.lr", "training.lr=VALUE"]),
        ("training.lr=", ["training.lr=VALUE"]),
        ("=3", ["VALUE"]),
        ("", ["VALUE"]),
        ("training.learning_rate=1", ["training.learning_rate", "did you mean training.lr"]),
        ("trainin.lr=1", ["did you mean training.lr?"]),
        ("model.lr=1", ["did you mean training.lr?"]),
        ("lr=1", ["did you mean training.lr?"]),
        ("steps=1", ["diffusion.steps", "training.steps", "sampling.steps"]),
        ("training.Batch_Size=1", ["did you mean training.batch_size?"]),
        ("model.num_channels=1", ["model.channels"]),
        ("diffusion.diffusion_steps=1", ["did you mean diffusion.steps?"]),
        ("data.image_size=1", ["data.resolution"]),
        ("model.bogus=1", ["model holds kind, channels"]),
        ("bogus.lrr=1", ["no such section", "data, model, diffusion, training, sampling"]),
        ("training=1", ["training", "is a section"]),
        ("preset.title=x", ["preset.title"]),
        ("training.lr.x=1", ["training.lr.x"]),
        ("model.channel_mult=1,2", ["model.channel_mult = 1,2", "[1,2]"]),
        ("model.channel_mult=[1, 2", ["model.channel_mult = [1, 2", "Unclosed array"]),
        ("model.channel_mult=" + "[" * 3000, ["model.channel_mult", "nested"]),
        ("data.name=two words", ["data.name = two words", "'\"two words\"'"]),
        ("training.lr=1\nlr_warmup_steps=2", ["more than one value"]),
    ],
)
def test_what_is_no_setting_is_one_problem(text, parts):
    parsed = parse_overrides([text], run_settings())
    assert parsed.given == ()
    assert len(parsed.problems) == 1
    line = parsed.problems[0].line
    assert "\n" not in line
    assert len(line) < 300
    for part in parts:
        assert part in line


def test_one_setting_set_twice_is_refused_even_to_the_same_value():
    parsed = parse_overrides(["training.lr=1e-3", "training.lr=1e-3"], run_settings())
    assert [problem.line for problem in parsed.problems] == [
        "training.lr: set twice, to 0.001 and to 0.001 (--set)"
    ]
