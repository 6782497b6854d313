"""Requests for samples of the run `tiny`, and a progress that nobody watches, for tests in one process."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from diffcli.commands.sampling_request import SampleRequest


class Quiet:
    """A progress that nobody watches; seen: all that it was told."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, done: int, total: int) -> None:
        self.seen.append((done, total))

    def notice(self, text: Any) -> None:
        self.seen.append(text)

    begin = started = show = notice

    def ended(self) -> None:
        pass


def sample_request(runs: Path, **changes: Any) -> SampleRequest:
    """Ten images in batches of four, on one thread of the CPU."""
    plain = SampleRequest(
        run="tiny",
        count=10,
        steps=None,
        ddim=None,
        eta=None,
        overrides=(),
        ema=None,
        checkpoint=None,
        classes=None,
        seed=3,
        batch_size=4,
        noise=None,
        low_res=None,
        name=None,
        out=None,
        device="cpu",
        precision="fp32",
        threads=1,
        force=False,
        runs_home=runs,
        command_line=("diffcli", "sample"),
    )
    return dataclasses.replace(plain, **changes)
