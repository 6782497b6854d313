"""The search for the largest microbatch, with memory that is really refused, and what is then told."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

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
from diffcli.models.conditioning import Conditioning
from diffcli.training.microbatch import (
    StepProbe,
    agreed_microbatch,
    is_out_of_memory,
    largest_microbatch,
    out_of_memory_error,
)
from diffcli.training.objective import DenoisingObjective
from diffcli.training.optimizer import build_optimizer
from diffcli.workers import Workers, WorkersSettings
from diffcli_process import fork_server, shell_environment
from runs_in_processes import NEW, Bench, attempts, make_bench, status

CONFIG = RunConfig(
    data=DataConfig(resolution=32),
    model=ModelConfig(
        channels=32, channel_mult=(1,), res_blocks=1, attention_resolutions=(), dropout=0.1, classes=3
    ),
    diffusion=DiffusionConfig(steps=50, variance="learned_range", objective="hybrid"),
    training=TrainingConfig(batch_size=16),
)
CPU = torch.device("cpu")
# enough to train, not for the activations of 1024 images
ROOM_KIBIBYTES = 700 * 2**10


def probe_of(config: RunConfig, network: nn.Module) -> StepProbe:
    """A probe before the first step."""
    return StepProbe(
        config=config,
        network=network,
        optimizer=build_optimizer(network, config.training, CPU),
        objective=DenoisingObjective(build_diffusion(config.diffusion)),
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
    # the backward pass finds no more memory while another way through a block is still to go
    handle = network.up[0].blocks[0].residual.skip.register_full_backward_hook(_refuse)
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
            condition = Conditioning(y=torch.zeros(images, dtype=torch.int64))
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


# ---- what a user sees ----


LARGE = ("--set", "training.batch_size=1024", "--steps", "1", "--set", "training.lr_anneal_steps=0")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not hold a process to these limits")
def test_a_training_that_is_too_large_says_what_to_set_and_auto_trains_it(tmp_path: Path) -> None:
    bench = make_bench(tmp_path)
    # torch's build for CUDA takes half a gigabyte more than the one without
    limit = program_kibibytes() + ROOM_KIBIBYTES
    refused = train_within(limit, bench, *LARGE)
    assert refused.returncode == 1, refused.stderr
    assert "error: there is not enough memory for microbatches of 1024 images\n" in refused.stderr
    assert "less is needed with training.microbatch = 512 or auto, or model.checkpoint" in refused.stderr
    assert "Traceback" not in refused.stderr
    trained = train_within(limit, bench, *LARGE, "--set", "training.microbatch=auto")
    assert trained.returncode == 0, trained.stderr
    [attempt] = attempts(bench.run(2))
    assert attempt["microbatch"] in (64, 128, 256)
    assert status(bench.run(2))["images_seen"] == 1024


def program_kibibytes() -> int:
    """The data of a process that has loaded what `diffcli train` loads."""
    program = "import diffcli.commands.train; print(open('/proc/self/status').read())"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    return int(told.partition("VmData:")[2].split()[0])


def train_within(kibibytes: int, bench: Bench, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `diffcli train` where a shell allows its data no more than that."""
    command = shlex.join([sys.executable, "-m", "diffcli", *NEW, *options])
    return subprocess.run(
        ["sh", "-c", f"ulimit -d {kibibytes} && exec {command}"],
        cwd=bench.directory,
        env=shell_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
