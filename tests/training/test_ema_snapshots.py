"""Snapshots of power-function averages: which ones a reconstruction takes, and what it makes of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffcli.errors import CorruptError, MissingError
from diffcli.training import checkpoints
from diffcli.training.checkpoints import CheckpointContent
from diffcli.training.ema_snapshots import find_reconstruction, reconstruct, stored_profiles
from diffcli.training.power_function_ema import PowerFunctionAverage, Profile

STEPS, EVERY, STARTS_AT = 240, 30, 100.0
TRACKED = (0.05, 0.08, 0.1)


@pytest.fixture(scope="module")
def direct():
    """What averages of all the widths are at each step that has a snapshot, on a random walk."""
    model = nn.Linear(20, 10)
    averages = [PowerFunctionAverage(model, std=std) for std in TRACKED]
    generator = torch.Generator().manual_seed(0)
    found = {}
    torch.nn.init.constant_(model.weight, STARTS_AT)
    for step in range(STEPS):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
        for average in averages:
            average.update(step)
            found[average.std, step + 1] = {key: w.clone() for key, w in average.weights.items()}
    return found


@pytest.fixture
def snapshots(tmp_path, direct):
    """Snapshots of the widths 0.05 and 0.1, but not of 0.08."""
    for step in range(EVERY, STEPS + 1, EVERY):
        tensors = {f"std-{std}": direct[std, step] for std in (0.05, 0.1)}
        checkpoints.save(tmp_path, step, CheckpointContent(tensors=tensors, counters={}))
    return tmp_path


def damage(snapshots, step):
    path = checkpoints.directory_of(snapshots, step) / "std-0.05.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_listing_reads_names_only(tmp_path):
    snapshot = tmp_path / "step-000030"
    snapshot.mkdir()
    for name in ("std-0.1.safetensors", "std-0.05.safetensors", "state.json", "manifest.json"):
        (snapshot / name).write_bytes(b"")
    assert stored_profiles(snapshot) == (Profile(std=0.05, step=30), Profile(std=0.1, step=30))


def test_an_average_that_was_not_stored_is_reconstructed(snapshots, direct):
    found = find_reconstruction(snapshots, std=0.08, step=None)
    assert found.target == Profile(std=0.08, step=STEPS)
    assert (found.steps, found.stds) == (tuple(range(STEPS, 0, -EVERY)), (0.05, 0.1))
    assert sum(term.coefficient for term in found.terms) == pytest.approx(1)
    assert 0.005 < found.relative_error < 0.02
    expected = direct[0.08, STEPS]
    weights = reconstruct(snapshots, found, expected)
    assert {key: (w.dtype, w.shape) for key, w in weights.items()} == {
        key: (w.dtype, w.shape) for key, w in expected.items()
    }
    error = (weights["weight"] - expected["weight"]).norm()
    assert error < found.relative_error * (expected["weight"] - STARTS_AT).norm()
    assert error < 0.03 * (direct[0.1, STEPS]["weight"] - expected["weight"]).norm()


def test_at_an_earlier_step_later_snapshots_are_not_used(snapshots, direct):
    found = find_reconstruction(snapshots, std=0.08, step=150)
    assert (found.target.step, found.steps) == (150, (150, 120, 90, 60, 30))
    weights = reconstruct(snapshots, found, direct[0.08, 150])
    error = (weights["weight"] - direct[0.08, 150]["weight"]).norm()
    assert error < found.relative_error * (direct[0.08, 150]["weight"] - STARTS_AT).norm()


def test_a_stored_average_comes_back_bit_by_bit_and_needs_no_other(snapshots, direct):
    for step in (60, 120, 240):
        damage(snapshots, step)
    found = find_reconstruction(snapshots, std=0.1, step=150)
    assert (found.steps, found.relative_error, found.rejected) == ((150,), 0.0, ())
    weights = reconstruct(snapshots, found, direct[0.1, 150])
    assert all(torch.equal(weights[key], stored) for key, stored in direct[0.1, 150].items())


def test_large_coefficients_cost_no_accuracy(snapshots, direct):
    found = find_reconstruction(snapshots, std=0.02, step=None)
    assert max(abs(term.coefficient) for term in found.terms) > 3
    exact = sum(
        term.coefficient * direct[term.profile.std, term.profile.step]["weight"].double()
        for term in found.terms
    )
    weights = reconstruct(snapshots, found, direct[0.1, STEPS])
    # rounded once, to float32
    assert ((weights["weight"].double() - exact).abs() <= 1.001 * 2**-24 * exact.abs()).all()


def test_a_damaged_snapshot_is_named_left_out_and_felt(snapshots):
    whole = find_reconstruction(snapshots, std=0.08, step=None)
    damage(snapshots, 210)
    found = find_reconstruction(snapshots, std=0.08, step=None)
    assert 210 not in found.steps
    assert len(found.rejected) == 1
    assert "step-000210" in found.rejected[0].what
    assert found.relative_error > whole.relative_error


def test_the_newest_good_snapshot_is_the_target(snapshots):
    damage(snapshots, 240)
    found = find_reconstruction(snapshots, std=0.08, step=None)
    assert (found.target.step, len(found.rejected)) == (210, 1)
    # but a step that was asked for stays the target, with the error of having nothing near it
    asked = find_reconstruction(snapshots, std=0.08, step=240)
    assert asked.target.step == 240
    assert asked.relative_error > 0.3


def test_too_little_is_an_error_of_its_own_kind(tmp_path, snapshots, direct):
    with pytest.raises(MissingError, match="no EMA snapshots") as caught:
        find_reconstruction(tmp_path / "absent", std=0.08, step=None)
    assert "training.ema_snapshot_every" in caught.value.remedy
    with pytest.raises(MissingError, match="up to step 29") as caught:
        find_reconstruction(snapshots, std=0.08, step=29)
    assert "30" in caught.value.where
    for step in range(EVERY, STEPS + 1, EVERY):
        damage(snapshots, step)
    with pytest.raises(CorruptError, match="none of the 8"):
        find_reconstruction(snapshots, std=0.08, step=None)
    alone = tmp_path / "alone"
    checkpoints.save(alone, 30, CheckpointContent(tensors={"std-0.1": direct[0.1, 30]}, counters={}))
    with pytest.raises(MissingError, match="at least 2") as caught:
        find_reconstruction(alone, std=0.08, step=None)
    assert "--ema-std 0.1 --checkpoint 30" in caught.value.remedy
    assert find_reconstruction(alone, std=0.1, step=None).relative_error == 0


def test_averages_of_another_network_are_refused(snapshots):
    found = find_reconstruction(snapshots, std=0.08, step=None)
    with pytest.raises(CorruptError, match="does not fit"):
        reconstruct(snapshots, found, nn.Linear(20, 11).state_dict())
    larger = {**nn.Linear(20, 10).state_dict(), "more": torch.zeros(1)}
    with pytest.raises(CorruptError, match="does not fit"):
        reconstruct(snapshots, found, larger)
