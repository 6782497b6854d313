"""What `sample` shows."""

from __future__ import annotations

from typing import Any

from diffcli.console.numbers import duration_text
from diffcli.console.terminal import print_json, print_next, print_notice, print_result
from diffcli.records.encodings import EncodeResult, ReconstructionError
from diffcli.records.samples import CascadeResult, InterpolateResult, SampleResult
from diffcli.registry.json_records import encode

SCHEMA = 1


def show_samples(result: SampleResult, *, as_json: bool) -> None:
    """The paths of what was made; nothing from any process but the first."""
    if not result.is_first:
        return
    if as_json:
        print_json({"schema": SCHEMA, **_as_json(result)})
        return
    _notice(result)
    _print_paths(result)
    print_next(f"diffcli runs show {result.run}")


def show_cascade(result: CascadeResult, *, as_json: bool) -> None:
    """The paths of each stage's archive, in their order."""
    last = result.stages[-1]
    if not last.is_first:
        return
    if as_json:
        print_json({"schema": SCHEMA, "stages": [_as_json(stage) for stage in result.stages]})
        return
    for stage in result.stages:
        _notice(stage, by=f" by {stage.run}")
        _print_paths(stage)
    print_next(f"diffcli runs show {last.run}")


def show_encoding(result: EncodeResult, *, as_json: bool) -> None:
    """How well the images can be drawn again from what they were encoded into, and where that lies."""
    samples, encoding = result.samples, result.encoding
    if not samples.is_first:
        return
    if as_json:
        paths = {"latents": str(result.latents), "comparison": str(result.comparison)}
        print_json({"schema": SCHEMA, **_as_json(samples), **paths, "encoding": encode(encoding)})
        return
    _notice(samples, verb="encoded and drawn again")
    print_result(f"latents\t{result.latents}")
    print_result(f"comparison\t{result.comparison}")
    print_result(f"record\t{result.record}")
    print_result(f"mean error\t{encoding.reconstruction.mean_absolute:.3f}\tof 255")
    print_result(f"PSNR\t{_psnr_text(encoding.reconstruction)}")
    print_result(
        f"worst image\t{encoding.reconstruction.worst_image}"
        f"\tmean error {encoding.reconstruction.worst_mean_absolute:.3f}"
    )
    print_result(
        f"x_T\tmean {encoding.latents.mean:.3f}\tstd {encoding.latents.standard_deviation:.3f}"
        "\tof noise: 0 and 1"
    )
    print_next(f"diffcli sample {samples.run} --noise {samples.directory} --ddim {encoding.timesteps}")


def show_interpolation(result: InterpolateResult, *, as_json: bool) -> None:
    """The pictures of the way, and the archive of its frames."""
    samples = result.samples
    if not samples.is_first:
        return
    if as_json:
        paths = {"strip": str(result.strip), "animation": str(result.animation)}
        print_json({"schema": SCHEMA, **_as_json(samples), **paths})
        return
    _notice(samples)
    print_result(f"strip\t{result.strip}")
    print_result(f"animation\t{result.animation}")
    _print_paths(samples)
    print_next(f"diffcli runs show {samples.run}")


def _as_json(result: SampleResult) -> dict[str, Any]:
    return {
        "run": result.run,
        "directory": str(result.directory),
        "archive": str(result.archive),
        "grid": str(result.grid),
        "record": str(result.record),
        "count": result.count,
        "taken": result.taken,
        "seconds": result.seconds,
        "already_there": result.already_there,
    }


def _notice(result: SampleResult, *, verb: str = "drawn", by: str = "") -> None:
    print_notice(f"{result.count} {'image' if result.count == 1 else 'images'}{by}, {_done(result, verb)}")


def _done(result: SampleResult, verb: str) -> str:
    if result.already_there:
        return "already there"
    if result.taken == result.count:
        return "none of them drawn anew"
    which = f"{result.count - result.taken} of them " if result.taken else ""
    return f"{which}{verb} in {duration_text(result.seconds)}"


def _print_paths(result: SampleResult) -> None:
    print_result(f"archive\t{result.archive}")
    print_result(f"grid\t{result.grid}")
    print_result(f"record\t{result.record}")


def _psnr_text(error: ReconstructionError) -> str:
    return "no pixel differs" if error.psnr_db is None else f"{error.psnr_db:.2f} dB"
