"""default < preset < --set < flags, wrong inputs, and all problems at once."""

from __future__ import annotations

import dataclasses

import pytest

from diffcli.config.catalog import run_settings
from diffcli.config.given import DEFAULT, FROM_SET, Origin
from diffcli.config.resolve import FlagSetting, resolve, revise
from diffcli.config.sections import RunConfig
from diffcli.errors import DiffcliError, MissingError, UsageError

SEED = FlagSetting(flag="--seed", path="training.seed", value=3)


def own_preset(directory, text):
    path = directory / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_nothing_given_is_all_defaults():
    resolved = resolve()
    assert resolved.config == RunConfig()
    assert resolved.preset == ""
    assert set(resolved.origins.values()) == {DEFAULT}


def test_the_nearest_source_wins_and_is_named():
    resolved = resolve(
        preset="digits", overrides=["training.lr=2e-4", "training.seed=2", "sampling.eta=0.5"], flags=[SEED]
    )
    preset = Origin(kind="preset", name="digits")
    assert resolved.preset == "digits"
    assert resolved.config.training.seed == 3
    assert resolved.config.training.lr == 2e-4
    assert resolved.config.training.batch_size == 64
    assert resolved.origins["training.seed"] == Origin(kind="flag", name="--seed")
    assert resolved.origins["training.lr"] == FROM_SET
    assert resolved.origins["sampling.eta"] == FROM_SET
    assert resolved.origins["training.batch_size"] == preset
    assert resolved.origins["sampling.clip"] == DEFAULT


def test_every_setting_is_listed_once_with_value_and_help():
    resolved = resolve(preset="digits", overrides=["training.lr=1"], flags=[SEED])
    assert [setting.path for setting in resolved.settings] == list(run_settings())
    for setting in resolved.settings:
        section, _, name = setting.path.partition(".")
        assert setting.value == getattr(getattr(resolved.config, section), name)
        assert setting.help


def test_origins_are_printed_as_the_user_knows_them():
    printed = {
        str(origin)
        for origin in resolve(preset="digits", overrides=["training.lr=1"], flags=[SEED]).origins.values()
    }
    assert printed == {"default", "preset digits", "--set", "--seed"}


def test_numbers_take_the_type_of_their_setting():
    config = resolve(preset="digits", overrides=["training.lr=1", "model.channel_mult=[1, 2]"]).config
    assert isinstance(config.training.lr, float)
    assert [type(mult) for mult in config.model.channel_mult] == [float, float]
    assert hash(config) == hash(dataclasses.replace(config))


WRONG_VALUES = [
    ("training.lr=fast", ['training.lr = "fast"', "a finite number"]),
    ("training.lr=nan", ["training.lr = nan", "a finite number"]),
    ("training.lr=inf", ["training.lr = inf", "a finite number"]),
    ("training.lr=-1", ["training.lr = -1", "above 0"]),
    ("training.lr=0", ["training.lr = 0", "above 0"]),
    ("training.lr=true", ["training.lr = true", "a finite number"]),
    ("training.steps=true", ["training.steps = true", "a whole number"]),
    ("training.steps=1.5", ["training.steps = 1.5", "a whole number"]),
    ("training.steps=2e3", ["training.steps = 2000.0", "did you mean 2000?"]),
    ("training.steps=0", ["training.steps = 0", "from 1"]),
    ("training.steps=99999999999999999999", ["64 bits"]),
    ("training.steps=" + "9" * 5000, ["a whole number"]),
    ("training.seed=-1", ["training.seed = -1", "from 0 to 9223372036854775807"]),
    ("training.keep_last=1", ["training.keep_last = 1", "at least 2"]),
    ("training.ema_rates=0.9", ["training.ema_rates = 0.9", "a list of finite numbers"]),
    ("training.ema_rates=[1.0]", ["training.ema_rates = [1.0]", "not, 1"]),
    ("training.ema_rates=[0.9, 0.9]", ["without repeats"]),
    ("training.ema_rates=[0.9, nan]", ["a list of finite numbers"]),
    ("training.precision=fp8", ['training.precision = "fp8"', "fp32, bf16 or fp16"]),
    ("training.precision=16", ["training.precision = 16", "fp32, bf16 or fp16"]),
    ("diffusion.schedule=cosin", ["linear or cosine", "did you mean cosine?"]),
    ("diffusion.steps=1", ["diffusion.steps = 1", "from 2"]),
    ("data.flip=True", ['data.flip = "True"', "did you mean true?"]),
    ("data.flip=1", ["data.flip = 1", "true or false"]),
    ("data.name=123", ["data.name = 123", 'did you mean "123"?']),
    ("data.name=2024-01-01", ["data.name = 2024-01-01", "text"]),
    ("data.name=\udcff", ["data.name", "text"]),
    ("data.channels=2", ["data.channels = 2", "1 or 3"]),
    ("model.channels=48", ["model.channels = 48", "multiple of 32"]),
    ("model.channel_mult=[]", ["a list of at least 1"]),
    ("model.channel_mult=[0]", ["above 0"]),
    ("model.channel_mult=[1e300]", ["at most 64"]),
    ("model.channel_mult=[1, [2]]", ["model.channel_mult = [1, [2]]", "a list of finite numbers"]),
    ("model.channel_mult={a = 1}", ["model.channel_mult = a table", "a list of finite numbers"]),
    ("model.attention_resolutions=[16.0]", ["a list of whole numbers"]),
    ("model.dropout=1", ["model.dropout = 1", "not, 1"]),
    ("sampling.steps=-1", ["sampling.steps = -1", "at least 0"]),
    ("sampling.steps=[]", ["a list of at least 1"]),
    ("sampling.steps=ddim50", ['sampling.steps = "ddim50"', "a whole number, or a list of whole numbers"]),
    ("sampling.eta=1.1", ["sampling.eta = 1.1", "from 0 to 1"]),
    ("sampling.ema=last", ['sampling.ema = "last"', "first or none"]),
    ("sampling.ema=1", ["sampling.ema", "not, 1"]),
]


@pytest.mark.parametrize(("override", "parts"), WRONG_VALUES)
def test_a_wrong_value_is_told_with_path_value_and_what_is_allowed(override, parts):
    with pytest.raises(UsageError) as caught:
        resolve(overrides=[override])
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert override.partition("=")[0] in message
    assert "(--set)" in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[training]\nlr = \n", ["not valid TOML", "line 2", "column 6"]),
        ("[training\nlr = 1\n", ["not valid TOML", "line 1"]),
        ("[training]\nlr = 1\nlr = 2\n", ["not valid TOML", "overwrite"]),
        ("[training]\nlr = 1\n[training]\nsteps = 2\n", ["not valid TOML", "training"]),
        ("a = " + "[" * 3000, ["not valid TOML", "nested"]),
        ("[training]\nsteps = " + "9" * 5000, ["not valid TOML", "digits"]),
        (b"[data]\n# \xff\xfe\n", ["not UTF-8", "0xff", "line 2"]),
        (b"\x89PNG\r\n\x1a\n\x00", ["not UTF-8"]),
        ("[trainin]\nlr = 1\nsteps = 2\n", ["trainin: no such section", "did you mean training?"]),
        ("[optimizer]\nbeta = 1\n", ["optimizer: no such section", "data, model"]),
        ("lr = 1\n", ["lr: no such setting", "did you mean training.lr?"]),
        ("training = 1\n", ["training", "is a section"]),
        ("[training]\nlrr = 1\n", ["training.lrr: no such setting", "did you mean training.lr"]),
        ('[training]\n"l\\nr" = 1\n', ['"training.l\\nr"', "no such setting"]),
        ("[training.lr]\nx = 1\n", ["training.lr = a table", "a finite number"]),
        ("[training]\nlr = nan\n", ["training.lr = nan"]),
        ("[preset]\ntitel = 'x'\n", ["preset.titel", "did you mean preset.title?"]),
        ("[preset]\nparameters = -1\n", ["preset.parameters = -1", "at least 0"]),
    ],
)
def test_a_wrong_preset_file_is_told_with_its_name(tmp_path, text, parts):
    path = own_preset(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        resolve(preset=path)
    assert caught.value.exit_code == 2
    for part in ["mine.toml", *parts]:
        assert part in str(caught.value)


def test_a_directory_is_no_preset(tmp_path):
    with pytest.raises(UsageError, match="directory"):
        resolve(preset=f"{tmp_path}/")


def test_a_preset_file_that_is_not_there(tmp_path):
    with pytest.raises(MissingError) as caught:
        resolve(preset=str(tmp_path / "none.toml"))
    assert caught.value.exit_code == 3
    assert "none.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "part"), [("cifar", "cifar10"), ("CIFAR10", "cifar10"), ("zzz", "there are cifar10")]
)
def test_an_unknown_preset_is_not_found(name, part):
    with pytest.raises(MissingError) as caught:
        resolve(preset=name)
    assert caught.value.exit_code == 3
    assert name in str(caught.value)
    assert part in str(caught.value)


def test_all_problems_of_all_sources_are_told_at_once(tmp_path):
    path = own_preset(
        tmp_path,
        "[preset]\ntitle = 1\n[trainin]\nx = 1\n[data]\nresolution = 9\n[model]\nchannels = 48\n"
        "[sampling]\neta = 2\nfoo = 1\n",
    )
    with pytest.raises(UsageError) as caught:
        resolve(
            preset=path,
            overrides=["training.lr", "training.lrr=1", "training.steps=x", "model.dropout=2"],
            flags=[dataclasses.replace(SEED, value=-1)],
        )
    lines = caught.value.where.splitlines()
    assert caught.value.what == f"{len(lines)} problems in the configuration"
    expected = [
        "preset.title",
        "trainin",
        "model.channels",
        "sampling.eta",
        "sampling.foo",
        "--set training.lr",
        "training.lrr",
        "training.steps",
        "model.dropout",
        "training.seed = -1",
    ]
    assert len(lines) == len(expected)
    for subject in expected:
        assert any(line.startswith((f"{subject}:", f"{subject} =")) for line in lines), subject
    assert sum(line.endswith(f"(preset {path})") for line in lines) == 5
    assert sum(line.endswith("(--seed)") for line in lines) == 1


def test_broken_rules_are_told_with_the_other_problems():
    with pytest.raises(UsageError) as caught:
        resolve(preset="digits", overrides=["data.flip=1", "training.microbatch=100", "model.heads=5"])
    assert caught.value.what == "3 problems in the configuration"
    assert {line.partition(" ")[0] for line in caught.value.where.splitlines()} == {
        "data.flip",
        "training.microbatch",
        "model.heads",
    }


def test_a_wrong_preset_value_is_told_although_a_flag_overrides_it(tmp_path):
    with pytest.raises(UsageError, match=r"training\.seed = -5"):
        resolve(preset=own_preset(tmp_path, "[training]\nseed = -5\n"), flags=[SEED])


def test_an_own_preset_file_is_used_and_named(tmp_path):
    path = own_preset(tmp_path, "[training]\nlr = 1\n")
    resolved = resolve(preset=path)
    assert resolved.preset == "mine"
    assert str(resolved.origins["training.lr"]) == f"preset {path}"


def test_a_run_may_be_sampled_differently():
    config = resolve(preset="digits").config
    flags = [
        FlagSetting(flag="--ddim", path="sampling.steps", value=50),
        FlagSetting(flag="--ddim", path="sampling.solver", value="ddim"),
    ]
    revised = revise(
        config, run="run-42", changeable=["sampling"], overrides=["sampling.eta=0.5"], flags=flags
    )
    assert revised.config == dataclasses.replace(
        config, sampling=dataclasses.replace(config.sampling, steps=50, solver="ddim", eta=0.5)
    )
    assert str(revised.origins["sampling.steps"]) == "--ddim"
    assert str(revised.origins["training.lr"]) == "run run-42"


def test_the_rest_of_a_run_is_fixed():
    config = resolve(preset="digits").config
    with pytest.raises(UsageError) as caught:
        revise(
            config,
            run="run-42",
            changeable=["sampling", "training.steps"],
            overrides=["training.lr=0.5", "sampling.steps=[600, 1]", "training.steps=100"],
        )
    lines = caught.value.where.splitlines()
    assert len(lines) == 2
    assert "training.lr = 0.5" in caught.value.where
    assert "cannot differ from run-42's" in caught.value.where
    assert "sampling.steps = [600, 1]" in caught.value.where


def test_a_setting_given_as_it_is_changes_nothing():
    config = resolve(preset="digits").config
    assert revise(config, run="run-1", changeable=[], overrides=["training.lr=1e-3"]).config == config


def test_messages_hold_no_control_characters(tmp_path):
    path = own_preset(tmp_path, '[training]\n"\\u001b[31m" = 1\nlr = "\\u001b[31m\\u007f"\n')
    with pytest.raises(DiffcliError) as caught:
        resolve(preset=path)
    assert str(caught.value).replace("\n", "").isprintable()
