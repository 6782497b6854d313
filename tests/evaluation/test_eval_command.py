"""`diffcli eval RUN --nll` from the command line to the record, on a run of a few steps."""

from __future__ import annotations

import dataclasses
import json
import shutil
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffcli import durable
from diffcli.cli.app import run_app
from diffcli.cli.handler import run
from diffcli.commands.evaluation_images import EvaluationImages, ImageChoice, choose_images
from diffcli.commands.published_likelihoods import published_beside, published_likelihood
from diffcli.commands.run_config import current_config
from diffcli.commands.weights import load_network
from diffcli.config.resolve import resolve
from diffcli.data.prepared import PreparedDataset
from diffcli.diffusion.build import build_diffusion
from diffcli.diffusion.likelihood import bits_per_dim, likelihood_steps
from diffcli.errors import CorruptError, MissingError
from diffcli.images.conversion import from_uint8
from diffcli.models.conditioning import Conditioning
from diffcli.randomness.streams import Stream, normal
from diffcli.records.evaluations import EVALUATION_SCHEMA, LikelihoodEvaluation, LikelihoodSettings
from diffcli.registry.create import open_run
from diffcli.registry.json_records import read_record
from diffcli.training import checkpoints
from diffcli.workers import Workers, WorkersSettings

CHAIN = 12
CPU = torch.device("cpu")
TINY = [
    "--preset=digits",
    "--device=cpu",
    "--threads=1",
    "--steps=4",
    *(
        f"--set={setting}"
        for setting in (
            "model.channel_mult=[1]",
            "model.attention_resolutions=[]",
            f"diffusion.steps={CHAIN}",
            "sampling.steps=0",
            "training.batch_size=8",
            "training.lr_warmup_steps=0",
            "training.lr_anneal_steps=0",
            "training.ema_rates=[0.5, 0.9]",
            "training.ema_warmup_steps=0",
            "training.save_every=2",
            "training.preview_every=0",
        )
    ),
]


def alone():
    """This process, as commands see it."""
    return Workers(WorkersSettings(device="cpu", precision="fp32", threads=1, deterministic=False))


def diffcli(*arguments):
    return run(run_app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A directory with prepared digits and the runs `tiny`, class-conditional, and `upsampler`."""
    home = tmp_path_factory.mktemp("trained")
    places = [f"--runs={home / 'runs'}", f"--data-home={home / 'data'}"]
    assert diffcli("prepare", "digits", f"--data-home={home / 'data'}") == 0
    assert diffcli("train", *TINY, "--name=tiny", *places) == 0
    superres = ["--set=model.kind=superres", "--set=data.low_resolution=4", "--set=model.classes=0"]
    assert diffcli("train", *TINY, *superres, "--name=upsampler", *places) == 0
    return home


@pytest.fixture
def home(trained, tmp_path):
    """A copy of `trained` that a test may damage or fill."""
    return Path(shutil.copytree(trained, tmp_path / "home"))


class Eval:
    """Calls `diffcli eval --nll` on a home and reads what comes back."""

    def __init__(self, home, capsys):
        self.home = home
        self.capsys = capsys

    def __call__(self, *arguments, reference="tiny"):
        """The exit code, stdout and stderr."""
        self.capsys.readouterr()
        code = diffcli(
            "eval",
            reference,
            "--nll",
            "--device=cpu",
            "--threads=1",
            f"--runs={self.home / 'runs'}",
            f"--data-home={self.home / 'data'}",
            *arguments,
        )
        output = self.capsys.readouterr()
        return code, output.out, output.err

    def json(self, *arguments, reference="tiny"):
        code, out, err = self(*arguments, "--json", reference=reference)
        assert code == 0, err
        return json.loads(out)


@pytest.fixture
def evaluated(home, capsys):
    return Eval(home, capsys)


def records(home, number=1):
    directory = home / "runs" / f"run-{number}" / "evals"
    return sorted(path.stem for path in directory.glob("*.json"))


def read(home, name, number=1):
    return json.loads((home / "runs" / f"run-{number}" / "evals" / f"{name}.json").read_text())


def bounds_of_first_digits(home, count, *, seed, ema="first"):
    """The bound of each of the first test digits, worked out from the parts."""
    tiny = open_run(home / "runs", "tiny")
    config = current_config(tiny)
    network = load_network(tiny, config, step=None, ema=ema, workers=alone()).network
    dataset = PreparedDataset(home / "data" / "digits" / "test")
    x_start = from_uint8(torch.from_numpy(dataset.read(np.arange(count)))).permute(0, 3, 1, 2)
    condition = Conditioning(y=torch.from_numpy(dataset.labels(np.arange(count))))
    diffusion = build_diffusion(config.diffusion)

    def noise_of(t):
        return normal(seed, Stream.LIKELIHOOD_NOISE, torch.arange(count), (1, 8, 8), step=int(t[0]))

    steps = likelihood_steps(
        lambda x, t: network(x, t, condition),
        diffusion,
        x_start,
        torch.arange(CHAIN).expand(count, -1),
        noise_of,
        clip=config.sampling.clip,
    )
    return bits_per_dim(diffusion, x_start, steps, torch.ones(CHAIN))


def test_the_numbers_are_those_of_exactly_the_first_images(evaluated):
    found = evaluated.json("--num=5", "--seed=3", "--batch-size=2")["likelihood"]
    expected = bounds_of_first_digits(evaluated.home, 5, seed=3)
    total = expected.total.double().numpy()
    assert found["images"] == 5
    assert found["bits_per_dim"] == pytest.approx(total.mean(), rel=1e-5)
    assert found["standard_error"] == pytest.approx(total.std(ddof=1) / np.sqrt(5), rel=1e-4)
    assert found["prior_bits_per_dim"] == pytest.approx(float(expected.prior.mean()), rel=1e-4)
    curve = found["curve"]
    assert curve["timesteps"] == list(range(CHAIN))
    assert curve["vb_bits_per_dim"] == pytest.approx(expected.terms.vb.mean(dim=0).tolist(), rel=1e-4)
    assert curve["x_start_mse"] == pytest.approx(expected.terms.x_start_mse.mean(dim=0).tolist(), rel=1e-4)
    assert curve["eps_mse"] == pytest.approx(expected.terms.eps_mse.mean(dim=0).tolist(), rel=1e-4)


def test_another_batch_size_changes_nothing_but_rounding(evaluated):
    small, large = (
        evaluated.json("--num=10", f"--batch-size={size}", f"--name=by-{size}")["likelihood"]
        for size in (3, 8)
    )
    assert small["images"] == large["images"] == 10
    for name in ("bits_per_dim", "standard_error", "vb_bits_per_dim"):
        assert small[name] == pytest.approx(large[name], rel=1e-5)
    for name, values in small["curve"].items():
        assert values == pytest.approx(large["curve"][name], rel=1e-5)


def test_all_images_by_default_and_the_seed_decides_the_noise(evaluated):
    one = evaluated.json("--chain=2")
    other = evaluated.json("--chain=2", "--seed=1")
    assert one["images"]["count"] == one["images"]["total"] == one["likelihood"]["images"] == 297
    assert one["likelihood"]["curve"]["timesteps"] == [0, CHAIN - 1]
    assert one["likelihood"]["bits_per_dim"] != other["likelihood"]["bits_per_dim"]
    assert one["likelihood"]["prior_bits_per_dim"] == other["likelihood"]["prior_bits_per_dim"]


def test_the_record_says_how_the_numbers_came_about(evaluated):
    shown = evaluated.json("--num=3", "--seed=7", "--set=sampling.clip=false", "--ema=0.9", "--name=mine")
    path = evaluated.home / "runs" / "run-1" / "evals" / "mine.json"
    assert (shown.pop("name"), shown.pop("path")) == ("mine", str(path))
    assert (shown.pop("published"), shown.pop("already_there")) == (None, False)
    picture = path.with_suffix(".png")
    assert shown.pop("picture") == (str(picture) if picture.exists() else None)
    assert shown == json.loads(path.read_text())
    assert records(evaluated.home) == ["mine"]
    assert (shown["schema"], shown["kind"]) == (1, "nll")
    manifest = checkpoints.directory_of(path.parents[1] / "checkpoints", 4) / checkpoints.MANIFEST
    assert shown["model"] == {
        "run": "run-1",
        "checkpoint": 4,
        "weights": "ema-0.9",
        "average": None,
        "checkpoint_manifest_sha256": durable.sha256(manifest),
    }
    test_split = PreparedDataset(evaluated.home / "data" / "digits" / "test")
    images = shown["images"]
    assert (images["split"], images["count"], images["total"]) == ("test", 3, 297)
    assert images["content_hash"] == test_split.content_hash
    assert (images["name"], images["variant"]) == ("digits", "")
    assert not images["trained_on"]
    assert shown["settings"] == {
        "seed": 7,
        "clip": False,
        "timesteps": CHAIN,
        "chain_timesteps": CHAIN,
        "full_chain": True,
        "estimate": False,
        "drawn_timesteps": None,
    }
    conditions = shown["conditions"]
    assert (conditions["device"], conditions["threads"], conditions["precision"]) == ("cpu", 1, "fp32")
    assert conditions["batch_size"] == 64
    assert conditions["torch"] == metadata.version("torch")
    assert conditions["command_line"]
    assert conditions["seconds"] > 0


def test_what_a_person_reads(evaluated):
    code, out, err = evaluated("--num=4")
    assert code == 0
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[0] for row in rows][:6] == ["bits/dim", "prior", "vb", "images", "timesteps", "record"]
    assert len(rows[0]) == 3
    assert rows[0][2].startswith("+- ")
    digest = PreparedDataset(evaluated.home / "data" / "digits" / "test").content_hash[:12]
    assert rows[3][1:] == ["4", f"digits test ({digest})"]
    assert rows[4][1:] == [str(CHAIN)]
    assert Path(rows[5][1]).is_file()
    assert "weights ema-0.5: 4 of 297 images of split test" in err
    assert err.splitlines()[-1] == "next: diffcli runs show run-1"


@pytest.mark.parametrize("chain", [(), ("--chain=8",)])
def test_an_estimate_and_a_shorter_chain_are_labelled(evaluated, chain):
    code, out, err = evaluated("--num=4", "--timesteps=3", *chain)
    assert code == 0, err
    rows = {row[0]: row[1:] for row in (line.split("\t") for line in out.splitlines())}
    length = 8 if chain else CHAIN
    assert rows["bits/dim"][2] == "estimate"
    assert rows["timesteps"] == [f"3 of {length}", "drawn for each image"]
    assert rows.get("chain") == ([f"8 of {CHAIN}", "the bound of this shorter chain"] if chain else None)
    (name,) = records(evaluated.home)
    assert "-3-timesteps-" in name
    assert ("-chain-8-" in name) == bool(chain)
    settings = read(evaluated.home, name)["settings"]
    assert (settings["estimate"], settings["drawn_timesteps"]) == (True, 3)
    assert (settings["timesteps"], settings["full_chain"]) == (length, not chain)


def test_an_estimate_is_within_its_error_of_the_bound(evaluated):
    whole, estimate = (
        evaluated.json("--num=60", "--seed=2", *few)["likelihood"] for few in ((), ("--timesteps=6",))
    )
    assert estimate["bits_per_dim"] != whole["bits_per_dim"]
    assert abs(estimate["bits_per_dim"] - whole["bits_per_dim"]) < 4 * estimate["standard_error"]
    assert estimate["standard_error"] > whole["standard_error"]
    assert estimate["prior_bits_per_dim"] == whole["prior_bits_per_dim"]


def test_as_many_timesteps_as_there_are_is_no_estimate(evaluated):
    assert evaluated.json("--num=2", f"--timesteps={CHAIN}")["settings"]["estimate"] is False
    assert evaluated.json("--num=2", "--timesteps=full")["already_there"]


def test_a_finished_evaluation_is_shown_again(evaluated):
    first = evaluated.json("--num=3", "--chain=2")
    (name,) = records(evaluated.home)
    path = evaluated.home / "runs" / "run-1" / "evals" / f"{name}.json"
    written = path.read_bytes()
    again = evaluated.json("--num=3", "--chain=2")
    assert (first.pop("already_there"), again.pop("already_there")) == (False, True)
    assert again == first
    assert path.read_bytes() == written
    code, out, err = evaluated("--num=3", "--chain=2")
    assert code == 0
    assert f"bits/dim\t{first['likelihood']['bits_per_dim']:.4f}" in out
    assert "already evaluated" in err


def test_nothing_is_replaced_unless_asked(evaluated):
    assert evaluated("--num=2", "--chain=2")[0] == 0
    code, out, err = evaluated("--num=2", "--chain=2", "--batch-size=1")
    assert (code, out) == (2, "")
    assert "is there already, and was made otherwise" in err
    assert evaluated("--num=2", "--chain=2", "--batch-size=1", "--force")[0] == 0
    assert evaluated("--num=2", "--chain=2", "--seed=1")[0] == 0
    assert evaluated("--num=2", "--chain=3")[0] == 0
    found = records(evaluated.home)
    assert len(found) == 3
    assert read(evaluated.home, found[0])["conditions"]["batch_size"] == 1


def test_a_record_of_an_older_version_can_be_read_and_is_kept(evaluated):
    evaluated.json("--num=2", "--name=old")
    path = evaluated.home / "runs" / "run-1" / "evals" / "old.json"
    old = read(evaluated.home, "old")
    for part, names in {
        "model": ["checkpoint_manifest_sha256"],
        "images": ["name", "variant"],
        "settings": ["estimate", "drawn_timesteps"],
        "conditions": ["world_size"],
        "likelihood": ["image_bits_per_dim"],
    }.items():
        for name in names:
            del old[part][name]
    del old["fingerprint"], old["likelihood"]["curve"]["images"]
    path.write_text(json.dumps(old))
    record = read_record(LikelihoodEvaluation, path, schema=EVALUATION_SCHEMA)
    assert record.likelihood.bits_per_dim == old["likelihood"]["bits_per_dim"]
    assert record.images.location == Path(old["images"]["location"])
    assert_refused(evaluated("--num=2", "--name=old"), 2, "made otherwise")


def test_the_published_number_stands_beside_ones_own(home, tmp_path):
    test_split = PreparedDataset(home / "data" / "digits" / "test")
    assert published_likelihood("cifar10_vlb", test_split) is None
    record = {"name": "cifar10", "split": "test", "split_rule": "the published test split"}

    def published(preset, **changes):
        directory = Path(
            shutil.copytree(test_split.location, tmp_path / f"copy-{len(list(tmp_path.iterdir()))}")
        )
        facts = json.loads((directory / "dataset.json").read_text())
        (directory / "dataset.json").write_text(json.dumps(facts | record | changes))
        return published_likelihood(preset, PreparedDataset(directory))

    found = published("cifar10_vlb")
    assert (found.bits_per_dim, found.source) == (2.94, "improved-diffusion paper, L_vlb cosine")
    assert published("digits") is None
    assert published("cifar10_vlb", split="train") is None
    assert published("cifar10_vlb", split_rule="9000 images") is None
    val = {"split": "val", "split_rule": "the published val split"}
    assert published("imagenet64_vlb", name="imagenet64", variant="pixelrnn", **val).bits_per_dim == 3.53
    assert published("imagenet64_vlb", name="imagenet64", variant="chrabaszcz", **val) is None


def test_the_published_number_stands_beside_its_equals_only(home, tmp_path):
    directory = Path(shutil.copytree(home / "data" / "digits" / "test", tmp_path / "test"))
    facts = json.loads((directory / "dataset.json").read_text())
    record = {"name": "cifar10", "split": "test", "split_rule": "the published test split"}
    (directory / "dataset.json").write_text(json.dumps(facts | record))
    dataset = PreparedDataset(directory)
    whole = LikelihoodSettings(seed=0, clip=True, timesteps=4000, chain_timesteps=4000, full_chain=True)

    def published(*changes, count=dataset.count, settings=whole):
        config = resolve(preset="cifar10_vlb", overrides=changes).config
        images = EvaluationImages(dataset=dataset, config=config, count=count)
        return published_beside("cifar10_vlb", config, images, settings)

    assert published().bits_per_dim == 2.94
    assert published("training.steps=10", "sampling.steps=50") == published()
    assert published(count=16) is None
    assert published("model.dropout=0.1") is None
    assert published("diffusion.steps=1000") is None
    assert published("data.flip=true") is None
    estimate = dataclasses.replace(whole, estimate=True, drawn_timesteps=25)
    shorter = dataclasses.replace(whole, full_chain=False, timesteps=100)
    for other in (estimate, shorter, dataclasses.replace(whole, clip=False)):
        assert published(settings=other) is None


def test_the_weights_that_were_asked_for_are_used(evaluated):
    totals = {
        ema: evaluated.json("--num=3", f"--ema={ema}")["likelihood"]["bits_per_dim"]
        for ema in ("none", "0.5", "0.9")
    }
    for ema, total in totals.items():
        choice = ema if ema == "none" else float(ema)
        expected = bounds_of_first_digits(evaluated.home, 3, seed=0, ema=choice).total
        assert total == pytest.approx(float(expected.double().mean()), rel=1e-5)
    assert len(set(totals.values())) == 3
    assert evaluated.json("--num=3", "--checkpoint=2")["model"]["checkpoint"] == 2


def test_a_super_resolution_network_is_told_the_small_image(evaluated):
    found = evaluated.json("--num=3", reference="upsampler")
    assert found["model"]["run"] == "run-2"
    assert np.isfinite(found["likelihood"]["bits_per_dim"])


def test_that_the_images_were_trained_on_is_told(evaluated):
    code, _, err = evaluated("--split=train", "--num=2", "--chain=2")
    assert code == 0
    assert "run-1 was trained on these very images" in err


def photos(root, classes=10, size=20):
    root.mkdir()
    for number in range(classes):
        gradient = np.add.outer(np.arange(size) * 5, np.arange(size + 4) * 3) + 10 * number
        Image.fromarray(gradient.astype(np.uint8)).save(root / f"{number}_photo.png")
    return root


def test_other_images_are_cut_to_what_the_network_takes(evaluated):
    home = evaluated.home
    folder = photos(home / "photos")
    prepare = ["prepare", "folder", folder, "--size=16", "--channels=1", "--name=large"]
    assert diffcli(*prepare, f"--data-home={home / 'data'}") == 0
    tiny = open_run(home / "runs", "tiny")
    config = current_config(tiny)
    batches = [
        choose_images(
            ImageChoice(split=None, directory=directory, count=None, data_home=home), tiny, config
        ).batch(range(10), CPU)
        for directory in (folder, home / "data" / "large" / "train")
    ]
    for batch in batches:
        assert batch.x_start.shape == (10, 1, 8, 8)
        assert batch.conditioning.y.tolist() == list(range(10))
    # halved once or twice before the bicubic filter, so alike but not the same
    assert (batches[0].x_start - batches[1].x_start).abs().max() < 0.1
    found = evaluated.json(f"--data={folder}", "--timesteps=2")
    assert (found["images"]["split"], found["images"]["count"]) == (None, 10)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--split=tset"], 3, "--split test"),
        (["--num=298"], 2, "there are 297 images"),
        (["--num=0"], 2, "--num"),
        (["--ema=0.25"], 2, "0.5, 0.9"),
        (["--ema=never"], 2, "sampling.ema"),
        (["--checkpoint=3"], 3, "present: 2, 4"),
        ([f"--timesteps={CHAIN + 1}"], 2, f"1 to {CHAIN}"),
        (["--timesteps=half"], 2, f"1 to {CHAIN}"),
        (["--timesteps=4", "--chain=3"], 2, "1 to 3"),
        ([f"--chain={CHAIN + 1}"], 2, f"1 to {CHAIN}"),
        (["--chain=0"], 2, f"1 to {CHAIN}"),
        (["--set=sampling.steps=3"], 2, "sampling.steps"),
        (["--set=model.channels=64"], 2, "model.channels"),
        (["--data=nowhere"], 3, "nowhere"),
        (["--name=a/b"], 2, "cannot name"),
    ],
)
def test_wrong_requests(trained, capsys, arguments, code, message):
    assert_refused(Eval(trained, capsys)(*arguments), code, message)
    assert records(trained) == []


def assert_refused(outcome, code, message):
    found, out, err = outcome
    assert (found, out) == (code, ""), err
    assert message in err
    assert "Traceback" not in err


def test_an_unknown_run_gets_a_suggestion(trained, capsys):
    assert_refused(Eval(trained, capsys)(reference="tinny"), 3, "tiny")


def test_images_of_other_classes_or_sizes_are_refused(evaluated):
    few = photos(evaluated.home / "few", classes=9)
    assert_refused(evaluated(f"--data={few}"), 2, "9 classes, the run 10")
    home = evaluated.home
    assert diffcli("prepare", "folder", few, "--size=4", "--name=small", f"--data-home={home / 'data'}") == 0
    small = home / "data" / "small"
    assert_refused(evaluated(f"--data={small}", "--split=train"), 2, "4x4x3, the network takes 8x8x1")
    assert_refused(evaluated(f"--data={few}", "--split=train"), 2, "no splits")


def damage(home, step):
    file = checkpoints.directory_of(home / "runs" / "run-1" / "checkpoints", step) / "ema-0.5.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_damaged_checkpoint_is_passed_over_loudly_or_refused(evaluated):
    damage(evaluated.home, 4)
    assert_refused(evaluated("--checkpoint=4"), 5, "ema-0.5.safetensors")
    code, out, err = evaluated("--num=2", "--chain=2", "--json")
    assert code == 0
    assert json.loads(out)["model"]["checkpoint"] == 2
    assert "a newer checkpoint is damaged and not used" in err
    damage(evaluated.home, 2)
    assert_refused(evaluated(), 5, "none of the 2 checkpoints")


def test_tensors_that_do_not_fit_are_named(home):
    tiny, upsampler = (open_run(home / "runs", name) for name in ("tiny", "upsampler"))
    with pytest.raises(CorruptError, match="does not fit") as caught:
        load_network(tiny, current_config(upsampler), step=None, ema="first", workers=alone())
    assert "conv_in.weight is [32, 1, 3, 3] torch.float32, needed is [32, 2, 3, 3]" in caught.value.where
    with pytest.raises(MissingError, match=r"ema-0\.1") as missing:
        load_network(tiny, current_config(tiny), step=None, ema=0.1, workers=alone())
    assert "0.5, 0.9" in missing.value.where


def test_loaded_networks_are_ready_and_repeat(trained):
    tiny = open_run(trained / "runs", "tiny")
    config = current_config(tiny)
    state = torch.random.get_rng_state()
    loaded = load_network(tiny, config, step=2, ema="none", workers=alone())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (loaded.step, loaded.weights_name, loaded.rejected) == (2, "model", ())
    assert not loaded.network.training
    assert not any(parameter.requires_grad for parameter in loaded.network.parameters())
    saved = checkpoints.read_tensors(checkpoints.directory_of(tiny.paths.checkpoints, 2), "model")
    assert all(torch.equal(tensor, saved[name]) for name, tensor in loaded.network.state_dict().items())
