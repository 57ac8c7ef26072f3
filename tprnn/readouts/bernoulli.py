"""Bits, each by itself: p_d = 1 / (1 + exp(-y_d)), l = -sum_d [target_d log p_d + (1 - target_d) log (1 - p_d)].

The 88 notes of a step of polyphonic music (manchev2024 section 5.3) are read so; targets are 0 or 1, [R, S, B, D].
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from tprnn.readouts.base import NoSettings, Readout


class Bernoulli(Readout):
    """D bits for each output."""

    Settings = NoSettings
    targets = "bits"

    @property
    def uniforms(self) -> int:
        return self.outputs

    def each(self, y: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        # -log p = softplus(-y) = softplus(y) - y, and softplus never overflows
        return (softplus(y) - targets * y).sum(-1), y.sigmoid() - targets

    def mean(self, y: Tensor) -> Tensor:
        return y.sigmoid()

    def sample(self, y: Tensor, u: Tensor) -> Tensor:
        return (u < y.sigmoid()).to(y.dtype)
