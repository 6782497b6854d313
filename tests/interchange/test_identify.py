"""Which preset a file's network is of, told by the recorded names and shapes of the published files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffcli.config.encode import config_to_toml
from diffcli.config.presets import list_presets
from diffcli.config.resolve import resolve
from diffcli.errors import MissingError, UsageError
from diffcli.interchange.identify import Choices, differences, identify, published_shapes
from diffcli.models.build import parameter_count
from golden_models import GOLDEN, golden_config

ENTRIES = json.loads((GOLDEN / "state_dicts.json").read_text())["checkpoints"]
PUBLISHED = {entry["file"]: {name: tuple(shape) for name, shape in entry["state_dict"]} for entry in ENTRIES}
PUBLISHED_COUNTS = {entry["file"]: entry["num_parameters"] for entry in ENTRIES}
PRESET_OF = {info.published_file: info.name for info in list_presets() if info.published_file}
NOTHING_SAID = Choices(preset=None, overrides=())
RENAMED = Path("checkpoint.pt")
TINY = "improved_ssn1_sig1_cls1_h4"


def with_the_same_network(file):
    """The presets whose published files have these names and shapes."""
    return sorted(PRESET_OF[other] for other in PRESET_OF if PUBLISHED[other] == PUBLISHED[file])


UNIQUE = sorted(file for file in PRESET_OF if len(with_the_same_network(file)) == 1)
SHARED = sorted(file for file in PRESET_OF if len(with_the_same_network(file)) > 1)


def test_every_published_file_has_its_preset():
    assert set(PRESET_OF) == set(PUBLISHED)
    assert (len(UNIQUE), len(SHARED)) == (12, 11)


def test_the_counts_by_which_presets_are_passed_over_are_true():
    for info in list_presets():
        count = PUBLISHED_COUNTS.get(info.published_file) or parameter_count(resolve(preset=info.name).config)
        assert info.parameters == count, info.name


@pytest.mark.parametrize("file", PRESET_OF)
def test_a_published_file_is_known_by_its_name_and_its_shapes(file):
    for path in (Path(file), Path("elsewhere") / Path(file).with_suffix(".safetensors")):
        found = identify(path, PUBLISHED[file], NOTHING_SAID)
        assert found.preset == PRESET_OF[file]
        assert found.how.startswith("by the name of the file")
        assert found.warnings == ()


@pytest.mark.parametrize("file", UNIQUE)
def test_a_renamed_file_is_known_by_its_shapes_in_any_order(file):
    shuffled = dict(reversed(PUBLISHED[file].items()))
    found = identify(RENAMED, shuffled, NOTHING_SAID)
    assert found.preset == PRESET_OF[file]
    assert "names and shapes" in found.how
    assert found.warnings == ()


@pytest.mark.parametrize("file", SHARED)
def test_a_renamed_file_that_may_be_of_several_presets_asks_and_lists_them(file):
    with pytest.raises(UsageError) as told:
        identify(RENAMED, PUBLISHED[file], NOTHING_SAID)
    same = with_the_same_network(file)
    assert f"the network of {len(same)} presets: {', '.join(same)}" in told.value.what
    assert told.value.remedy == f"say which: --preset {same[0]}"
    for preset in same:
        found = identify(RENAMED, PUBLISHED[file], Choices(preset=preset, overrides=()))
        assert found.preset == preset


def test_a_name_that_contradicts_the_shapes_is_told():
    found = identify(Path("cifar10_uncond_50M_500K.pt"), PUBLISHED["upsample_cond_500K.pt"], NOTHING_SAID)
    assert found.preset == "imagenet_upsample"
    (warning,) = found.warnings
    assert "cifar10_uncond_50M_500K.pt is the name of preset cifar10's published file" in warning
    assert "its shapes are of imagenet_upsample" in warning
    with pytest.raises(UsageError, match="the network of 2 presets") as told:
        identify(Path("upsample_cond_500K.pt"), PUBLISHED["cifar10_uncond_50M_500K.pt"], NOTHING_SAID)
    assert "the name of preset imagenet_upsample's published file" in told.value.where


def test_a_preset_that_does_not_fit_is_refused_and_the_right_one_named():
    with pytest.raises(UsageError, match="is not the network of preset cifar10") as told:
        identify(RENAMED, PUBLISHED["upsample_cond_500K.pt"], Choices(preset="cifar10", overrides=()))
    assert "input_blocks.3.0.in_layers.0.weight is missing" in told.value.where
    assert "and 577 more" in told.value.where
    assert told.value.remedy == "it is that of imagenet_upsample: --preset imagenet_upsample"


def test_a_preset_against_the_name_is_followed_and_told():
    name = Path("cifar10_uncond_50M_500K.pt")
    found = identify(name, PUBLISHED[name.name], Choices(preset="cifar10_vlb", overrides=()))
    assert found.preset == "cifar10_vlb"
    assert "the name of preset cifar10's published file" in found.warnings[0]


def test_there_is_no_such_preset():
    with pytest.raises(MissingError, match="cifar11"):
        identify(RENAMED, PUBLISHED["cifar10_uncond_50M_500K.pt"], Choices(preset="cifar11", overrides=()))


@pytest.mark.parametrize("change", ["a shape", "a name more", "a name less", "another name"])
def test_every_name_and_shape_counts(change):
    name = Path("upsample_cond_500K.pt")
    shapes = dict(PUBLISHED[name.name])
    match change:
        case "a shape":
            shapes["out.2.bias"] = (7,)
        case "a name more":
            shapes["out.3.bias"] = (6,)
        case "a name less":
            del shapes["out.2.bias"]
        case "another name":
            shapes["out.3.bias"] = shapes.pop("out.2.bias")
    with pytest.raises(UsageError, match="but holds another network") as told:
        identify(name, shapes, NOTHING_SAID)
    assert "out.2.bias" in told.value.where or "out.3.bias" in told.value.where
    with pytest.raises(UsageError, match="the network of no preset"):
        identify(RENAMED, shapes, NOTHING_SAID)


def test_a_network_of_ones_own_is_known_by_a_preset_of_ones_own_or_by_settings(tmp_path):
    config = golden_config(TINY)
    (tmp_path / "mine.toml").write_text(config_to_toml(config))
    shapes = published_shapes(config)
    found = identify(RENAMED, shapes, Choices(preset=str(tmp_path / "mine.toml"), overrides=()))
    assert found.preset == str(tmp_path / "mine.toml")
    # of a preset with another number of classes
    shapes = dict(PUBLISHED["imagenet64_cond_270M_250K.pt"])
    shapes["label_emb.weight"] = (10, shapes["label_emb.weight"][1])
    found = identify(RENAMED, shapes, Choices(preset=None, overrides=("model.classes=10",)))
    assert found.preset == "imagenet64_cond"


def test_differences_are_listed_and_counted():
    assert differences({"a": (1,)}, {"a": (1,)}) == ""
    found = differences({"a": (1,), "x": (2,)}, {"a": (3,), "b": (1,), "c": (1,)})
    assert found == "b is missing; c is missing; x is not known and 1 more"


def identified_with(*overrides, shapes=None):
    return identify(
        RENAMED, shapes or PUBLISHED["upsample_cond_500K.pt"], Choices(preset=None, overrides=overrides)
    )


def test_what_is_wrong_with_the_settings_is_told_as_such_and_all_of_it():
    with pytest.raises(UsageError, match=r"did you mean training\.batch_size"):
        identified_with("training.batchsize=4")
    with pytest.raises(UsageError, match="2 problems in the configuration") as told:
        identified_with("training.batchsize=4", "training.lr=-1")
    assert "training.lr = -1" in told.value.where
    # right by itself, and at odds with every preset
    with pytest.raises(UsageError, match=r"sampling\.ema = 0\.123"):
        identified_with("sampling.ema=0.123")


def test_settings_without_averages_take_along_what_hangs_on_them():
    for info in list_presets():
        choices = Choices(preset=info.name, overrides=("training.ema_rates=[]",))
        config = choices.config(info.name)
        assert (config.sampling.ema, config.training.ema_warmup_steps) == ("none", 0)
        assert identify(RENAMED, published_shapes(config), choices).preset == info.name
    assert identified_with("training.ema_rates=[]").preset == "imagenet_upsample"
    with pytest.raises(UsageError, match=r"sampling\.ema = \"first\""):
        identified_with("training.ema_rates=[]", "sampling.ema=first")


@pytest.mark.parametrize("said", [None, "guided_imagenet64"])
def test_a_network_with_a_label_for_none_is_told_how_to_say_so(said):
    drop = ("training.label_drop=0.1",)
    shapes = published_shapes(Choices(preset=None, overrides=drop).config("guided_imagenet64"))
    with pytest.raises(UsageError, match="preset guided_imagenet64 but for its labels") as told:
        identify(RENAMED, shapes, Choices(preset=said, overrides=()))
    assert "--set training.label_drop=0.1" in told.value.remedy
    assert identify(RENAMED, shapes, Choices(preset=said, overrides=drop)).preset == "guided_imagenet64"
