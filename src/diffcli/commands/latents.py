"""The x_T of images: they are encoded batch by batch, in all processes, and kept as parts meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from diffcli import durable
from diffcli.commands.batch_loop import compute_missing
from diffcli.commands.sampling_job import SamplingJob
from diffcli.images.conversion import from_uint8
from diffcli.sampling.archive import LATENTS, ArchiveParts, Images, LatentsPlan
from diffcli.sampling.encode import encode
from diffcli.sampling.solve import SolverStep

_PARTS = "of the images of the archive around it"


def encoded(job: SamplingJob, images: Images, scratch: Path) -> npt.NDArray[np.float32]:
    """x_T of the images that the first samples of a job are, uint8 [N, H, W, C] -> float32 [N, C, H, W].

    Parts that are in `scratch` already are not computed again. Raises InterruptedRunError after a clean stop.
    """
    plan = LatentsPlan(
        count=len(images),
        height=job.plan.height,
        width=job.plan.width,
        channels=job.plan.channels,
        batch_size=job.plan.batch_size,
    )
    parts = ArchiveParts(scratch, plan)
    job.process.workers.first_decides(lambda: parts.begin(_PARTS))
    job.process.begin("encoding")
    compute_missing(
        parts,
        steps=job.diffusion.steps,
        steps_of=lambda batch: _encoding(job, images, batch),
        content=lambda solved: solved.x.cpu().numpy(),
        process=job.process,
    )
    job.process.begin("drawing again")
    file = scratch / LATENTS
    job.process.workers.first_decides(lambda: _join(parts, file))
    latents: npt.NDArray[np.float32] = np.load(file, mmap_mode="r", allow_pickle=False)
    return latents


def _join(parts: ArchiveParts, file: Path) -> None:
    """All parts as one .npy file, one batch in memory at a time."""
    shape = (parts.plan.count, *parts.plan.item_shape)
    header = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": shape}
    with durable.storage_errors(file), file.open("wb") as joined:
        np.lib.format.write_array_header_1_0(joined, header)
        for batch in parts.read():
            joined.write(np.ascontiguousarray(batch).data)


def _encoding(job: SamplingJob, images: Images, batch: int) -> Iterator[SolverStep]:
    """The steps of a whole batch; padding beyond the last image repeats it."""
    indices = job.plan.indices(batch)
    rows = images[np.minimum(np.arange(indices.start, indices.stop), len(images) - 1)]
    x = from_uint8(torch.from_numpy(rows).permute(0, 3, 1, 2).contiguous()).to(job.process.workers.device)
    return encode(job.denoiser(batch), job.diffusion, x, clip=job.order.config.sampling.clip)
