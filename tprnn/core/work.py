"""Buffers that live as long as a stack, so that no iteration allocates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Workspace:
    """Named scratch tensors, made at first use and handed out again for the same name and shape."""

    def __init__(self, dtype: torch.dtype, device: str | torch.device = "cpu") -> None:
        self.dtype, self.device = dtype, device
        self._buffers: dict[tuple[str, tuple[int, ...]], tuple[Tensor, list[Tensor]]] = {}

    def steps(self, name: str, T: int, R: int, B: int, H: int) -> tuple[Tensor, list[Tensor]]:
        """By time: a buffer [T, R, B, H] and its slices, [R, B, H] each, or [B, H] for R = 1.

        The slices are kept, for to slice anew at each step costs as much as a small activation. Fresh buffers are zero.
        """
        return self._make(name, (T, R, B, H), lambda buffer: buffer.squeeze(1).unbind(0))

    def rows(self, name: str, T: int, R: int, B: int, H: int) -> tuple[Tensor, list[Tensor]]:
        """By run: a buffer [R, T B, H] and its steps, [R, B, H] each, or [B, H] for R = 1."""
        return self._make(name, (R, T * B, H), lambda buffer: buffer.view(R, T, B, H).squeeze(0).unbind(-3))

    def tensor(self, name: str, *shape: int) -> Tensor:
        """A buffer alone."""
        return self._make(name, shape, lambda buffer: ())[0]

    def _make(
        self, name: str, shape: tuple[int, ...], cut: Callable[[Tensor], Sequence[Tensor]]
    ) -> tuple[Tensor, list[Tensor]]:
        found = self._buffers.get((name, shape))
        if found is None:
            buffer = torch.zeros(shape, dtype=self.dtype, device=self.device)
            found = self._buffers[name, shape] = (buffer, list(cut(buffer)))
        return found
