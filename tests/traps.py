"""Files that would run code if they were unpickled: each makes a directory that a test then looks for."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch


class Trap:
    """Makes a directory when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def bare_pickle(trap: Trap) -> bytes:
    return pickle.dumps(trap)


def torch_zip(trap: Trap) -> bytes:
    file = io.BytesIO()
    torch.save({"model": trap}, file)
    return file.getvalue()


def torch_legacy(trap: Trap) -> bytes:
    file = io.BytesIO()
    torch.save({"model": trap}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def object_npy(trap: Trap) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([trap], dtype=object), allow_pickle=True)
    return file.getvalue()


def object_npz(trap: Trap) -> bytes:
    file = io.BytesIO()
    np.savez(file, arr_0=np.array([trap], dtype=object), arr_1=np.array([trap], dtype=object))
    return file.getvalue()


def pickle_in_npz(trap: Trap) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("arr_0.npy", pickle.dumps(trap))
    return file.getvalue()


TRAPS = {
    "a.pkl": bare_pickle,
    "a.pt": torch_zip,
    "legacy.pt": torch_legacy,
    "objects.npy": object_npy,
    "objects.npz": object_npz,
    "pickled.npz": pickle_in_npz,
}
