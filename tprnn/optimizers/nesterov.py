"""Nesterov's accelerated gradient in the form of manchev2020's released program.

v <- mu v - rate g;   w <- w + mu v - rate g,   v = 0 at the start
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from tprnn.optimizers.base import Optimizer, flat, like, step_, wide
from tprnn.settings import setting


@dataclass(frozen=True)
class NesterovSettings:
    """conf/optimizer/nesterov.yaml."""

    momentum: float = setting(low=0.0, high=1.0, per_run=True)


class Nesterov(Optimizer):
    """Momentum that looks ahead."""

    Settings = NesterovSettings
    slots = ("v",)
    momentum: Tensor | float

    def update(self, w: Tensor, g: Tensor, rate: Tensor | float, slots: Mapping[str, Tensor]) -> None:
        if self.compiled:
            from tprnn.optimizers import _compiled

            _compiled.nesterov(flat(w), flat(g), flat(slots["v"]), wide(rate, w), self.array("momentum"))
            return
        mu, v = like(self.momentum, w), slots["v"]
        v.mul_(mu)
        step_(v, g, rate, -1.0)
        step_(w, g, rate, -1.0)
        step_(w, v, mu, 1.0)
