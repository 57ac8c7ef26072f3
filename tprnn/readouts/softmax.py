"""Classes: p(k) = exp(y_k) / sum_j exp(y_j), l = -log p(target) (manchev2020 eq. 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from tprnn.core.losses import softmax_cross_entropy
from tprnn.readouts.base import NoSettings, Readout


class Softmax(Readout):
    """One class among D for each output."""

    Settings = NoSettings
    targets = "classes"
    in_kernel = True
    uniforms = 1

    def each(self, y: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        log_p = torch.log_softmax(y, -1)
        l = log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1).neg()
        return l, log_p.exp_().scatter_add_(-1, targets.unsqueeze(-1), -torch.ones_like(l).unsqueeze(-1))

    def loss(self, y: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if y.shape[2] == targets.shape[2]:
            return softmax_cross_entropy(y, targets)
        return super().loss(y, targets)

    def mean(self, y: Tensor) -> Tensor:
        return torch.softmax(y, -1)

    def sample(self, y: Tensor, u: Tensor) -> Tensor:
        below = torch.softmax(y, -1).cumsum(-1)[..., :-1]  # rounding may leave the last sum below 1
        return (u >= below).sum(-1)
