"""A configuration survives JSON and TOML, and its record is read strictly."""

from __future__ import annotations

import copy
import json
from typing import Literal, get_args, get_origin

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from diffcli.config.catalog import run_settings
from diffcli.config.decode import build_config, decode, requested_in
from diffcli.config.encode import config_from_json, config_to_json, config_to_toml
from diffcli.config.given import DEFAULT
from diffcli.config.presets import preset_names
from diffcli.config.resolve import resolve
from diffcli.config.sections import RunConfig
from diffcli.errors import CorruptError

PLAIN_VALUES = {
    bool: st.booleans(),
    int: st.sampled_from([1, 2, 3, 10, 64, 2**31]) | st.integers(0, 2**32),
    float: st.floats(0, 1) | st.floats(allow_nan=False, allow_infinity=False),
    str: st.text(),
}


def values_of_kind(kind):
    """Values of a field's type, among them many that its check allows."""
    if kind in PLAIN_VALUES:
        return PLAIN_VALUES[kind]
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if get_origin(kind) is tuple:
        return st.lists(values_of_kind(get_args(kind)[0]), max_size=4).map(tuple)
    return st.one_of([values_of_kind(member) for member in get_args(kind)])


@st.composite
def configs(draw):
    """Configurations of which every value passes its own check."""
    values = {}
    for path, setting in run_settings().items():
        value = draw(values_of_kind(setting.kind))
        values[path] = value if setting.check(value) is None else setting.default
    return build_config(values)


@given(configs())
def test_json_round_trip(config):
    text = json.dumps(config_to_json(config), allow_nan=False)
    again = config_from_json(json.loads(text))
    assert again == config
    assert json.dumps(config_to_json(again)) == text


@given(configs())
def test_toml_round_trip(config):
    document = tomli.loads(config_to_toml(config))
    decoded = decode([requested_in(document, run_settings(), DEFAULT)], run_settings())
    assert decoded.problems == ()
    assert build_config(decoded.values) == config


def test_json_of_a_configuration_is_complete():
    encoded = config_to_json(RunConfig())
    assert {f"{section}.{name}" for section, table in encoded.items() for name in table} == set(
        run_settings()
    )
    assert encoded["model"]["channel_mult"] == [1, 2, 3, 4]


@pytest.mark.parametrize("preset", preset_names())
def test_presets_survive_json(preset):
    config = resolve(preset=preset).config
    assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


def test_a_setting_newer_than_the_record_has_its_default():
    record = config_to_json(resolve(preset="digits").config)
    del record["training"]["ema_warmup_steps"]
    del record["sampling"]
    config = config_from_json(record)
    assert config.training.ema_warmup_steps == 0
    assert config.training.lr == 1e-3


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("training", "lr", "fast"),
        ("training", "steps", True),
        ("training", "steps", 1e3),
        ("training", "lr", float("nan")),
        ("training", "momentum", 0.9),
        ("optimizer", "lr", 0.1),
        ("model", "channel_mult", [1, None]),
        ("data", "name", None),
    ],
)
def test_a_changed_record_is_corrupt(section, name, value):
    record = copy.deepcopy(config_to_json(RunConfig()))
    record.setdefault(section, {})[name] = value
    with pytest.raises(CorruptError) as caught:
        config_from_json(record)
    assert section in caught.value.where


@pytest.mark.parametrize("value", [None, [], "digits", 3, {"training": None}, {"training": [1]}])
def test_what_is_no_table_of_tables_is_corrupt(value):
    with pytest.raises(CorruptError):
        config_from_json(value)
