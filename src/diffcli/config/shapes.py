"""Which networks are possible: the sizes and widths of a U-Net's levels, and what must divide them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from diffcli.config.sections import ModelConfig, RunConfig

# GroupNorm's groups in every norm of the networks (Ho et al. 2020, appendix B; the published networks)
NORM_GROUPS = 32
# that a classifier can tell apart
_FEWEST_CLASSES = 2


@dataclass(frozen=True, kw_only=True)
class ShapeProblem:
    """One value of which no network can be built: its dotted path, the value, and what is allowed there."""

    path: str
    value: object
    allowed: str


def level_widths(model: ModelConfig) -> tuple[int, ...]:
    """Channels of each level, from the largest feature map to the smallest."""
    return tuple(round(mult * model.channels) for mult in model.channel_mult)


def level_sizes(model: ModelConfig, resolution: int) -> tuple[int, ...]:
    """Height and width of each level's feature map in pixels; every level halves the one before."""
    return tuple(resolution // 2**level for level in range(len(model.channel_mult)))


def embedded_classes(config: RunConfig) -> int:
    """How many classes a network has an embedding of: its own and, if training drops labels, "no class".

    That is the last one, so the number of classes is also the number of the embedding of no class.
    """
    return config.model.classes + (1 if config.training.label_drop else 0)


def shape_problems(config: RunConfig) -> list[ShapeProblem]:
    """Everything that makes the network of a configuration impossible; an empty list if nothing does."""
    checks: tuple[Callable[[RunConfig], list[ShapeProblem]], ...] = (
        _resolution_problems,
        _width_problems,
        _attention_problems,
        _head_problems,
        _low_resolution_problems,
        _class_problems,
    )
    return [problem for check in checks for problem in check(config)]


def _resolution_problems(config: RunConfig) -> list[ShapeProblem]:
    levels = len(config.model.channel_mult)
    factor = 2 ** (levels - 1)
    if config.data.resolution % factor == 0:
        return []
    allowed = f"a multiple of {factor}: model.channel_mult has {levels} levels, each of half the size"
    return [ShapeProblem(path="data.resolution", value=config.data.resolution, allowed=allowed)]


def _width_problems(config: RunConfig) -> list[ShapeProblem]:
    model = config.model
    wrong = [
        mult
        for mult, width in zip(model.channel_mult, level_widths(model), strict=True)
        if width <= 0 or width % NORM_GROUPS != 0
    ]
    if not wrong:
        return []
    allowed = (
        f"multiples that make each level's width a multiple of {NORM_GROUPS}; "
        f"{wrong[0]:g} * {model.channels} is not"
    )
    return [ShapeProblem(path="model.channel_mult", value=model.channel_mult, allowed=allowed)]


def _attention_problems(config: RunConfig) -> list[ShapeProblem]:
    sizes = level_sizes(config.model, config.data.resolution)
    if _resolution_problems(config):
        # then no list of sizes would help
        return []
    if set(config.model.attention_resolutions) <= set(sizes):
        return []
    allowed = f"sizes of this network's feature maps: {_listed(sizes)}"
    return [
        ShapeProblem(
            path="model.attention_resolutions", value=config.model.attention_resolutions, allowed=allowed
        )
    ]


def _head_problems(config: RunConfig) -> list[ShapeProblem]:
    model = config.model
    widths, sizes = level_widths(model), level_sizes(model, config.data.resolution)
    in_levels = {
        width for width, size in zip(widths, sizes, strict=True) if size in model.attention_resolutions
    }
    # the middle block always attends
    everywhere = in_levels | {widths[-1]}
    if model.head_channels:
        return _divisor_problem("model.head_channels", model.head_channels, everywhere)
    problems = _divisor_problem("model.heads", model.heads, everywhere)
    if model.heads_up:
        problems += _divisor_problem("model.heads_up", model.heads_up, in_levels)
    return problems


def _low_resolution_problems(config: RunConfig) -> list[ShapeProblem]:
    low = config.data.low_resolution
    if config.model.kind == "superres":
        possible, allowed = 1 <= low <= config.data.resolution, "from 1 to data.resolution with kind superres"
    else:
        possible, allowed = low == 0, "0 unless model.kind is superres"
    return [] if possible else [ShapeProblem(path="data.low_resolution", value=low, allowed=allowed)]


def _class_problems(config: RunConfig) -> list[ShapeProblem]:
    classes = config.model.classes
    if config.model.kind != "classifier" or classes >= _FEWEST_CLASSES:
        return []
    allowed = f"at least {_FEWEST_CLASSES}, because model.kind is classifier"
    return [ShapeProblem(path="model.classes", value=classes, allowed=allowed)]


def _divisor_problem(path: str, value: int, widths: set[int]) -> list[ShapeProblem]:
    if all(width % value == 0 for width in widths):
        return []
    allowed = f"a divisor of the widths that get attention: {_listed(sorted(widths))}"
    return [ShapeProblem(path=path, value=value, allowed=allowed)]


def _listed(numbers: tuple[int, ...] | list[int]) -> str:
    return ", ".join(str(number) for number in numbers)
