"""What the settings of a configuration ask of each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from diffcli.config.sections import DiffusionConfig, ModelConfig, RunConfig
from diffcli.config.shapes import shape_problems

# arXiv 2006.11239, section 4: betas from 1e-4 to 0.02 for T = 1000, so up to 20 / T for other T
_LINEAR_LAST_BETA_TIMES_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A value that does not go with the others: its dotted path, and what is allowed instead."""

    path: str
    value: object
    allowed: str


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One demand, and the dotted paths that it reads; `allowed` is None when they fit together."""

    path: str
    reads: frozenset[str]
    allowed: Callable[[RunConfig], str | None]


def violations(config: RunConfig, *, unsure: Iterable[str] = ()) -> tuple[Violation, ...]:
    """Every value that does not go with the others; no rule reads an `unsure` path."""
    unknown = frozenset(unsure)
    found = [
        Violation(path=rule.path, value=_value_at(config, rule.path), allowed=allowed)
        for rule in RULES
        if not rule.reads & unknown and (allowed := rule.allowed(config)) is not None
    ]
    if not any(_decides_shapes(path) for path in unknown):
        told = {violation.path for violation in found}
        found += [
            Violation(path=problem.path, value=problem.value, allowed=problem.allowed)
            for problem in shape_problems(config)
            if problem.path not in told
        ]
    return tuple(found)


def _decides_shapes(path: str) -> bool:
    return path.startswith("model.") or path in ("data.resolution", "data.low_resolution")


def _value_at(config: RunConfig, path: str) -> object:
    section, _, name = path.partition(".")
    return getattr(getattr(config, section), name)


def _objective(config: RunConfig) -> str | None:
    # arXiv 2102.09672, section 3.1: L_simple gives a learned variance no signal, L_vlb does
    learned = config.diffusion.variance in ("learned", "learned_range")
    if learned and config.diffusion.objective == "simple":
        return f"a hybrid or vlb form, because diffusion.variance is {config.diffusion.variance}"
    if not learned and config.diffusion.objective != "simple":
        return f"simple, or diffusion.variance = learned_range in place of {config.diffusion.variance}"
    return None


def _diffusion_steps(config: RunConfig) -> str | None:
    least = _LINEAR_LAST_BETA_TIMES_STEPS
    if config.diffusion.schedule != "linear" or config.diffusion.steps >= least:
        return None
    return f"at least {least} with the linear schedule, whose last beta, {least} / steps, would exceed 1"


def _low_resolution(config: RunConfig) -> str | None:
    low, resolution = config.data.low_resolution, config.data.resolution
    if config.model.kind == "superres" and not 0 < low < resolution:
        return f"a size above 0 and below data.resolution = {resolution}, because model.kind is superres"
    if config.model.kind != "superres" and low != 0:
        return "0, or model.kind = superres"
    return None


def _pool(config: RunConfig) -> str | None:
    default = ModelConfig().pool
    if config.model.kind == "classifier" or config.model.pool == default:
        return None
    return f"{default}, or model.kind = classifier: other networks have no pool"


def _heads_up(config: RunConfig) -> str | None:
    if config.model.kind != "classifier" or config.model.heads_up == 0:
        return None
    return "0, because a classifier has no way up"


def _microbatch(config: RunConfig) -> str | None:
    batch = config.training.batch_size
    microbatch = config.training.microbatch
    return f"at most training.batch_size = {batch}" if microbatch != "auto" and microbatch > batch else None


def _label_drop(config: RunConfig) -> str | None:
    if config.training.label_drop == 0:
        return None
    if config.model.kind == "classifier":
        return "0, because a classifier is not told the label"
    if config.model.classes == 0:
        return "0, because model.classes is 0: there are no labels to drop"
    return None


def _validation_split(config: RunConfig) -> str | None:
    if config.data.validation_split != config.data.split:
        return None
    return "another split than data.split, which is trained on"


def _noisy(config: RunConfig) -> str | None:
    if config.training.noisy or config.model.kind == "classifier":
        return None
    return f"true, because model.kind is {config.model.kind}, which only learns from noise"


def _schedule_sampler(config: RunConfig) -> str | None:
    if config.training.schedule_sampler == "uniform" or config.model.kind != "classifier":
        return None
    return "uniform, because model.kind is classifier"


def _eval_every(config: RunConfig) -> str | None:
    every, log_every = config.training.eval_every, config.training.log_every
    if every and not config.data.validation_split and not config.training.eval_samples:
        return "0, or a data.validation_split to measure on, or training.eval_samples to draw"
    if every % log_every:
        return f"a multiple of training.log_every = {log_every}, whose rows hold the measurements"
    return None


def _eval_samples(config: RunConfig) -> str | None:
    if config.training.eval_samples == 0 or config.model.kind == "unet":
        return None
    if config.model.kind == "classifier":
        return "0, because a classifier draws no images"
    return "0, because a super-resolution network draws nothing without small images"


def _eval_steps(config: RunConfig) -> str | None:
    chain, steps = config.diffusion.steps, config.training.eval_steps
    if config.training.eval_samples == 0 or steps <= chain:
        return None
    return f"at most diffusion.steps = {chain}"


def _lr_anneal_steps(config: RunConfig) -> str | None:
    anneal, steps = config.training.lr_anneal_steps, config.training.steps
    if anneal == 0 or anneal >= steps:
        return None
    return f"0 or at least training.steps = {steps}, because the learning rate is 0 from step {anneal} on"


def _lr_warmup_steps(config: RunConfig) -> str | None:
    anneal = config.training.lr_anneal_steps
    if anneal == 0 or config.training.lr_warmup_steps < anneal:
        return None
    return f"fewer than training.lr_anneal_steps = {anneal}"


def _ema_warmup_steps(config: RunConfig) -> str | None:
    if config.training.ema_warmup_steps == 0 or config.training.ema_rates:
        return None
    return "0, because training.ema_rates is empty"


def _sampling_ema(config: RunConfig) -> str | None:
    choice, rates = config.sampling.ema, config.training.ema_rates
    if choice == "none" or (choice == "first" and rates) or choice in rates:
        return None
    if not rates:
        return "none, because training.ema_rates is empty"
    return f"first, none or one of training.ema_rates = {', '.join(str(rate) for rate in rates)}"


def _sampling_steps(config: RunConfig) -> str | None:
    chain, counts = config.diffusion.steps, config.sampling.steps
    if isinstance(counts, int):
        return f"at most diffusion.steps = {chain}" if counts > chain else None
    if not any(counts):
        return "a list that keeps at least one timestep"
    sizes = _section_sizes(config.diffusion, len(counts))
    if all(count <= size for count, size in zip(counts, sizes, strict=True)):
        return None
    return (
        f"counts of at most {sizes[0]} (the last {sizes[-1]}), "
        f"because diffusion.steps = {chain} is cut in {len(counts)} sections"
    )


def _section_sizes(diffusion: DiffusionConfig, sections: int) -> list[int]:
    size, longer = divmod(diffusion.steps, sections)
    return [size + 1 if index < longer else size for index in range(sections)]


def _rule(path: str, allowed: Callable[[RunConfig], str | None], *also_reads: str) -> Rule:
    return Rule(path=path, reads=frozenset({path, *also_reads}), allowed=allowed)


RULES = (
    _rule("data.low_resolution", _low_resolution, "data.resolution", "model.kind"),
    _rule("data.validation_split", _validation_split, "data.split"),
    _rule("model.pool", _pool, "model.kind"),
    _rule("model.heads_up", _heads_up, "model.kind"),
    _rule("diffusion.steps", _diffusion_steps, "diffusion.schedule"),
    _rule("diffusion.objective", _objective, "diffusion.variance"),
    _rule("training.microbatch", _microbatch, "training.batch_size"),
    _rule("training.label_drop", _label_drop, "model.kind", "model.classes"),
    _rule("training.noisy", _noisy, "model.kind"),
    _rule("training.schedule_sampler", _schedule_sampler, "model.kind"),
    _rule(
        "training.eval_every",
        _eval_every,
        "training.log_every",
        "training.eval_samples",
        "data.validation_split",
    ),
    _rule("training.eval_samples", _eval_samples, "model.kind"),
    _rule("training.eval_steps", _eval_steps, "training.eval_samples", "diffusion.steps"),
    _rule("training.lr_warmup_steps", _lr_warmup_steps, "training.lr_anneal_steps"),
    _rule("training.lr_anneal_steps", _lr_anneal_steps, "training.steps"),
    _rule("training.ema_warmup_steps", _ema_warmup_steps, "training.ema_rates"),
    _rule("sampling.steps", _sampling_steps, "diffusion.steps"),
    _rule("sampling.ema", _sampling_ema, "training.ema_rates"),
)
