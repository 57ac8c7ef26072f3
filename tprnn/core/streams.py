"""Random numbers that are functions of (seed, stream name, position) only.

A run's data, initial weights and noise must not change with its neighbours in a stack, with an
interruption or with the device, so there is no generator state to save: word k of position p of a
stream is Philox4x32-10 (Salmon, Moraes, Dror and Shaw, 2011) of the counter (k // 4, p) under a key hashed
from (seed, name). All arithmetic is on int64 tensors and therefore the same on every device.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tprnn.core.scans import array, kernels

_M0, _M1 = 0xD2511F53, 0xCD9E8D57  # multipliers of the round function
_W0, _W1 = 0x9E3779B9, 0xBB67AE85  # key increments (golden ratio, sqrt 3 - 1)
_MASK = 0xFFFFFFFF
_ROUNDS = 10


def philox(c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor, k0: Tensor, k1: Tensor) -> tuple[Tensor, ...]:
    """Four 32-bit words (in int64) for each counter (c0, c1, c2, c3) and key (k0, k1); shapes broadcast."""
    for _ in range(_ROUNDS):
        # an int64 product wraps modulo 2^64, so its bits are those of the unsigned 32 x 32 product
        p0, p1 = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (
            (p1 >> 32) & _MASK ^ c1 ^ k0,
            p1 & _MASK,
            (p0 >> 32) & _MASK ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


@dataclass(frozen=True)
class Seeds:
    """The seeds of R runs: what their initial weights, and what all their other draws are functions of."""

    init: Sequence[int]
    data: Sequence[int]


class Stream:
    """The random words of R runs under one name.

    Args:
        seeds: one seed per run.
        name: what the words are for: "train", "validation", "init/W_hh", "noise", ...
        device: where the words are made; their values do not depend on it.
    """

    def __init__(self, seeds: Sequence[int], name: str, device: str | torch.device = "cpu") -> None:
        self.seeds, self.name = list(seeds), name
        keys = [hashlib.sha256(f"{seed}/{name}".encode()).digest() for seed in seeds]
        self.k0 = torch.tensor([int.from_bytes(key[0:4], "little") for key in keys], device=device)
        self.k1 = torch.tensor([int.from_bytes(key[4:8], "little") for key in keys], device=device)

    def child(self, name: str) -> Stream:
        """A stream of the same seeds for something that belongs to this one."""
        return Stream(self.seeds, f"{self.name}/{name}", self.k0.device)

    def at(self, positions: Sequence[int] | Tensor) -> Tensor:
        """Positions [P], which hold for all runs, or [P, R], as a tensor [P, 1] or [P, R] on the stream's device."""
        position = positions if isinstance(positions, Tensor) else torch.tensor(positions, device=self.k0.device)
        return position.view(len(position), -1)

    def words(self, positions: Sequence[int] | Tensor, count: int) -> Tensor:
        """[P, R, count] whole numbers, uniform on 0 .. 2^32 - 1, for P positions.

        Positions [P] hold for all runs; [P, R] gives each run its own.
        """
        device = self.k0.device
        position = self.at(positions).unsqueeze(-1)  # [P, R or 1, 1]
        if device.type == "cpu":  # the same words, twenty times as fast
            out = torch.empty(len(position), len(self.k0), count, dtype=torch.int64)
            of_runs = position[:, :, 0].expand(-1, len(self.k0))
            kernels("compiled_streams").words(out.numpy(), self.k0.numpy(), self.k1.numpy(), array(of_runs))
            return out
        return philox_words(self.k0, self.k1, position, count)


@dataclass(frozen=True)
class Draws:
    """What drawn states are functions of: (seed, iteration, step).

    Args:
        stream: the words.
        position: the iteration, or that of each run [R].
    """

    stream: Stream
    position: int | Tensor

    def uniforms(self, T: int, B: int, H: int, dtype: torch.dtype) -> Tensor:
        """Uniform numbers on [0, 1), [R, T, B, H]."""
        positions = self.position[None] if isinstance(self.position, Tensor) else [self.position]
        return uniform(self.stream.words(positions, T * B * H)[0], dtype).unflatten(-1, (T, B, H))


def philox_words(k0: Tensor, k1: Tensor, position: Tensor, count: int) -> Tensor:
    """The words [P, R, count] of keys [R] and positions [P, R or 1, 1], as tensors."""
    index = torch.arange((count + 3) // 4, device=k0.device)  # [C]
    words = philox(
        index.expand(len(position), len(k0), -1),
        torch.zeros_like(position),
        position & _MASK,
        position >> 32,
        k0[:, None],
        k1[:, None],
    )
    return torch.stack(words, dim=-1).flatten(-2)[..., :count]


def uniform(words: Tensor, dtype: torch.dtype) -> Tensor:
    """Words as numbers on [0, 1): 24 bits, so float32 and float64 hold the very same values."""
    return (words >> 8).to(dtype) * 2.0**-24


def below(words: Tensor, n: int | Tensor) -> Tensor:
    """Words as whole numbers on 0 .. n-1. The bias is at most n / 2^32 of a probability."""
    return (words * n) >> 32


def normal(words: Tensor, dtype: torch.dtype) -> Tensor:
    """Words as standard normal numbers (Box and Muller); an even count along the last axis.

    Computed in float64 and then rounded, so that both dtypes see the same draw.
    """
    half = words.shape[-1] // 2
    radius = ((words[..., :half].double() + 1.0) * 2.0**-32).log_().mul_(-2.0).sqrt_()  # (0, 1]: no log 0
    angle = words[..., half:].double() * (2.0 * math.pi * 2.0**-32)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=-1).to(dtype)


def normals(
    stream: Stream, position: int | Tensor, shape: Sequence[int], dtype: torch.dtype, out: Tensor | None = None
) -> Tensor:
    """[R, *shape] standard normal numbers at one position of a stream, or at a position [R] of each run.

    `out` is where they are to be, if anywhere: a contiguous tensor.
    """
    count, R, device = math.prod(shape), len(stream.k0), stream.k0.device
    if device.type == "cpu":  # the same numbers but for rounding in float64
        found = torch.empty(R, *shape, dtype=dtype) if out is None else out
        of_runs = position if isinstance(position, Tensor) else torch.full((R,), position)
        arrays = stream.k0.numpy(), stream.k1.numpy(), array(of_runs)
        kernels("compiled_streams").normals(found.view(R, count).numpy(), *arrays)
        return found
    positions = position[None] if isinstance(position, Tensor) else [position]
    words = stream.words(positions, count + count % 2)[0]
    found = normal(words, dtype)[:, :count].reshape(-1, *shape)
    return found if out is None else out.copy_(found)
