"""`diffcli prepare` for the datasets of the papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from diffcli.cli.next_commands import after_preparing
from diffcli.cli.options import (
    DATA_DEFAULT,
    AsJson,
    DataHome,
    Encoding,
    Force,
    OutputFormat,
    OutputLayout,
    Quality,
    Recipe,
    Size,
)
from diffcli.errors import UsageError

AllowPartial = Annotated[
    bool, typer.Option("--allow-partial", help="Accept other images than the published ones, or fewer.")
]


def cifar10(
    source: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="The python or binary archive, or its directory; it is downloaded when none is given.",
            show_default=False,
        ),
    ] = None,
    url: Annotated[str, typer.Option(help="Mirror of cifar-10-python.tar.gz.", show_default=False)] = "",
    allow_partial: AllowPartial = False,
    layout: OutputLayout = "dataset",
    data_home: DataHome = DATA_DEFAULT,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """CIFAR-10, train and test, in ten classes; a download of 170 MB."""
    from diffcli.commands import prepare_cifar10
    from diffcli.console import datasets

    _one_way(given=source is not None, url=url)
    request = prepare_cifar10.Cifar10Request(
        home=data_home, force=force, layout=layout, source=source, url=url, allow_partial=allow_partial
    )
    with datasets.preparing() as listener:
        result = prepare_cifar10.prepare_cifar10(request, listener)
    datasets.show_prepared(result, next_command=after_preparing(result, data_home), as_json=as_json)


def imagenet64(
    variant: Annotated[
        Literal["pixelrnn", "chrabaszcz"],
        typer.Option(
            help="pixelrnn: that of the published imagenet64 checkpoints, without classes; "
            "chrabaszcz: with classes, made with another filter, so bits/dim do not compare.",
        ),
    ],
    train: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE|DIR",
            help="train_64x64.tar; Imagenet64_train_part1_npz.zip and, once more, part2; a directory.",
            show_default=False,
        ),
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="valid_64x64.tar or Imagenet64_val_npz.zip, or a directory.",
            show_default=False,
        ),
    ] = None,
    class_map: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="map_clsloc.txt, when it does not lie beside the zips.", show_default=False
        ),
    ] = None,
    url: Annotated[
        str, typer.Option(help="Mirror with train_64x64.tar and valid_64x64.tar in it.", show_default=False)
    ] = "",
    allow_partial: AllowPartial = False,
    layout: OutputLayout = "dataset",
    data_home: DataHome = DATA_DEFAULT,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """ImageNet at 64x64, train and val, as PixelRNN or Chrabaszcz et al. made it."""
    from diffcli.commands import prepare_imagenet64
    from diffcli.console import datasets

    train = train or []
    _one_way(given=bool(train or val), url=url)
    _check_imagenet64(variant, train, val, url)
    request = prepare_imagenet64.ImageNet64Request(
        home=data_home,
        force=force,
        layout=layout,
        variant=variant,
        train=train,
        val=[val] if val else [],
        url=url,
        class_map=class_map,
        allow_partial=allow_partial,
    )
    with datasets.preparing() as listener:
        result = prepare_imagenet64.prepare_imagenet64(request, listener)
    datasets.show_prepared(result, next_command=after_preparing(result, data_home), as_json=as_json)


def imagenet(
    size: Size,
    train: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="ILSVRC2012_img_train.tar, read as it is, or a tree with a directory per class.",
            show_default=False,
        ),
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR", help="ILSVRC2012_img_val.tar, or the directory of it.", show_default=False
        ),
    ] = None,
    val_labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="ILSVRC2012_devkit_t12.tar.gz or Kaggle's LOC_val_solution.csv, when not beside --val.",
            show_default=False,
        ),
    ] = None,
    recipe: Recipe = "guided",
    allow_partial: AllowPartial = False,
    output_format: OutputFormat = "auto",
    encoding: Encoding = None,
    quality: Quality = None,
    layout: OutputLayout = "dataset",
    data_home: DataHome = DATA_DEFAULT,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """ImageNet (ILSVRC 2012), train and val, cut to squares and resized, in 1,000 classes."""
    from diffcli.commands import prepare_imagenet
    from diffcli.console import datasets

    if train is None and val is None:
        raise UsageError(
            "ImageNet is not downloaded: its server wants a login",
            where="https://image-net.org/download-images gives it after a registration",
            remedy="give ILSVRC2012_img_train.tar with --train, ILSVRC2012_img_val.tar with --val, or both",
        )
    request = prepare_imagenet.ImageNetRequest(
        home=data_home,
        force=force,
        layout=layout,
        format=output_format,
        encoding=encoding,
        quality=quality,
        size=size,
        train=train,
        val=val,
        val_labels=val_labels,
        recipe=recipe,
        allow_partial=allow_partial,
    )
    with datasets.preparing() as listener:
        result = prepare_imagenet.prepare_imagenet(request, listener)
    datasets.show_prepared(result, next_command=after_preparing(result, data_home), as_json=as_json)


def lsun(
    category: Annotated[
        Literal["bedroom", "church_outdoor", "cat", "horse"], typer.Option(help="What is on the images.")
    ],
    size: Size = 256,
    train: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="The zip of the training split, its directory, or data.mdb; downloaded when none is given.",
            show_default=False,
        ),
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option(metavar="FILE|DIR", help="The same of the validation split.", show_default=False),
    ] = None,
    url: Annotated[
        str,
        typer.Option(help="Mirror of http://dl.yf.io/lsun, with scenes/ and objects/.", show_default=False),
    ] = "",
    recipe: Annotated[
        Literal["box", "guided", "improved"],
        typer.Option(help="box: as the data of the papers were made; all agree at the stored size, 256."),
    ] = "box",
    allow_partial: Annotated[
        bool,
        typer.Option(
            "--allow-partial", help="Accept another count than the published; leave out damaged records."
        ),
    ] = False,
    output_format: OutputFormat = "auto",
    encoding: Encoding = None,
    quality: Quality = None,
    layout: OutputLayout = "dataset",
    data_home: DataHome = DATA_DEFAULT,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """A category of LSUN, cut to squares; a download of 2.4 GB (church_outdoor) to 74 GB (horse)."""
    from diffcli.commands import prepare_lsun
    from diffcli.console import datasets

    _one_way(given=train is not None or val is not None, url=url)
    request = prepare_lsun.LsunRequest(
        home=data_home,
        force=force,
        layout=layout,
        format=output_format,
        encoding=encoding,
        quality=quality,
        category=category,
        size=size,
        train=train,
        val=val,
        url=url,
        recipe=recipe,
        allow_partial=allow_partial,
    )
    with datasets.preparing() as listener:
        result = prepare_lsun.prepare_lsun(request, listener)
    datasets.show_prepared(result, next_command=after_preparing(result, data_home), as_json=as_json)


def _one_way(*, given: bool, url: str) -> None:
    if given and url:
        raise UsageError("--url is of no use beside files that you have", remedy="leave one of them out")


def _check_imagenet64(variant: str, train: list[Path], val: Path | None, url: str) -> None:
    if variant == "pixelrnn" and len(train) > 1:
        raise UsageError("the pixelrnn variant has one training file", where="--train is given twice")
    if variant == "chrabaszcz" and url:
        raise UsageError(
            "the chrabaszcz variant is not downloaded: its server wants a login",
            remedy="give its zips with --train and --val",
        )
    if variant == "chrabaszcz" and not train and not val:
        raise UsageError(
            "the chrabaszcz variant is not downloaded: its server wants a login",
            where="https://image-net.org/download-images gives it after a registration",
            remedy="give both Imagenet64_train_part*_npz.zip with --train, Imagenet64_val_npz.zip with --val",
        )
