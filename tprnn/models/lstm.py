"""Long short-term memory (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000), no peepholes.

    [i, f, g, o] = x_t W_xh + h_{t-1} W_hh + b_h,  h_0 = c_0 = 0              row convention, one product of all gates
    c_t = sigma(f) c_{t-1} + sigma(i) tanh(g),  h_t = sigma(o) tanh(c_t)

Backwards, with dh_t and dc_t the derivatives by what leaves step t, and s'(a) = sigma(a) (1 - sigma(a)):

    dc_t += dh_t sigma(o) (1 - tanh(c_t)^2)
    da_i = dc_t tanh(g) s'(i),  da_f = dc_t c_{t-1} s'(f),  da_g = dc_t sigma(i) (1 - tanh(g)^2)
    da_o = dh_t tanh(c_t) s'(o)
    dc_{t-1} = dc_t sigma(f),  dh_{t-1} = [da_i, da_f, da_g, da_o] W_hh^T (+ its own output's part)

Shapes: W_xh [R, I, 4H], W_hh [R, H, 4H], b_h [R, 4H]; h and c [R, T + 1, B, H], gates and da [R, T, B, 4H]. These are
torch.nn.LSTM's weights transposed, in its order, b_h the sum of its two biases. Each of the four H x H blocks of W_hh
(I x H of W_xh) starts by a stream of its own: orthogonal means that each is. b_h starts at 0, the part of f at
`forget_bias` (Gers et al. 2000 and Jozefowicz et al. 2015 have it above 0, so that cells keep what they hold at first).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tprnn.core.products import one_step, outer_sum
from tprnn.core.streams import Draws
from tprnn.core.work import chunks, step_slices
from tprnn.models._gated import Gated, GatedSettings, sigmoid_slope, tanh_slope
from tprnn.models.base import States
from tprnn.readouts.base import Tensors
from tprnn.settings import setting
from tprnn.tasks.base import Batch, Task


@dataclass(frozen=True)
class LSTMSettings(GatedSettings):
    """conf/model/lstm.yaml."""

    forget_bias: float = setting()


class LSTM(Gated):
    """One layer of H cells."""

    Settings = LSTMSettings
    parameters = ("W_xh", "W_hh", "b_h")
    blocks = ("i", "f", "g", "o")
    products = 4

    def __init__(self, settings: LSTMSettings, task: Task, dtype: torch.dtype, device: str | torch.device) -> None:
        super().__init__(settings, task, dtype, device)
        self.forget_bias = settings.forget_bias

    def init_one(self, seeds: Sequence[int], name: str, shape: tuple[int, ...]) -> Tensor:
        found = super().init_one(seeds, name, shape)
        if name == "b_h":
            found[:, self.H : 2 * self.H] = self.forget_bias
        return found

    def forward(self, params: Tensors, batch: Batch, draws: Draws | None = None) -> States:
        (R, T, B), H = batch.inputs.shape[:3], self.H
        h, h_t = self.work.steps("h", R, T + 1, B, H)
        c, c_t = self.work.steps("c", R, T + 1, B, H)
        columns = [(0, 4 * H), (0, 2 * H), *((k * H, (k + 1) * H) for k in range(4))]
        gates, (a_t, i_f_t, i_t, f_t, g_t, o_t) = self.work.parts("gates", R, T, B, 4 * H, columns)
        self.input_part(params, batch, params["b_h"], gates)
        W_hh, add_product, _ = one_step(params["W_hh"])
        valid = self.valid(batch)
        for t in range(T):
            add_product(a_t[t], h_t[t], W_hh, out=a_t[t])
            i_f_t[t].sigmoid_()
            o = o_t[t].sigmoid_()
            c_tp1 = torch.mul(f_t[t], c_t[t], out=c_t[t + 1]).addcmul_(i_t[t], g_t[t].tanh_())
            if t < len(valid):
                c_tp1.mul_(valid[t])  # and with it h = o tanh(c)
            torch.tanh(c_tp1, out=h_t[t + 1]).mul_(o)
        return States(h, h_t, valid, batch, {"c": c, "gates": gates})

    def adjoint(self, params: Tensors, states: States, dh: Tensor) -> Tensor:
        (R, T, B), H, S = states.batch.inputs.shape[:3], self.H, states.batch.outputs
        c, gates = states.more["c"], states.more["gates"]
        da, (da_t, da_ifg_t, da_o_t) = self.work.parts("da", R, T, B, 4 * H, [(0, 4 * H), (0, 3 * H), (3 * H, 4 * H)])
        slope, slope_t = self.work.steps("slope", R, T, B, H)  # of h_t by c_t
        f_t, dh_t = step_slices(gates[..., H : 2 * H]), step_slices(dh)
        W_hh_T, _, product = one_step(params["W_hh"].mT.contiguous())
        d, dc = torch.zeros(2, *slope_t[0].shape, dtype=self.dtype, device=self.device)
        by_three = dc.unsqueeze(-2)
        for first, last in reversed(chunks(T, da)):
            self.slopes_(da[:, first:last], slope[:, first:last], gates[:, first:last], c[:, first : last + 1])
            for t in range(last - 1, first - 1, -1):
                if t >= T - S:
                    d.add_(dh_t[t - T + S])
                dc.addcmul_(d, slope_t[t])
                da_ifg_t[t].unflatten(-1, (3, H)).mul_(by_three)
                da_o_t[t].mul_(d)
                if t < len(states.valid):
                    da_t[t].mul_(states.valid[t])
                dc.mul_(f_t[t])
                product(da_t[t], W_hh_T, out=d)
        return da

    def slopes_(self, da: Tensor, slope: Tensor, gates: Tensor, c: Tensor) -> None:
        """What needs no order in time: the factors of dc_t and dh_t in da [R, n, B, 4H], that of dh_t in dc_t."""
        (i, f, g, o), (da_i, da_f, da_g, da_o) = gates.chunk(4, -1), da.chunk(4, -1)
        tanh_c = torch.tanh(c[:, 1:], out=slope)
        sigmoid_slope(g, i, grad_input=da_i)
        sigmoid_slope(c[:, :-1], f, grad_input=da_f)
        tanh_slope(i, g, grad_input=da_g)
        sigmoid_slope(tanh_c, o, grad_input=da_o)
        tanh_slope(o, tanh_c, grad_input=slope)

    def gradients(self, states: States, da: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        x = states.batch.inputs
        if "W_hh" in names:
            found["W_hh"] = outer_sum(states.h[:, :-1], da)
        if "W_xh" in names:
            found["W_xh"] = self.token_sum(x, da) if states.batch.tokens else outer_sum(x, da)
        if "b_h" in names:
            found["b_h"] = self.row_sum(da)
        return found
