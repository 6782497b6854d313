"""Every entry of golden/respacing, and the laws of the timesteps where we go further."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffcli.config.sections import DiffusionConfig, SamplingConfig
from diffcli.diffusion.build import build_diffusion
from diffcli.diffusion.respacing import (
    ddim_timesteps,
    kept_timesteps,
    parse_section_counts,
    parse_timesteps,
    section_timesteps,
)
from diffcli.errors import UsageError

GOLDEN = Path(__file__).parents[1] / "golden"
FACTS = json.loads((GOLDEN / "respacing.json").read_text())
ARRAYS = dict(np.load(GOLDEN / "respacing.npz"))
TABLES = {
    "alphas_cumprod": "alpha_bar",
    "posterior_variance": "posterior_variance",
    "posterior_log_variance_clipped": "posterior_log_variance",
}
# on purpose: DDIM takes any count here, also those that no integer stride gives
DDIM_ALLOWED_HERE = {"ddim1", "ddim300", "ddim333"}


def timesteps_of(spec, chain_steps):
    if isinstance(spec, str):
        return parse_timesteps(spec, chain_steps)
    return section_timesteps(chain_steps, spec)


@pytest.mark.parametrize("case", FACTS["space_timesteps"], ids=lambda case: f"{case['T']}-{case['spec']}")
def test_timesteps(case):
    if "timesteps" in case:
        assert list(timesteps_of(case["spec"], case["T"])) == case["timesteps"]
        assert len(case["timesteps"]) == case["count"]
    elif case["spec"] in DDIM_ALLOWED_HERE:
        assert len(timesteps_of(case["spec"], case["T"])) == int(case["spec"].removeprefix("ddim"))
    else:
        with pytest.raises(UsageError):
            timesteps_of(case["spec"], case["T"])


def test_every_recorded_array_of_the_respaced_chains_is_compared():
    compared = 0
    for case in FACTS["spaced_diffusion"]:
        kept = parse_timesteps(case["spec"], case["T"]) if case["spec"] else None
        plain, rescaled = (
            build_diffusion(
                DiffusionConfig(steps=case["T"], schedule=case["schedule"], rescale_timesteps=rescale), kept
            )
            for rescale in (False, True)
        )
        if "raises" in case:
            # on purpose: a chain of one step works here
            assert plain.steps == 1
            continue
        key = case["key"]
        assert (plain.steps, plain.original_steps) == (case["num_timesteps"], case["original_num_steps"])
        np.testing.assert_allclose(plain.schedule.betas, ARRAYS[f"{key}/betas"], rtol=1e-9)
        for recorded, ours in TABLES.items():
            values = getattr(plain.schedule, ours).values
            np.testing.assert_allclose(values, ARRAYS[f"{key}/{recorded}"], rtol=1e-9)
        np.testing.assert_array_equal(plain.timestep_map, ARRAYS[f"{key}/timestep_map"])
        t = torch.from_numpy(ARRAYS[f"{key}/t_in"])
        seen, seen_rescaled = plain.model_timesteps(t), rescaled.model_timesteps(t)
        assert str(seen.dtype) == case["t_model_dtype_rescale0"]
        assert str(seen_rescaled.dtype) == case["t_model_dtype_rescale1"]
        np.testing.assert_array_equal(seen, ARRAYS[f"{key}/t_model_rescale0"])
        np.testing.assert_allclose(seen_rescaled, ARRAYS[f"{key}/t_model_rescale1"], rtol=1e-6)
        # betas, timestep_map, t_in and what the model sees, twice
        compared += len(TABLES) + 5
    assert compared == len(ARRAYS)


@given(st.integers(1, 2000).flatmap(lambda steps: st.tuples(st.just(steps), st.integers(1, steps))))
def test_ddim_takes_any_count_in_nearly_equal_gaps(chain):
    steps, count = chain
    kept = ddim_timesteps(steps, count)
    assert len(kept) == count
    assert 0 <= kept[0] <= kept[-1] <= steps - 1
    gaps = [high - low for low, high in pairwise(kept)]
    assert not gaps or min(gaps) >= 1
    assert not gaps or max(gaps) - min(gaps) <= 1
    strides = [stride for stride in range(1, steps) if len(range(0, steps, stride)) == count]
    if strides:
        assert kept == tuple(range(0, steps, strides[0]))
    else:
        assert kept[-1] == steps - 1


@given(
    st.integers(1, 500).flatmap(
        lambda steps: st.tuples(st.just(steps), st.lists(st.integers(0, steps), min_size=1, max_size=6))
    )
)
def test_sections_give_what_was_asked_or_refuse(chain):
    steps, counts = chain
    sizes = [len(part) for part in np.array_split(np.arange(steps), len(counts))]
    if any(count > size for count, size in zip(counts, sizes, strict=True)):
        with pytest.raises(UsageError):
            section_timesteps(steps, counts)
        return
    kept = section_timesteps(steps, counts)
    assert len(kept) == sum(counts)
    assert list(kept) == sorted(set(kept))
    assert all(0 <= step < steps for step in kept)


@pytest.mark.parametrize("text", ["", "abc", "10,,20", "2.5", "ddim50", "-3,", "ddim-5", "ddim"])
def test_a_count_that_is_none_is_refused(text):
    with pytest.raises(UsageError):
        parse_section_counts(text)
    if text != "ddim50":
        with pytest.raises(UsageError):
            parse_timesteps(text, 100)


def test_negative_counts_are_refused():
    with pytest.raises(UsageError):
        section_timesteps(100, parse_section_counts("-3"))


def test_what_the_configuration_of_sampling_keeps():
    assert kept_timesteps(1000, SamplingConfig()) is None
    assert kept_timesteps(1000, SamplingConfig(steps=250)) == parse_timesteps("250", 1000)
    assert kept_timesteps(300, SamplingConfig(steps=(10, 15, 20))) == parse_timesteps("10,15,20", 300)
    assert kept_timesteps(1000, SamplingConfig(steps=50, solver="ddim")) == parse_timesteps("ddim50", 1000)
    sections = SamplingConfig(steps=(10, 20), solver="ddim")
    assert kept_timesteps(1000, sections) == parse_timesteps("10,20", 1000)


def test_a_chain_that_keeps_nothing_is_refused():
    with pytest.raises(UsageError):
        build_diffusion(DiffusionConfig(), parse_timesteps("0", 1000))


def test_the_full_chain_respaced_is_the_same_chain():
    config = DiffusionConfig(steps=200, schedule="cosine")
    whole, respaced = build_diffusion(config), build_diffusion(config, range(200))
    torch.testing.assert_close(respaced.schedule.betas, whole.schedule.betas, rtol=1e-9, atol=0)
    assert torch.equal(respaced.timestep_map, whole.timestep_map)
