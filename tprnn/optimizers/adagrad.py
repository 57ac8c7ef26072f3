"""AdaGrad (Duchi, Hazan and Singer 2011), as torch.optim.Adagrad.

s <- s + g^2;   w <- w - rate g / (sqrt(s) + eps)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from tprnn.optimizers.base import Optimizer, like
from tprnn.settings import setting


@dataclass(frozen=True)
class AdagradSettings:
    """conf/optimizer/adagrad.yaml."""

    eps: float = setting(above=0.0, per_run=True)


class Adagrad(Optimizer):
    """Rates that fall with the sum of squared gradients."""

    Settings = AdagradSettings
    slots = ("s",)
    eps: Tensor | float

    def update(self, w: Tensor, g: Tensor, rate: Tensor | float, slots: Mapping[str, Tensor]) -> None:
        s = slots["s"].addcmul_(g, g)
        w.sub_(g.mul_(rate).div_(s.sqrt().add_(like(self.eps, w))))
