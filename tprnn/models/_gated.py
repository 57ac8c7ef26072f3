"""What networks with gates share: k matrices of the size of a simple network's lie side by side in one.

    [a_1, ..., a_k] = x_t W_xh + h_{t-1} W_hh + b_h        W_xh [R, I, kH], W_hh [R, H, kH], b_h [R, kH]

so that a step is one product. Each block starts like the matrix of a simple network, by a stream of its own
(``init/W_hh/f``), so that the blocks of an orthogonal W_hh are orthogonal, each H x H by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tprnn.core.init import INITIALISATIONS
from tprnn.core.streams import Stream
from tprnn.models.base import GRADIENT, Model, ModelSettings
from tprnn.settings import setting
from tprnn.tasks.base import Task

# looked up once: the way through torch.ops costs as much as a small activation
tanh_slope = torch.ops.aten.tanh_backward.grad_input
"""tanh_slope(d, tanh(a), grad_input=out): d (1 - tanh(a)^2)."""
sigmoid_slope = torch.ops.aten.sigmoid_backward.grad_input
"""sigmoid_slope(d, sigma(a), grad_input=out): d sigma(a) (1 - sigma(a))."""


@dataclass(frozen=True)
class GatedSettings(ModelSettings):
    """What the YAMLs of networks with gates have."""

    H: int = setting(low=1)
    init: str = setting(choices=tuple(INITIALISATIONS))


class Gated(Model):
    """One layer of H units whose matrices are blocks side by side."""

    blocks: ClassVar[tuple[str, ...]]
    """The names of the blocks, in order."""
    recurrent = ()
    traits = frozenset({GRADIENT})

    def __init__(self, settings: GatedSettings, task: Task, dtype: torch.dtype, device: str | torch.device) -> None:
        super().__init__(settings, task, dtype, device)
        self.H = settings.H
        self.starts = INITIALISATIONS[settings.init]

    def recurrence(self) -> dict[str, tuple[int, ...]]:
        width = len(self.blocks) * self.H
        return {"W_xh": (self.inputs, width), "W_hh": (self.H, width), "b_h": (width,)}

    def init_one(self, seeds: Sequence[int], name: str, shape: tuple[int, ...]) -> Tensor:
        if not self.has_blocks(name):
            return super().init_one(seeds, name, shape)
        stream, start = Stream(seeds, f"init/{name}", self.device), self.start_of(name)
        found = torch.empty(len(seeds), *shape, dtype=self.dtype, device=self.device)
        for block, out in zip(self.blocks, found.chunk(len(self.blocks), -1), strict=True):
            out.copy_(start(stream.child(block), shape[0], self.H, self.dtype))
        return found

    def start_bytes(self, name: str, shape: tuple[int, ...]) -> tuple[int, int]:
        return super().start_bytes(name, (shape[0], self.H) if self.has_blocks(name) else shape)

    def has_blocks(self, name: str) -> bool:
        """Whether a parameter is a matrix of blocks."""
        return name in ("W_xh", "W_hh")
