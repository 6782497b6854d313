"""The largest microbatch that fits into memory, and what to set when none does."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from diffcli.config.sections import RunConfig
from diffcli.errors import DiffcliError
from diffcli.models.conditioning import Conditioning
from diffcli.training.objective import Draws, Examples, Objective, clean_draws
from diffcli.workers import Workers

_ADAM_MOMENTS = 2
_IMAGES_AND_NOISE = 2
# one part in so many of a GPU's memory
_RESERVED_PART = 20
_HALF_PRECISION = {"bf16": torch.bfloat16, "fp16": torch.float16}
# how exceptions that are RuntimeErrors and nothing else tell of it
_OUT_OF_MEMORY = (
    "out of memory",  # MPS; CUDA outside of torch's allocator
    "ALLOC_FAILED",  # cuBLAS and cuDNN
    "can't allocate memory",  # torch's allocator of the CPU
    "could not create a primitive",  # oneDNN, which compiles a kernel for each shape
)


def agreed_microbatch(config: RunConfig, workers: Workers, step_fits: Callable[[int], bool]) -> int:
    """The largest microbatch that fits in every process; DiffcliError in all of them when not even 1 does."""
    share = len(workers.share(config.training.batch_size))
    smallest = -workers.largest(-largest_microbatch(step_fits, share))
    if smallest == 0:
        raise out_of_memory_error(config, microbatch=1, share=share)
    return smallest


def largest_microbatch(step_fits: Callable[[int], bool], share: int) -> int:
    """The first of share, its half, a quarter and so on, rounded up, of which a step fits; 0 if 1 does not.

    share: the images of a global batch that are this process's, at least 1.
    """
    size = share
    while not step_fits(size):
        if size == 1:
            return 0
        size = _half(size)
    return size


def out_of_memory_error(config: RunConfig, *, microbatch: int, share: int) -> DiffcliError:
    """What to tell when a step with this microbatch found no memory, and what to set."""
    # where auto has found this one, it would again
    or_auto = "" if config.training.microbatch == "auto" else " or auto"
    remedies = [f"training.microbatch = {_half(microbatch)}{or_auto}"] if microbatch > 1 else []
    if not config.model.checkpoint_blocks:
        remedies.append("model.checkpoint_blocks = true")
    if config.training.precision == "fp32":
        remedies.append("training.precision = bf16")
    needs_less = f"less is needed with {', or '.join(remedies)}; --resume takes them too" if remedies else ""
    smaller = "a smaller model or data.resolution needs a new run" if microbatch == 1 else ""
    images = "1 image" if microbatch == 1 else f"{microbatch} images"
    return DiffcliError(
        f"there is not enough memory for microbatches of {images}",
        where=f"each process's share of a global batch of {config.training.batch_size} is {share}",
        remedy="\n".join(line for line in (needs_less, smaller) if line),
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that an allocation failed, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


@contextlib.contextmanager
def memory_errors(config: RunConfig, *, microbatch: int, share: int) -> Iterator[None]:
    """Turn a failed allocation in a block that takes steps into the DiffcliError that says what to set."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory_error(config, microbatch=microbatch, share=share) from error


@dataclass(frozen=True, kw_only=True)
class StepProbe:
    """Tries steps of a training before its first, on the network as it is before it is wrapped.

    share: the images of a global batch that are this process's.
    """

    config: RunConfig
    network: nn.Module
    optimizer: AdamW
    objective: Objective
    share: int

    def fits(self, microbatch: int) -> bool:
        """Whether a step with this microbatch finds its memory; nothing of the trial is left."""
        with _no_trace(self.network, self._device):
            return self._tried(microbatch)

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _tried(self, microbatch: int) -> bool:
        try:
            self._step(microbatch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True

    def _step(self, microbatch: int) -> None:
        """The forward and backward pass of a microbatch that is not the first, amid all that a step holds."""
        ballast = self._ballast()
        for parameter in self.network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        self.network.train()
        examples = self._examples(microbatch)
        losses = self.objective.losses(self._in_precision, examples, self._draws(examples))
        losses.loss.sum().backward()  # type: ignore[no-untyped-call]
        # not before
        del ballast

    def _in_precision(self, *inputs: object) -> Tensor:
        """The network as a step calls it."""
        precision = self.config.training.precision
        with torch.autocast(
            self._device.type, dtype=_HALF_PRECISION.get(precision), enabled=precision in _HALF_PRECISION
        ):
            output: Tensor = self.network(*inputs)
        return output.float()

    def _examples(self, images: int) -> Examples:
        return Examples(
            x_start=torch.zeros(images, *self._image_shape, device=self._device),
            conditioning=self._conditioning(images),
            labels=torch.zeros(images, dtype=torch.int64, device=self._device),
        )

    def _draws(self, examples: Examples) -> Draws:
        # a step's noise is part of the ballast
        drawn = clean_draws(len(examples.x_start), self._device)
        return replace(drawn, noise=examples.x_start)

    @property
    def _image_shape(self) -> tuple[int, int, int]:
        data = self.config.data
        return data.channels, data.resolution, data.resolution

    def _conditioning(self, images: int) -> Conditioning:
        classes, low = self.config.model.classes, self.config.data.low_resolution
        return Conditioning(
            y=torch.zeros(images, dtype=torch.int64) if classes else None,
            low_res=torch.zeros(images, self.config.data.channels, low, low) if low else None,
        ).to(self._device)

    def _ballast(self) -> list[Tensor]:
        """As much memory as a step holds beside weights, averages, gradients and activations."""
        device = self._device
        ballast = [torch.empty(_IMAGES_AND_NOISE, self.share, *self._image_shape, device=device)]
        if not self.optimizer.state:
            parameters = self.network.parameters()
            ballast += [torch.empty_like(p) for p in parameters for _ in range(_ADAM_MOMENTS)]
        if device.type == "cuda":
            # NCCL and cuDNN allocate memory of their own, and no two steps are placed alike
            reserve = torch.cuda.get_device_properties(device).total_memory // _RESERVED_PART
            ballast.append(torch.empty(reserve, dtype=torch.uint8, device=device))
        return ballast


@contextlib.contextmanager
def _no_trace(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Leave no gradients, the network in its mode, the generators in their states, and the memory free."""
    training = network.training
    generators = [torch] if device.type == "cpu" else [torch, torch.get_device_module(device)]
    states = [generator.get_rng_state() for generator in generators]
    try:
        yield
    finally:
        network.zero_grad(set_to_none=True)
        network.train(training)
        for generator, state in zip(generators, states, strict=True):
            generator.set_rng_state(state)
        # autograd keeps what an interrupted backward pass has left to do until the next one
        torch.zeros(1, requires_grad=True).sum().backward()  # type: ignore[no-untyped-call]
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        elif device.type == "mps":
            torch.mps.empty_cache()


def _half(images: int) -> int:
    return -(-images // 2)
