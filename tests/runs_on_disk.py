"""Runs with everything a training leaves on disk, made in no time: real records, small checkpoints."""

from __future__ import annotations

import dataclasses
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import torch

from diffcli.config.encode import config_to_json
from diffcli.config.sections import RunConfig
from diffcli.models.build import build_network
from diffcli.records.training import MetricRow, Speed, TermMeans
from diffcli.registry.create import NewRun, Run, create_run
from diffcli.registry.events import Event, append_event
from diffcli.registry.json_records import write_record
from diffcli.registry.metrics import LoggedRow, append_metrics
from diffcli.registry.process import ProcessIdentity, this_process
from diffcli.registry.provenance import installed_versions
from diffcli.registry.run_record import Attempt, DatasetFacts, write_attempt
from diffcli.registry.status import STATUS_SCHEMA, RunStatus, read_status, write_status
from diffcli.training import checkpoints
from diffcli.training.checkpoints import CheckpointContent
from diffcli.training.state import average_file

# of what `prepare digits` makes of the split `train`
DIGITS_HASH = "82fd2f59804d1e3b58d717fee54284a1237b0a76b2a43c02ee27779baa0bb623"
TOTAL_STEPS = 2000
BATCH_SIZE = 64
# none has this pid: it is above the largest that Linux gives
DEAD_PID = 2**22 + 1


def spec(config: RunConfig, *, name: str = "", class_names: tuple[str, ...] = ("zero", "one")) -> NewRun:
    """What a run of a configuration is made from."""
    return NewRun(
        name=name,
        preset="digits",
        command_line=("diffcli", "train", "--preset", "digits"),
        config=config_to_json(config),
        total_steps=config.training.steps,
        versions=installed_versions(),
        git_commit=None,
        dataset=DatasetFacts(
            path="data/digits/train",
            content_hash=DIGITS_HASH,
            weak_hash=False,
            count=1500,
            class_names=class_names,
        ),
    )


def new_run(home: Path, name: str = "", *, keep_every: int = 0) -> Run:
    """A run that was made and not yet trained."""
    config = RunConfig()
    training = dataclasses.replace(
        config.training, steps=TOTAL_STEPS, batch_size=BATCH_SIZE, keep_every=keep_every
    )
    return create_run(home, spec(dataclasses.replace(config, training=training), name=name))


def trained_run(home: Path, *steps: int, name: str = "", keep_every: int = 0) -> Run:
    """A run that was stopped after the last of the steps, each of which has its checkpoint and metrics."""
    run = new_run(home, name, keep_every=keep_every)
    _begin_attempt(run)
    for step in steps:
        append_metrics(run.paths.metrics, LoggedRow(attempt=1, row=metrics(step)))
        save_checkpoint(run.paths.checkpoints, step)
    note(run, "stopped", "stopped by SIGTERM", step=steps[-1])
    set_status(run, state="stopped", step=steps[-1], exit_code=143, reason="stopped by SIGTERM")
    return run


def _begin_attempt(run: Run) -> None:
    attempt = Attempt(
        number=1,
        started_at=datetime.now(UTC),
        first_step=0,
        changes=(),
        world_size=2,
        device="cpu",
        threads=1,
        precision="fp32",
        versions=installed_versions(),
        host="here",
        pid=DEAD_PID,
    )
    write_attempt(run.paths, attempt)
    note(run, "started", "attempt 1 from step 0", step=0)


def note(run: Run, kind: str, message: str, *, step: int) -> None:
    """Append an event of attempt 1."""
    event = Event(at=datetime.now(UTC), attempt=1, step=step, kind=kind, message=message)
    append_event(run.paths.events, event)


def set_status(run: Run, **changes: object) -> RunStatus:
    """Write the status with changes, as the trainer does."""
    return write_status(run.paths, dataclasses.replace(read_status(run.paths), **changes))


def dead_process() -> ProcessIdentity:
    """One of this machine that is gone."""
    return dataclasses.replace(this_process(), pid=DEAD_PID, started="1")


def process_elsewhere() -> ProcessIdentity:
    """One of another machine."""
    return ProcessIdentity(host="another-host", boot="another-boot", pid=77, started="1")


def make_silent(run: Run, *, minutes: float) -> None:
    """Let the run be in training on another machine, with its last heartbeat so long ago."""
    moment = datetime.now(UTC) - timedelta(minutes=minutes)
    running = dataclasses.replace(
        read_status(run.paths), state="running", process=process_elsewhere(), updated_at=moment
    )
    write_record(run.paths.status, running, schema=STATUS_SCHEMA)
    os.utime(run.paths.status, (moment.timestamp(), moment.timestamp()))


def save_checkpoint(parent: Path, step: int) -> Path:
    """A checkpoint, or an EMA snapshot, of three numbers."""
    content = CheckpointContent(
        tensors={"model": {"w": torch.full((3,), float(step))}},
        counters={"images_seen": step * BATCH_SIZE},
    )
    return checkpoints.save(parent, step, content)


def damage(checkpoint: Path) -> None:
    """Flip a bit of its weights."""
    path = checkpoint / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def metrics(step: int, *, loss: float | None = None) -> MetricRow:
    """A row of metrics; the loss falls with the steps if none is given."""
    term = TermMeans(overall=1 / step if loss is None else loss, quartiles=(0.4, None, 0.2, 0.1))
    return MetricRow(
        step=step,
        images_seen=step * BATCH_SIZE,
        loss=term,
        mse=term,
        vb=None,
        grad_norm=0.5,
        param_norm=99.0,
        lr=1e-3,
        loss_scale=None,
        speed=Speed(images_per_second=100.0, seconds=1.0, data_wait_share=0.01, memory_bytes=10**9),
    )


def run_of_a_network(home: Path, config: RunConfig, name: str, *, class_names: tuple[str, ...] = ()) -> Run:
    """A run of which any network is left, none of its weights zero, in a checkpoint of step 1."""
    run = create_run(home, spec(config, name=name, class_names=class_names))
    names = ["model", *(average_file(rate) for rate in config.training.ema_rates)]
    tensors = {name: _random_weights(config, seed) for seed, name in enumerate(names)}
    checkpoints.save(run.paths.checkpoints, 1, CheckpointContent(tensors=tensors, counters={}))
    return run


def _random_weights(config: RunConfig, seed: int) -> dict[str, torch.Tensor]:
    """Weights that keep the size of what goes through them, as those of the golden networks do."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, tensor in build_network(config).state_dict().items():
        drawn = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1:
            weights[name] = drawn * (len(tensor) / tensor.numel()) ** 0.5
        else:
            weights[name] = 0.2 * drawn + name.endswith("weight")
    return weights
