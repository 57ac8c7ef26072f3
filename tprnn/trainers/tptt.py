"""Target propagation through time (manchev2020), and TPTT_hx (its appendix A, `wxh: local`).

    F(x_t, h_{t-1}) = sigma(x_t W_xh + h_{t-1} W_hh + b_h) = h_t                              Eq. 1
    G(x_t, h_t)     = sigma(x_t W_xh + h_t V_hh + c_h), trained to give back h_{t-1}         Eq. 7
    h_hat_T = h_T - alpha_i dE/dh_T                                                          Eq. 3
    h_hat_t = h_t - G(x_{t+1}, h_{t+1}) + G(x_{t+1}, h_hat_{t+1})                            Eq. 8
    V_hh, c_h follow -alpha_g grad sum_t MSE(G(x_t, F(x_t, h_{t-1})), h_{t-1})               Eq. 9
    W_hh, b_h follow -alpha_f grad sum_t MSE(F(x_t, h_{t-1}), h_hat_t), target and h_{t-1} fixed   Eq. 10
    W_hy, b_y follow -alpha_f grad E                                                         Eq. 11
    W_xh follows -alpha_f grad E (`wxh: gradient`, Eq. 12) or the local loss (`wxh: local`, Eq. 13)

MSE is the mean over batch and units at one step. Where outputs stand at several steps, the loss E_t of each adds its
own step_errors e_t = -alpha_i dE_t/dh_t to the target (dai2021 eq. 20 to 22); with one output e_t = 0 for t < T. E is
their mean.

`targets: displacement` carries delta_t = h_hat_t - h_t = sigma(a + delta_{t+1} V_hh) - sigma(a), a the pre-activation
of G(x_{t+1}, h_{t+1}), in an exact form that never subtracts nearby numbers; `absolute` carries h_hat_t itself, as the
released program does, where float32 rounds small displacements away.

`reading: released`: the G step comes first and the targets use its result; its loss runs over t = 1..T (h_0 = 0 is
rebuilt too). `paper`: targets first; the loss runs over t = 1..T-1. `dai2021`, what seems to be that paper's program:
targets first; the loss runs over t = 2..T (h_0 is not rebuilt).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from tprnn.core import scans
from tprnn.core.activations import pair_like
from tprnn.core.products import one_step, outer_sum, row_sum, rows
from tprnn.core.streams import Seeds, Stream, normals, uniform
from tprnn.core.work import chunks, step_slices
from tprnn.models.base import ADDITIVE, GRADIENT, States
from tprnn.optimizers.base import per_run
from tprnn.readouts.base import Tensors
from tprnn.settings import rate, setting
from tprnn.tasks.base import Batch
from tprnn.trainers.base import Costs, State, Trainer, TrainerSettings


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
    reading: str = setting(choices=("released", "paper", "dai2021"))


class TPTT(Trainer):
    """Targets instead of gradients for W_hh and b_h."""

    Settings: ClassVar[type] = TPTTSettings
    needs = frozenset({GRADIENT, ADDITIVE})
    extra = ("V_hh", "c_h")
    recurrent: ClassVar[tuple[str, ...]] = ("V_hh",)
    paper: ClassVar[str] = "manchev2020"
    # section 4; whether matrices beside W_hh are orthogonal is not stated clearly
    paper_settings: ClassVar[Mapping[str, Sequence[Any]]] = {
        "optimizer.name": ["nesterov"],
        "optimizer.momentum": [0.9],
        "model.H": [100],
        "model.activation": ["tanh"],
        "model.init": ["orthogonal", "orthogonal_whh"],
        "train.batch_size": [20],
    }

    def __init__(self, settings: Sequence[Any], seeds: Seeds, model: Any, optimizer: Any) -> None:
        super().__init__(settings, seeds, model, optimizer)
        self.options = self.settings[0]  # what is not per run is the same for all
        self.alpha_i, self.noise = self.number("alpha_i"), self.number("noise")
        self.noisy = any(one.noise > 0 for one in self.settings)
        self.noise_stream = Stream(seeds.data, "noise", model.device)
        self.p_g = per_run([one.p_g for one in self.settings], torch.float64, model.device)
        self.phase_stream = Stream(seeds.data, "phase", model.device)

    @classmethod
    def costs(cls, config: Mapping[str, Any]) -> Costs:
        # states and targets; G before and after its update; V_hh and W_hh; Eq. 12 needs the adjoint too
        own = Costs(dependent=2, activated=2, rows=2, outer=2, buffers=6)
        if config["trainer"].get("noise", 0.0) > 0:  # F at the noisy states
            own = replace(own, rows=own.rows + 1, normals=1, buffers=own.buffers + 2)
        return own if config["trainer"]["wxh"] == "local" else replace(own, dependent=3)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        H = self.model.H
        return super().shapes() | {"V_hh": (H, H), "c_h": (H,)}

    def step(self, state: State, batch: Batch, position: int | Tensor) -> Tensor:
        model, params = self.model, state.params
        states = model.forward(params, batch, self.draws(position))
        readout = model.readout(params, states)
        in_g, in_f = self.phase(position)
        if self.options.reading == "released":
            self.inverse_step(state, states, readout.dh, position, in_g)
            delta = self.targets(params, states, readout.dh)
        else:
            delta = self.targets(params, states, readout.dh)
            self.inverse_step(state, states, readout.dh, position, in_g)
        local = ("W_hh", "b_h") if self.options.wxh == "gradient" else ("W_hh", "b_h", "W_xh")
        gradients = self.local_gradients(states, delta, local)
        if self.options.wxh == "gradient":
            da = model.adjoint(params, states, readout.dh)
            gradients |= model.gradients(states, da, ("W_xh",))  # Eq. 12
        gradients |= model.readout_gradients(states, readout)  # Eq. 11
        self.update(state, gradients, "alpha_f", in_f)
        return readout.loss

    def phase(self, position: int | Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Which runs [R] make a G step and which an F step; None: all do both, in turn."""
        if self.options.phases == "alternate":
            return None, None
        positions = position[None] if isinstance(position, Tensor) else [position]
        draw = uniform(self.phase_stream.words(positions, 1)[0, :, 0], torch.float64)
        return draw < self.p_g, draw >= self.p_g

    def inverse_step(
        self, state: State, states: States, dh: Tensor, position: int | Tensor, active: Tensor | None
    ) -> None:
        """The G step; the noise is of the standard deviation `noise`."""
        gradients = self.inverse_gradients(state.params, states, position, shaped(self.noise))
        self.update(state, gradients, "alpha_g", active)

    def inverse_gradients(
        self, params: Tensors, states: States, position: int | Tensor, deviation: Tensor | float
    ) -> dict[str, Tensor]:
        """Eq. 9: gradients of sum_t MSE(G(x_t, F(x_t, h_{t-1})), h_{t-1}) by V_hh, c_h.

        `deviation` of the noise on h_{t-1} broadcasts over [R, T, B, H].
        """
        model, activation = self.model, self.model.activation
        h_tm1, h_t = states.h[:, :-1], states.h[:, 1:]
        R, T, B, H = h_t.shape
        if self.noisy:
            h_tm1, h_t = self.noisy_states(params, states, position, deviation)
        steps = T - 1 if self.options.reading == "paper" else T
        if model.compiled:
            d = model.work.tensor("d", R, steps, B, H)
            scans.kernels().inverse_signal(
                d.numpy(),
                *((scans.array(h_t), 0) if self.noisy else (states.h.numpy(), 1)),
                scans.array(h_tm1) if self.noisy else states.h.numpy(),
                *model.inputs_of(params, states.batch, params["c_h"]),
                scans.array(params["V_hh"]),
                scans.starts(states.batch.start, R),
            )
            self.leave_out_(states, d)
            gradients = {"V_hh": outer_sum(h_t[:, :steps], d), "c_h": model.row_sum(d)}
            return {name: g.mul_(2.0 / (B * H)) for name, g in gradients.items()}
        gradients = {"V_hh": h_t.new_zeros(R, H, H), "c_h": h_t.new_zeros(R, H)}
        for first, last in chunks(steps, h_t):
            part = h_t[:, first:last]
            g = activation.apply_(self.inverse_input(params, states.batch, part, first))
            d = torch.sub(g, h_tm1[:, first:last], out=model.work.tensor("d", *part.shape))
            d = model.mask_(states, activation.back(d, g, out=d), first)
            self.leave_out_(states, d, first)
            gradients["V_hh"].baddbmm_(rows(part).mT, rows(d))
            gradients["c_h"].add_(row_sum(d))
        return {name: g.mul_(2.0 / (B * H)) for name, g in gradients.items()}

    def leave_out_(self, states: States, d: Tensor, first: int = 0) -> None:
        """Zeros at each sequence's own step 1, which rebuilds h_0 = 0, where Eq. 9 begins at t = 2 (`dai2021`).

        d: [R, T', B, H], of the steps from index `first` on.
        """
        if self.options.reading != "dai2021":
            return
        if states.batch.start is None:
            d[:, : max(1 - first, 0)] = 0.0
            return
        steps = torch.arange(first, first + d.shape[1], device=d.device)
        d.masked_fill_((steps[:, None] == states.batch.start[:, None])[..., None], 0.0)

    def noisy_states(
        self, params: Tensors, states: States, position: int | Tensor, deviation: Tensor | float
    ) -> tuple[Tensor, Tensor]:
        """h_{t-1} + epsilon, both input of F and value to give back, and F of it (section 3.1.2); [R, T, B, H] each."""
        model, batch = self.model, states.batch
        R, T, B, H = shape = states.h[:, 1:].shape
        h_tm1, h_t = model.work.tensor("noise", *shape), model.work.tensor("noisy", *shape)
        normals(self.noise_stream, position, (T, B, H), model.dtype, out=h_tm1)
        if model.compiled:
            of_steps = torch.as_tensor(deviation, dtype=model.dtype).expand(R, T, 1, 1)[:, :, 0, 0]
            inputs = model.inputs_of(params, batch, params["b_h"])
            arrays = states.h.numpy(), scans.array(of_steps), *inputs, scans.array(params["W_hh"])
            scans.kernels().noisy(h_t.numpy(), h_tm1.numpy(), *arrays)
            return h_tm1, h_t
        h_tm1.mul_(deviation).add_(states.h[:, :-1])
        model.input_part(params, batch, params["b_h"], h_t)
        model.activation.apply_(rows(h_t).baddbmm_(rows(h_tm1), params["W_hh"]))
        return h_tm1, h_t

    def inverse_input(self, params: Tensors, batch: Batch, h: Tensor, first: int) -> Tensor:
        """Pre-activations of G from step `first` on, x_t W_xh + h_t V_hh + c_h, of the shape of h, in a buffer."""
        out = self.model.work.tensor("g", *h.shape)
        self.model.input_part(params, batch.steps(first, first + h.shape[1]), params["c_h"], out)
        rows(out).baddbmm_(rows(h), params["V_hh"])
        return out

    def targets(self, params: Tensors, states: States, dh: Tensor) -> Tensor:
        """Displacements delta_t = h_hat_t - h_t for t = 1..T, [R, T, B, H]; Eq. 3 and 8, dai2021 eq. 22."""
        h = states.h[:, 1:]
        delta, delta_t = self.model.work.steps("delta", *h.shape)
        step_errors = dh * -(shaped(self.alpha_i) * dh.shape[1])  # of each step's own output; E = mean E_t
        if self.model.compiled and self.options.targets == "displacement":
            self.carry_compiled(params, states, delta, step_errors)
            return delta
        e = step_slices(step_errors)
        delta_t[-1].copy_(e[-1])  # Eq. 3
        if self.options.targets == "displacement":
            self.carry_displacement(params, states, delta_t, e)
        else:
            self.carry_absolute(params, states, delta_t, e)
        return delta

    def carry_compiled(self, params: Tensors, states: States, delta: Tensor, e: Tensor) -> None:
        """`carry_displacement` in one call."""
        batch, (R, T) = states.batch, delta.shape[:2]
        kept = self.step_factors(T)
        factors = scans.nothing(delta.dtype, 0, 0) if kept is None else scans.array(kept)
        scans.kernels().displacements(
            delta.numpy(),
            states.h.numpy(),
            scans.array(e),
            factors,
            self.options.difference_correction,
            *self.model.inputs_of(params, batch, params["c_h"]),
            scans.array(params["V_hh"]),
            scans.starts(batch.start, R),
        )

    def carry_displacement(self, params: Tensors, states: States, delta_t: list[Tensor], e: Sequence[Tensor]) -> None:
        """Eq. 8 for t = T-1..1 in the exact form of core/activations. Index t of `delta_t` holds step t + 1."""
        activation, work, h = self.model.activation, self.model.work, states.h
        _, T, B, H = states.h[:, 1:].shape
        V_hh, _, product = one_step(params["V_hh"])
        pair = pair_like(delta_t[0])
        u, displacement = pair[1], activation.displacement
        factors = self.factors(states)
        for first, last in reversed(chunks(T - 1, states.h)):
            later = slice(first + 1, last + 1)
            # a of G(x_{t+1}, h_{t+1})
            a = self.inverse_input(params, states.batch, h[:, first + 2 : last + 2], first + 1)
            b, b_t = work.steps("opposite", *a.shape)
            a_t = work.steps("g", *a.shape)[1]
            activation.opposite(a, out=b)
            gap: Sequence[Tensor] = ()
            if not self.options.difference_correction:  # Eq. 5: h_hat_t = G(x_{t+1}, h_hat_{t+1})
                gap = step_slices(activation.apply_(a.clone()).sub_(h[:, later]))
            for t in range(last - 1, first - 1, -1):
                product(delta_t[t + 1], V_hh, out=u)
                displacement(a_t[t - first], b_t[t - first], pair, delta_t[t])
                if gap:
                    delta_t[t].add_(gap[t - first])
                self.add_step_error(states, delta_t[t], e, t, factors)

    def carry_absolute(self, params: Tensors, states: States, delta_t: list[Tensor], e: Sequence[Tensor]) -> None:
        """Eq. 8 on h_hat itself, as the released program computes it; delta_t = h_hat_t - h_t afterwards."""
        model = self.model
        _, T, B, H = states.h[:, 1:].shape
        V_hh, add_product, _ = one_step(params["V_hh"])
        h_hat = states.h_t[-1] + delta_t[-1]
        factors = self.factors(states)
        for first, last in reversed(chunks(T - 1, states.h)):
            later = states.h[:, first + 2 : last + 2]
            g_t = step_slices(model.activation.apply_(self.inverse_input(params, states.batch, later, first + 1)))
            x = model.work.tensor("x_hat", *later.shape)
            x_t = step_slices(model.input_part(params, states.batch.steps(first + 1, last + 1), params["c_h"], x))
            for t in range(last - 1, first - 1, -1):
                g_hat = model.activation.apply_(add_product(x_t[t - first], h_hat, V_hh))
                h_t = states.h_t[t + 1]
                h_hat = h_t - g_t[t - first] + g_hat if self.options.difference_correction else g_hat
                torch.sub(h_hat, h_t, out=delta_t[t])
                if self.add_step_error(states, delta_t[t], e, t, factors):
                    h_hat = h_t + delta_t[t]

    def step_factors(self, T: int) -> Tensor | None:
        """What each step keeps of the displacement carried back to it, [R, T]; None: all."""
        return None

    def factors(self, states: States) -> Sequence[Tensor]:
        """`step_factors` step by step; empty for None."""
        kept = self.step_factors(states.batch.T)
        return () if kept is None else step_slices(kept[:, :, None, None])

    def add_step_error(
        self, states: States, delta: Tensor, e: Sequence[Tensor], t: int, factors: Sequence[Tensor]
    ) -> bool:
        """Add what step t + 1's own output asks for; no target before a sequence. Whether delta changed."""
        own, before = t >= states.batch.T - len(e), t < len(states.valid)
        if factors:
            delta.mul_(factors[t])
        if own:
            delta.add_(e[t - states.batch.T + len(e)])
        if before:
            delta.mul_(states.valid[t])
        return own or before or bool(factors)

    def local_gradients(self, states: States, delta: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Eq. 10 and 13: dMSE(F(x_t, h_{t-1}), h_hat_t)/da_t = -(2/BH) delta_t * sigma'(a_t), summed over t."""
        _, _, B, H = delta.shape
        signal = self.model.back_(states, delta)
        return {name: g.mul_(-2.0 / (B * H)) for name, g in self.model.gradients(states, signal, names).items()}


def shaped(value: Tensor | float) -> Tensor | float:
    """A per-run number shaped to broadcast over [R, T, B, H]."""
    return value.view(-1, 1, 1, 1) if isinstance(value, Tensor) else value
