"""`diffcli sample` with a classifier and with --cfg: what guides which images, what the record says of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from diffcli.commands.weights import LoadedClassifier
from diffcli.config.sections import DataConfig, DiffusionConfig, ModelConfig, RunConfig, TrainingConfig
from diffcli.images.conversion import from_uint8
from diffcli.models.build import build_classifier
from diffcli.registry.create import open_run
from diffcli.sampling.guidance import class_gradient
from diffcli.sampling.noise import initial_noise
from diffcli.training.checkpoints import read_tensors
from golden_models import golden_network
from latent_runs import NAMES, changed
from runs_in_processes import Bench, fork, fork_ranks
from runs_on_disk import run_of_a_network

# none of these networks was trained: guidance changes what they draw all the same
GUIDED = RunConfig(
    data=DataConfig(name="digits", resolution=8, channels=1),
    model=ModelConfig(channels=32, channel_mult=(1.0,), res_blocks=1, attention_resolutions=(), classes=10),
    diffusion=DiffusionConfig(
        steps=40, schedule="cosine", variance="learned_range", objective="hybrid", rescale_timesteps=True
    ),
    training=TrainingConfig(ema_rates=(0.9,)),
)
OTHER_ORDER = (NAMES[1], NAMES[0], *NAMES[2:])


DROPPING = changed(GUIDED, training={"label_drop": 0.1})
PLAIN = changed(GUIDED, model={"classes": 0})
CLASSIFIER = changed(GUIDED, model={"kind": "classifier", "pool": "adaptive"})
RUNS = {
    "conditional": (GUIDED, NAMES),
    "nameless": (GUIDED, ()),
    "plain": (PLAIN, NAMES),
    "dropping": (DROPPING, NAMES),
    "upsampler": (changed(DROPPING, model={"kind": "superres"}, data={"low_resolution": 4}), NAMES),
    "plain-upsampler": (changed(PLAIN, model={"kind": "superres"}, data={"low_resolution": 4}), NAMES),
    "reader": (CLASSIFIER, NAMES),
    # the same network, which is told timesteps as they are
    "unscaled-reader": (changed(CLASSIFIER, diffusion={"rescale_timesteps": False}), NAMES),
    "averageless-reader": (changed(CLASSIFIER, training={"ema_rates": ()}), NAMES),
    "reader-of-32": (changed(CLASSIFIER, data={"resolution": 32}), NAMES),
    "reader-of-colours": (changed(CLASSIFIER, data={"channels": 3}), NAMES),
    "reader-of-clean-images": (changed(CLASSIFIER, training={"noisy": False}), NAMES),
    "reader-of-few": (changed(CLASSIFIER, model={"classes": 7}), NAMES[:7]),
    "linear-reader": (changed(CLASSIFIER, diffusion={"schedule": "linear"}), NAMES),
    "longer-reader": (changed(CLASSIFIER, diffusion={"steps": 50}), NAMES),
    "reader-in-another-order": (CLASSIFIER, OTHER_ORDER),
    "reader-by-numbers": (CLASSIFIER, tuple("0123456789")),
}
LINE = ("--num", "6", "--batch-size", "4", "--device", "cpu", "--threads", "1", "--seed", "5")
STEPS = ("--steps", "5")


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    made = Bench(directory=tmp_path_factory.mktemp("guided"))
    for name, (config, class_names) in RUNS.items():
        run_of_a_network(made.runs, config, name, class_names=class_names)
    small = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), dtype=np.uint8)
    np.savez(made.directory / "small.npz", arr_0=small, arr_1=np.arange(6))
    return made


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a command left: the images, their labels if any, the record, and what was said."""

    images: np.ndarray
    labels: np.ndarray | None
    record: dict
    errors: str

    def differs_from(self, other):
        return np.abs(self.images.astype(int) - other.images.astype(int)).max() > 1

    def equals(self, other):
        return np.array_equal(self.images, other.images)


def draw(bench, run, *options, steps=STEPS):
    place = bench.directory / "drawn" / "-".join(option.strip("-").replace("/", "") for option in options)
    out = place.with_name(f"{run}-{place.name}-{'-'.join(steps)}")
    sampled = fork(bench, "sample", run, *LINE, *steps, *options, "--out", str(out), "--json").succeeds()
    result = json.loads(sampled.output)
    with np.load(result["archive"]) as archive:
        images, labels = archive["arr_0"], archive.get("arr_1")
    record = json.loads(Path(result["record"]).read_text())
    return Drawn(images=images, labels=labels, record=record, errors=sampled.errors)


# ---- classifier guidance ----


@pytest.mark.parametrize("run", ["conditional", "plain"])
@pytest.mark.parametrize("steps", [STEPS, ("--ddim", "5")], ids=["ancestral", "ddim"])
def test_a_classifier_leads_networks_with_and_without_classes(run, steps, bench):
    told = ("--class", "3,7") if run == "conditional" else ()
    unguided = draw(bench, run, *told, steps=steps)
    guided = draw(bench, run, "--classifier", "reader", "--guidance", "40", "--class", "3,7", steps=steps)
    assert guided.differs_from(unguided)
    assert guided.labels.tolist() == [3, 7, 3, 7, 3, 7]
    others = draw(bench, run, "--classifier", "reader", "--guidance", "40", "--class", "4", steps=steps)
    assert others.differs_from(guided)
    # a gradient times nothing
    still = draw(bench, run, "--classifier", "reader", "--guidance", "0", "--class", "3,7", steps=steps)
    assert not still.differs_from(unguided)


@torch.no_grad()
def test_a_classifier_makes_its_classes_likelier_in_its_own_eyes(bench):
    classifier = build_classifier(CLASSIFIER).eval()
    checkpoint = open_run(bench.runs, "reader").paths.checkpoints / "step-000001"
    classifier.load_state_dict(read_tensors(checkpoint, "ema-0.9"))
    likelihoods = []
    for scale in ("0", "40", "160", "640"):
        options = ("--classifier", "reader", "--guidance", scale, "--class", "3,7")
        drawn = draw(bench, "plain", *options, steps=("--ddim", "5"))
        images = from_uint8(torch.from_numpy(drawn.images)).permute(0, 3, 1, 2)
        log_probabilities = classifier(images, torch.zeros(6)).log_softmax(dim=1)
        likelihoods.append(float(log_probabilities[torch.arange(6), torch.from_numpy(drawn.labels)].mean()))
    assert likelihoods == sorted(likelihoods)
    assert likelihoods[-1] > likelihoods[0] + 0.01


def test_the_scale_is_1_unless_it_is_given(bench):
    plain = draw(bench, "conditional", "--classifier", "reader", "--class", "1")
    assert plain.record["classifier"]["scale"] == 1.0
    assert plain.equals(
        draw(bench, "conditional", "--classifier", "reader", "--class", "1", "--guidance", "1")
    )


def test_classes_are_named_by_the_classifier_where_the_network_knows_none(bench):
    by_name = draw(bench, "plain", "--classifier", "reader", "--class", "digit 2")
    assert by_name.labels.tolist() == [2] * 6
    own = draw(bench, "nameless", "--classifier", "reader", "--class", "digit 2")
    assert own.labels.tolist() == [2] * 6


def test_without_a_list_classes_are_drawn_and_kept(bench):
    drawn = draw(bench, "plain", "--classifier", "reader")
    assert drawn.labels.tolist() == draw(bench, "conditional").labels.tolist()
    assert drawn.record["classes"] is None
    assert draw(bench, "plain").labels is None


def test_the_split_into_batches_changes_rounding_only(bench):
    options = ("--classifier", "reader", "--guidance", "5", "--class", "3,7")
    split = draw(bench, "plain", *options)
    whole = draw(bench, "plain", *options, "--batch-size", "6")
    assert np.abs(split.images.astype(int) - whole.images.astype(int)).max() <= 1
    one = draw(bench, "plain", *options, "--num", "3")
    assert np.array_equal(one.images, split.images[:3])


def test_a_classifier_sees_the_timesteps_that_it_was_trained_on(bench):
    scaled = draw(bench, "plain", "--classifier", "reader", "--guidance", "40", "--class", "3")
    unscaled = draw(bench, "plain", "--classifier", "unscaled-reader", "--guidance", "40", "--class", "3")
    assert unscaled.differs_from(scaled)


def test_its_average_is_taken_where_it_has_one_and_a_checkpoint_can_be_named(bench):
    averaged = draw(bench, "plain", "--classifier", "reader@1", "--class", "3")
    assert averaged.record["classifier"] == {
        "run": "run-7",
        "checkpoint": 1,
        "checkpoint_manifest_sha256": averaged.record["classifier"]["checkpoint_manifest_sha256"],
        "weights": "ema-0.9",
        "scale": 1.0,
    }
    assert len(averaged.record["classifier"]["checkpoint_manifest_sha256"]) == 64
    assert averaged.record["cfg"] is None
    raw = draw(bench, "plain", "--classifier", "averageless-reader", "--class", "3")
    assert raw.record["classifier"]["weights"] == "model"
    assert raw.record["fingerprint"] != averaged.record["fingerprint"]


def test_an_upsampler_can_be_led_to_the_labels_of_its_small_images(bench):
    guided = draw(
        bench, "plain-upsampler", "--low-res", "small.npz", "--classifier", "reader", "--guidance", "40"
    )
    assert guided.labels.tolist() == list(range(6))
    assert guided.differs_from(draw(bench, "plain-upsampler", "--low-res", "small.npz"))


def test_other_names_for_the_classes_are_told(bench):
    warned = draw(bench, "conditional", "--classifier", "reader-by-numbers", "--class", "3")
    assert (
        "warning: run-17 has other names for the classes than run-1; the numbers are taken" in warned.errors
    )
    assert "warning" not in draw(bench, "conditional", "--classifier", "reader", "--class", "3").errors


@pytest.mark.parametrize("name", ["adaptive", "attention", "spatial", "spatial_v2"])
@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.06), ("fp16", 0.006)])
def test_the_gradient_in_half_precision_is_nearly_the_same(precision, tolerance, name):
    network = golden_network(f"guided_classifier_{name}").requires_grad_(False)
    loaded = LoadedClassifier(network=network, step=0, manifest_sha256="", weights_name="model", remarks=())
    x_t, t = initial_noise(1, torch.arange(8), (3, 16, 16)), torch.arange(8) * 140
    y = torch.arange(8) % 5
    single, half = (class_gradient(loaded.classify(kind), x_t, t, y) for kind in ("fp32", precision))
    assert half.dtype == torch.float32
    assert 0 < (half - single).norm() < tolerance * single.norm()


# ---- classifier-free guidance ----


@pytest.mark.parametrize("steps", [STEPS, ("--ddim", "5")], ids=["ancestral", "ddim"])
def test_1_is_plain_sampling_0_is_without_classes_and_others_are_neither(steps, bench):
    plain = draw(bench, "dropping", "--class", "3,7", steps=steps)
    one = draw(bench, "dropping", "--class", "3,7", "--cfg", "1", steps=steps)
    assert one.equals(plain)
    assert one.labels.tolist() == [3, 7, 3, 7, 3, 7]
    without = draw(bench, "dropping", "--cfg", "0", steps=steps)
    assert without.labels is None
    two = draw(bench, "dropping", "--class", "3,7", "--cfg", "2", steps=steps)
    assert two.labels.tolist() == [3, 7, 3, 7, 3, 7]
    for first, second in ((one, without), (two, one), (two, without)):
        assert first.differs_from(second)
    assert (one.record["cfg"], two.record["cfg"], plain.record["cfg"]) == (1.0, 2.0, None)
    assert two.record["classifier"] is None


def test_a_weight_next_to_1_is_next_to_plain_sampling_and_next_to_0_to_none(bench):
    """The two predictions in one pass, not only the shortcuts at 0 and 1; DDIM takes no variance."""
    ddim = ("--ddim", "5")
    for near, exact, classes in (("1.000001", "1", ("--class", "3,7")), ("0.000001", "0", ())):
        beside = draw(bench, "dropping", "--cfg", near, "--class", "3,7", steps=ddim)
        at = draw(bench, "dropping", "--cfg", exact, *classes, steps=ddim)
        assert np.abs(beside.images.astype(int) - at.images.astype(int)).max() <= 1


def test_an_upsampler_goes_beyond_the_labels_of_its_small_images(bench):
    low_res = ("--low-res", "small.npz")
    plain = draw(bench, "upsampler", *low_res)
    assert draw(bench, "upsampler", *low_res, "--cfg", "1").equals(plain)
    beyond = draw(bench, "upsampler", *low_res, "--cfg", "3")
    assert beyond.differs_from(plain)
    assert beyond.labels.tolist() == list(range(6))
    without = draw(bench, "upsampler", *low_res, "--cfg", "0")
    assert without.differs_from(plain)
    # they are the small images' own
    assert without.labels.tolist() == list(range(6))


def test_the_batches_of_two_predictions_do_not_depend_on_their_size(bench):
    options = ("--class", "3,7", "--cfg", "2")
    split = draw(bench, "dropping", *options)
    whole = draw(bench, "dropping", *options, "--batch-size", "6")
    assert np.abs(split.images.astype(int) - whole.images.astype(int)).max() <= 1


@pytest.mark.parametrize("options", [("--classifier", "reader", "--guidance", "40"), ("--cfg", "2")])
def test_ranks_change_no_bit(options, bench):
    # --force, or the second would be taken from the first
    line = ("sample", "dropping", *LINE, *STEPS, *options, "--class", "3,7", "--force")
    fork(bench, *line, "--name", f"alone{options[0]}").succeeds()
    for rank in fork_ranks(bench, 2, *line, "--name", f"ranks{options[0]}"):
        rank.succeeds()
    alone, ranks = (
        next((bench.run(4) / "samples" / f"{who}{options[0]}").glob("*.npz")) for who in ("alone", "ranks")
    )
    assert alone.read_bytes() == ranks.read_bytes()


# ---- what an archive is called, and when it is another one ----


def test_an_archives_own_name_tells_of_the_guidance(bench):
    for options, part in (
        (("--classifier", "reader", "--guidance", "2.5"), "-guidance-2.5-seed-5"),
        (("--cfg", "1.5"), "-cfg-1.5-seed-5"),
        ((), "-5-seed-5"),
    ):
        drawn = fork(bench, "sample", "dropping", *LINE, *STEPS, *options, "--json").succeeds()
        assert part in json.loads(drawn.output)["directory"]


def test_another_guidance_is_another_archive(bench):
    line = ("sample", "dropping", *LINE, *STEPS, "--name", "kept")
    fork(bench, *line, "--cfg", "2").succeeds()
    assert "already there" in fork(bench, *line, "--cfg", "2").succeeds().errors
    for options in ((), ("--cfg", "3"), ("--classifier", "reader")):
        refused = fork(bench, *line, *options)
        assert refused.exit_code() == 2
        assert "made otherwise" in refused.errors


# ---- what is refused ----

REFUSED = {
    "a scale of nothing": ("plain", "--guidance 4", 2, ["--guidance scales", "--classifier RUN"]),
    "both ways at once": ("dropping", "--classifier reader --cfg 2", 2, ["exclude each other"]),
    "a negative scale": (
        "plain",
        "--classifier reader --guidance=-1",
        2,
        ["--guidance is -1.0", "at least 0"],
    ),
    "no number": ("dropping", "--cfg nan", 2, ["--cfg is nan", "at least 0"]),
    "an endless weight": ("dropping", "--cfg inf", 2, ["--cfg is inf", "at least 0"]),
    "no such run": ("plain", "--classifier nobody", 3, ["there is no run 'nobody'"]),
    "no such step": ("plain", "--classifier reader@7", 3, ["step 7", "present: 1"]),
    "no classifier": ("plain", "--classifier conditional", 2, ["run-1 is no classifier", "unet"]),
    "clean images": (
        "plain",
        "--classifier reader-of-clean-images",
        2,
        ["clean images only", "training.noisy"],
    ),
    "other sizes": ("plain", "--classifier reader-of-32", 2, ["32 pixels", "data.resolution = 8"]),
    "other colours": ("plain", "--classifier reader-of-colours", 2, ["3 channels", "data.channels = 1"]),
    "another schedule": (
        "plain",
        "--classifier linear-reader",
        2,
        ["diffusion.schedule is linear", "cosine"],
    ),
    "another chain": ("plain", "--classifier longer-reader", 2, ["diffusion.steps is 50, not 40"]),
    "fewer classes": ("conditional", "--classifier reader-of-few", 2, ["knows 7 classes, run-1 10"]),
    "another order": (
        "conditional",
        "--classifier reader-in-another-order",
        2,
        ["do not number their classes alike", "'digit 0' is 0", "1 for the other"],
    ),
    "no such class": ("plain", "--classifier reader --class cat", 2, ["there is no class 'cat'"]),
    "too large a class": ("plain", "--classifier reader-of-few --class 8", 2, ["0 to 6"]),
    "every label was told": (
        "conditional",
        "--cfg 2",
        2,
        ["has not learned to do without classes", "training.label_drop"],
    ),
    "no classes at all": ("plain", "--cfg 2", 2, ["knows no classes", "--cfg"]),
    "classes without classes": ("dropping", "--cfg 0 --class 3", 2, ["--cfg 0 draws without classes"]),
    "a classifier that draws": ("reader", "--num 2", 2, ["run-7 is a classifier: it draws no images"]),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_what_cannot_guide_is_refused_in_a_few_words(wrong, bench):
    run, options, code, phrases = REFUSED[wrong]
    refused = fork(bench, "sample", run, *LINE, *STEPS, *options.split(" "))
    assert refused.exit_code() == code, refused.errors
    assert refused.output == ""
    assert "Traceback" not in refused.errors
    for phrase in phrases:
        assert phrase in refused.errors
    assert len(refused.errors.splitlines()) <= 4
