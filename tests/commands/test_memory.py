"""What a training is estimated to need, what the machine has, and what a dry run tells of both."""

from __future__ import annotations

import os
import resource
import sys

import pytest
import torch

from diffcli.commands.available_memory import available_memory_bytes
from diffcli.commands.memory import estimated_to_fit, footprint
from diffcli.config.resolve import resolve
from diffcli.training.microbatch import largest_microbatch
from diffcli_process import fork_server, run_diffcli

CPU = torch.device("cpu")


def config_of(*overrides):
    return resolve(preset="digits", overrides=overrides).config


def test_the_state_grows_by_every_average_and_by_half_precision():
    plain = footprint(config_of())
    weights = plain.parameters * 4
    # weights, gradient, two moments, one average; all but the gradient are in a checkpoint
    assert plain.state_bytes == 5 * weights
    assert plain.checkpoint_bytes == 4 * weights
    more = footprint(config_of("training.ema_rates=[0.9, 0.99]", "training.ema_snapshot_every=100"))
    assert more.state_bytes == 8 * weights
    assert more.checkpoint_bytes == 7 * weights
    assert footprint(config_of("training.precision=bf16")).state_bytes == 5.5 * weights


def test_the_estimate_decides_on_a_cpu_only():
    config = config_of()
    needs = footprint(config)
    batch = config.training.batch_size
    images = batch * needs.activation_bytes_per_image
    beside = needs.state_bytes + needs.checkpoint_bytes
    # with room for the allocator, which needs more than the tensors do
    assert estimated_to_fit(config, CPU, beside + 3 * images)(batch)
    assert not estimated_to_fit(config, CPU, needs.state_bytes + images)(batch)
    assert largest_microbatch(estimated_to_fit(config, CPU, beside + images), batch) in (
        batch // 2,
        batch // 4,
    )
    assert not estimated_to_fit(config, CPU, needs.checkpoint_bytes)(1)
    # a GPU refuses what it does not have
    assert estimated_to_fit(config, torch.device("cuda"), 0)(batch)


def test_a_dry_run_tells_of_auto_and_of_recomputed_blocks(tmp_path):
    auto = ("train", "--preset", "digits", "--dry-run", "--set", "training.microbatch=auto")
    told = run_diffcli(*auto, directory=tmp_path)
    assert told.status == 0
    assert "activations at microbatch 64; auto takes a smaller one if that does not fit\n" in told.out
    assert 'training.microbatch\t"auto"\t--set\n' in told.out
    kept = run_diffcli(*auto, "--json", directory=tmp_path).json
    assert (kept["microbatch"], kept["microbatch_is_auto"]) == (64, True)
    less = run_diffcli(*auto[:4], "--json", "--set", "model.checkpoint_blocks=true", directory=tmp_path).json
    assert (less["microbatch"], less["microbatch_is_auto"]) == (64, False)
    assert less["activation_bytes"] < 0.6 * kept["activation_bytes"]
    assert less["state_bytes"] == kept["state_bytes"]


def test_what_is_available_is_the_least_that_anything_leaves(tmp_path):
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


def test_this_machine_has_memory():
    assert 10**7 < available_memory_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere what a process has taken cannot be read")
def test_a_limit_on_the_process_counts():
    process = fork_server().Process(target=_look_under_a_limit)
    process.start()
    process.join(60)
    assert process.exitcode == 0


def _look_under_a_limit():
    free = available_memory_bytes()
    limit = 2**31
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    assert 0 < available_memory_bytes() < min(free, limit)
