"""docs/slurm.sh as it is, under bash and torchrun: a job that is stopped is queued again and ends well.

Only Slurm itself is not there. Its commands `srun` (here it runs its command on this machine) and `scontrol`
(here it notes what it was asked for) are the scripts below, and the test does what `sbatch` and the queue do:
it runs the batch script in the job's environment, and again when the job was queued again.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM, SIGUSR1

import pytest

from diffcli.registry.process import living_process
from diffcli.training import checkpoints
from diffcli_process import shell_environment
from runs_in_processes import PRESET, Bench, attempts, make_bench, status, wait_until

SCRIPT = Path(__file__).parents[2] / "docs" / "slurm.sh"
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/bash
case $1 in
    show) echo localhost ;;
    requeue) echo "$2" >> requeued ;;
esac
"""
STEPS = 200


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A bench with the commands of Slurm, and one job."""

    bench: Bench
    job_id: int

    @property
    def requeued(self) -> bool:
        """Whether the job asked to be queued again."""
        asked = self.bench.directory / "requeued"
        return asked.exists() and asked.read_text() == f"{self.job_id}\n"

    def start(self):
        """Start the job, or start it once more."""
        return Job(self)


class Job:
    """The batch script, running; it has what `wait_until` asks of a process."""

    def __init__(self, cluster):
        directory = cluster.bench.directory
        self._log = (directory / "slurm.out").open("ab")
        programs = f"{directory / 'slurm'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._process = subprocess.Popen(
            [str(SCRIPT), "--preset", "./tiny.toml", "--device", "cpu"],
            cwd=directory,
            env=shell_environment(
                PATH=programs,
                ACCELERATE_USE_CPU="true",
                SLURM_JOB_ID=str(cluster.job_id),
                SLURM_JOB_NAME="digits",
                SLURM_NNODES="1",
                SLURM_JOB_NODELIST="localhost",
                SLURM_GPUS_ON_NODE="2",
                SLURM_CPUS_PER_TASK="2",
            ),
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    @property
    def errors(self):
        return Path(self._log.name).read_text()

    @property
    def step(self):
        """The pid of `srun`, which here is torchrun's."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return int(children.split()[0])

    def running(self):
        return self._process.poll() is None

    def exit_code(self):
        try:
            return self._process.wait(120)
        finally:
            self._log.close()

    def send(self, number):
        os.kill(self._process.pid, number)

    def kill(self):
        """End what a failed test has left."""
        if self.running():
            os.killpg(self._process.pid, SIGKILL)


@pytest.fixture
def cluster(tmp_path):
    preset = PRESET.replace("steps = 12", f"steps = {STEPS}").replace("lr_anneal_steps = 20", "")
    bench = make_bench(tmp_path, preset.replace("batch_size = 8", "batch_size = 2"))
    commands = tmp_path / "slurm"
    commands.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    return Cluster(bench=bench, job_id=job_with_a_free_port())


def job_with_a_free_port():
    """The number of a job for which the script's port is free on this machine, where only tests run."""
    first = 4711 + os.getpid() % 1000
    for job_id in range(first, first + 1000):
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", 20000 + job_id % 10000)) != 0:
                return job_id
    raise AssertionError("no free port")


def saved_since(run, attempt_count):
    """Whether attempt number `attempt_count` has begun and saved."""
    if not (run / "attempts" / f"{attempt_count:03d}.json").exists():
        return False
    return checkpoints.steps_present(run / "checkpoints")[-1:] > (attempts(run)[-1]["first_step"],)


def stopped_by(cluster, stop, *, attempt):
    """Run the job until it has saved, have it stopped, and wait for its end."""
    run = cluster.bench.run()
    job = cluster.start()
    try:
        wait_until(lambda: saved_since(run, attempt), job)
        stop(job)
        assert job.exit_code() != 0
    finally:
        job.kill()
    said = status(run)
    assert (said["state"], said["exit_code"], said["world_size"]) == ("stopped", 143, 2)
    assert living_process(said["process"]["pid"]) is None
    assert checkpoints.newest_good(run / "checkpoints").step == said["step"]


def ends_well(cluster, *, attempt):
    job = cluster.start()
    try:
        assert job.exit_code() == 0, job.errors
    finally:
        job.kill()
    run = cluster.bench.run()
    assert (status(run)["state"], status(run)["step"]) == ("completed", STEPS)
    assert [entry["world_size"] for entry in attempts(run)] == [2] * attempt
    assert attempts(run)[-1]["first_step"] > 0
    assert json.loads((run / "run.json").read_text())["name"] == f"{cluster.job_id}-digits"
    assert not cluster.bench.run(2).exists()


def test_a_preempted_job_is_queued_again_and_goes_on_where_it_was(cluster):
    # Slurm warns the tasks of a job that it is about to preempt, and not the batch script
    stopped_by(cluster, lambda job: os.kill(job.step, SIGTERM), attempt=1)
    assert cluster.requeued
    (cluster.bench.directory / "requeued").unlink()
    ends_well(cluster, attempt=2)
    assert not cluster.requeued


@pytest.mark.slow
def test_a_job_whose_time_is_over_is_queued_again_and_one_that_slurm_ends_is_not(cluster):
    stopped_by(cluster, lambda job: job.send(SIGUSR1), attempt=1)
    assert cluster.requeued
    (cluster.bench.directory / "requeued").unlink()
    stopped_by(cluster, lambda job: job.send(SIGTERM), attempt=2)
    assert not cluster.requeued
    ends_well(cluster, attempt=3)
