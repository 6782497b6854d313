"""The weights of the Inception of 2015-12-05: by flag, environment or cache, else fetched and verified."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from diffcli import durable
from diffcli.commands.course import preparing
from diffcli.commands.downloading import downloaded_into
from diffcli.data.downloads.download import Patience
from diffcli.data.downloads.remote_file import RemoteFile
from diffcli.errors import CorruptError, MissingError, StorageError, UsageError
from diffcli.evaluation.inception_weights import InceptionLayout, inception_state
from diffcli.interchange.tensor_files import read_weights
from diffcli.records.datasets import UNHEARD, PrepareListener

VARIABLE = "DIFFCLI_INCEPTION"
CACHE_VARIABLE = "DIFFCLI_CACHE"
# as pytorch-fid published it; torch-fidelity publishes the same bytes under another name
PUBLISHED = RemoteFile(
    url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    name="pt_inception-2015-12-05-6726825d.pth",
    size_bytes=95_628_359,
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    otherwise="",
)
_WITHOUT = "--features pixels needs no weights, nor do trainings with training.eval_features = pixels"
_COUNTER = ".num_batches_tracked"
# who is offline should hear of it within seconds
_PATIENCE = Patience(attempts=3)


@dataclass(frozen=True, kw_only=True, eq=False)
class InceptionWeights:
    """Weights that were found, and all that a result should say of them.

    tensors: the state dict of our network, float32 on the CPU; sha256: of the file; published: whether
    these are the very bytes that pytorch-fid and torch-fidelity publish.
    """

    path: Path
    sha256: str
    layout: InceptionLayout
    published: bool
    tensors: Mapping[str, Tensor]


def find_inception(
    choice: Path | None,
    *,
    listener: PrepareListener = UNHEARD,
    published: RemoteFile = PUBLISHED,
    patience: Patience = _PATIENCE,
) -> InceptionWeights:
    """The weights in the file of `choice` (--weights), else DIFFCLI_INCEPTION, the cache, or the network.

    published: what is looked for in the cache and fetched. Main thread only. MissingError for a file that is
    not there and for no way to the network, CorruptError for other weights and for what would run code,
    UsageError for a sound file of something else, StorageError, LockedError, InterruptedRunError.
    """
    variable = os.environ.get(VARIABLE)
    if choice is not None:
        return _read(choice, "--weights", published)
    if variable:
        return _read(Path(variable), VARIABLE, published)
    directory = cache_directory()
    path = directory / published.name
    if not path.is_file():
        _fetch(published, directory, listener, patience)
    _require_published(path, published)
    return _read(path, str(directory), published)


def cache_directory() -> Path:
    """Where fetched weights are kept: DIFFCLI_CACHE, or diffcli in the user's cache directory.

    UsageError where neither the environment nor the system knows a home directory.
    """
    ours = os.environ.get(CACHE_VARIABLE)
    if ours:
        return Path(ours)
    of_user = os.environ.get("XDG_CACHE_HOME", "")
    # the specification of these directories has relative ones ignored
    if Path(of_user).is_absolute():
        return Path(of_user) / "diffcli"
    try:
        return Path.home() / ".cache" / "diffcli"
    except RuntimeError as error:
        raise UsageError(
            "this user has no home directory to keep the Inception weights in",
            where=CACHE_VARIABLE,
            remedy=f"set {CACHE_VARIABLE} to a directory, or name the file with --weights; {_WITHOUT}",
        ) from error


def _fetch(published: RemoteFile, directory: Path, listener: PrepareListener, patience: Patience) -> None:
    otherwise = (
        f"fetch it elsewhere and put it at {directory / published.name}, or name it with {VARIABLE}, "
        f"or --weights of eval; {_WITHOUT}"
    )
    listener.notice(f"fetching the Inception weights ({published.size_bytes / 1e6:.0f} MB) to {directory}")
    file = dataclasses.replace(published, otherwise=otherwise)
    with preparing(listener) as course:
        downloaded_into(directory, file, course, patience)


def _require_published(path: Path, published: RemoteFile) -> None:
    """Refuse what lies in the cache and is something else; the reader would tell less of it."""
    try:
        digest = durable.sha256(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    if digest != published.sha256:
        raise CorruptError(
            f"{path} is not the published file of that name",
            where=f"its SHA-256 is {digest}, not {published.sha256}",
            remedy="delete it, and the same command fetches it anew; other weights are named with --weights",
        )


def _read(path: Path, place: str, published: RemoteFile) -> InceptionWeights:
    try:
        found = inception_state(read_weights(path, besides=_COUNTER), source=str(path))
        digest = durable.sha256(path)
    except MissingError as error:
        raise MissingError(error.what, where=place, remedy=f"look at its name; {_WITHOUT}") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    return InceptionWeights(
        path=path,
        sha256=digest,
        layout=found.layout,
        published=digest == published.sha256,
        tensors=found.tensors,
    )


def _unreadable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot read {path}: {(error.strerror or str(error)).lower()}")
