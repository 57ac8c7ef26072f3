"""Values: l = sum_d (y_d - target_d)^2 (manchev2020 section 3.1, adding).

As a distribution: exp(-l) is, but for a factor, a Gaussian around y with variance 1/2 in every direction.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tprnn.core.losses import squared_error
from tprnn.readouts.base import NoSettings, Readout


class Linear(Readout):
    """D values for each output."""

    Settings = NoSettings
    targets = "values"
    in_kernel = True

    @property
    def uniforms(self) -> int:
        return 2 * self.outputs

    def each(self, y: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        difference = y - targets
        return difference.square().sum(-1), difference.mul_(2.0)

    def loss(self, y: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if y.shape[2] == targets.shape[2]:
            return squared_error(y, targets)
        return super().loss(y, targets)

    def mean(self, y: Tensor) -> Tensor:
        return y

    def sample(self, y: Tensor, u: Tensor) -> Tensor:
        return y + gaussian(u) * math.sqrt(0.5)


def gaussian(u: Tensor) -> Tensor:
    """Standard normal numbers [..., D] from twice as many uniform ones [..., 2 D] (Box and Muller)."""
    first, second = u.chunk(2, -1)
    return (-2.0 * torch.log1p(-first)).sqrt() * (2.0 * math.pi * second).cos()
