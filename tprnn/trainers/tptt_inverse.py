"""Target propagation through time by regularised inversion (Roulet and Harchaoui 2023).

No inverse is learnt: the layer itself is inverted, its activation first and then its weights, with a ridge r >= 0 on
the state before. With a_t = x_t W_xh + h_{t-1} W_hh + b_h,

    f^{-1}(h) = argmin_v |sigma^{-1}(h) - x_t W_xh - b_h - v W_hh|^2 + r |v|^2 = (sigma^{-1}(h) - x_t W_xh - b_h) V
    V = W_hh^T (W_hh W_hh^T + r I)^{-1}

Targets are carried as displacements delta_t = h_hat_t - h_t, in which inputs and biases cancel:

    delta_T = -alpha_i dE/dh_T
    delta_{t-1} = (delta_t / sigma'(a_t)) V                                    `difference: linearised`, their default
    delta_{t-1} = (sigma^{-1}(h_t + delta_t) - sigma^{-1}(h_t)) V              `difference: exact`

Values outside the range of sigma have no inverse: as in their program, h_t and h_hat_t are first moved to at least
`tolerance` from either end (so sigma' too has a smallest value). Their objective is one for a whole sequence: where
outputs stand at several steps, each adds -alpha_i dE/dh_t to delta_t, E the mean over steps (in `tptt`: each step's own
loss E_t). Parameters of the recurrence follow the sum (not the mean) of

    -alpha_f grad 1/2 sum_t |F(x_t, h_{t-1}) - h_hat_t|^2, h_hat fixed

`gradient: local` holds h_{t-1} fixed, which is target propagation; `through_time` differentiates all states, as the
released program does, whose update is then backpropagation of -delta_t from every step (for r -> infinity that of
alpha_i dE/dh_T alone: backpropagation through time). W_hy, b_y follow -alpha_f grad E.
r dampens: for an orthogonal W_hh a displacement shrinks by 1/(1 + r) a step. Shapes: V [R, H, H], delta [R, T, B, H].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tprnn.core import scans
from tprnn.core.activations import ACTIVATIONS
from tprnn.core.inverses import INVERSES
from tprnn.core.products import one_step
from tprnn.core.streams import Seeds
from tprnn.core.work import step_slices
from tprnn.errors import UserError, nearest
from tprnn.models.base import ADDITIVE, GRADIENT, States
from tprnn.optimizers.base import like
from tprnn.readouts.base import Tensors
from tprnn.settings import rate, setting
from tprnn.tasks.base import Batch
from tprnn.trainers.base import Costs, State, Trainer, TrainerSettings
from tprnn.trainers.tptt import shaped


@dataclass(frozen=True)
class TPTTInverseSettings(TrainerSettings):
    """conf/trainer/tptt_inverse.yaml."""

    alpha_i: float = rate()
    alpha_f: float = rate()
    r: float = setting(low=0.0, per_run=True)
    difference: str = setting(choices=("linearised", "exact"))
    gradient: str = setting(choices=("local", "through_time"))
    tolerance: float = setting(above=0.0, high=0.1)


class TPTTInverse(Trainer):
    """Targets by the regularised inverse of the layer itself."""

    Settings = TPTTInverseSettings
    needs = frozenset({GRADIENT, ADDITIVE})

    def __init__(self, settings: Sequence[Any], seeds: Seeds, model: Any, optimizer: Any) -> None:
        super().__init__(settings, seeds, model, optimizer)
        self.options = self.settings[0]  # what is not per run is the same for all
        self.inverse = INVERSES[type(model.activation)]
        self.identity = torch.eye(model.H, dtype=model.dtype, device=model.device)

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        super().check(config)
        model = config["model"]
        known = [name for name, activation in ACTIVATIONS.items() if activation in INVERSES]
        if model["activation"] not in known:
            rule = config["trainer"]["name"]
            raise UserError(f"model.activation: {rule} needs an inverse; {nearest(model['activation'], known)}")

    @classmethod
    def costs(cls, config: Mapping[str, Any]) -> Costs:
        settings = config["trainer"]
        return Costs(
            dependent=2 + (settings["gradient"] == "through_time"),
            activated=1 + (settings["difference"] == "exact"),
            outer=1,
            square=1,
            solves=1,
            buffers=5,
        )

    def step(self, state: State, batch: Batch, position: int | Tensor) -> Tensor:
        model, params = self.model, state.params
        states = model.forward(params, batch, self.draws(position))
        readout = model.readout(params, states)
        signal = self.signal(params, states, self.targets(params, states, readout.dh).neg_())
        gradients = model.gradients(states, signal, ("W_xh", "W_hh", "b_h"))
        gradients |= model.readout_gradients(states, readout)
        self.update(state, gradients, "alpha_f")
        return readout.loss

    def signal(self, params: Tensors, states: States, gap: Tensor) -> Tensor:
        """The derivative of the local losses by every pre-activation, from h_t - h_hat_t, [R, T, B, H]."""
        if self.options.gradient == "local":
            return self.model.back_(states, gap)
        # every step pulls, as if each carried an output
        return self.model.adjoint(params, replace(states, batch=replace(states.batch, targets=gap)), gap)

    def inverse_weights(self, W_hh: Tensor) -> Tensor:
        """V, [R, H, H], from the Cholesky factor of A = W_hh W_hh^T + r I: V^T = A^{-1} W_hh."""
        A = torch.bmm(W_hh, W_hh.mT) + like(self.number("r"), W_hh) * self.identity
        # the factor of a matrix that has none is not asked for: such a run ends as not finite, and alone
        return torch.cholesky_solve(W_hh, torch.linalg.cholesky_ex(A).L).mT.contiguous()

    def targets(self, params: Tensors, states: States, dh: Tensor) -> Tensor:
        """Displacements delta_t for t = 1..T, [R, T, B, H]; 0 before a sequence begins."""
        model, inverse, h = self.model, self.inverse, states.h[:, 1:]
        T, S = h.shape[1], dh.shape[1]
        delta, delta_t = model.work.steps("displacement", *h.shape)
        step_errors = dh * -shaped(self.number("alpha_i"))
        weights = self.inverse_weights(params["W_hh"])
        linearised = self.options.difference == "linearised"
        if model.compiled and linearised:
            start = scans.starts(states.batch.start, len(weights))
            arrays = scans.array(step_errors), scans.array(weights), start
            scans.kernels().carry_linear(delta.numpy(), states.h.numpy(), self.options.tolerance, *arrays)
            return delta
        inner = inverse.inside(h, self.options.tolerance)
        e = step_slices(step_errors)
        V, _, product = one_step(weights)
        if linearised:
            ratio_t = step_slices(model.activation.slope(inner).reciprocal_())  # 1/sigma'(a_t)
        else:
            inner_t, beyond_t = step_slices(inner), step_slices(h - inner)
            low_t, high_t = (step_slices(end - inner) for end in inverse.ends(self.options.tolerance))
        delta_t[-1].copy_(e[-1])
        u = torch.empty_like(delta_t[-1])
        for t in range(T - 1, 0, -1):  # index t of `delta_t` holds step t + 1
            if linearised:
                torch.mul(delta_t[t], ratio_t[t], out=u)
            else:  # how far the moved target lies from the moved state, which are not subtracted
                d = (delta_t[t] + beyond_t[t]).clamp_(low_t[t], high_t[t])
                u = inverse.displacement(inner_t[t], d)
            product(u, V, out=delta_t[t - 1])
            if t - 1 >= T - S:
                delta_t[t - 1].add_(e[t - 1 - T + S])
            if t - 1 < len(states.valid):
                delta_t[t - 1].mul_(states.valid[t - 1])
        return delta
