"""`diffcli runs import` and `export`: files of the original programs become runs, and runs become files."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from aftermath import CORRUPT, MISSING, STORAGE, USAGE, assert_ended, assert_sound
from diffcli import durable
from diffcli.commands.run_export import ExportRequest, export_run
from diffcli.config.encode import config_to_toml
from diffcli.config.resolve import resolve
from diffcli.errors import StorageError
from diffcli.interchange.identify import published_shapes
from diffcli.interchange.openai_names import to_published
from diffcli.training import checkpoints
from golden_models import GOLDEN, golden_config
from original_training import counted, write_average, write_model, write_optimizer
from runs_in_processes import NEW, Bench, checkpoint, content, fork, make_bench

# with classes; with residual blocks that resize and another order of attention; with a small image
NETWORKS = ("improved_ssn1_sig1_cls1_h4", "guided_updown_hc8_neworder", "improved_superres")
TINY = NETWORKS[0]
CLASSIFIER = "guided_classifier_attention"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A directory for runs that are imported."""
    return Bench(directory=tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Bench:
    """Prepared digits, and run-1 with checkpoints after 4, 8 and 12 steps; change only copies."""
    bench = make_bench(tmp_path_factory.mktemp("trained"))
    fork(bench, *NEW, "--name", "first").succeeds()
    return bench


@pytest.fixture
def workbench(trained: Bench, tmp_path: Path) -> Bench:
    """A copy of it."""
    shutil.copytree(trained.directory, tmp_path, dirs_exist_ok=True)
    return Bench(directory=tmp_path)


def golden_weights(name: str) -> dict[str, torch.Tensor]:
    weights = load_file(GOLDEN / "unet" / f"{name}.safetensors")
    # a file of safetensors does not keep the order
    return {key: weights[key].float() for key in published_shapes(golden_config(name))}


def golden_files(bench: Bench, name: str) -> tuple[str, ...]:
    """The golden weights as .pt and as .safetensors (there in half precision), and the preset they need."""
    (bench.directory / f"{name}.toml").write_text(config_to_toml(golden_config(name)))
    torch.save(golden_weights(name), bench.directory / f"{name}.pt")
    shutil.copy(GOLDEN / "unet" / f"{name}.safetensors", bench.directory)
    return f"{name}.pt", f"{name}.safetensors"


def imported(bench: Bench, *arguments: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(fork(bench, "runs", "import", *arguments, "--json").succeeds().output)
    assert shown["schema"] == 1
    return shown


def exported(bench: Bench, *arguments: str) -> list[Path]:
    process = fork(bench, "runs", "export", *arguments, "--json").succeeds()
    return [bench.directory / file["path"] for file in json.loads(process.output)["files"]]


def samples(bench: Bench, run: str, *arguments: str) -> np.ndarray:
    line = (
        "sample",
        run,
        "--num",
        "2",
        "--steps",
        "3",
        "--seed",
        "5",
        "--device",
        "cpu",
        *arguments,
        "--json",
    )
    shown = json.loads(fork(bench, *line).succeeds().output)
    with np.load(bench.directory / shown["archive"]) as archive:
        return archive["arr_0"]


def only_checkpoint(bench: Bench, number: int) -> Path:
    (step,) = checkpoints.steps_present(bench.run(number) / "checkpoints")
    return checkpoint(bench.run(number), step)


def assert_same_tensors(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], tensor), name


# ---- round trips ----


@pytest.mark.parametrize("name", NETWORKS)
def test_a_golden_network_goes_in_and_out_and_in_again_bit_by_bit(name, bench):
    config, weights = golden_config(name), golden_weights(name)
    preset = ("--preset", f"./{name}.toml")
    for number, file in enumerate(golden_files(bench, name), start=1):
        assert imported(bench, file, *preset)["run_id"] == f"run-{number}"
    assert imported(bench, *map(str, exported(bench, "run-1", "--format", "openai")), *preset)
    assert imported(bench, *map(str, exported(bench, "run-2", "--format", "safetensors")), *preset)
    for number in range(1, 5):
        stored = checkpoints.read_tensors(only_checkpoint(bench, number), "ema-0.9999")
        assert_same_tensors(to_published(stored, config), weights)
    conditions: tuple[str, ...] = ()
    if config.model.kind == "superres":
        size = config.data.low_resolution
        small = np.arange(2 * size * size * 3).reshape(2, size, size, 3) % 256
        np.savez(bench.directory / "small.npz", arr_0=small.astype(np.uint8), arr_1=np.arange(2))
        conditions = ("--low-res", "small.npz")
    # the first of all, and the last, which was .safetensors, a run, and .safetensors again
    first, last = (samples(bench, run, *conditions) for run in ("run-1", "run-4"))
    assert first.std() > 0
    assert np.array_equal(first, last)
    assert_sound(bench)


@pytest.mark.parametrize("name", [*NETWORKS, CLASSIFIER])
def test_an_exported_file_is_a_plain_state_dict_in_the_published_order(name, bench):
    golden_files(bench, name)
    imported(bench, f"{name}.pt", "--preset", f"./{name}.toml", "--step", "200000")
    (file,) = exported(bench, "run-1", "--format", "openai")
    assert file.name == "ema_0.9999_200000.pt"
    found = torch.load(file, weights_only=True)
    assert [[key, list(tensor.shape)] for key, tensor in found.items()] == [
        [key, list(shape)] for key, shape in published_shapes(golden_config(name)).items()
    ]
    assert_same_tensors(found, golden_weights(name))
    # nothing but the weights is in the file
    assert file.stat().st_size < 1.5 * sum(tensor.nbytes for tensor in found.values())


def test_a_classifier_is_its_raw_weights_and_guides_at_once(bench):
    golden_files(bench, CLASSIFIER)
    no_average = ("--set", "training.ema_rates=[]", "--set", "sampling.ema=none", "--step", "300000")
    shown = imported(bench, f"{CLASSIFIER}.pt", "--preset", f"./{CLASSIFIER}.toml", *no_average)
    assert (shown["kind"], shown["weights"], shown["resumable"]) == ("classifier", ["model"], True)
    (file,) = exported(bench, "run-1", "--format", "openai")
    assert file.name == "model300000.pt"
    assert_same_tensors(torch.load(file, weights_only=True), golden_weights(CLASSIFIER))
    golden_files(bench, TINY)
    imported(bench, f"{TINY}.pt", "--preset", f"./{TINY}.toml")
    guidance = ("--classifier", "run-1", "--guidance", "20")
    assert not np.array_equal(samples(bench, "run-2"), samples(bench, "run-2", *guidance))


def test_a_training_that_goes_out_and_in_goes_on_bit_by_bit(workbench):
    files = exported(workbench, "run-1", "--format", "openai", "--checkpoint", "4", "--out", "there")
    assert sorted(file.name for file in files) == [
        "ema_0.99_000004.pt",
        "ema_0.9_000004.pt",
        "model000004.pt",
        "opt000004.pt",
    ]
    shown = imported(workbench, "there", "--preset", "./tiny.toml", "--name", "back")
    assert shown["weights"] == ["ema-0.9", "ema-0.99", "model"]
    assert (shown["step"], shown["total_steps"], shown["optimizer"]) == (4, 12, True)
    assert shown["notices"] == []
    before, after = (checkpoint(workbench.run(number), 4) for number in (1, 2))
    for group in ("model", "ema-0.9", "ema-0.99", "optimizer"):
        assert_same_tensors(checkpoints.read_tensors(after, group), checkpoints.read_tensors(before, group))
    fork(workbench, "train", "--resume", "back", "--device", "cpu").succeeds()
    # the last interval is a whole one, so even the sums of its log are the same
    ended = [content(checkpoint(workbench.run(number), 12)) for number in (1, 2)]
    assert {"model.safetensors", "optimizer.safetensors", "state.json"} < set(ended[0])
    assert ended[0] == ended[1]
    assert_sound(workbench)


def test_who_exports_an_optimizer_is_told_that_the_original_needs_float32(workbench):
    process = fork(workbench, "runs", "export", "run-1", "--format", "openai").succeeds()
    assert "--use_fp16 False" in process.errors
    process = fork(workbench, "runs", "export", "run-1", "--format", "safetensors").succeeds()
    assert "--use_fp16" not in process.errors


def test_diffusers_get_a_folder(bench):
    golden_files(bench, TINY)
    imported(bench, f"{TINY}.pt", "--preset", f"./{TINY}.toml")
    line = ("runs", "export", "run-1", "--format", "diffusers", "--out", "unet")
    process = fork(bench, *line).succeeds()
    assert "the network alone" in process.errors
    assert {path.name for path in (bench.directory / "unet").iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "export.json",
    }
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra `bench`)")
    theirs, info = diffusers.UNet2DModel.from_pretrained(bench.directory / "unet", output_loading_info=True)
    assert not any(info.values()), info
    arrays = np.load(GOLDEN / "unet" / f"{TINY}.npz")
    x, t, y = (torch.from_numpy(arrays[key]) for key in ("x", "t_int", "y"))
    with torch.no_grad():
        output = theirs.eval()(x, t, class_labels=y).sample
    np.testing.assert_allclose(output.numpy(), arrays["out_tint"], rtol=0, atol=2e-5)


# ---- what an imported run is ----


def test_an_imported_run_is_listed_shown_repaired_and_sampled_at_once(bench):
    golden_files(bench, TINY)
    process = fork(
        bench, "runs", "import", f"{TINY}.pt", "--preset", f"./{TINY}.toml", "--name", "tiny"
    ).succeeds()
    assert process.output.splitlines() == [f"run-1\t{TINY}\tstep 500000/500000\tema-0.9999\truns/run-1"]
    assert "next: diffcli sample run-1" in process.errors
    listed = json.loads(fork(bench, "runs", "ls", "--json").succeeds().output)["runs"]
    assert [(run["state"], run["step"], run["reason"]) for run in listed] == [
        ("completed", 500_000, f"imported from {TINY}.pt")
    ]
    shown = json.loads(fork(bench, "runs", "show", "tiny", "--json").succeeds().output)
    assert shown["dataset"] is None
    assert "sha256" in shown["imported"]["files"][0]
    assert "dataset\tpath\tnot known" in fork(bench, "runs", "show", "tiny").succeeds().output
    assert "1 in order" in fork(bench, "runs", "repair").succeeds().errors
    assert samples(bench, "tiny", "--class", "1").shape == (2, 16, 16, 3)
    refused = fork(bench, "sample", "tiny", "--class", "cat", "--device", "cpu")
    assert_ended(refused, USAGE, "there is no class 'cat'", "a number from 0 to")
    assert_ended(fork(bench, "sample", "tiny", "--ema", "none"), MISSING, "no weights model", "0.9999")


def test_a_lost_status_of_an_imported_run_is_rebuilt(workbench):
    exported(workbench, "run-1", "--format", "openai", "--checkpoint", "4", "--out", "there")
    imported(workbench, "there", "--preset", "./tiny.toml")
    (workbench.run(2) / "status.json").unlink()
    fork(workbench, "runs", "repair", "run-2").succeeds()
    listed = json.loads(fork(workbench, "runs", "ls", "--json").succeeds().output)["runs"]
    assert (listed[0]["id"], listed[0]["state"], listed[0]["step"]) == ("run-2", "stopped", 4)
    assert listed[0]["reason"] == "imported from there"


def test_averages_alone_start_a_new_run_and_go_on_with_none(workbench):
    files = exported(workbench, "run-1", "--format", "openai", "--ema", "0.99")
    assert [file.name for file in files] == ["ema_0.99_000012.pt"]
    shown = imported(workbench, *map(str, files), "--preset", "./tiny.toml")
    assert (shown["weights"], shown["resumable"], shown["step"]) == (["ema-0.99"], False, 12)
    refused = fork(workbench, "train", "--resume", "run-2", "--device", "cpu")
    assert_ended(refused, USAGE, "averaged weights only", "diffcli train --from run-2")
    line = ("train", "--from", "run-2", "--steps", "1", "--set", "training.lr=1e-30", "--device", "cpu")
    started = fork(workbench, *line).succeeds()
    assert "its ema-0.99, as there are no raw weights" in started.errors
    start = checkpoint(workbench.run(3), 0)
    average = checkpoints.read_tensors(checkpoint(workbench.run(2), 12), "ema-0.99")
    for group in ("model", "ema-0.99"):
        assert_same_tensors(checkpoints.read_tensors(start, group), average)
    assert json.loads((workbench.run(3) / "run.json").read_text())["parent"] == {
        "run_id": "run-2",
        "step": 12,
    }


def test_the_first_resume_records_the_dataset_and_the_next_must_have_it(workbench):
    exported(workbench, "run-1", "--format", "openai", "--checkpoint", "4", "--out", "there")
    imported(workbench, "there", "--preset", "./tiny.toml")
    assert json.loads((workbench.run(2) / "run.json").read_text())["dataset"]["content_hash"] == ""
    shutil.move(workbench.directory / "data", workbench.directory / "elsewhere")
    lost = fork(workbench, "train", "--resume", "run-2", "--steps", "5", "--device", "cpu")
    assert_ended(lost, MISSING, "dataset 'digits' is not prepared", "diffcli prepare digits")
    resume = ("train", "--resume", "run-2", "--device", "cpu", "--data")
    first = fork(workbench, *resume, "elsewhere/digits", "--steps", "5").succeeds()
    assert "from now on it is trained on" in first.errors
    facts = json.loads((workbench.run(2) / "attempts" / "001.json").read_text())["dataset"]
    record = json.loads((workbench.directory / "elsewhere/digits/train/dataset.json").read_text())
    assert (facts["content_hash"], facts["count"]) == (record["content_hash"], 1500)
    shown = json.loads(fork(workbench, "runs", "show", "run-2", "--json").succeeds().output)
    assert shown["dataset"]["content_hash"] == record["content_hash"]
    other = fork(workbench, *resume, "elsewhere/digits/test", "--steps", "6")
    assert_ended(other, USAGE, "the dataset is not the one that run-2 was trained on")
    # where it lay is known by now
    second = fork(workbench, "train", "--resume", "run-2", "--steps", "6", "--device", "cpu").succeeds()
    assert "from now on" not in second.errors
    assert json.loads((workbench.run(2) / "attempts" / "002.json").read_text())["dataset"] is None


def test_moments_that_are_missing_are_told_at_the_import_and_at_the_resume(workbench):
    exported(workbench, "run-1", "--format", "openai", "--checkpoint", "4", "--out", "there")
    (workbench.directory / "there" / "opt000004.pt").unlink()
    process = fork(workbench, "runs", "import", "there", "--preset", "./tiny.toml").succeeds()
    assert "warning: opt000004.pt is missing from there" in process.errors
    resumed = fork(workbench, "train", "--resume", "run-2", "--steps", "5", "--device", "cpu").succeeds()
    assert "warning: the checkpoint has no moments of the optimizer: they begin at zero" in resumed.errors
    fork(workbench, "train", "--resume", "run-2", "--steps", "6", "--device", "cpu").succeeds()


def test_the_rate_and_the_decay_of_the_optimizers_file_are_compared_with_the_runs(workbench):
    exported(workbench, "run-1", "--format", "openai", "--checkpoint", "4", "--out", "there")
    ours = json.loads((workbench.run(1) / "run.json").read_text())["config"]["training"]
    line = ("there", "--preset", "./tiny.toml")
    other = ("--set", f"training.lr={3 * ours['lr']}", "--set", "training.weight_decay=0.25")
    rate, decay = imported(workbench, *line, *other)["notices"]
    assert "the optimizer's file has learning rate" in rate
    assert "the optimizer's file has weight decay" in decay
    # what is advised takes them over
    advised = [notice.partition("import with ")[2].split() for notice in (rate, decay)]
    assert imported(workbench, *line, *advised[0], *advised[1])["notices"] == []
    annealed = imported(workbench, *line, "--set", "training.lr_anneal_steps=40")["notices"]
    (notice,) = annealed
    advised = notice.partition("import with ")[2].split()
    assert imported(workbench, *line, "--set", "training.lr_anneal_steps=40", *advised)["notices"] == []


def test_of_several_steps_the_newest_complete_one_is_taken_or_the_one_asked_for(bench):
    (bench.directory / "tiny.toml").write_text(config_to_toml(golden_config(TINY)))
    empty = {name: torch.empty(shape) for name, shape in published_shapes(golden_config(TINY)).items()}
    there = bench.directory / "there"
    for step in (10, 20, 30):
        write_model(there, step, counted(empty, start=step))
        write_average(there, 0.9999, step, counted(empty, start=-step))
        if step < 30:
            write_optimizer(there, step, counted(empty), counted(empty, start=7), updates=step + 1)
    shown = imported(bench, "there", "--preset", "./tiny.toml")
    assert shown["step"] == 20
    assert "the files of step 30 are not complete, so those of 20 are taken" in shown["notices"][0]
    assert imported(bench, "there", "--preset", "./tiny.toml", "--step", "30")["optimizer"] is False
    assert imported(bench, "there/model000010.pt", "--preset", "./tiny.toml")["optimizer"] is True
    assert_ended(fork(bench, "runs", "import", "there", "--step", "40"), MISSING, "10, 20, 30")
    for number, step in ((1, 20), (2, 30), (3, 10)):
        stored = checkpoints.read_tensors(checkpoint(bench.run(number), step), "model")
        assert_same_tensors(to_published(stored, golden_config(TINY)), counted(empty, start=step))


def test_the_names_of_an_original_training_decide_its_rates(bench):
    (bench.directory / "tiny.toml").write_text(config_to_toml(golden_config(TINY)))
    weights = golden_weights(TINY)
    write_model(bench.directory / "there", 600_000, weights)
    write_average(bench.directory / "there", 0.5, 600_000, weights)
    shown = imported(bench, "there", "--preset", "./tiny.toml")
    assert shown["weights"] == ["ema-0.5", "model"]
    config = json.loads((bench.run() / "run.json").read_text())["config"]
    assert (config["training"]["ema_rates"], config["training"]["steps"]) == ([0.5], 600_000)
    assert "note: training.steps is 600000, which are done, and not 500000" in shown["notices"]
    against = ("--set", "training.ema_rates=[0.9]")
    refused = fork(bench, "runs", "import", "there", "--preset", "./tiny.toml", *against)
    assert_ended(refused, USAGE, "training.ema_rates is what the names of the files say")
    (bench.directory / "there" / "ema_0.5_600000.pt").unlink()
    shown = imported(bench, "there", "--preset", "./tiny.toml")
    assert shown["weights"] == ["model"]
    assert any("the run has raw weights only" in notice for notice in shown["notices"])
    assert samples(bench, "run-2").shape == (2, 16, 16, 3)


def test_a_run_at_the_end_of_its_learning_rate_is_not_said_to_be_resumable(bench):
    config = golden_config(CLASSIFIER)
    training = dataclasses.replace(config.training, steps=40, lr_anneal_steps=40)
    golden_files(bench, CLASSIFIER)
    (bench.directory / "mine.toml").write_text(config_to_toml(dataclasses.replace(config, training=training)))
    line = ("runs", "import", f"{CLASSIFIER}.pt", "--preset", "./mine.toml", "--set", "training.ema_rates=[]")
    process = fork(bench, *line).succeeds()
    assert "the learning rate is down to 0" in process.errors
    assert "--resume" not in process.errors
    assert "diffcli train --from run-1" in process.errors
    process = fork(bench, *line, "--set", "training.lr_anneal_steps=0").succeeds()
    assert "the learning rate is down to 0" not in process.errors
    assert "diffcli train --resume run-2 --data DIR --steps N" in process.errors


def test_a_run_is_sampled_from_weights_that_it_has(bench):
    golden_files(bench, TINY)
    line = ("runs", "import", f"{TINY}.pt", "--preset", f"./{TINY}.toml", "--set", "sampling.ema=none")
    assert_ended(fork(bench, *line), USAGE, "no raw weights among the files", "sampling.ema=first")
    assert not list(bench.runs.glob("run-*"))
    config = golden_config(TINY)
    mine = dataclasses.replace(
        config,
        training=dataclasses.replace(config.training, ema_rates=(0.995, 0.9)),
        sampling=dataclasses.replace(config.sampling, ema=0.995),
    )
    (bench.directory / "mine.toml").write_text(config_to_toml(mine))
    write_average(bench.directory / "there", 0.9, 7, golden_weights(TINY))
    imported(bench, "there", "--preset", "./mine.toml")
    assert samples(bench, "run-1").shape == (2, 16, 16, 3)
    assert json.loads((bench.run() / "run.json").read_text())["config"]["sampling"]["ema"] == "first"


# ---- what is refused ----


def as_published(bench: Bench, name: str, preset: str) -> str:
    """A file of a published network's names and shapes, all of one number, so that it takes no room."""
    shapes = published_shapes(resolve(preset=preset).config)
    torch.save({key: torch.ones(1).expand(shape) for key, shape in shapes.items()}, bench.directory / name)
    return name


def test_a_file_that_may_be_of_several_presets_asks_for_one(bench):
    process = fork(bench, "runs", "import", as_published(bench, "renamed.pt", "cifar10"))
    assert_ended(process, USAGE, "the network of 2 presets: cifar10, cifar10_vlb", "--preset cifar10")


def test_a_file_that_is_of_no_preset_or_of_another_is_refused(bench):
    golden_files(bench, TINY)
    assert_ended(fork(bench, "runs", "import", f"{TINY}.pt"), USAGE, "the network of no preset", "333,318")
    wrong = fork(bench, "runs", "import", f"{TINY}.pt", "--preset", "cifar10")
    assert_ended(wrong, USAGE, "not the network of preset cifar10", "is missing")
    shutil.copy(bench.directory / f"{TINY}.pt", bench.directory / "cifar10_uncond_50M_500K.pt")
    misnamed = fork(bench, "runs", "import", "cifar10_uncond_50M_500K.pt")
    assert_ended(misnamed, USAGE, "the name of preset cifar10's published file", "another network")
    assert not list(bench.runs.glob("run-*"))


def test_files_of_two_networks_are_refused(bench):
    golden_files(bench, TINY)
    write_model(bench.directory / "there", 7, golden_weights(TINY))
    write_average(bench.directory / "there", 0.9999, 7, golden_weights(NETWORKS[1]))
    refused = fork(bench, "runs", "import", "there", "--preset", f"./{TINY}.toml")
    assert_ended(refused, USAGE, "are not of one network")


def test_what_is_no_weights_is_named(workbench):
    exported(workbench, "run-1", "--format", "openai", "--checkpoint", "4", "--out", "there")
    there = workbench.directory / "there"
    runs_import = ("runs", "import")
    assert_ended(fork(workbench, *runs_import, "there/opt000004.pt"), USAGE, "the state of an optimizer")
    shutil.copy(there / "opt000004.pt", there / "weights.pt")
    assert_ended(fork(workbench, *runs_import, "there/weights.pt"), USAGE, "the state of an optimizer")
    assert_ended(fork(workbench, *runs_import, "runs/run-1"), USAGE, "a run of diffcli already")
    assert_ended(fork(workbench, *runs_import, "nowhere.pt"), MISSING, "there is no nowhere.pt")
    assert_ended(fork(workbench, *runs_import, "data"), MISSING, "no file of an original training")
    whole = (there / "model000004.pt").read_bytes()
    (there / "model000004.pt").write_bytes(whole[: len(whole) // 2])
    cut = fork(workbench, *runs_import, "there", "--preset", "./tiny.toml")
    assert_ended(cut, CORRUPT, "cannot read there/model000004.pt")
    assert_ended(
        fork(workbench, "sample", "there/ema_0.9_000004.pt"), MISSING, "diffcli runs import there/ema"
    )
    assert_sound(workbench)


def test_nothing_but_an_export_is_replaced_and_only_by_force(workbench):
    line = ("runs", "export", "run-1", "--format", "safetensors", "--out", "there")
    fork(workbench, *line, "--ema", "0.9").succeeds()
    assert_ended(fork(workbench, *line), USAGE, "is there already", "--force")
    assert [path.name for path in (workbench.directory / "there").glob("*.safetensors")] == [
        "ema_0.9_000012.safetensors"
    ]
    fork(workbench, *line, "--force").succeeds()
    assert len(list((workbench.directory / "there").glob("*.safetensors"))) == 3
    (workbench.directory / "mine").mkdir()
    (workbench.directory / "mine" / "letter.txt").write_text("dear reader")
    refused = fork(workbench, *line[:-1], "mine", "--force")
    assert_ended(refused, USAGE, "is there already, and is no export")
    assert (workbench.directory / "mine" / "letter.txt").read_text() == "dear reader"


def test_a_forced_export_deletes_nothing_that_no_export_wrote(workbench):
    line = ("runs", "export", "run-1", "--format", "safetensors", "--out", "there", "--force")
    there = workbench.directory / "there"
    fork(workbench, *line).succeeds()
    written = sorted(path.name for path in there.iterdir())
    assert json.loads((there / "export.json").read_text())["files"] == [
        name for name in written if name != "export.json"
    ]
    (there / "notes").mkdir()
    (there / "notes" / "letter.txt").write_text("dear reader")
    assert_ended(fork(workbench, *line), USAGE, "holds more than an export: notes", "move that away")
    assert (there / "notes" / "letter.txt").read_text() == "dear reader"
    shutil.move(there / "notes", workbench.directory)
    fork(workbench, *line, "--ema", "0.9").succeeds()
    assert sorted(path.name for path in there.iterdir()) == ["ema_0.9_000012.safetensors", "export.json"]
    assert not list(workbench.directory.glob(".there*"))
    # an export of before there was a list
    record = json.loads((there / "export.json").read_text())
    del record["files"]
    (there / "export.json").write_text(json.dumps(record))
    assert_ended(fork(workbench, *line), USAGE, "holds more than an export: ema_0.9_000012.safetensors")


def test_an_export_that_fails_at_its_last_step_leaves_the_one_before(workbench, monkeypatch):
    line = ("runs", "export", "run-1", "--format", "safetensors", "--out", "there", "--ema", "0.9")
    fork(workbench, *line).succeeds()
    there = workbench.directory / "there"
    before = {path.name: path.read_bytes() for path in there.iterdir()}
    request = ExportRequest(
        run="run-1",
        format="safetensors",
        ema=None,
        checkpoint=None,
        out=there,
        force=True,
        runs_home=workbench.runs,
    )
    monkeypatch.setattr(durable, "commit_directory", disk_is_full)
    with pytest.raises(StorageError):
        export_run(request)
    assert {path.name: path.read_bytes() for path in there.iterdir()} == before
    assert not list(workbench.directory.glob(".there*"))


def disk_is_full(staging: Path, final: Path) -> None:
    raise StorageError(f"cannot write {final}: no space left on device")


def test_what_cannot_be_exported_is_told(workbench):
    export = ("runs", "export", "run-1", "--format")
    missing = fork(workbench, *export, "openai", "--checkpoint", "5")
    assert_ended(missing, MISSING, "no checkpoint of step 5", "4, 8, 12")
    assert_ended(fork(workbench, *export, "openai", "--ema", "0.5"), USAGE, "0.9, 0.99")
    golden_files(workbench, NETWORKS[2])
    imported(workbench, f"{NETWORKS[2]}.pt", "--preset", f"./{NETWORKS[2]}.toml")
    refused = fork(workbench, "runs", "export", "run-2", "--format", "diffusers")
    assert_ended(refused, USAGE, "cannot represent this network", "model.kind = superres")
    assert not (workbench.run(2) / "exports").exists() or not list((workbench.run(2) / "exports").iterdir())
    (workbench.directory / "file").touch()
    blocked = fork(workbench, *export, "openai", "--out", "file/there")
    assert_ended(blocked, STORAGE, "file")
