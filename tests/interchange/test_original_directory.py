"""Which files of an original training belong together, by their names alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffcli.errors import MissingError, UsageError
from diffcli.interchange.exported_files import original_name
from diffcli.interchange.original_directory import AverageFile, files_in, files_named_by
from golden_models import GOLDEN


def directory(tmp_path: Path, *names: str) -> Path:
    for name in (
        *names,
        "log.txt",
        "progress.csv",
        "model.pt",
        "modelABC.pt",
        "model_5.pt",
        "MODEL000010.pt",
    ):
        (tmp_path / name).touch()
    (tmp_path / "model000099.pt").mkdir()
    return tmp_path


def complete(step: int) -> tuple[str, ...]:
    return (
        f"model{step:06d}.pt",
        f"ema_0.9999_{step:06d}.pt",
        f"ema_0.99_{step:06d}.pt",
        f"opt{step:06d}.pt",
    )


def test_the_newest_complete_step_is_taken(tmp_path):
    found = files_in(directory(tmp_path, *complete(10_000), *complete(1_200_000), *complete(200_000)), None)
    assert found.step == 1_200_000
    assert found.model == tmp_path / "model1200000.pt"
    assert found.averages == (
        AverageFile(rate=0.9999, path=tmp_path / "ema_0.9999_1200000.pt"),
        AverageFile(rate=0.99, path=tmp_path / "ema_0.99_1200000.pt"),
    )
    assert found.optimizer == tmp_path / "opt1200000.pt"
    assert found.warnings == ()


@pytest.mark.parametrize("lacking", range(4))
def test_a_newer_step_that_is_not_complete_is_passed_over_and_told(tmp_path, lacking):
    newer = [name for position, name in enumerate(complete(300)) if position != lacking]
    found = files_in(directory(tmp_path, *complete(200), *newer), None)
    assert found.step == 200
    (warning,) = found.warnings
    assert "the files of step 300 are not complete, so those of 200 are taken" in warning
    assert "--step 300" in warning
    asked = files_in(tmp_path, 300)
    assert asked.step == 300
    (warning,) = asked.warnings
    assert f"{complete(300)[lacking]} is missing" in warning


def test_without_any_complete_step_the_newest_is_taken_and_what_it_lacks_is_told(tmp_path):
    found = files_in(directory(tmp_path, "model000100.pt", "model000200.pt", "ema_0.99_000100.pt"), None)
    assert (found.step, found.averages, found.optimizer) == (200, (), None)
    assert [warning.split(" is missing")[0] for warning in found.warnings] == [
        "warning: ema_0.99_000200.pt",
        "warning: opt000200.pt",
    ]


def test_moments_without_their_weights_are_not_taken(tmp_path):
    found = files_in(directory(tmp_path, "ema_0.99_000100.pt", "opt000100.pt"), None)
    assert (found.model, found.optimizer) == (None, None)
    (warning,) = found.warnings
    assert "model000100.pt is missing" in warning
    assert "not resumed" in warning


def test_a_step_that_is_not_there_is_missing_and_those_there_are_listed(tmp_path):
    with pytest.raises(MissingError, match="no weights of step 7") as told:
        files_in(directory(tmp_path, *complete(10), *complete(200), "opt000007.pt"), 7)
    assert told.value.where == "steps there: 10, 200"


def test_a_directory_without_such_files_is_told(tmp_path):
    with pytest.raises(MissingError, match="no file of an original training"):
        files_in(directory(tmp_path, "opt000007.pt"), None)


def test_a_model_file_brings_its_neighbours(tmp_path):
    directory(tmp_path, *complete(10), *complete(20))
    found = files_named_by(tmp_path / "model000010.pt")
    assert found.step == 10
    assert found.weights == tuple(tmp_path / name for name in complete(10)[:3])
    assert found.optimizer == tmp_path / "opt000010.pt"


def test_an_average_comes_alone(tmp_path):
    directory(tmp_path, *complete(10))
    found = files_named_by(tmp_path / "ema_0.99_000010.pt")
    assert (found.step, found.model, found.optimizer) == (10, None, None)
    assert found.averages == (AverageFile(rate=0.99, path=tmp_path / "ema_0.99_000010.pt"),)


def test_of_another_name_neither_step_nor_rate_is_known(tmp_path):
    found = files_named_by(tmp_path / "cifar10_uncond_50M_500K.pt")
    assert found.step is None
    assert found.averages == (AverageFile(rate=None, path=tmp_path / "cifar10_uncond_50M_500K.pt"),)


def test_an_optimizer_by_its_name_is_refused_with_what_to_give_instead(tmp_path):
    with pytest.raises(UsageError, match="state of an optimizer by its name") as told:
        files_named_by(tmp_path / "opt000010.pt")
    assert str(tmp_path) in told.value.remedy


@pytest.mark.parametrize("case", ["train_improved_hybrid", "train_guided_anneal"])
def test_the_names_are_those_that_the_reference_wrote(case, tmp_path):
    files = json.loads((GOLDEN / "train" / "index.json").read_text())[case]["files_written"]
    for name in files:
        (tmp_path / name).touch()
    found = files_in(tmp_path, None)
    assert found.warnings == ()
    assert {path.name for path in (*found.weights, found.optimizer)} == {
        name for name in files if f"{found.step:06d}" in name
    }
    kinds = ("model", "opt", "ema_0.9999", "ema_0.99")
    assert {original_name(kind, found.step, suffix=".pt") for kind in kinds} <= set(files)
