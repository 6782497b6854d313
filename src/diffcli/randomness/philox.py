"""Philox 4x32-10, a counter-based generator (Salmon et al., "Parallel random numbers", SC 2011)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_ROUNDS = 10
_WORD = 0xFFFFFFFF
# Salmon et al., table 2 and section 4.3: the multipliers and the Weyl increments of the key
_MULTIPLIER_0, _MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
_WEYL_0, _WEYL_1 = 0x9E3779B9, 0xBB67AE85


class Words(NamedTuple):
    """Four 32-bit words, each an int64 tensor with values in 0..2**32-1, all of one shape."""

    w0: Tensor
    w1: Tensor
    w2: Tensor
    w3: Tensor


class Key(NamedTuple):
    """The 64-bit key as two 32-bit words."""

    k0: int
    k1: int


def key_of(seed: int) -> Key:
    """The key of a seed in 0..2**64-1, low word first."""
    return Key(seed & _WORD, (seed >> 32) & _WORD)


def philox_4x32(counter: Words, key: Key) -> Words:
    """Ten rounds of Philox on every counter of the tensors; the same bits on every device."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # int64 products wrap modulo 2**64, so both halves of the unsigned product are still there
        product_0 = c0 * _MULTIPLIER_0
        product_1 = c2 * _MULTIPLIER_1
        c0, c2 = ((product_1 >> 32) & _WORD) ^ c1 ^ k0, ((product_0 >> 32) & _WORD) ^ c3 ^ k1
        c1, c3 = product_1 & _WORD, product_0 & _WORD
        k0, k1 = (k0 + _WEYL_0) & _WORD, (k1 + _WEYL_1) & _WORD
    return Words(c0, c1, c2, c3)


def blocks(key: Key, items: Tensor, *, step: int | Tensor, stream: int, count: int) -> Words:
    """The first `count` counter blocks of each item of a stream at a step.

    items: int64 [N] in 0..2**40-1, on the device where the bits are wanted; step: one for all, or int64 [N],
    in 0..2**32-1; stream: 0..255. Returns words of shape [N, count].
    """
    shape = (items.shape[0], count)
    block = torch.arange(count, device=items.device).expand(shape)
    item = (items & _WORD).unsqueeze(1).expand(shape)
    # the stream takes the lowest byte of the last word, the part of an item above 32 bits the rest
    last = ((items >> 32) << 8 | stream).unsqueeze(1).expand(shape)
    if isinstance(step, Tensor):
        third = step.unsqueeze(1).expand(shape)
    else:
        third = torch.full((1, 1), step, dtype=torch.int64, device=items.device).expand(shape)
    return philox_4x32(Words(block, item, third, last), key)
