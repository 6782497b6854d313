"""Files of another program that become a run: found, read, and compared with each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diffcli.config.sections import RunConfig
from diffcli.errors import MissingError, UsageError
from diffcli.interchange.exported_files import by_itself
from diffcli.interchange.identify import Shapes, differences, published_shapes, shapes_of
from diffcli.interchange.openai_names import from_published
from diffcli.interchange.original_directory import OriginalFiles, files_in, files_named_by
from diffcli.interchange.original_optimizer import OriginalMoments, read_moments
from diffcli.interchange.tensor_files import read_weights
from diffcli.training.ema import NamedTensors

_DIFFUSERS_FILES = ("model_index.json", "diffusion_pytorch_model.safetensors", "unet")
_RUN_FILE = "run.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class ImportSource:
    """The files that belong together, and the weights in them as they were read: names, shapes and dtypes."""

    files: OriginalFiles
    weights: dict[Path, dict[str, Tensor]]

    @property
    def first(self) -> Path:
        """The file by which the network is known."""
        return self.files.weights[0]

    @property
    def shapes(self) -> Shapes:
        """Names and shapes of the network, the same in all files."""
        return shapes_of(self.weights[self.first])

    def in_half_precision(self) -> bool:
        """Whether any of the weights have fewer bits than ours."""
        return any(
            tensor.dtype != torch.float32 for found in self.weights.values() for tensor in found.values()
        )

    def network(self, path: Path, config: RunConfig) -> NamedTensors:
        """The weights of a file under our names and shapes, float32."""
        published = by_itself({name: tensor.float() for name, tensor in self.weights[path].items()})
        return from_published(published, config)

    def moments(self, config: RunConfig) -> OriginalMoments | None:
        """The optimizer's moments under the published names, if its file is there."""
        if self.files.optimizer is None:
            return None
        return read_moments(self.files.optimizer, published_shapes(config))


def read_source(path: Path, step: int | None) -> ImportSource:
    """The files that a user names, by one of them or by their directory.

    step: which of several, None for what the names tell. Raises MissingError, UsageError for what is no
    weights or of two networks, CorruptError for what is damaged or would run code.
    """
    files = _found(path, step)
    weights = {file: read_weights(file) for file in files.weights}
    source = ImportSource(files=files, weights=weights)
    for other, tensors in weights.items():
        wrong = differences(shapes_of(tensors), source.shapes)
        if wrong:
            raise UsageError(f"{other} and {source.first} are not of one network", where=wrong)
    return source


def _found(path: Path, step: int | None) -> OriginalFiles:
    if not path.exists():
        raise MissingError(
            f"there is no {path}", remedy="give a file of weights, or the directory of a training"
        )
    if path.is_dir():
        _refuse_what_is_no_training(path)
        return files_in(path, step)
    files = files_named_by(path)
    if step is not None and files.step not in (None, step):
        raise UsageError(f"{path.name} is of step {files.step}, not {step}", where="--step")
    return files


def _refuse_what_is_no_training(directory: Path) -> None:
    if (directory / _RUN_FILE).exists():
        raise UsageError(
            f"{directory} is a run of diffcli already",
            remedy=f"it can be used as it is, for example: diffcli sample {directory}",
        )
    if any((directory / name).exists() for name in _DIFFUSERS_FILES):
        raise UsageError(
            f"{directory} is a folder of diffusers, which diffcli writes but does not read",
            remedy="import the file that it was made of",
        )
