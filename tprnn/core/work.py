"""Buffers that live as long as a stack, so that no iteration allocates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Workspace:
    """Named scratch tensors, made at first use and handed out again for the same name and shape."""

    def __init__(self, dtype: torch.dtype, device: str | torch.device = "cpu") -> None:
        self.dtype, self.device = dtype, device
        self._buffers: dict[tuple[str, tuple[int, ...]], tuple[Tensor, list[Tensor]]] = {}
        self._parts: dict[tuple[str, tuple[int, ...], tuple[tuple[int, int], ...]], list[list[Tensor]]] = {}

    def steps(self, name: str, R: int, T: int, B: int, H: int) -> tuple[Tensor, list[Tensor]]:
        """A buffer [R, T, B, H] and its steps, [R, B, H] each, or [B, H] for R = 1.

        The slices are kept, for to slice anew at each step costs as much as a small activation. Fresh buffers are zero.
        """
        key = (name, (R, T, B, H))
        if key not in self._buffers:
            buffer = torch.zeros(R, T, B, H, dtype=self.dtype, device=self.device)
            self._buffers[key] = (buffer, list(step_slices(buffer)))
        return self._buffers[key]

    def parts(
        self, name: str, R: int, T: int, B: int, A: int, columns: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, list[list[Tensor]]]:
        """A buffer [R, T, B, A], and for each (first, last + 1) of `columns` these of every step, as views."""
        buffer, steps = self.steps(name, R, T, B, A)
        key = (name, (R, T, B, A), tuple(columns))
        if key not in self._parts:
            self._parts[key] = [[step[..., first:last] for step in steps] for first, last in columns]
        return buffer, self._parts[key]

    def clear(self) -> None:
        """Forget all buffers."""
        self._buffers.clear()
        self._parts.clear()

    def tensor(self, name: str, R: int, T: int, B: int, H: int) -> Tensor:
        """A buffer alone."""
        return self.steps(name, R, T, B, H)[0]


_CHUNK = 40_000  # numbers of one run; measured (docs/performance.md)


def chunks(steps: int, x: Tensor) -> list[tuple[int, int]]:
    """(first, last + 1) of pieces of a sequence x [R, T, B, H] that stay in the cache from one pass to the next.

    A GPU wants few, large calls instead: one piece.
    """
    size = max(1, _CHUNK // (x.shape[2] * x.shape[3])) if x.device.type == "cpu" else steps
    return [(first, min(first + size, steps)) for first in range(0, steps, size)]


def step_slices(x: Tensor) -> tuple[Tensor, ...]:
    """The steps of [R, T, B, H]: [R, B, H] each, or [B, H] for R = 1 (core/products: `one_step`)."""
    return x.squeeze(0).unbind(-3)
