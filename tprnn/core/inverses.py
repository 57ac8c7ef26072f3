"""Activations the other way: what an activation's argument has to change by, where its value is to change by d.

sigma^{-1}(h + d) - sigma^{-1}(h) in forms that never subtract two inverses, which are large and nearby where units
are saturated. Both h and h + d must lie inside the range of sigma.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tprnn.core.activations import Sigmoid, Tanh


def _tanh(h: Tensor, d: Tensor) -> Tensor:
    """atanh(h + d) - atanh(h) = atanh(d / (1 - h (h + d)))."""
    return torch.atanh(d / (1.0 - h * (h + d)))


def _sigmoid(h: Tensor, d: Tensor) -> Tensor:
    """logit(h + d) - logit(h) = log(1 + d / (h (1 - h - d)))."""
    return torch.log1p(d / (h * (1.0 - h - d)))


@dataclass(frozen=True)
class Inverse:
    """How an activation is inverted."""

    low: float
    """The range of its values is (low, high)."""
    high: float
    displacement: Callable[[Tensor, Tensor], Tensor]
    """sigma^{-1}(h + d) - sigma^{-1}(h) of (h, d)."""

    def ends(self, tolerance: float) -> tuple[float, float]:
        """The range without the last `tolerance` at either end."""
        return self.low + tolerance, self.high - tolerance

    def inside(self, h: Tensor, tolerance: float) -> Tensor:
        """h, no nearer than `tolerance` to either end of the range."""
        return h.clamp(*self.ends(tolerance))


INVERSES: dict[type, Inverse] = {Tanh: Inverse(-1.0, 1.0, _tanh), Sigmoid: Inverse(0.0, 1.0, _sigmoid)}
