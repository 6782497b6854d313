"""Write a checkpoint of a run in the formats of other programs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from diffcli import __version__, durable
from diffcli.commands.run_config import current_config
from diffcli.commands.sampling_request import ema_choice
from diffcli.commands.weights import require_weights, weights_name
from diffcli.config.resolve import FlagSetting, revise
from diffcli.config.sections import RunConfig
from diffcli.errors import UsageError
from diffcli.interchange.diffusers_folder import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    diffusers_settings,
    diffusers_weights,
)
from diffcli.interchange.exported_files import by_itself, original_name, write_pt, write_safetensors
from diffcli.interchange.openai_names import to_published
from diffcli.interchange.original_optimizer import OriginalMoments, optimizer_content
from diffcli.models.build import build_network
from diffcli.records.interchange import ExportedFile, ExportedRun, ExportFormat
from diffcli.registry.create import Run, open_run
from diffcli.training import checkpoints
from diffcli.training.checkpoints import FoundCheckpoint
from diffcli.training.ema import NamedTensors
from diffcli.training.learning_rate import learning_rate
from diffcli.training.state import RAW_WEIGHTS, average_file, average_rates, has_moments, has_raw_weights

RECORD = "export.json"
_SCHEMA = 1
_SUFFIXES: Mapping[ExportFormat, str] = {"openai": ".pt", "safetensors": ".safetensors"}
_MAKING = "making"
_REPLACED = "replaced"
_SHOWN_OTHERS = 3


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What `diffcli runs export` was asked for.

    ema: which weights, as `--ema` takes them; None for all that the format has room for. checkpoint: its
    step, None for the newest good one. out: the directory; None for one of the run's own.
    """

    run: str
    format: ExportFormat
    ema: str | None
    checkpoint: int | None
    out: Path | None
    force: bool
    runs_home: Path


def export_run(request: ExportRequest) -> ExportedRun:
    """Write the files, which appear together.

    Raises UsageError for a network that the format cannot represent and for a place that is taken,
    MissingError for a checkpoint or weights that are not there, CorruptError, StorageError.
    """
    run = open_run(request.runs_home, request.run)
    config = _config(request, run)
    found = _checkpoint(request, run)
    job = _Job(request=request, run=run, config=config, found=found)
    final = job.directory()
    _require_room(final, force=request.force)
    making = final.with_name(f".{final.name}.{_MAKING}")
    durable.remove_tree(making)
    with durable.storage_errors(final):
        making.mkdir(parents=True)
    try:
        job.write(making)
        _commit(making, final)
    except BaseException:
        durable.remove_tree(making)
        raise
    # as the user has called it
    shown = request.out or final
    return ExportedRun(
        run_id=run.id,
        step=found.step,
        format=request.format,
        directory=shown,
        files=tuple(
            ExportedFile(path=shown / path.name, size_bytes=path.stat().st_size)
            for path in sorted(final.iterdir())
            if path.name != RECORD
        ),
        notices=tuple(job.notices()),
    )


def _config(request: ExportRequest, run: Run) -> RunConfig:
    """The run's configuration, with the weights that were asked for as its choice for sampling."""
    config = current_config(run)
    if request.ema is None:
        return config
    choice = FlagSetting(flag="--ema", path="sampling.ema", value=ema_choice(request.ema))
    return revise(config, run=run.id, changeable=("sampling",), flags=(choice,)).config


def _checkpoint(request: ExportRequest, run: Run) -> FoundCheckpoint:
    if request.checkpoint is None:
        return checkpoints.newest_good(run.paths.checkpoints)
    return checkpoints.at_step(run.paths.checkpoints, request.checkpoint)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One export: which weights of which checkpoint, and in what format."""

    request: ExportRequest
    run: Run
    config: RunConfig
    found: FoundCheckpoint

    def directory(self) -> Path:
        """Where the files go; the name says which they are."""
        if self.request.out is not None:
            return self.request.out.resolve()
        parts = [self.request.format, f"step-{self.found.step:06d}"]
        if self._chosen_one:
            parts.append(self._groups()[0])
        return self.run.paths.exports / "-".join(parts)

    def write(self, directory: Path) -> None:
        """Write all files into a directory."""
        if self.request.format == "diffusers":
            self._write_diffusers(directory)
        else:
            self._write_original(directory, _SUFFIXES[self.request.format])
        record = {
            "schema": _SCHEMA,
            "diffcli": __version__,
            "run": self.run.id,
            "checkpoint": self.found.step,
            "checkpoint_manifest_sha256": durable.sha256(self.found.directory / checkpoints.MANIFEST),
            "format": self.request.format,
            "weights": list(self._groups()),
            # a forced export deletes these and nothing else
            "files": sorted(path.name for path in directory.iterdir()),
        }
        durable.write_json(directory / RECORD, record)

    def notices(self) -> Iterator[str]:
        """What the user has to know about the files and the checkpoint."""
        for rejected in self.found.rejected:
            yield f"warning: a newer checkpoint is damaged and not used: {rejected.what}"
        if self.request.format == "diffusers":
            diffusion = self.config.diffusion
            yield (
                "note: the folder holds the network alone, for a scheduler of "
                f"{diffusion.steps} timesteps, schedule {diffusion.schedule}, predict {diffusion.predict}, "
                f"variance {diffusion.variance}"
            )
            if diffusion.rescale_timesteps and diffusion.steps != 1000:
                yield f"note: give it timestep t as t * {1000 / diffusion.steps:g}"
        elif self._with_optimizer:
            yield (
                "note: the optimizer's state is among the files, so the training can go on elsewhere, "
                "by the original programs in float32 (--use_fp16 False)"
            )

    @property
    def _chosen_one(self) -> bool:
        return self.request.ema is not None or self.request.format == "diffusers"

    @property
    def _with_optimizer(self) -> bool:
        everything = self.request.format == "openai" and self.request.ema is None
        return everything and has_raw_weights(self.found.directory) and has_moments(self.found.directory)

    def _groups(self) -> tuple[str, ...]:
        """The names of the weights to write, as the checkpoint has them."""
        if self._chosen_one:
            name = weights_name(self.config, self.config.sampling.ema)
            require_weights(self.found.directory, name)
            return (name,)
        raw = (RAW_WEIGHTS,) if has_raw_weights(self.found.directory) else ()
        return (*raw, *(average_file(rate) for rate in average_rates(self.found.directory)))

    def _read(self, group: str) -> NamedTensors:
        """Weights in the order of the network, which no file of safetensors keeps."""
        with torch.device("meta"):
            expected = build_network(self.config).state_dict()
        weights = checkpoints.read_fitting(self.found.directory, group, expected)
        return by_itself({name: weights[name] for name in expected})

    def _write_diffusers(self, directory: Path) -> None:
        # before anything is read: it may be that it cannot be
        settings = diffusers_settings(self.config)
        weights = diffusers_weights(self._read(self._groups()[0]), self.config)
        durable.write_json(directory / CONFIG_FILE, dataclasses.asdict(settings))
        write_safetensors(directory / WEIGHTS_FILE, by_itself(weights))

    def _write_original(self, directory: Path, suffix: str) -> None:
        for group in self._groups():
            published = to_published(self._read(group), self.config)
            kind = "model" if group == RAW_WEIGHTS else f"ema_{group.removeprefix('ema-')}"
            path = directory / original_name(kind, self.found.step, suffix=suffix)
            if suffix == ".pt":
                write_pt(path, published)
            else:
                write_safetensors(path, published)
        if self._with_optimizer:
            path = directory / original_name("opt", self.found.step, suffix=suffix)
            write_pt(path, self._optimizer())

    def _optimizer(self) -> dict[str, object]:
        found = checkpoints.read_tensors(self.found.directory, "optimizer")
        with torch.device("meta"):
            names = list(build_network(self.config).state_dict())

        def published(moment: str) -> NamedTensors:
            return to_published(by_itself({name: found[f"{moment}.{name}"] for name in names}), self.config)

        training = self.config.training
        return optimizer_content(
            OriginalMoments(
                updates=int(checkpoints.read_counters(self.found.directory)["optimizer_updates"]),
                exp_avg=published("exp_avg"),
                exp_avg_sq=published("exp_avg_sq"),
            ),
            learning_rate=learning_rate(training, self.found.step),
            weight_decay=training.weight_decay,
        )


def _commit(making: Path, final: Path) -> None:
    """Put finished files in their place; what they replace is deleted only once they are there."""
    aside = final.with_name(f".{final.name}.{_REPLACED}")
    durable.remove_tree(aside)
    with durable.storage_errors(final), contextlib.suppress(FileNotFoundError):
        final.rename(aside)
    try:
        durable.commit_directory(making, final)
    except BaseException:
        if aside.exists() and not final.exists():
            aside.rename(final)
        raise
    durable.remove_tree(aside)


def _require_room(directory: Path, *, force: bool) -> None:
    """Raise UsageError when the place is taken: by an export, which force lets go, or by anything else."""
    if directory == Path.cwd() or not directory.name:
        raise UsageError(f"{directory} cannot become an export", remedy="name a directory in it: --out NAME")
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    if not (directory / RECORD).is_file():
        raise UsageError(
            f"{directory} is there already, and is no export",
            remedy="give another --out; nothing but an export is ever replaced",
        )
    if not force:
        raise UsageError(
            f"{directory} is there already", remedy="replace it with --force, or give another --out"
        )
    others = _others(directory)
    if others:
        more = f" and {len(others) - _SHOWN_OTHERS} more" if len(others) > _SHOWN_OTHERS else ""
        raise UsageError(
            f"{directory} holds more than an export: {', '.join(others[:_SHOWN_OTHERS])}{more}",
            where="--force deletes nothing that no export wrote",
            remedy="move that away, or give another --out",
        )


def _others(directory: Path) -> list[str]:
    """What lies in an export's directory and is none of the files that the export's record lists."""
    try:
        record = json.loads((directory / RECORD).read_bytes())
    except (OSError, ValueError):
        record = None
    files = record.get("files") if isinstance(record, dict) else None
    written = (
        {RECORD, *(name for name in files if isinstance(name, str))} if isinstance(files, list) else set()
    )
    return sorted(path.name for path in directory.iterdir() if path.name not in written or not _is_file(path))


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
