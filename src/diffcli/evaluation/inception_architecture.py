"""The Inception-v3 of 2015-12-05 as a table: Szegedy et al., arXiv 1512.00567, in the graph that FID uses.

That graph differs from the paper's network in its pools: an average counts no padding, and the pool in the
last block takes the maximum. Sizes are those of images of 299 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

IMAGE_SIZE = 299
# ImageNet's classes, and eight of the 1008 that mean nothing
CLASSES = 1008

# before a branch: nothing; 3x3 means or maxima at every place; 3x3 maxima at every other place
Pool = Literal["none", "average", "maximum", "halving"]


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """A convolution without bias, a batch norm and a ReLU; kernel: height and width, pixels.

    padded: with zeros, so that the size stays.
    """

    name: str
    outputs: int
    kernel: tuple[int, int]
    stride: int = 1
    padded: bool = True


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A pool, then convolutions one after another; then those of `fork` beside each other."""

    chain: tuple[Convolution, ...]
    pool: Pool = "none"
    fork: tuple[Convolution, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Block:
    """Branches beside each other, their channels joined in this order."""

    name: str
    branches: tuple[Branch, ...]


class ScopedName(NamedTuple):
    """A convolution's name as torchvision published the network, and its scope in TensorFlow's graph."""

    name: str
    scope: str


def _square(name: str, outputs: int, side: int) -> Convolution:
    return Convolution(name=name, outputs=outputs, kernel=(side, side))


def _row(name: str, outputs: int, length: int) -> Convolution:
    return Convolution(name=name, outputs=outputs, kernel=(1, length))


def _column(name: str, outputs: int, length: int) -> Convolution:
    return Convolution(name=name, outputs=outputs, kernel=(length, 1))


def _unpadded(name: str, outputs: int, *, stride: int) -> Convolution:
    return Convolution(name=name, outputs=outputs, kernel=(3, 3), stride=stride, padded=False)


def _block_35(name: str, *, pooled: int) -> Block:
    """Figure 5 of the paper, at 35x35, with a 5x5 convolution."""
    return Block(
        name=name,
        branches=(
            Branch(chain=(_square("branch1x1", 64, 1),)),
            Branch(chain=(_square("branch5x5_1", 48, 1), _square("branch5x5_2", 64, 5))),
            Branch(
                chain=(
                    _square("branch3x3dbl_1", 64, 1),
                    _square("branch3x3dbl_2", 96, 3),
                    _square("branch3x3dbl_3", 96, 3),
                )
            ),
            Branch(chain=(_square("branch_pool", pooled, 1),), pool="average"),
        ),
    )


def _from_35_to_17(name: str) -> Block:
    """Figure 10."""
    return Block(
        name=name,
        branches=(
            Branch(chain=(_unpadded("branch3x3", 384, stride=2),)),
            Branch(
                chain=(
                    _square("branch3x3dbl_1", 64, 1),
                    _square("branch3x3dbl_2", 96, 3),
                    _unpadded("branch3x3dbl_3", 96, stride=2),
                )
            ),
            Branch(chain=(), pool="halving"),
        ),
    )


def _block_17(name: str, *, inner: int) -> Block:
    """Figure 6, at 17x17, its 7x7 convolutions made of rows and columns."""
    return Block(
        name=name,
        branches=(
            Branch(chain=(_square("branch1x1", 192, 1),)),
            Branch(
                chain=(
                    _square("branch7x7_1", inner, 1),
                    _row("branch7x7_2", inner, 7),
                    _column("branch7x7_3", 192, 7),
                )
            ),
            Branch(
                chain=(
                    _square("branch7x7dbl_1", inner, 1),
                    _column("branch7x7dbl_2", inner, 7),
                    _row("branch7x7dbl_3", inner, 7),
                    _column("branch7x7dbl_4", inner, 7),
                    _row("branch7x7dbl_5", 192, 7),
                )
            ),
            Branch(chain=(_square("branch_pool", 192, 1),), pool="average"),
        ),
    )


def _from_17_to_8(name: str) -> Block:
    """Figure 10 again, with rows and columns."""
    return Block(
        name=name,
        branches=(
            Branch(chain=(_square("branch3x3_1", 192, 1), _unpadded("branch3x3_2", 320, stride=2))),
            Branch(
                chain=(
                    _square("branch7x7x3_1", 192, 1),
                    _row("branch7x7x3_2", 192, 7),
                    _column("branch7x7x3_3", 192, 7),
                    _unpadded("branch7x7x3_4", 192, stride=2),
                )
            ),
            Branch(chain=(), pool="halving"),
        ),
    )


def _block_8(name: str, *, pool: Pool) -> Block:
    """Figure 7, at 8x8, where rows and columns lie beside each other."""
    return Block(
        name=name,
        branches=(
            Branch(chain=(_square("branch1x1", 320, 1),)),
            Branch(
                chain=(_square("branch3x3_1", 384, 1),),
                fork=(_row("branch3x3_2a", 384, 3), _column("branch3x3_2b", 384, 3)),
            ),
            Branch(
                chain=(_square("branch3x3dbl_1", 448, 1), _square("branch3x3dbl_2", 384, 3)),
                fork=(_row("branch3x3dbl_3a", 384, 3), _column("branch3x3dbl_3b", 384, 3)),
            ),
            Branch(chain=(_square("branch_pool", 192, 1),), pool=pool),
        ),
    )


# 299 pixels become 147, and after a halving pool 73
STEM = (
    _unpadded("Conv2d_1a_3x3", 32, stride=2),
    _unpadded("Conv2d_2a_3x3", 32, stride=1),
    _square("Conv2d_2b_3x3", 64, 3),
)
# 73 become 71, and after a halving pool 35
SECOND_STEM = (_square("Conv2d_3b_1x1", 80, 1), _unpadded("Conv2d_4a_3x3", 192, stride=1))
BLOCKS = (
    _block_35("Mixed_5b", pooled=32),
    _block_35("Mixed_5c", pooled=64),
    _block_35("Mixed_5d", pooled=64),
    _from_35_to_17("Mixed_6a"),
    _block_17("Mixed_6b", inner=128),
    _block_17("Mixed_6c", inner=160),
    _block_17("Mixed_6d", inner=160),
    _block_17("Mixed_6e", inner=192),
    _from_17_to_8("Mixed_7a"),
    _block_8("Mixed_7b", pool="average"),
    _block_8("Mixed_7c", pool="maximum"),
)
# TensorFlow's mixed_6/conv: the first branch, and so the first channels, of this block
SPATIAL_BLOCK, SPATIAL_CHANNELS, SPATIAL_SIZE = "Mixed_6d", 7, 17


def scoped_names() -> Iterator[ScopedName]:
    """All 94 convolutions in the graph's order.

    TensorFlow numbers what has no name of its own: conv, conv_1, ... in a scope, mixed, mixed_1, ... for the
    blocks, and tower, tower_1, ... for all branches but a single convolution.
    """
    for number, convolution in enumerate((*STEM, *SECOND_STEM)):
        yield ScopedName(convolution.name, _numbered("conv", number))
    for number, block in enumerate(BLOCKS):
        towers = 0
        for branch in block.branches:
            scope = _numbered("mixed", number)
            if len(branch.chain) > 1 or branch.pool != "none" or branch.fork:
                scope = f"{scope}/{_numbered('tower', towers)}"
                towers += 1
            for place, convolution in enumerate(branch.chain):
                yield ScopedName(f"{block.name}.{convolution.name}", f"{scope}/{_numbered('conv', place)}")
            for place, convolution in enumerate(branch.fork):
                name = f"{block.name}.{convolution.name}"
                yield ScopedName(name, f"{scope}/mixed/{_numbered('conv', place)}")


def _numbered(word: str, number: int) -> str:
    return f"{word}_{number}" if number else word
