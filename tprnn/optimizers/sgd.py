"""Stochastic gradient descent, with classical momentum where it is above 0.

v <- mu v + g;   w <- w - rate v        (as torch.optim.SGD; mu = 0 gives w - rate g)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from tprnn.optimizers.base import Optimizer, like
from tprnn.settings import setting


@dataclass(frozen=True)
class SGDSettings:
    """conf/optimizer/sgd.yaml."""

    momentum: float = setting(low=0.0, high=1.0, per_run=True)


class SGD(Optimizer):
    """Plain or heavy-ball."""

    Settings = SGDSettings
    slots = ("v",)
    momentum: Tensor | float

    def update(self, w: Tensor, g: Tensor, rate: Tensor | float, slots: Mapping[str, Tensor]) -> None:
        v = slots["v"]
        v.mul_(like(self.momentum, w)).add_(g)
        w.sub_(g.copy_(v).mul_(rate))
