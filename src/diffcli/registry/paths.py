"""Where the parts of a run lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunPaths:
    """The files and directories of the run in `directory`; none of them need exist."""

    directory: Path

    @property
    def record(self) -> Path:
        """What the run is; written once."""
        return self.directory / "run.json"

    @property
    def status(self) -> Path:
        """How far the run is; replaced atomically."""
        return self.directory / "status.json"

    @property
    def annotations(self) -> Path:
        """What people say of the run; replaced atomically."""
        return self.directory / "annotations.json"

    @property
    def attempts(self) -> Path:
        """One file for each start or resume."""
        return self.directory / "attempts"

    @property
    def metrics(self) -> Path:
        """One line for each log interval."""
        return self.directory / "metrics.jsonl"

    @property
    def events(self) -> Path:
        """One line for each thing worth telling."""
        return self.directory / "events.jsonl"

    @property
    def log(self) -> Path:
        """Messages and tracebacks."""
        return self.directory / "log.txt"

    @property
    def lock(self) -> Path:
        """Locked by the process that trains the run."""
        return self.directory / "run.lock"

    @property
    def checkpoints(self) -> Path:
        """One directory for each checkpoint."""
        return self.directory / "checkpoints"

    @property
    def ema_snapshots(self) -> Path:
        """One directory for each snapshot of the power-function averages."""
        return self.directory / "ema-snapshots"

    @property
    def abandoned(self) -> Path:
        """One directory for each attempt that began with a rollback: what it set aside."""
        return self.directory / "abandoned"

    @property
    def samples(self) -> Path:
        """One directory for each set of samples."""
        return self.directory / "samples"

    @property
    def exports(self) -> Path:
        """One directory for each export to a format of other programs."""
        return self.directory / "exports"

    @property
    def imported(self) -> Path:
        """Where the run comes from, if it was imported; written once."""
        return self.directory / "import.json"

    @property
    def previews(self) -> Path:
        """One picture for each preview."""
        return self.directory / "previews"

    def preview(self, step: int) -> Path:
        """The small grid of samples drawn while training, after `step` steps."""
        return self.previews / f"step-{step:06d}.png"

    @property
    def evaluations(self) -> Path:
        """One file for each evaluation."""
        return self.directory / "evals"

    def attempt(self, number: int) -> Path:
        """The file of attempt `number`, counted from 1."""
        return self.attempts / f"{number:03d}.json"
