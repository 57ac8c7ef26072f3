"""Adam (Kingma and Ba 2015), as torch.optim.Adam.

m <- b1 m + (1 - b1) g;   s <- b2 s + (1 - b2) g^2
w <- w - rate (m / (1 - b1^n)) / (sqrt(s / (1 - b2^n)) + eps),   n = updates so far, this one included
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tprnn.optimizers.base import Optimizer, flat, like, wide
from tprnn.settings import setting


@dataclass(frozen=True)
class AdamSettings:
    """conf/optimizer/adam.yaml."""

    beta1: float = setting(low=0.0, high=1.0, per_run=True)
    beta2: float = setting(low=0.0, high=1.0, per_run=True)
    eps: float = setting(above=0.0, per_run=True)


class Adam(Optimizer):
    """Adaptive moments. The number of updates n is kept per run: a rule may skip runs (random phases)."""

    Settings = AdamSettings
    slots = ("m", "s", "n")
    beta1: Tensor | float
    beta2: Tensor | float
    eps: Tensor | float

    def start(self, w: Tensor) -> dict[str, Tensor]:
        counts = torch.zeros(w.shape[0], *[1] * (w.dim() - 1), dtype=torch.float64, device=w.device)
        return {"m": torch.zeros_like(w), "s": torch.zeros_like(w), "n": counts}

    def update(self, w: Tensor, g: Tensor, rate: Tensor | float, slots: Mapping[str, Tensor]) -> None:
        if self.compiled:
            from tprnn.optimizers import _compiled

            moments = flat(slots["m"]), flat(slots["s"]), flat(slots["n"])
            first = self.array("beta1"), self.array("beta1", rest=True)
            second = self.array("beta2"), self.array("beta2", rest=True)
            eps = self.array("eps")
            _compiled.adam(flat(w), flat(g), *moments, wide(rate, w), *first, *second, eps)
            return
        n = slots["n"].add_(1.0)
        s = slots["s"].mul_(like(self.beta2, w)).add_((g * g).mul_(like(self.rest("beta2"), w)))
        m = slots["m"].mul_(like(self.beta1, w)).add_(g.mul_(like(self.rest("beta1"), w)))
        root = s.sqrt().div_(self.bias("beta2", n).sqrt().to(w.dtype)).add_(like(self.eps, w))
        w.sub_(m.div(root).mul_(rate / self.bias("beta1", n).to(w.dtype)))

    def bias(self, name: str, n: Tensor) -> Tensor:
        """1 - beta^n, in float64."""
        return 1.0 - (1.0 - like(self.rest(name, n.dtype), n)) ** n
