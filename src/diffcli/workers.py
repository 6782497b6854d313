"""The processes that work together: their devices, their ranks, and the few things they tell each other."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    GradScalerKwargs,
    InitProcessGroupKwargs,
    convert_outputs_to_fp32,
)
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from diffcli.config.sections import Precision
from diffcli.errors import DiffcliError, UsageError

DeviceChoice = Literal["auto", "cpu", "cuda", "mps"]
Result = TypeVar("Result")

# The reference's rule of the loss scale: exponent 20 at first, +0.001 a step, -1 on an overflow.
_LOSS_SCALE = GradScalerKwargs(
    init_scale=2.0**20, growth_factor=2.0**0.001, growth_interval=1, backoff_factor=0.5
)
_PATIENCE = datetime.timedelta(minutes=30)
# when sampling, ranks meet only at the end; one that is gone is noticed at once all the same
_PATIENCE_WITH_MESSAGES = datetime.timedelta(days=7)


@dataclass(frozen=True, kw_only=True)
class WorkersSettings:
    """What decides how the processes compute."""

    device: DeviceChoice
    precision: Precision
    threads: int | None
    deterministic: bool


def available_device(choice: DeviceChoice) -> torch.device:
    """The device asked for, or the best there is; asking for what is not there is a UsageError."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if choice == "auto" and _asked_for_cpu():
        return torch.device("cpu")
    if choice == "auto":
        return torch.device(next(name for name, there in present.items() if there))
    if not present[choice]:
        usable = ", ".join(name for name, there in present.items() if there)
        raise UsageError(
            f"there is no {choice} device on this machine",
            where="--device",
            remedy=f"use one of: auto, {usable}",
        )
    return torch.device(choice)


class Workers:
    """This process among the processes of one training run (one process: rank 0 of 1)."""

    def __init__(self, settings: WorkersSettings) -> None:
        device = available_device(settings.device)
        _check_launch(device)
        # by default convolutions on CUDA round their inputs to TF32, and fp32 is to mean what it says
        torch.backends.cudnn.allow_tf32 = False
        if settings.deterministic:
            # cuBLAS is only deterministic with a fixed workspace, which it reads when it starts
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.backends.cudnn.benchmark = False
            # only when asked for: the call alone imports torch's compiler, which takes seconds
            torch.use_deterministic_algorithms(True)
        self._accelerator = Accelerator(
            cpu=device.type == "cpu",
            mixed_precision={"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[settings.precision],
            kwargs_handlers=[
                _LOSS_SCALE,
                InitProcessGroupKwargs(timeout=_PATIENCE),
                # unused parameters are looked for only because that keeps the reduction buckets, and with
                # them the order of summation, the same before and after a resume
                DistributedDataParallelKwargs(find_unused_parameters=True, gradient_as_bucket_view=True),
            ],
        )
        if self._accelerator.num_processes != int(os.environ.get("WORLD_SIZE", "1")):
            raise UsageError(
                f"{os.environ['WORLD_SIZE']} processes were started, and each believes to be alone",
                remedy="docs/training.md has the launcher commands that work",
            )
        # also when it is torch's own choice: setting it turns off MKL's habit of taking fewer at times. Not
        # before Accelerate, which sets its own number where OMP_NUM_THREADS is not set
        torch.set_num_threads(settings.threads or torch.get_num_threads())
        # with several processes Accelerate numbers CPUs as well
        self.device: torch.device = device if device.type == "cpu" else self._accelerator.device
        self.rank: int = self._accelerator.process_index
        self.world_size: int = self._accelerator.num_processes
        self.on_this_machine: int = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self.threads = torch.get_num_threads()
        self.precision = settings.precision
        # messages between hosts must not wait for the accelerator's queue
        self._messages = (
            dist.new_group(backend="gloo", timeout=_PATIENCE_WITH_MESSAGES) if self.world_size > 1 else None
        )

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and draws."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model on this process's device, in its precision, data-parallel; puts out float32."""
        if self.precision == "fp16" and self.device.type == "cpu":
            # there Accelerate would compute in float32, silently
            half = torch.autocast("cpu", dtype=torch.float16)(model.forward)
            model.forward = convert_outputs_to_fp32(half)
        wrapped: nn.Module = self._accelerator.prepare(model)
        return wrapped

    def loss_scaler(self) -> GradScaler:
        """The loss scaler; one that does nothing unless the precision is fp16."""
        if self.precision != "fp16":
            return GradScaler(self.device.type, enabled=False)
        if self._accelerator.scaler is not None:
            scaler: GradScaler = self._accelerator.scaler
            return scaler
        # on a CPU Accelerate gives none, silently
        return GradScaler(
            self.device.type,
            init_scale=_LOSS_SCALE.init_scale,
            growth_factor=_LOSS_SCALE.growth_factor,
            growth_interval=_LOSS_SCALE.growth_interval,
            backoff_factor=_LOSS_SCALE.backoff_factor,
        )

    def share(self, batch_size: int) -> range:
        """The positions of the global batch that belong to this process."""
        return range(
            self.rank * batch_size // self.world_size, (self.rank + 1) * batch_size // self.world_size
        )

    def largest(self, number: int) -> int:
        """The largest of the numbers that the processes give."""
        return self.ask_largest(number)()

    def ask_largest(self, number: int) -> Callable[[], int]:
        """Send the others a number; what is returned waits for theirs, and gives the largest."""
        if self._messages is None:
            return lambda: number
        message = torch.tensor(number, dtype=torch.int64)
        sent_off = dist.all_reduce(message, op=dist.ReduceOp.MAX, group=self._messages, async_op=True)

        def largest() -> int:
            sent_off.wait()
            return int(message)

        return largest

    def gather_on_host(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all processes in rank order, on the CPU; first dimensions may differ."""
        local = tensor.detach().cpu()
        if self._messages is None:
            return [local]
        gathered: list[Tensor | None] = [None] * self.world_size
        dist.all_gather_object(gathered, local, group=self._messages)
        return [part for part in gathered if part is not None]

    def first_decides(self, decide: Callable[[], Result]) -> Result:
        """The result of `decide`, called by the first process only; its DiffcliError is raised by all."""
        if self._messages is None:
            return decide()
        outcome: list[Result | DiffcliError | None] = [None]
        if self.is_first:
            try:
                outcome = [decide()]
            except DiffcliError as error:
                outcome = [error]
        dist.broadcast_object_list(outcome, src=0, group=self._messages)
        if isinstance(outcome[0], DiffcliError):
            outcome[0].told_by_first = not self.is_first
            raise outcome[0]
        return outcome[0]  # type: ignore[return-value]

    @contextlib.contextmanager
    def peer_failures(self, work: str, remedy: str) -> Iterator[None]:
        """Turn what is heard of another process that is gone into a DiffcliError.

        work: what they do together; remedy: what to do once the cause is mended.
        """
        try:
            yield
        except RuntimeError as error:
            if self.world_size == 1 or not _tells_of_a_lost_peer(error):
                raise
            raise DiffcliError(
                f"another process of this {work} has ended or does not answer",
                remedy=f"its own message says why; {remedy}",
            ) from error

    def close(self) -> None:
        """Leave the process group, after all have come this far."""
        if self._messages is not None:
            # whoever does not come has ended already
            with contextlib.suppress(RuntimeError):
                dist.barrier(group=self._messages)
            dist.destroy_process_group()


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on the device; to CUDA through pinned memory, so that nothing waits for it."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _check_launch(device: torch.device) -> None:
    """Refuse launches that would train something else than was asked for."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if processes > 1 and device.type == "mps":
        raise UsageError(
            f"{processes} processes were started, and MPS takes one", remedy="start one, or add --device cpu"
        )
    if device.type == "cuda" and here > torch.cuda.device_count():
        raise UsageError(
            f"{here} processes were started on a machine with {torch.cuda.device_count()} GPUs",
            remedy="start one process for each GPU",
        )
    if device.type == "cuda" and _asked_for_cpu():
        raise UsageError(
            "the device is cuda, and ACCELERATE_USE_CPU asks for the CPU",
            remedy="unset it, or add --device cpu",
        )


def _asked_for_cpu() -> bool:
    """Whether the environment keeps Accelerate from using what else there is."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")


def _tells_of_a_lost_peer(error: RuntimeError) -> bool:
    # what NCCL reports has a type of its own, what Gloo reports only a text
    return isinstance(error, dist.DistError) or "gloo" in str(error)
