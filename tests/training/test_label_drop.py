"""Dropped labels: which ones is a function of seed, step and position, and the network learns both ways."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import torch

from diffcli.config.sections import DataConfig, ModelConfig, RunConfig, TrainingConfig
from diffcli.data.batches import Batch
from diffcli.interchange.openai_names import from_published, to_published
from diffcli.models.build import build_model
from diffcli.training import checkpoints
from diffcli.training.label_drop import dropped_labels, with_dropped_labels
from runs_in_processes import NEW, RESUME, checkpoint, fork, fork_ranks, make_bench

CONFIG = RunConfig(
    data=DataConfig(resolution=8, channels=1),
    model=ModelConfig(channels=32, channel_mult=(1,), res_blocks=1, attention_resolutions=(), classes=10),
    training=TrainingConfig(label_drop=0.25, seed=3),
)
DROP = ("--set", "training.label_drop=0.25", "--set", "model.dropout=0")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs with dropped labels and without, each with two checkpoints and a preview."""
    bench = make_bench(tmp_path_factory.mktemp("label-drop"))
    previews = ("--set", "training.preview_every=6")
    fork(bench, *NEW, *DROP, *previews, "--name", "dropping").succeeds()
    fork(bench, *NEW, "--set", "model.dropout=0", "--name", "told").succeeds()
    return bench


def batch_of(labels):
    count = len(labels)
    return Batch(
        images=torch.zeros(count, 8, 8, 1, dtype=torch.uint8),
        labels=labels,
        flips=torch.zeros(count, dtype=torch.bool),
    )


def weights(run):
    return checkpoints.read_tensors(checkpoint(run, 12), "model")


# ---- which labels ----


def test_the_share_that_is_dropped_is_the_one_asked_for():
    dropped = torch.cat([dropped_labels(5, range(500), step=step, share=0.1) for step in range(100)])
    assert abs(float(dropped.double().mean()) - 0.1) < 4 * (0.1 * 0.9 / len(dropped)) ** 0.5
    assert not dropped_labels(5, range(1000), step=0, share=0.0).any()


def test_which_ones_depends_on_seed_step_and_position_alone():
    whole = dropped_labels(5, range(96), step=8, share=0.5)
    ranks = [dropped_labels(5, part, step=8, share=0.5) for part in (range(40), range(40, 41), range(41, 96))]
    assert torch.equal(torch.cat(ranks), whole)
    assert not torch.equal(dropped_labels(5, range(96), step=9, share=0.5), whole)
    assert not torch.equal(dropped_labels(6, range(96), step=8, share=0.5), whole)
    # a larger share drops those of a smaller one, and more
    assert (dropped_labels(5, range(96), step=8, share=0.2) <= whole).all()


def test_dropped_labels_become_the_number_of_no_class_and_the_others_stay():
    labels = torch.arange(200) % 10
    told = with_dropped_labels(batch_of(labels), CONFIG, range(100, 300), step=4)
    dropped = dropped_labels(3, range(100, 300), step=4, share=0.25)
    assert 20 < int(dropped.sum()) < 80
    assert (told.labels[dropped] == 10).all()
    assert torch.equal(told.labels[~dropped], labels[~dropped])
    plain = dataclasses.replace(CONFIG, training=TrainingConfig(seed=3))
    for batch, config in ((batch_of(labels), plain), (Batch(**{**vars(told), "labels": None}), CONFIG)):
        assert with_dropped_labels(batch, config, range(200), step=4) is batch


# ---- the network ----


def test_the_network_has_one_embedding_more_and_the_published_names():
    plain = build_model(dataclasses.replace(CONFIG, training=TrainingConfig())).state_dict()
    dropping = build_model(CONFIG).state_dict()
    assert list(dropping) == list(plain)
    differing = [name for name in plain if plain[name].shape != dropping[name].shape]
    assert differing == ["embedding.classes.weight"]
    assert (len(plain[differing[0]]), len(dropping[differing[0]])) == (10, 11)
    published = to_published(dropping, CONFIG)
    assert len(published["label_emb.weight"]) == 11
    assert torch.equal(from_published(published, CONFIG)[differing[0]], dropping[differing[0]])


# ---- training ----


def test_microbatches_and_ranks_change_no_label(trained, tmp_path):
    bench = make_bench(tmp_path)
    fork(bench, *NEW, *DROP, "--set", "training.microbatch=3").succeeds()
    ranks = fork_ranks(bench, 2, *NEW, *DROP)
    assert [rank.exit_code() for rank in ranks] == [0, 0]
    whole, told = weights(trained.run(1)), weights(trained.run(2))
    for run in (bench.run(1), bench.run(2)):
        other = weights(run)
        for name, tensor in whole.items():
            torch.testing.assert_close(other[name], tensor, atol=1e-4, rtol=1e-3, msg=name)
    # where the labels themselves are seen in the weights
    assert not torch.allclose(whole["conv_out.weight"], told["conv_out.weight"], atol=1e-4, rtol=1e-3)


def test_both_the_classes_and_no_class_are_learned(trained):
    initial = build_model_of(trained.run(1)).state_dict()["embedding.classes.weight"]
    learned = weights(trained.run(1))["embedding.classes.weight"]
    assert learned.shape == (11, initial.shape[1])
    assert (learned != initial).any(dim=1).all()


def build_model_of(run):
    from diffcli.commands.assemble import initial_network
    from diffcli.config.encode import config_from_json

    return initial_network(config_from_json(json.loads((run / "run.json").read_text())["config"]))


def test_previews_likelihoods_and_plain_samples_are_told_their_classes(trained):
    assert (trained.run(1) / "previews" / "step-000006.png").is_file()
    fork(trained, "eval", "run-1", "--nll", "--timesteps", "3", "--num", "8", "--device", "cpu").succeeds()
    fork(trained, "sample", "run-1", "--num", "4", "--ddim", "2", "--device", "cpu").succeeds()


def test_a_network_with_no_class_goes_out_and_in_again(trained, tmp_path):
    bench = copied(trained, tmp_path)
    fork(bench, "runs", "export", "run-1", "--format", "openai", "--out", "published").succeeds()
    back = ("runs", "import", "published/model000012.pt", "--preset", "./tiny.toml", "--name", "back")
    refused = fork(bench, *back)
    assert refused.exit_code() == 2
    assert "label_emb.weight is [11, 128]" in refused.errors
    assert "add --set training.label_drop=" in refused.errors
    fork(bench, *back, "--set", "training.label_drop=0.1").succeeds()
    fork(bench, "sample", "back", "--cfg", "2", "--num", "2", "--ddim", "2", "--device", "cpu").succeeds()


# ---- what may not change ----


def test_a_resume_keeps_the_share(trained, tmp_path):
    bench = copied(trained, tmp_path)
    for share in ("0", "0.5"):
        refused = fork(bench, *RESUME, "--steps", "14", "--set", f"training.label_drop={share}")
        assert refused.exit_code() == 2
        assert f"training.label_drop = {float(share)}" in refused.errors
    fork(bench, *RESUME, "--steps", "14").succeeds()


@pytest.mark.parametrize(
    ("parent", "share", "words"),
    [
        ("dropping", "0", "run-1 has an embedding of no class"),
        ("told", "0.1", "run-2 has no embedding of no class"),
    ],
)
def test_a_run_from_another_keeps_its_kind_of_network(parent, share, words, trained, tmp_path):
    bench = copied(trained, tmp_path)
    line = ("train", "--device", "cpu", "--steps", "2", "--from", parent)
    refused = fork(bench, *line, "--set", f"training.label_drop={share}")
    assert refused.exit_code() == 2
    assert words in refused.errors
    assert not bench.run(3).exists()


def test_a_run_from_another_may_drop_another_share(trained, tmp_path):
    bench = copied(trained, tmp_path)
    line = ("train", "--device", "cpu", "--steps", "2", "--from", "dropping")
    fork(bench, *line, "--set", "training.label_drop=0.5").succeeds()
    assert weights_shape(bench.run(3), 2) == 11


def weights_shape(run, step):
    return len(checkpoints.read_tensors(checkpoint(run, step), "model")["embedding.classes.weight"])


def copied(trained, directory):
    shutil.copytree(trained.directory, directory, dirs_exist_ok=True)
    return type(trained)(directory=directory)


def test_without_classes_there_is_nothing_to_drop(trained, tmp_path):
    bench = copied(trained, tmp_path)
    refused = fork(bench, *NEW, *DROP, "--set", "model.classes=0")
    assert refused.exit_code() == 2
    assert "training.label_drop = 0.25" in refused.errors
    assert "model.classes is 0" in refused.errors
