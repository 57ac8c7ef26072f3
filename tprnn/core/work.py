"""Buffers that live as long as a stack, so that no iteration allocates."""

from __future__ import annotations

import torch
from torch import Tensor


class Workspace:
    """Named scratch tensors, made at first use and handed out again for the same name and shape."""

    def __init__(self, dtype: torch.dtype, device: str | torch.device = "cpu") -> None:
        self.dtype, self.device = dtype, device
        self._buffers: dict[tuple[str, tuple[int, ...]], tuple[Tensor, list[Tensor]]] = {}

    def steps(self, name: str, *shape: int) -> tuple[Tensor, list[Tensor]]:
        """A buffer and the list of its slices along the first axis (slicing anew each step costs as much
        as a small activation). Fresh buffers are zero."""
        found = self._buffers.get((name, shape))
        if found is None:
            buffer = torch.zeros(shape, dtype=self.dtype, device=self.device)
            found = self._buffers[name, shape] = (buffer, list(buffer.unbind(0)))
        return found

    def tensor(self, name: str, *shape: int) -> Tensor:
        """A buffer alone."""
        return self.steps(name, *shape)[0]
