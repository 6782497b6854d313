"""One published file from its server to the disk, through cuts, stalls and restarts."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import requests

from diffcli import __version__
from diffcli.data.downloads.answers import CutError, RestartError, check_answer, cuts_told
from diffcli.data.downloads.partial_file import PartialFile
from diffcli.data.downloads.remote_file import RemoteFile
from diffcli.durable import require_space, storage_errors
from diffcli.errors import CorruptError, DiffcliError, UsageError
from diffcli.records.datasets import PrepareProgress

# what a stall may cost, and small enough that slow progress is seen
_BLOCK_BYTES = 2**16
_SECONDS_BETWEEN_LOOKS = 0.1
_LONGEST_PAUSE_SECONDS = 60.0
_LAST_BLOCK_SECONDS = 1.0
_READING_AGAIN, _DOWNLOADING = "reading again", "downloading"


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a server may be silent, and how many attempts in a row may bring nothing new."""

    connect_seconds: float = 20.0
    silence_seconds: float = 60.0
    attempts: int = 5
    first_pause_seconds: float = 1.0


def _nobody(_text: str) -> None:
    return None


def download(
    file: RemoteFile,
    directory: Path,
    *,
    progress: PrepareProgress,
    notice: Callable[[str], None] = _nobody,
    begin: Callable[[str], None] = _nobody,
    patience: Patience | None = None,
) -> Path:
    """The file in that directory, fetched unless it is there whole; what came before a cut is kept.

    progress: told bytes several times a second, and may raise to stop; notice: told of each new attempt, from
    a thread; begin: told what is counted, reading again what is there or downloading. Proxies are those
    of the environment. Errors: MissingError for a dead link or one that wants a login, CorruptError for
    another file than the published, LockedError, StorageError, UsageError for what is no URL.
    """
    target = directory / file.name
    if target.is_file() and target.stat().st_size == file.size_bytes:
        return target
    _check_address(file.url)
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    try:
        with PartialFile(target) as partial:
            if partial.size_bytes > file.size_bytes:
                partial.restart()
            require_space(directory, file.size_bytes - partial.size_bytes)
            _fetched_in_thread(_Fetch(file, partial, patience or Patience(), notice), progress, begin)
            partial.become_whole()
    finally:
        with contextlib.suppress(OSError):
            # it is empty when nothing came
            directory.rmdir()
    return target


def shown_url(url: str) -> str:
    """A URL without the name and password that it may hold."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(
            f"{url} is no address of a file to download",
            where="--url",
            remedy="give one that begins with https:// or http://",
        )


def _fetched_in_thread(fetch: _Fetch, progress: PrepareProgress, begin: Callable[[str], None]) -> None:
    """Run to the end; an error of `progress` leaves at once, even while the server is silent."""
    thread = threading.Thread(target=fetch.run, name="download", daemon=True)
    thread.start()
    work = ""
    try:
        while thread.is_alive():
            thread.join(_SECONDS_BETWEEN_LOOKS)
            if fetch.work != work:
                work = fetch.work
                begin(work)
            progress(fetch.done_bytes, fetch.file.size_bytes)
    finally:
        fetch.abandoned.set()
        # a thread that waits for the server touches no file
        thread.join(_LAST_BLOCK_SECONDS)
    if fetch.error is not None:
        raise fetch.error


class _Fetch:
    """The work of the thread."""

    def __init__(
        self, file: RemoteFile, partial: PartialFile, patience: Patience, notice: Callable[[str], None]
    ) -> None:
        self.file = file
        self.abandoned = threading.Event()
        self.error: Exception | None = None
        self.done_bytes = 0
        self.work = _READING_AGAIN if partial.size_bytes else _DOWNLOADING
        self._from_start = False
        self._partial = partial
        self._patience = patience
        self._notice = notice

    def run(self) -> None:
        """Fetch and verify; what goes wrong is in `error`."""
        try:
            for hashed_bytes in self._partial.hashed():
                self.done_bytes = hashed_bytes
                if self.abandoned.is_set():
                    return
            self.work = _DOWNLOADING
            self._fetch_all()
            if not self.abandoned.is_set():
                self._verify()
        except Exception as error:
            self.error = error

    def _fetch_all(self) -> None:
        failures = 0
        while self._partial.size_bytes < self.file.size_bytes and not self.abandoned.is_set():
            most_before = self._partial.most_bytes
            try:
                self._attempt()
            except RestartError:
                # what is there goes only when the file begins to come
                self._from_start = True
            except CutError as cut:
                failures = 1 if self._partial.most_bytes > most_before else failures + 1
                if failures >= self._patience.attempts:
                    raise self._given_up(cut) from cut
                pause = min(self._patience.first_pause_seconds * 2 ** (failures - 1), _LONGEST_PAUSE_SECONDS)
                self._notice(f"{cut.reason}; trying again in {pause:.0f} s")
                self.abandoned.wait(pause)

    def _attempt(self) -> None:
        """One request for what is missing; returns, as CutError says, when no more comes."""
        start = 0 if self._from_start else self._partial.size_bytes
        timeouts = (self._patience.connect_seconds, self._patience.silence_seconds)
        with cuts_told(self.file.url), contextlib.ExitStack() as stack:
            session = stack.enter_context(requests.Session())
            answer = stack.enter_context(
                session.get(self.file.url, headers=self._headers(start), stream=True, timeout=timeouts)
            )
            check_answer(answer, start=start, size_bytes=self.file.size_bytes, otherwise=self.file.otherwise)
            if not start or answer.status_code != requests.codes.partial_content:
                self._partial.restart()
                self._from_start = False
            self._partial.note_validator(self.file.url, _validator(answer))
            # as it is sent: servers call an archive's own compression an encoding
            for block in answer.raw.stream(_BLOCK_BYTES, decode_content=False):
                if self.abandoned.is_set():
                    return
                self._append(block)
        if self._partial.size_bytes < self.file.size_bytes:
            raise CutError(f"the server ended the file after {self._partial.size_bytes:,} bytes")

    def _headers(self, start: int) -> dict[str, str]:
        headers = {"User-Agent": f"diffcli/{__version__}", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            validator = self._partial.validator(self.file.url)
            if validator:
                headers["If-Range"] = validator
        return headers

    def _append(self, block: bytes) -> None:
        if self._partial.size_bytes + len(block) > self.file.size_bytes:
            self._partial.restart()
            raise self._other_file(f"it is longer than {self.file.size_bytes:,} bytes")
        self._partial.append(block)
        self.done_bytes = self._partial.size_bytes

    def _verify(self) -> None:
        found = self._partial.sha256()
        if found != self.file.sha256:
            self._partial.restart()
            raise self._other_file(f"its SHA-256 is {found}, that of the published one {self.file.sha256}")

    def _other_file(self, difference: str) -> CorruptError:
        return CorruptError(
            f"{shown_url(self.file.url)} is another file than the published {self.file.name}",
            where=difference,
            remedy=self.file.otherwise,
        )

    def _given_up(self, cut: CutError) -> DiffcliError:
        vain = f"{self._patience.attempts} attempts brought nothing new"
        return cut.kind(
            f"{shown_url(self.file.url)} cannot be fetched: {cut.reason}",
            where=f"{vain}; {self._partial.size_bytes:,} of {self.file.size_bytes:,} bytes are kept",
            remedy=f"the same command goes on from there. {self.file.otherwise}",
        )


def _validator(answer: requests.Response) -> str:
    """What tells this content from a later one; a weak ETag says too little of bytes."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")
