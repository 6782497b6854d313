"""Which facts of a sample archive's record tell requests apart, and which of them its images."""

from __future__ import annotations

import dataclasses

import pytest

from diffcli.errors import CorruptError
from diffcli.records.samples import (
    ClassifierProvenance,
    EncodedStart,
    GivenImagesOrigin,
    InterpolatedStart,
    InterpolationEnd,
    PostHocAverage,
    SampleProvenance,
)
from diffcli.registry.json_records import read_record
from diffcli.registry.sample_records import fingerprint, images_key, write_sample_record

PROVENANCE = SampleProvenance(
    run="run-1",
    dataset_hash="ab",
    checkpoint=500,
    checkpoint_manifest_sha256="cd",
    weights="ema-0.9999",
    average=None,
    classifier=None,
    cfg=None,
    solver="ddim",
    steps=2,
    timesteps=(0, 39),
    eta=0.0,
    clip=True,
    seed=3,
    count=10_000,
    batch_size=64,
    classes="cat,dog",
    classes_sha256="ef",
    noise_sha256=None,
    start=None,
    low_res_sha256=None,
    low_res_origin=None,
    device="cuda",
    threads=1,
    world_size=8,
    precision="fp32",
    diffcli="0.1",
    git_commit=None,
    python="3.12",
    torch="2.13",
    numpy="2.3",
    platform="Linux",
    command_line=("diffcli",),
    created_at="now",
    seconds=1.5,
    drawn=10_000,
)
OTHERWISE = {
    "average": PostHocAverage(std=0.1, snapshot_steps=(1,), snapshot_stds=(0.1,), predicted_relative_error=0),
    "classifier": ClassifierProvenance(
        run="run-2", checkpoint=1, checkpoint_manifest_sha256="12", weights="model", scale=1.0
    ),
    "cfg": 2.0,
    "timesteps": (0, 38),
    "clip": False,
    "noise_sha256": "34",
    "start": EncodedStart(images_sha256="56"),
    "low_res_sha256": "78",
    "low_res_origin": GivenImagesOrigin(path="/", kind="folder", fingerprint=None, resized=0),
    "git_commit": "9a",
    "command_line": ("diffcli", "sample"),
}
FIELDS = [field.name for field in dataclasses.fields(SampleProvenance)]
# all others change bits, or may
HARMLESS = {"low_res_origin", "world_size", "git_commit", "python", "platform"}
HARMLESS |= {"command_line", "created_at", "seconds", "drawn"}


def changed(field):
    value = getattr(PROVENANCE, field)
    other = OTHERWISE.get(field, f"{value}+" if isinstance(value, str) else None)
    return dataclasses.replace(PROVENANCE, **{field: value + 1 if other is None else other})


@pytest.mark.parametrize("field", FIELDS)
def test_every_fact_counts_but_those_that_change_no_bit(field):
    other = changed(field)
    assert other != PROVENANCE
    assert (fingerprint(other) == fingerprint(PROVENANCE)) == (field in HARMLESS)
    same_images = HARMLESS | {"count", "classes_sha256"}
    assert (images_key(other) == images_key(PROVENANCE)) == (field in same_images)


@pytest.mark.parametrize("field", ["noise_sha256", "start", "low_res_sha256"])
def test_of_given_things_only_the_same_number_is_the_same(field):
    given = changed(field)
    assert images_key(given) == images_key(dataclasses.replace(given, world_size=1))
    assert images_key(given) != images_key(dataclasses.replace(given, count=50_000))
    assert images_key(given) != images_key(dataclasses.replace(given, classes_sha256="other"))


STARTS = [
    EncodedStart(images_sha256="56"),
    InterpolatedStart(
        first=InterpolationEnd(seed=1, image_sha256=None), last=InterpolationEnd(seed=None, image_sha256="78")
    ),
]


@pytest.mark.parametrize("start", STARTS, ids=["encoded", "interpolated"])
def test_a_record_is_read_as_it_was_written(start, tmp_path):
    provenance = dataclasses.replace(
        PROVENANCE, start=start, classifier=OTHERWISE["classifier"], average=OTHERWISE["average"]
    )
    write_sample_record(tmp_path / "sample.json", provenance)
    read = read_record(SampleProvenance, tmp_path / "sample.json", schema=1, partly=True)
    assert read == provenance
    assert fingerprint(read) == fingerprint(provenance)


def test_a_start_of_an_unknown_kind_is_named(tmp_path):
    path = tmp_path / "sample.json"
    write_sample_record(path, dataclasses.replace(PROVENANCE, start=STARTS[0]))
    path.write_text(path.read_text().replace('"encoded"', '"dreamt"'))
    with pytest.raises(CorruptError, match=r"start is .* not an object whose kind is one of encoded, interp"):
        read_record(SampleProvenance, path, schema=1, partly=True)
