"""Gated recurrent unit (Cho et al. 2014; the reset gate acts after the product, as in torch.nn.GRU and cuDNN).

    r = sigma(x_t W_xr + h_{t-1} W_hr + b_r),  z = sigma(x_t W_xz + h_{t-1} W_hz + b_z),  h_0 = 0      row convention
    q = h_{t-1} W_hn + b_hn,  n = tanh(x_t W_xn + b_n + r q)
    h_t = (1 - z) n + z h_{t-1}

Backwards, with dh_t the derivative by what leaves step t, and s'(a) = sigma(a) (1 - sigma(a)):

    da_n = dh_t (1 - z) (1 - n^2),  dq = da_n r
    da_r = da_n q s'(r),  da_z = dh_t (h_{t-1} - n) s'(z)
    dh_{t-1} = dh_t z + [da_r, da_z, dq] W_hh^T (+ its own output's part)

Shapes: W_xh = [W_xr, W_xz, W_xn] [R, I, 3H], W_hh = [W_hr, W_hz, W_hn] [R, H, 3H], b_h = [b_r, b_z, b_n] [R, 3H], b_hn
[R, H]; h [R, T + 1, B, H]; gates [r, z, q, n] and da = [da_r, da_z, dq, da_n] [R, T, B, 4H]: q has a place of its own,
because r comes between it and n. These are torch.nn.GRU's weights transposed, in its order; its two biases of r and of
z only ever add up, so that they are one here, and those of n are two. Each of the three H x H blocks of W_hh (I x H of
W_xh) starts by a stream of its own: orthogonal means that each is. Biases start at 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tprnn.core.products import one_step, outer_sum
from tprnn.core.streams import Draws
from tprnn.core.work import chunks, step_slices
from tprnn.models._gated import Gated, GatedSettings, sigmoid_slope, tanh_slope
from tprnn.models.base import States
from tprnn.readouts.base import Tensors
from tprnn.tasks.base import Batch


class GRU(Gated):
    """One layer of H units."""

    Settings = GatedSettings
    parameters = ("W_xh", "W_hh", "b_h", "b_hn")
    blocks = ("r", "z", "n")
    products = 3

    def recurrence(self) -> dict[str, tuple[int, ...]]:
        return super().recurrence() | {"b_hn": (self.H,)}

    def forward(self, params: Tensors, batch: Batch, draws: Draws | None = None) -> States:
        (R, T, B), H = batch.inputs.shape[:3], self.H
        h, h_t = self.work.steps("h", R, T + 1, B, H)
        columns = [(0, 3 * H), (0, 2 * H), *((k * H, (k + 1) * H) for k in range(4))]
        gates, (hidden_t, r_z_t, r_t, z_t, q_t, n_t) = self.work.parts("gates", R, T, B, 4 * H, columns)
        self.input_part(self.with_q(params), batch, self.bias(params), gates)
        W_hh, add_product, _ = one_step(params["W_hh"])
        valid = self.valid(batch)
        for t in range(T):
            add_product(hidden_t[t], h_t[t], W_hh, out=hidden_t[t])
            r_z_t[t].sigmoid_()
            n = n_t[t].addcmul_(r_t[t], q_t[t]).tanh_()
            h_tp1 = torch.lerp(n, h_t[t], z_t[t], out=h_t[t + 1])
            if t < len(valid):
                h_tp1.mul_(valid[t])
        return States(h, h_t, valid, batch, {"gates": gates})

    def with_q(self, params: Tensors) -> Tensors:
        """W_xh as [R, I, 4H]: q gets nothing of x_t."""
        W, H = params["W_xh"], self.H
        return {"W_xh": torch.cat([W[..., : 2 * H], torch.zeros_like(W[..., :H]), W[..., 2 * H :]], -1)}

    def bias(self, params: Tensors) -> Tensor:
        """[b_r, b_z, b_hn, b_n], [R, 4H]."""
        b, H = params["b_h"], self.H
        return torch.cat([b[:, : 2 * H], params["b_hn"], b[:, 2 * H :]], -1)

    def adjoint(self, params: Tensors, states: States, dh: Tensor) -> Tensor:
        (R, T, B), H, S = states.batch.inputs.shape[:3], self.H, states.batch.outputs
        gates = states.more["gates"]
        da, (da_t, hidden_t) = self.work.parts("da", R, T, B, 4 * H, [(0, 4 * H), (0, 3 * H)])
        z_t, dh_t = step_slices(gates[..., H : 2 * H]), step_slices(dh)
        W_hh_T, add_product, _ = one_step(params["W_hh"].mT.contiguous())
        d = torch.zeros_like(states.h_t[0])
        by_four = d.unsqueeze(-2)
        for first, last in reversed(chunks(T, da)):
            self.slopes_(da[:, first:last], gates[:, first:last], states.h[:, first:last])
            for t in range(last - 1, first - 1, -1):
                if t >= T - S:
                    d.add_(dh_t[t - T + S])
                da_t[t].unflatten(-1, (4, H)).mul_(by_four)
                if t < len(states.valid):
                    da_t[t].mul_(states.valid[t])
                add_product(d.mul_(z_t[t]), hidden_t[t], W_hh_T, out=d)
        return da

    def slopes_(self, da: Tensor, gates: Tensor, before: Tensor) -> None:
        """What needs no order in time: the factors of dh_t in da [R, n, B, 4H], with `before` the states h_{t-1}."""
        (r, z, q, n), (da_r, da_z, dq, da_n) = gates.chunk(4, -1), da.chunk(4, -1)
        sigmoid_slope(torch.sub(before, n, out=da_z), z, grad_input=da_z)
        tanh_slope(torch.rsub(z, 1.0), n, grad_input=da_n)
        torch.mul(da_n, r, out=dq)
        sigmoid_slope(torch.mul(da_n, q, out=da_r), r, grad_input=da_r)

    def gradients(self, states: States, da: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        x, H = states.batch.inputs, self.H
        if "W_hh" in names:
            found["W_hh"] = outer_sum(states.h[:, :-1], da[..., : 3 * H])
        if "W_xh" in names:
            found["W_xh"] = self.without_q(self.token_sum(x, da) if states.batch.tokens else outer_sum(x, da))
        if "b_h" in names or "b_hn" in names:
            sums = self.row_sum(da)
            found |= {"b_h": self.without_q(sums), "b_hn": sums[:, 2 * H : 3 * H]}
        return {name: found[name] for name in names}

    def without_q(self, x: Tensor) -> Tensor:
        """The columns of r, z and n: [..., 4H] -> [..., 3H]."""
        return torch.cat([x[..., : 2 * self.H], x[..., 3 * self.H :]], -1)
