"""Simple recurrent network (Elman 1990; manchev2020 eq. 1 and 2).

    h_t = sigma(x_t W_xh + h_{t-1} W_hh + b_h),  h_0 = 0        Eq. 1 (row convention)

Shapes: W_xh [R, I, H], W_hh [R, H, H], b_h [R, H]. The read-out (eq. 2) is a member of its own: tprnn/readouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tprnn.core import scans
from tprnn.core.activations import ACTIVATIONS
from tprnn.core.init import INITIALISATIONS
from tprnn.core.products import one_step, outer_sum
from tprnn.core.streams import Draws
from tprnn.core.work import chunks, step_slices
from tprnn.models.base import ADDITIVE, GRADIENT, Model, ModelSettings, States
from tprnn.readouts.base import Tensors
from tprnn.settings import setting
from tprnn.tasks.base import Batch, Task


@dataclass(frozen=True)
class SRNSettings(ModelSettings):
    """conf/model/srn.yaml."""

    H: int = setting(low=1)
    activation: str = setting(choices=tuple(ACTIVATIONS))
    init: str = setting(choices=tuple(INITIALISATIONS))


class SRN(Model):
    """One hidden layer of H units."""

    Settings = SRNSettings
    parameters = ("W_xh", "W_hh", "b_h")
    recurrent = ("W_hh",)
    traits = frozenset({GRADIENT, ADDITIVE})

    def __init__(self, settings: SRNSettings, task: Task, dtype: torch.dtype, device: str | torch.device) -> None:
        super().__init__(settings, task, dtype, device)
        self.H = settings.H
        self.activation = ACTIVATIONS[settings.activation]()
        self.compiled = self.reader.compiled = scans.compiled(self.activation, dtype, device)
        self.starts = INITIALISATIONS[settings.init]

    def recurrence(self) -> dict[str, tuple[int, ...]]:
        I, H = self.inputs, self.H
        return {"W_xh": (I, H), "W_hh": (H, H), "b_h": (H,)}

    def forward(self, params: Tensors, batch: Batch, draws: Draws | None = None) -> States:
        R, T, B = batch.inputs.shape[:3]
        h, h_t = self.work.steps("h", R, T + 1, B, self.H)
        valid = self.valid(batch)
        if self.compiled:
            source = self.inputs_of(params, batch, params["b_h"])
            W, start = scans.array(params["W_hh"]), scans.starts(batch.start, R)
            scans.kernels().forward(h.numpy(), *source, W, start)
            return States(h, h_t, valid, batch)
        W_hh, add_product, _ = one_step(params["W_hh"])
        apply_ = self.activation.apply_
        # for one run the input part is written where the state will be, which saves a copy at each step
        x, x_t = (h[:, 1:], h_t[1:]) if R == 1 else self.work.steps("x", R, T, B, self.H)
        self.input_part(params, batch, params["b_h"], x)
        for t in range(T):
            h_tp1 = apply_(add_product(x_t[t], h_t[t], W_hh, out=h_t[t + 1]))  # Eq. 1
            if t < len(valid):
                h_tp1.mul_(valid[t])
        return States(h, h_t, valid, batch)

    def adjoint(self, params: Tensors, states: States, dh: Tensor) -> Tensor:
        R, T, B = states.batch.inputs.shape[:3]
        S = states.batch.outputs
        da, da_t = self.work.steps("delta", R, T, B, self.H)
        if self.compiled:
            signals, start = (states.h.numpy(), scans.array(dh)), scans.starts(states.batch.start, R)
            scans.kernels().adjoint(da.numpy(), *signals, scans.array(params["W_hh"].mT), start)
            return da
        dh_t = step_slices(dh)
        W_hh_T, _, product = one_step(params["W_hh"].mT.contiguous())  # as a view it takes half as long again
        back = torch.empty_like(da_t[0])
        for first, last in reversed(chunks(T, da)):
            self.activation.slope(states.h[:, first + 1 : last + 1], out=da[:, first:last])
            for t in range(last - 1, first - 1, -1):
                if t == T - 1:
                    da_t[t].mul_(dh_t[-1])
                    continue
                product(da_t[t + 1], W_hh_T, out=back)  # dE/dh_t = dE/da_{t+1} W_hh^T (+ its own output's part)
                if t >= T - S:
                    back.add_(dh_t[t - T + S])
                da_t[t].mul_(back)
                if t < len(states.valid):
                    da_t[t].mul_(states.valid[t])
        return da

    def gradients(self, states: States, da: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        if "W_hh" in names:
            found["W_hh"] = outer_sum(states.h[:, :-1], da)
        x, one_hot = states.batch.inputs, states.batch.tokens
        if "W_xh" in names:
            found["W_xh"] = self.token_sum(x, da) if one_hot else outer_sum(x, da)
        if "b_h" in names:  # every step has one token: what each gets adds up to all
            found["b_h"] = found["W_xh"].sum(1) if one_hot and "W_xh" in names else self.row_sum(da)
        return found
