"""One optimizer step over the global batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from diffcli.config.sections import RunConfig, TrainingConfig
from diffcli.randomness.streams import Stream, derived_seed, normal, uniform
from diffcli.training.learning_rate import learning_rate
from diffcli.training.objective import Draws, Examples, Objective, clean_draws
from diffcli.training.optimizer import set_learning_rate, step_unless
from diffcli.training.state import TrainingState
from diffcli.workers import Workers, sent


def draw(state: TrainingState, config: TrainingConfig, positions: range, shape: torch.Size) -> Draws:
    """The draws of the given positions of the global batch at the state's step; shape: [C, H, W]."""
    device, seed = state.sums.tensor().device, config.seed
    if not config.noisy:
        return clean_draws(len(positions), device)
    items = torch.arange(positions.start, positions.stop)
    timesteps = state.sampler.draw(uniform(seed, Stream.TIMESTEP, items, step=state.step)[:, 0])
    there = torch.arange(positions.start, positions.stop, device=device)
    noise = normal(seed, Stream.TRAINING_NOISE, there, shape, step=state.step)
    return Draws(t=sent(timesteps.t, device), weights=sent(timesteps.weights, device), noise=noise)


class TrainingStep:
    """Takes one optimizer step after the other on a state."""

    def __init__(
        self,
        config: RunConfig,
        workers: Workers,
        state: TrainingState,
        objective: Objective,
        *,
        microbatch: int,
    ) -> None:
        """microbatch: images per forward pass; 0: this process's whole share of a batch."""
        self._config = config.training
        self._microbatch = microbatch
        self._drops = config.model.dropout > 0
        self._workers = workers
        self._state = state
        self._objective = objective
        self._network = workers.wrap(state.model)
        self._parameters = [parameter for parameter in state.model.parameters() if parameter.requires_grad]

    def take(self, examples: Examples, draws: Draws) -> None:
        """One step: gradients averaged over the global batch, then the update."""
        losses = self._accumulate_gradients(examples, draws)
        self._update()
        if self._state.sampler.learns:
            self._teach_sampler(draws.t, losses)
        self._state.step += 1
        self._state.images_seen += self._config.batch_size

    def _accumulate_gradients(self, examples: Examples, draws: Draws) -> Tensor:
        share = draws.t.shape[0]
        size = self._microbatch or share
        seen: list[Tensor] = []
        self._state.model.train()
        self._state.optimizer.zero_grad(set_to_none=True)
        for start in range(0, share, size):
            part = slice(start, min(start + size, share))
            self._seed_dropout(start // size)
            with self._gradients_reduced(last=part.stop == share):
                losses = self._objective.losses(self._network, examples.part(part), draws.part(part))
                # the mean over the global batch, once the processes' gradients are averaged
                scale = self._workers.world_size / self._config.batch_size
                loss = _spread_if_not_finite((losses.loss * draws.weights[part]).sum() * scale)
                self._state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self._state.sums.add_losses(
                losses,
                draws.weights[part],
                draws.t[part],
                self._objective.chain_steps,
                may_overflow=self._state.scaler.is_enabled(),
            )
            seen.append(losses.loss.detach())
        return torch.cat(seen)

    def _seed_dropout(self, microbatch: int) -> None:
        if not self._drops:
            return
        item = self._workers.rank << 20 | microbatch
        torch.manual_seed(derived_seed(self._config.seed, Stream.DROPOUT, step=self._state.step, item=item))

    @contextlib.contextmanager
    def _gradients_reduced(self, *, last: bool) -> Iterator[None]:
        """Sum the gradients over the processes in the last microbatch's backward pass only."""
        if last or not isinstance(self._network, nn.parallel.DistributedDataParallel):
            yield
        else:
            with self._network.no_sync():
                yield

    def _update(self) -> None:
        state, config = self._state, self._config
        state.scaler.unscale_(state.optimizer)
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norm = get_total_norm(gradients)
        if config.grad_clip:
            clip_grads_with_norm_(self._parameters, config.grad_clip, norm)
        set_learning_rate(state.optimizer, learning_rate(config, state.step))
        if state.scaler.is_enabled():
            if not self._step_unless_overflown():
                return
        else:
            state.health.note(norm, state.step + 1)
            step_unless(state.optimizer, state.health.failed)
        state.sums.add_gradient_norm(norm)
        for average in state.averages:
            average.update(state.step)
        for profile in state.profiles:
            profile.update(state.step)

    def _step_unless_overflown(self) -> bool:
        """The optimizer step of fp16; an overflow lowers the loss scale and changes nothing else."""
        state = self._state
        scale = state.scaler.get_scale()
        state.scaler.step(state.optimizer)
        state.scaler.update()
        # the scale falls if and only if the gradients overflowed and the optimizer was passed over
        taken = state.scaler.get_scale() >= scale
        state.overflows_in_a_row = 0 if taken else state.overflows_in_a_row + 1
        return taken

    def _teach_sampler(self, t: Tensor, losses: Tensor) -> None:
        """Show every process's schedule sampler the losses of the whole global batch, in batch order."""
        # on the host first: MPS has no float64
        both = torch.stack((t.cpu().double(), losses.cpu().double()), dim=1)
        gathered = torch.cat(self._workers.gather_on_host(both))
        # an overflow is no loss to learn from
        gathered = gathered[gathered[:, 1].isfinite()]
        self._state.sampler.update(gathered[:, 0].long(), gathered[:, 1])


def _spread_if_not_finite(loss: Tensor) -> Tensor:
    """The loss, a scalar, unchanged when it is finite; else one whose every gradient is not a number.

    The reduction of the gradients then tells all processes, and none need ask.
    """
    return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)
