"""Target propagation for many outputs (dai2021), with the truncation that its conclusion proposes.

    h_hat_t^s = h_t - alpha_i dE_t/dh_t                                          Eq. 20, E_t the loss at step t
    e_t = h_hat_t^s - h_t                                                        Eq. 21
    h_hat_t = DTP(h_hat_{t+1}) + e_t,  h_hat_T = h_hat_T^s                       Eq. 22
    DTP(h_hat_{t+1}) = G(x_{t+1}, h_hat_{t+1}) + (h_t - G(x_{t+1}, h_{t+1}))     Eq. 18 and 19
    W_hh, b_h, W_xh follow -alpha_f grad sum_t MSE(F(x_t, h_{t-1}), h_hat_t)     Eq. 23 and 24

All of this is `tptt`, which merges targets wherever outputs stand at several steps. What is its own, in displacements
delta_t = h_hat_t - h_t = carried_t + e_t:

`g_first` n: F stands still in the first n iterations, while G learns (figure 2 of the paper: n = 1000).

`truncate` n: "truncating the propagating targets at every a few steps, similar to truncated BPTT" (its section 5).
Counted from the last step, carried_t = 0 wherever T - t is a multiple of n: the target there is that step's own
h_hat_t^s, and no target is carried over more than n - 1 steps. With n = 1 each step has its own target alone.

`shrink` s, which is ours: carried_t is multiplied by s at each step, so that s^k of a step_errors is left after k
steps. Targets then stay in "the neighborhood of the forward activations", where alone G is an inverse (text below eq.
20).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tprnn.core.streams import Seeds
from tprnn.settings import setting
from tprnn.trainers.tptt import TPTT, TPTTSettings


@dataclass(frozen=True)
class TPTTManySettings(TPTTSettings):
    """conf/trainer/tptt_many.yaml."""

    g_first: int = setting(low=0, per_run=True)
    truncate: int | None = setting(low=1)
    shrink: float = setting(low=0.0, high=1.0, per_run=True)


class TPTTMany(TPTT):
    """Merged targets that may be cut or shrink on their way back, and an inverse that may learn first."""

    Settings = TPTTManySettings
    paper = "dai2021"
    # section 4; optimizer and initial weights are not stated
    paper_settings: ClassVar[Mapping[str, Sequence[Any]]] = {
        "model.H": [128],
        "model.activation": ["tanh"],
        "train.batch_size": [20],
    }

    def __init__(self, settings: Sequence[Any], seeds: Seeds, model: Any, optimizer: Any) -> None:
        super().__init__(settings, seeds, model, optimizer)
        self.shrink = torch.tensor([one.shrink for one in self.settings], dtype=model.dtype, device=model.device)
        self.shrinks = any(one.shrink < 1.0 for one in self.settings)
        self.kept: dict[int, Tensor] = {}
        self.g_first = torch.tensor([one.g_first for one in self.settings], device=model.device)
        self.waits = any(one.g_first > 0 for one in self.settings)

    def phase(self, position: int | Tensor) -> tuple[Tensor | None, Tensor | None]:
        in_g, in_f = super().phase(position)
        if not self.waits:
            return in_g, in_f
        begun = self.g_first <= position  # [R]
        return (None if in_g is None else in_g | ~begun), (begun if in_f is None else in_f & begun)

    def step_factors(self, T: int) -> Tensor | None:
        """`shrink` of it, and nothing where it is cut off: `truncate` steps before the last, and so on."""
        truncate = self.options.truncate
        if (truncate is None or truncate >= T) and not self.shrinks:
            return None
        if T not in self.kept:  # once for a length, and always the same tensor
            steps_left = torch.arange(T - 1, -1, -1, device=self.model.device)
            goes_on = steps_left % truncate > 0 if truncate is not None else steps_left >= 0
            self.kept[T] = self.shrink[:, None] * goes_on
        return self.kept[T]
