"""The search for the largest microbatch, with memory that is really refused, and what is then told."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from diffcli.commands.available_memory import available_memory_bytes
from diffcli.commands.memory import estimated_to_fit, footprint
from diffcli.config.sections import (
    DataConfig,
    DiffusionConfig,
    ModelConfig,
    Precision,
    RunConfig,
    TrainingConfig,
)
from diffcli.diffusion.build import build_diffusion
from diffcli.models.activations import activation_bytes_per_image
from diffcli.models.build import build_model
from diffcli.training.microbatch import (
    StepProbe,
    agreed_microbatch,
    is_out_of_memory,
    largest_microbatch,
    out_of_memory_error,
)
from diffcli.training.optimizer import build_optimizer
from diffcli.workers import Workers, WorkersSettings
from diffcli_process import fork_server

CONFIG = RunConfig(
    data=DataConfig(resolution=32),
    model=ModelConfig(
        channels=32, channel_mult=(1,), res_blocks=1, attention_resolutions=(), dropout=0.1, classes=3
    ),
    diffusion=DiffusionConfig(steps=50, variance="learned_range", objective="hybrid"),
    training=TrainingConfig(batch_size=16),
)
CPU = torch.device("cpu")


def probe_of(config: RunConfig, network: nn.Module) -> StepProbe:
    """A probe before the first step."""
    return StepProbe(
        config=config,
        network=network,
        optimizer=build_optimizer(network, config.training, CPU),
        diffusion=build_diffusion(config.diffusion),
        share=config.training.batch_size,
    )


# ---- the search ----


@given(share=st.integers(1, 10**6), limit=st.integers(0, 2 * 10**6))
@example(share=128, limit=64)
@example(share=3, limit=1)
def test_the_search_comes_within_a_factor_of_two_in_few_tries(share: int, limit: int) -> None:
    tried: list[int] = []

    def step_fits(size: int) -> bool:
        tried.append(size)
        return size <= limit

    found = largest_microbatch(step_fits, share)
    assert min(share, limit) / 2 <= found <= min(share, limit)
    assert tried[0] == share
    assert len(tried) <= share.bit_length() + 1
    assert tried == sorted(set(tried), reverse=True)
    # as few microbatches as that: no smaller number of equal ones would do
    if 0 < found < share:
        assert tried[-2] > limit
        assert found == -(-tried[-2] // 2)


def test_all_processes_agree_or_all_are_told_what_to_set() -> None:
    workers = Workers(WorkersSettings(device="cpu", precision="fp32", threads=1, deterministic=False))
    assert agreed_microbatch(CONFIG, workers, lambda images: images <= 9) == 8
    with pytest.raises(Exception, match="not enough memory") as refused:
        agreed_microbatch(CONFIG, workers, lambda _images: False)
    assert str(refused.value) == str(out_of_memory_error(CONFIG, microbatch=1, share=16))


# ---- what is told ----


def test_the_message_names_what_to_set_and_only_what_is_not_set_yet() -> None:
    error = out_of_memory_error(CONFIG, microbatch=13, share=16)
    assert error.what == "there is not enough memory for microbatches of 13 images"
    assert error.where == "each process's share of a global batch of 16 is 16"
    assert error.remedy == (
        "less is needed with training.microbatch = 7 or auto, or model.checkpoint_blocks = true, "
        "or training.precision = bf16; --resume takes them too"
    )
    frugal = replace(
        CONFIG,
        model=replace(CONFIG.model, checkpoint_blocks=True),
        training=replace(CONFIG.training, precision="bf16"),
    )
    assert out_of_memory_error(frugal, microbatch=2, share=16).remedy == (
        "less is needed with training.microbatch = 1 or auto; --resume takes them too"
    )
    last = out_of_memory_error(frugal, microbatch=1, share=16)
    assert last.what.endswith("microbatches of 1 image")
    assert last.remedy == "a smaller model or data.resolution needs a new run"


def test_an_exception_that_tells_of_memory_is_known_as_such() -> None:
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(MemoryError) as of_python:
        bytearray(2**62)
    for error in (
        of_torch.value,
        of_python.value,
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 8 GB, max allowed: 9 GB)."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ):
        assert is_out_of_memory(error)
    with pytest.raises(RuntimeError) as of_shapes:
        torch.ones(2) + torch.ones(3)
    assert not is_out_of_memory(of_shapes.value)
    assert not is_out_of_memory(ValueError("out of memory"))


# ---- trying ----


@pytest.mark.parametrize(("precision", "recompute"), [("fp32", False), ("bf16", True)])
def test_a_trial_leaves_no_trace_whether_it_fits_or_not(precision: Precision, recompute: bool) -> None:
    config = replace(
        CONFIG,
        model=replace(CONFIG.model, checkpoint_blocks=recompute),
        training=replace(CONFIG.training, precision=precision),
    )
    torch.manual_seed(0)
    network = build_model(config).eval()
    probe = probe_of(config, network)
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    generator = torch.get_rng_state()
    assert probe.fits(2)
    alive = bytes_alive()
    # the backward pass finds no more memory when it is half-way
    handle = network.middle.before.register_full_backward_hook(_refuse)
    assert not probe.fits(2)
    handle.remove()
    assert bytes_alive() == alive
    assert not any(module.training for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not probe.optimizer.state
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in weights.items())


def bytes_alive() -> int:
    """What the tensors take that Python knows of."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    return sum({t.untyped_storage(): t.untyped_storage().nbytes() for t in tensors}.values())


def _refuse(_module: nn.Module, _inputs: object, _outputs: object) -> None:
    torch.empty(2**60, dtype=torch.uint8)


def test_a_fault_of_another_kind_is_not_taken_for_a_lack_of_memory() -> None:
    network = build_model(CONFIG)
    network.conv_in = nn.Conv2d(7, 32, 3)
    with pytest.raises(RuntimeError, match="channels"):
        probe_of(CONFIG, network).fits(1)
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not hold a process to these limits")
@pytest.mark.parametrize("checkpoint_blocks", [False, True])
def test_under_a_real_limit_what_is_found_trains_and_its_double_does_not(
    checkpoint_blocks: bool, tmp_path: Path
) -> None:
    config = replace(CONFIG, model=replace(CONFIG.model, checkpoint_blocks=checkpoint_blocks))
    result = tmp_path / "result.json"
    process = fork_server().Process(target=_search_under_a_limit, args=(config, result))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    found = json.loads(result.read_text())
    assert found["microbatch"] in (4, 8)
    assert found["trained"] == [True, True]
    assert found["double_trained"] is False


def _search_under_a_limit(config: RunConfig, result: Path) -> None:
    """Search where 7 of 16 images are estimated to fit, then take steps with what was found."""
    torch.set_num_threads(1)
    # M_MMAP_THRESHOLD: freed tensors go back to the system, so that every trial meets the same memory
    ctypes.CDLL(None).mallopt(-3, 2**16)
    torch.manual_seed(0)
    probe = probe_of(config, build_model(config))
    batch = config.training.batch_size
    # oneDNN compiles its kernels while there is room: once refused, it makes no others in this process
    assert largest_microbatch(lambda images: not probe.fits(images), batch) == 0
    room = 0.45 * batch * activation_bytes_per_image(config)
    limit = _address_space_bytes() + int(room)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    microbatch = largest_microbatch(probe.fits, batch)
    outcome = {
        "microbatch": microbatch,
        "trained": [_trains(probe, microbatch) for _ in range(2)],
        "double_trained": _trains(probe, 2 * microbatch),
    }
    result.write_text(json.dumps(outcome))


def _trains(probe: StepProbe, images: int) -> bool:
    """Whether an optimizer step on a global batch of two such microbatches finds its memory."""
    try:
        for _ in range(2):
            x = torch.randn(images, 3, 32, 32)
            condition = probe._conditioning(images)
            probe.network(x, torch.zeros(images), condition).square().mean().backward()
        probe.optimizer.step()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        probe.optimizer.zero_grad(set_to_none=True)
    return True


def _address_space_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")


# ---- estimating ----


def test_the_estimate_decides_on_a_cpu_only() -> None:
    needs = footprint(CONFIG)
    batch = CONFIG.training.batch_size * needs.activation_bytes_per_image
    plenty, little = 3 * batch + 10**9, needs.state_bytes + needs.checkpoint_bytes + batch
    assert estimated_to_fit(CONFIG, CPU, plenty)(16)
    assert not estimated_to_fit(CONFIG, CPU, little)(16)
    assert largest_microbatch(estimated_to_fit(CONFIG, CPU, little), 16) in (4, 8)
    assert not estimated_to_fit(CONFIG, CPU, needs.checkpoint_bytes)(1)
    # a GPU refuses what it does not have
    assert estimated_to_fit(CONFIG, torch.device("cuda"), 0)(16)


def test_what_is_available_is_the_least_that_anything_leaves(tmp_path: Path) -> None:
    files = {
        "proc/meminfo": "MemTotal: 9000 kB\nMemFree: 1 kB\nMemAvailable: 5000 kB\n",
        "proc/self/cgroup": "0::/jobs/one\n",
        "sys/fs/cgroup/jobs/one/memory.max": "max\n",
        "sys/fs/cgroup/jobs/one/memory.current": "1024\n",
        "sys/fs/cgroup/jobs/one/memory.stat": "anon 5\ninactive_file 512\n",
        "sys/fs/cgroup/jobs/memory.max": "4096000\n",
        "sys/fs/cgroup/jobs/memory.current": "2048000\n",
        "sys/fs/cgroup/jobs/memory.stat": "anon 5\ninactive_file 48000\n",
    }
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert available_memory_bytes(tmp_path) == 4096000 - 2048000 + 48000
    (tmp_path / "sys/fs/cgroup/jobs/memory.max").write_text("1\n")
    assert available_memory_bytes(tmp_path) == 0
    # the older control groups, seen from inside a container
    (tmp_path / "proc/self/cgroup").write_text("3:cpu,cpuacct:/x\n4:memory:/outside/of/it\n0::/\n")
    older = tmp_path / "sys/fs/cgroup/memory"
    older.mkdir()
    (older / "memory.limit_in_bytes").write_text("3000000\n")
    (older / "memory.usage_in_bytes").write_text("1000000\n")
    (older / "memory.stat").write_text("inactive_file 7\ntotal_inactive_file 1000\n")
    assert available_memory_bytes(tmp_path) == 3000000 - 1000000 + 1000
    (tmp_path / "proc/self/cgroup").unlink()
    assert available_memory_bytes(tmp_path) == 5000 * 1024


def test_this_machine_has_memory() -> None:
    assert 10**7 < available_memory_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
