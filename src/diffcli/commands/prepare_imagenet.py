"""`prepare imagenet`: ILSVRC 2012 brought to squares of any size."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path

from diffcli.commands.course import preparing
from diffcli.commands.kept_splits import require_free
from diffcli.commands.output_form import OutputChoices, OutputForm, check_form
from diffcli.commands.preparation import nearest_existing, prepare
from diffcli.config.sections import DataConfig, ResizeRecipe
from diffcli.data.sources.imagenet import LABELS_REMEDY, REMEDIES, imagenet_source, open_train, open_val
from diffcli.data.sources.imagenet_devkit import read_devkit
from diffcli.data.sources.named_files import require_there
from diffcli.data.sources.wordnet_ids import read_solution
from diffcli.records.datasets import UNHEARD, PrepareListener, PrepareResult

_BESIDE = ("ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_devkit_t12", "LOC_val_solution.csv")


@dataclass(frozen=True, kw_only=True)
class ImageNetRequest(OutputChoices):
    """Prepare the splits that are given; size: height and width, pixels.

    val_labels: the devkit or Kaggle's csv, looked for beside the images when it is None.
    """

    size: int
    train: Path | None = None
    val: Path | None = None
    val_labels: Path | None = None
    recipe: ResizeRecipe = DataConfig.resize_recipe
    allow_partial: bool = False

    @property
    def name(self) -> str:
        """Of the dataset, such as imagenet_64."""
        return f"imagenet_{self.size}"


def prepare_imagenet(request: ImageNetRequest, listener: PrepareListener = UNHEARD) -> PrepareResult:
    """Write the splits that are given, or keep them; errors are those of the sources and of `prepare`.

    Main thread only.
    """
    form = OutputForm(
        choices=request,
        name=request.name,
        size=request.size,
        channels=3,
        recipe=request.recipe,
        keep_same=True,
    )
    check_form(form)
    _check_files(request, form)
    # of the published archive this takes a minute or two
    listener.notice("listing the images")
    with preparing(listener) as course, contextlib.ExitStack() as stack:
        splits = []
        with course.phase("listing the images", "bytes") as told:
            if request.train is not None:
                splits.append(stack.enter_context(open_train(request.train, told)))
            if request.val is not None:
                truth = _truth(request, request.val)
                splits.append(stack.enter_context(open_val(request.val, truth, told)))
        # a part of the classes keeps the same numbers in both splits
        classes = sorted({name.decode() for split in splits for name in set(split.ids.tolist())})
        sources = [
            imagenet_source(split, tuple(classes), allow_partial=request.allow_partial) for split in splits
        ]
        result = prepare(sources, form, course)
    return dataclasses.replace(result, passed_over=sum(source.passed_over for source in sources))


def _check_files(request: ImageNetRequest, form: OutputForm) -> None:
    """Errors that need no listing of a million images."""
    for split, location in (("train", request.train), ("val", request.val)):
        if location is not None:
            require_there(location, REMEDIES[split])
            require_free(form.target(split), form)
    if request.val_labels is not None:
        require_there(request.val_labels, LABELS_REMEDY)


def _truth(request: ImageNetRequest, val: Path) -> dict[int, str] | None:
    """The classes of the validation images, None when there is nothing that tells them."""
    beside = (directory / name for directory in (val, val.parent) for name in _BESIDE)
    path = request.val_labels or next((path for path in beside if path.exists()), None)
    if path is None:
        return None
    if path.suffix == ".csv":
        return read_solution(path)
    return read_devkit(path, scratch=nearest_existing(request.home))
