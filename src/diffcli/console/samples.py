"""What `sample` shows."""

from __future__ import annotations

from diffcli.console.numbers import duration_text
from diffcli.console.terminal import print_json, print_next, print_notice, print_result
from diffcli.records.samples import SampleResult

SCHEMA = 1


def show_samples(result: SampleResult, *, as_json: bool) -> None:
    """The paths of what was made; nothing from any process but the first."""
    if not result.is_first:
        return
    if as_json:
        print_json(
            {
                "schema": SCHEMA,
                "run": result.run,
                "directory": str(result.directory),
                "archive": str(result.archive),
                "grid": str(result.grid),
                "record": str(result.record),
                "count": result.count,
                "seconds": result.seconds,
                "already_there": result.already_there,
            }
        )
        return
    done = "already there" if result.already_there else f"drawn in {duration_text(result.seconds)}"
    print_notice(f"{result.count} images, {done}")
    print_result(f"archive\t{result.archive}")
    print_result(f"grid\t{result.grid}")
    print_result(f"record\t{result.record}")
    print_next(f"diffcli runs show {result.run}")
