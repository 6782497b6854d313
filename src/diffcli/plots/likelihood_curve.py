"""The terms of the bound over the timesteps, as a picture."""

from __future__ import annotations

import math
from pathlib import Path

from diffcli.plots.figures import DOTS_PER_INCH, write_figure
from diffcli.records.evaluations import LikelihoodCurve

_INCHES = (7.0, 6.0)


def draw_likelihood_curve(path: Path, curve: LikelihoodCurve, *, title: str) -> None:
    """Write a PNG of the three rows of a curve over the timesteps; StorageError when that fails."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    rows = (
        ("vb, bits/dim", curve.vb_bits_per_dim),
        ("x_start mse", curve.x_start_mse),
        ("eps mse", curve.eps_mse),
    )
    panels = figure.subplots(len(rows), 1, sharex=True)
    for panel, (name, values) in zip(panels, rows, strict=True):
        panel.plot(curve.timesteps, values, linewidth=1, marker="." if len(values) < 100 else None)
        panel.set_ylabel(name)
        if any(0 < value < math.inf for value in values):
            panel.set_yscale("log")
        panel.grid(alpha=0.3)
    panels[0].set_title(title, fontsize="medium")
    panels[-1].set_xlabel("timestep t")
    write_figure(path, figure)
