"""RMSProp (Tieleman and Hinton 2012), as torch.optim.RMSprop.

s <- rho s + (1 - rho) g^2;   w <- w - rate g / (sqrt(s) + eps)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from tprnn.optimizers.base import Optimizer, like
from tprnn.settings import setting


@dataclass(frozen=True)
class RMSpropSettings:
    """conf/optimizer/rmsprop.yaml."""

    rho: float = setting(low=0.0, high=1.0, per_run=True)
    eps: float = setting(above=0.0, per_run=True)


class RMSprop(Optimizer):
    """Rates divided by a running root mean square of the gradient."""

    Settings = RMSpropSettings
    slots = ("s",)
    rho: Tensor | float
    eps: Tensor | float

    def update(self, w: Tensor, g: Tensor, rate: Tensor | float, slots: Mapping[str, Tensor]) -> None:
        s = slots["s"].mul_(like(self.rho, w)).add_((g * g).mul_(like(self.rest("rho"), w)))
        w.sub_(g.mul_(rate).div_(s.sqrt().add_(like(self.eps, w))))
