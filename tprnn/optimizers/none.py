"""No optimizer: of rules that change parameters by themselves (`Trainer.optimizes`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from tprnn.optimizers.base import Optimizer


@dataclass(frozen=True)
class NoOptimizerSettings:
    """conf/optimizer/none.yaml."""


class NoOptimizer(Optimizer):
    """Has no slots, and changes nothing."""

    Settings = NoOptimizerSettings

    def update(self, w: Tensor, g: Tensor, rate: Tensor | float, slots: Mapping[str, Tensor]) -> None:
        raise TypeError("a rule that has no optimizer asked for an update: Trainer.optimizes says False")
