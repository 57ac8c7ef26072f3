"""Long short-term memory with coupled gates (CIFG of Greff et al. 2017): what is forgotten is written anew.

    [f, g, o] = x_t W_xh + h_{t-1} W_hh + b_h             three pre-activations of a cell, side by side
    c_t = sigma(f) c_{t-1} + (1 - sigma(f)) tanh(g),  h_t = sigma(o) tanh(c_t),  h_0 = c_0 = 0

Backwards, with dh_t and dc_t the derivatives by what leaves step t:

    dc_t += dh_t sigma(o) (1 - tanh(c_t)^2),  dc_{t-1} = dc_t sigma(f),  dh_{t-1} = da_t W_hh^T
    da_f = dc (c_{t-1} - tanh(g)) s'(f),  da_g = dc (1 - sigma(f)) (1 - tanh(g)^2),  da_o = dh tanh(c) s'(o)

Shapes: W_xh [R, I, 3H], W_hh [R, H, 3H], b_h [R, 3H]; h and c [R, T + 1, B, H], gates and da [R, T, B, 3H].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tprnn.core.init import INITIALISATIONS
from tprnn.core.products import outer_sum
from tprnn.core.streams import Draws
from tprnn.models.base import Model, ModelSettings, States
from tprnn.readouts.base import Tensors
from tprnn.settings import setting
from tprnn.tasks.base import Batch, Task


@dataclass(frozen=True)
class CIFGSettings(ModelSettings):
    """conf/model/cifg.yaml."""

    H: int = setting(low=1)
    init: str = setting(choices=tuple(INITIALISATIONS))


class CIFG(Model):
    """One layer of H cells."""

    Settings = CIFGSettings
    parameters = ("W_xh", "W_hh", "b_h")
    recurrent = ()
    products = 3

    def __init__(self, settings: CIFGSettings, task: Task, dtype: torch.dtype, device: str | torch.device) -> None:
        super().__init__(settings, task, dtype, device)
        self.H = settings.H
        self.starts = INITIALISATIONS[settings.init]

    def recurrence(self) -> dict[str, tuple[int, ...]]:
        return {"W_xh": (self.inputs, 3 * self.H), "W_hh": (self.H, 3 * self.H), "b_h": (3 * self.H,)}

    def forward(self, params: Tensors, batch: Batch, draws: Draws | None = None) -> States:
        R, T, B = batch.inputs.shape[:3]
        h, c = torch.zeros(2, R, T + 1, B, self.H, dtype=self.dtype, device=self.device)
        gates = self.input_part(params, batch, params["b_h"], self.work.tensor("gates", R, T, B, 3 * self.H))
        valid = [one.view(R, B, 1) for one in self.valid(batch)]
        for t in range(T):
            f, g, o = torch.baddbmm(gates[:, t], h[:, t], params["W_hh"]).chunk(3, -1)
            gates[:, t] = torch.cat([f.sigmoid(), g.tanh(), o.sigmoid()], -1)
            f, g, o = gates[:, t].chunk(3, -1)
            c[:, t + 1] = f * c[:, t] + (1.0 - f) * g
            h[:, t + 1] = o * c[:, t + 1].tanh()
            if t < len(valid):
                c[:, t + 1] *= valid[t]
                h[:, t + 1] *= valid[t]
        return States(h, list(h.unbind(1)), valid, batch, {"c": c, "gates": gates})

    def adjoint(self, params: Tensors, states: States, dh: Tensor) -> Tensor:
        c, gates = states.more["c"], states.more["gates"]
        T, S = gates.shape[1], dh.shape[1]
        da = torch.empty_like(gates)
        back, dc = torch.zeros(2, *c[:, 0].shape, dtype=self.dtype, device=self.device)
        for t in range(T - 1, -1, -1):
            f, g, o = gates[:, t].chunk(3, -1)
            d, tanh_c = back + dh[:, t - T + S] if t >= T - S else back, c[:, t + 1].tanh()
            dc = dc + d * o * (1.0 - tanh_c.square())
            parts = [dc * (c[:, t] - g) * f * (1.0 - f), dc * (1.0 - f) * (1.0 - g.square())]
            da[:, t] = torch.cat([*parts, d * tanh_c * o * (1.0 - o)], -1)
            if t < len(states.valid):
                da[:, t] *= states.valid[t]
            back, dc = torch.bmm(da[:, t], params["W_hh"].mT), dc * f
        return da

    def gradients(self, states: States, da: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        x = states.batch.inputs
        found = {"W_hh": outer_sum(states.h[:, :-1], da), "b_h": self.row_sum(da)}
        found["W_xh"] = self.token_sum(x, da) if states.batch.tokens else outer_sum(x, da)
        return {name: found[name] for name in names}
