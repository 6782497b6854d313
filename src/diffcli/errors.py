"""The errors a user can cause or meet, each with the exit code it ends the program with."""

from __future__ import annotations

from typing import ClassVar


class DiffcliError(Exception):
    """An expected failure, told as what went wrong, where, and what to do about it."""

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "failed"

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy
        # whether this is the first process's error, which that one tells the user
        self.told_by_first = False

    def __str__(self) -> str:
        return "\n".join(part for part in (self.what, self.where, self.remedy) if part)


class UsageError(DiffcliError):
    """A command line or a configuration that cannot be meant."""

    exit_code = 2
    kind = "usage"


class MissingError(DiffcliError):
    """A run, preset, dataset, checkpoint or file that is not there."""

    exit_code = 3
    kind = "not found"


class LockedError(DiffcliError):
    """Something that another live process holds."""

    exit_code = 4
    kind = "locked"


class CorruptError(DiffcliError):
    """Data or a checkpoint that is not what it says it is."""

    exit_code = 5
    kind = "corrupt"


class StorageError(DiffcliError):
    """No space, no permission, or another failure of reading and writing."""

    exit_code = 6
    kind = "storage"


class DivergedError(DiffcliError):
    """Training whose loss or gradients are no longer finite; `step`, counted from 1, is the first such."""

    exit_code = 7
    kind = "diverged"

    def __init__(self, what: str, *, step: int, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.step = step


class InterruptedRunError(DiffcliError):
    """A clean stop that a signal asked for (130 SIGINT, 143 SIGTERM)."""

    kind = "stopped"

    def __init__(self, what: str, *, signal_number: int, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.signal_number = signal_number
        # an exit status belongs to the signal, so the instance overrides the class
        self.exit_code = 128 + signal_number  # type: ignore[misc]
