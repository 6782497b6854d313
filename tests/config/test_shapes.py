"""Which networks are refused, under which key, and with what advice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from diffcli.config.sections import DataConfig, ModelConfig, RunConfig
from diffcli.config.shapes import level_sizes, level_widths, shape_problems

POSSIBLE = RunConfig(
    data=DataConfig(resolution=32),
    model=ModelConfig(channels=64, channel_mult=(1, 2, 3), attention_resolutions=(16, 8), heads=4),
)


def changed(**fields: Any) -> RunConfig:
    """POSSIBLE with some fields of data and model replaced."""
    data_fields = {key: fields.pop(key) for key in ("resolution", "low_resolution") if key in fields}
    return RunConfig(data=replace(POSSIBLE.data, **data_fields), model=replace(POSSIBLE.model, **fields))


def test_a_possible_network_has_no_problems() -> None:
    assert shape_problems(POSSIBLE) == []
    assert shape_problems(changed(kind="superres", low_resolution=8)) == []
    assert shape_problems(changed(kind="classifier", classes=2)) == []


def test_fractional_multiples_are_widths() -> None:
    half = changed(channels=256, channel_mult=(0.5, 1, 2))
    assert shape_problems(half) == []
    assert level_widths(half.model) == (128, 256, 512)
    assert level_sizes(half.model, 32) == (32, 16, 8)


@pytest.mark.parametrize(
    ("config", "path", "value", "advice"),
    [
        (changed(resolution=30), "data.resolution", 30, "a multiple of 4"),
        (changed(channel_mult=(0.25, 1, 2)), "model.channel_mult", (0.25, 1, 2), "0.25 * 64"),
        (changed(attention_resolutions=(16, 5)), "model.attention_resolutions", (16, 5), "32, 16, 8"),
        (changed(heads=3), "model.heads", 3, "128, 192"),
        (changed(heads_up=5), "model.heads_up", 5, "128, 192"),
        (changed(head_channels=48), "model.head_channels", 48, "128, 192"),
        (changed(kind="superres"), "data.low_resolution", 0, "from 1"),
        (changed(kind="superres", low_resolution=33), "data.low_resolution", 33, "data.resolution"),
        (changed(kind="classifier", classes=1), "model.classes", 1, "at least 2"),
        (changed(low_resolution=8), "data.low_resolution", 8, "superres"),
    ],
)
def test_an_impossible_network_is_told_by_key_value_and_what_is_allowed(
    config: RunConfig, path: str, value: object, advice: str
) -> None:
    (problem,) = shape_problems(config)
    assert (problem.path, problem.value) == (path, value)
    assert advice in problem.allowed


def test_heads_matter_only_where_there_is_attention() -> None:
    # level widths 64, 128, 192; without attention_resolutions only the middle, 192 wide, attends
    assert shape_problems(changed(heads=96, attention_resolutions=())) == []
    assert shape_problems(changed(heads_up=5, attention_resolutions=())) == []
    # head_channels replaces both counts
    assert shape_problems(changed(heads=3, heads_up=5, head_channels=32)) == []


def test_all_problems_are_told_at_once() -> None:
    problems = shape_problems(changed(channel_mult=(1, 2.2), heads=5, low_resolution=3))
    assert [problem.path for problem in problems] == [
        "model.channel_mult",
        "model.attention_resolutions",
        "model.heads",
        "data.low_resolution",
    ]
