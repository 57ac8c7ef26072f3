"""Target propagation through time (manchev2020), and TPTT_hx (its appendix A, `wxh: local`).

    F(x_t, h_{t-1}) = sigma(x_t W_xh + h_{t-1} W_hh + b_h) = h_t                              Eq. 1
    G(x_t, h_t)     = sigma(x_t W_xh + h_t V_hh + c_h), trained to give back h_{t-1}         Eq. 7
    h_hat_T = h_T - alpha_i dE/dh_T                                                          Eq. 3
    h_hat_t = h_t - G(x_{t+1}, h_{t+1}) + G(x_{t+1}, h_hat_{t+1})                            Eq. 8
    V_hh, c_h follow -alpha_g grad sum_t MSE(G(x_t, F(x_t, h_{t-1})), h_{t-1})               Eq. 9
    W_hh, b_h follow -alpha_f grad sum_t MSE(F(x_t, h_{t-1}), h_hat_t), target and h_{t-1} fixed   Eq. 10
    W_hy, b_y follow -alpha_f grad E                                                         Eq. 11
    W_xh follows -alpha_f grad E (`wxh: gradient`, Eq. 12) or the local loss (`wxh: local`, Eq. 13)

MSE is the mean over batch and units at one step. Where outputs stand at several steps, each adds its own pull
e_t = -alpha_i dE/dh_t to the target (dai2021 eq. 22); with one output e_t = 0 for t < T.

`targets: displacement` carries delta_t = h_hat_t - h_t = sigma(a + delta_{t+1} V_hh) - sigma(a), a the pre-activation
of G(x_{t+1}, h_{t+1}), in an exact form that never subtracts nearby numbers; `absolute` carries h_hat_t itself, as the
released program does, where float32 rounds small displacements away.

`reading: released`: the G step comes first and the targets use its result; its loss runs over t = 1..T (h_0 = 0 is
rebuilt too). `paper`: targets first; the loss runs over t = 1..T-1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tprnn.config import member_class, rate, setting
from tprnn.core.products import one_step, outer_sum, row_sum, rows, steps
from tprnn.core.streams import Stream, normals, uniform
from tprnn.errors import UserError
from tprnn.models.base import States, Tensors
from tprnn.tasks.base import Batch
from tprnn.trainers.base import State, Trainer, TrainerSettings


@dataclass(frozen=True)
class TPTTSettings(TrainerSettings):
    """conf/trainer/tptt.yaml and tptt_hx.yaml."""

    alpha_i: float = rate()
    alpha_f: float = rate()
    alpha_g: float = rate()
    wxh: str = setting(choices=("gradient", "local"))
    difference_correction: bool = setting()
    targets: str = setting(choices=("displacement", "absolute"))
    noise: float = setting(low=0.0, per_run=True)
    phases: str = setting(choices=("alternate", "random"))
    p_g: float = setting(low=0.0, high=1.0, per_run=True)
    reading: str = setting(choices=("released", "paper"))


class TPTT(Trainer):
    """Targets instead of gradients for W_hh and b_h."""

    Settings = TPTTSettings
    extra = ("V_hh", "c_h")
    recurrent = ("V_hh",)

    def __init__(self, settings: Sequence[Any], seeds: Sequence[int], model: Any, optimizer: Any) -> None:
        super().__init__(settings, seeds, model, optimizer)
        self.options = self.settings[0]  # what is not per run is the same for all
        self.alpha_i, self.noise = self.number("alpha_i"), self.number("noise")
        self.noisy = any(one.noise > 0 for one in self.settings)
        self.noise_stream = Stream(seeds, "noise", model.device)
        self.phase_stream = Stream(seeds, "phase", model.device)

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        super().check(config)
        model = config["model"]
        if not member_class("model", model["rule"]).additive:
            raise UserError(f"trainer: {config['trainer']['name']} cannot train model={model['name']}; give model=srn")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        H = self.model.H
        return super().shapes() | {"V_hh": (H, H), "c_h": (H,)}

    def step(self, state: State, batch: Batch, position: int) -> Tensor:
        model, params = self.model, state.params
        states = model.forward(params, batch)
        readout = model.readout(params, states)
        in_g, in_f = self.phase(position)
        if self.options.reading == "released":
            self.update(state, self.inverse_gradients(params, states, position), "alpha_g", in_g)
            delta = self.targets(params, states, readout.dh)
        else:
            delta = self.targets(params, states, readout.dh)
            self.update(state, self.inverse_gradients(params, states, position), "alpha_g", in_g)
        local = ("W_hh", "b_h") if self.options.wxh == "gradient" else ("W_hh", "b_h", "W_xh")
        gradients = self.local_gradients(states, delta, local)
        if self.options.wxh == "gradient":
            da = model.adjoint(params, states, readout.dh)
            gradients |= model.gradients(states, da, ("W_xh",))  # Eq. 12
        gradients |= model.readout_gradients(states, readout)  # Eq. 11
        self.update(state, gradients, "alpha_f", in_f)
        return readout.loss

    def phase(self, position: int) -> tuple[Tensor | None, Tensor | None]:
        """Which runs [R] make a G step and which an F step; None: all do both, in turn."""
        if self.options.phases == "alternate":
            return None, None
        draw = uniform(self.phase_stream.words([position], 1)[0, :, 0], torch.float64)
        chance = draw.new_tensor([one.p_g for one in self.settings])
        return draw < chance, draw >= chance

    def inverse_gradients(self, params: Tensors, states: States, position: int) -> dict[str, Tensor]:
        """Eq. 9: gradients of sum_t MSE(G(x_t, F(x_t, h_{t-1})), h_{t-1}) by V_hh, c_h."""
        model, activation, batch = self.model, self.model.activation, states.batch
        T, (_, R, B, H) = batch.T, states.h.shape
        h_tm1, h_t = rows(states.h[:-1]), rows(states.h[1:])
        if self.noisy:
            # section 3.1.2: h_{t-1} + epsilon both as input of F and as the value to give back
            epsilon = normals(self.noise_stream, position, (T * B, H), model.dtype)
            h_tm1 = h_tm1 + shaped(self.noise, 3) * epsilon
            h_t = model.input_rows(params, batch, params["b_h"], "noisy").baddbmm_(h_tm1, params["W_hh"])
            activation.apply_(h_t)
        g = activation.apply_(self.inverse_input(params, states, h_t))
        d = model.work.rows("d", T, R, B, H)[0]
        activation.back(torch.sub(g, h_tm1, out=d), g, out=d)
        model.mask_(states, steps(d, T))
        last = (T if self.options.reading == "released" else T - 1) * B
        h_t, d = h_t[:, :last], d[:, :last]
        # the 2/(BH) of the mean: on the sums, which are smaller
        return {"V_hh": outer_sum(h_t, d).mul_(2.0 / (B * H)), "c_h": row_sum(d).mul_(2.0 / (B * H))}

    def inverse_input(self, params: Tensors, states: States, h: Tensor) -> Tensor:
        """Pre-activations of G by run, [R, T B, H]: x_t W_xh + h_t V_hh + c_h, for h [R, T B, H]."""
        return self.model.input_rows(params, states.batch, params["c_h"], "g").baddbmm_(h, params["V_hh"])

    def targets(self, params: Tensors, states: States, dh: Tensor) -> Tensor:
        """Displacements delta_t = h_hat_t - h_t for t = 1..T, [T, R, B, H]; Eq. 3 and 8, dai2021 eq. 22."""
        T, (_, R, B, H) = states.batch.T, states.h.shape
        delta, delta_t = self.model.work.steps("delta", T, R, B, H)
        e = (dh * -shaped(self.alpha_i, 4)).squeeze(1)  # the pull of each step's own output
        delta_t[T - 1].copy_(e[-1])  # Eq. 3
        # G at all steps 1..T: what is at index t belongs to x_{t+1}, h_{t+1}
        a = self.inverse_input(params, states, rows(states.h[1:]))
        if self.options.targets == "displacement":
            self.carry_displacement(params, states, delta_t, a, e)
        else:
            self.carry_absolute(params, states, delta_t, a, e)
        return delta

    def carry_displacement(self, params: Tensors, states: States, delta_t: list[Tensor], a: Tensor, e: Tensor) -> None:
        """Eq. 8 for t = T-1..1 in the exact form of core/activations; index t of a list holds step t + 1."""
        activation, work = self.model.activation, self.model.work
        T, (_, R, B, H) = states.batch.T, states.h.shape
        V_hh, _, product = one_step(params["V_hh"])
        gap = None
        if not self.options.difference_correction:  # Eq. 5: h_hat_t = G(x_{t+1}, h_hat_{t+1})
            gap = steps(activation.apply_(a.clone()), T)[1:].sub(states.h[1:T]).squeeze(1)
        a_t = work.rows("g", T, R, B, H)[1]
        slope, slope_t = work.rows("slope", T, R, B, H)
        activation.prepare_(a, out=slope)
        u = torch.empty_like(delta_t[0])
        displacement = activation.displacement
        for t in range(T - 2, -1, -1):
            product(delta_t[t + 1], V_hh, out=u)
            displacement(a_t[t + 1], slope_t[t + 1], u, out=delta_t[t])
            if gap is not None:
                delta_t[t].add_(gap[t])
            self.pull(states, delta_t[t], e, t)

    def carry_absolute(self, params: Tensors, states: States, delta_t: list[Tensor], a: Tensor, e: Tensor) -> None:
        """Eq. 8 on h_hat itself, as the released program computes it; delta_t = h_hat_t - h_t afterwards."""
        activation, T = self.model.activation, states.batch.T
        V_hh, add_product_, _ = one_step(params["V_hh"])
        x_t = steps(self.model.input_rows(params, states.batch, params["c_h"], "x_hat"), T).squeeze(1)
        g_t = steps(activation.apply_(a), T).squeeze(1)
        h_hat = states.h_t[T] + delta_t[T - 1]
        for t in range(T - 2, -1, -1):
            g_hat = activation.apply_(add_product_(x_t[t + 1].clone(), h_hat, V_hh))
            h_t = states.h_t[t + 1]
            h_hat = h_t - g_t[t + 1] + g_hat if self.options.difference_correction else g_hat
            torch.sub(h_hat, h_t, out=delta_t[t])
            if t >= T - e.shape[0] or t < len(states.valid):
                self.pull(states, delta_t[t], e, t)
                h_hat = h_t + delta_t[t]

    def pull(self, states: States, delta: Tensor, e: Tensor, t: int) -> None:
        """Add what step t + 1's own output asks for; no target before the start of a sequence."""
        first = states.batch.T - e.shape[0]
        if t >= first:
            delta.add_(e[t - first])
        if t < len(states.valid):
            delta.mul_(states.valid[t])

    def local_gradients(self, states: States, delta: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Eq. 10 and 13: dMSE(F(x_t, h_{t-1}), h_hat_t)/da_t = -(2/BH) delta_t * sigma'(a_t), summed over t."""
        _, _, B, H = delta.shape
        signal = self.model.activation.back(delta, states.h[1:], out=delta)
        return {name: g.mul_(-2.0 / (B * H)) for name, g in self.model.gradients(states, signal, names).items()}


def shaped(value: Tensor | float, dims: int) -> Tensor | float:
    """A per-run number shaped to broadcast over [T, R, B, H] (dims 4) or [R, T B, H] (dims 3)."""
    if not isinstance(value, Tensor):
        return value
    return value.view(1, -1, 1, 1) if dims == 4 else value.view(-1, 1, 1)
