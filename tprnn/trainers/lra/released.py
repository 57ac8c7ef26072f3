"""What the released program of manchev2025 computes in place of local gradients (lra, `gradient: through_time`).

Nothing is detached there but the steps Delta h. With targets moved as by `inner: literal`, the loss of step T is
L(z_T, z_hat_T), z_hat_T = sigma(a_T + u_T): both arguments are functions of a_T. The loss of a step t < T is the last
one of the inner loop before it, L(z_{t+1}, z_bar_{t+1}), where z_bar_{t+1} = F(x_{t+1}, sigma(a_t + u_t)) is the step
run again: a function of a_t, of the weights in F, and of all that went before. Each is differentiated through all
earlier steps, and the first Delta h of the next inner loop is its derivative by the pre-activation two steps back.
Step 1 has no loss. The work grows with T^2.

With e = z_bar_{t+1} - z_{t+1}, P = dL/de, A = P * sigma'(a_{t+1} + w) at the re-run step and C = -P * sigma'(a_{t+1})
at the step itself, weights shared by both see S = A + C = P * (sigma'(a_{t+1} + w) - sigma'(a_{t+1})), W_hh besides
(z_bar_t - z_t)^T A, and the error that goes on is

    dL/da_t = (S W_hh^T) * sigma'(a_t) + (A W_hh^T) * (sigma'(a_t + u_t) - sigma'(a_t))

in which the small differences of slopes are computed from displacements (`slope_gap`).

Omega_t of Delta h_t has for its error g the derivative of the loss in use by a_{t+1}, at the first inner step the whole
one, later that by the re-run pre-activation. The program's own (`gradient: released`) is by the activation: at the
first inner step dL/dz_{t+1}, which is -P at the last step and C W_hh^T elsewhere (z_bar does not come from z), later P.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tprnn.core import scans
from tprnn.core.activations import Shift
from tprnn.core.directions import Omega, omega
from tprnn.core.products import norm_bound, rows
from tprnn.models.base import Model, States
from tprnn.optimizers.base import like
from tprnn.readouts.base import Tensors
from tprnn.trainers.lra.local import Inner, Watch


class Released:
    """The losses of one batch and their derivatives. Index t holds step t + 1."""

    def __init__(
        self, inner: Inner, model: Model, params: Tensors, states: States, a: Tensor, x: Tensor, moved: Tensor
    ) -> None:
        self.inner, self.model, self.states = inner, model, states
        self.a, self.x = a, x
        self.h = states.h[:, 1:]
        self.W_hh = params["W_hh"]
        self.W_hh_T = self.W_hh.mT.contiguous()
        self.slopes = model.activation.slope(self.h)
        self.moved = moved
        self.scratch = Shift(a[:, 0])
        self.shift = model.activation.shift(self.scratch)
        # by loss, the one used at each step: its error there, and what it gives at the step after it
        self.error, self.S, self.A, self.C, self.d = (torch.zeros_like(a) for _ in range(5))

    def displaced(self, t: int, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(sigma(a + u) - sigma(a), sigma'(a + u), its difference from sigma'(a)) of step t + 1."""
        activation, h = self.model.activation, self.h[:, t]
        if self.inner.absolute:
            z = activation.apply_(self.a[:, t] + u)
            slope = activation.slope(z)
            return z - h, slope, slope - self.slopes[:, t]
        torch.add(self.a[:, t], u, out=self.scratch.there)
        self.scratch.u.copy_(u)
        activation.anchor(self.a[:, t], self.scratch.start)
        delta = self.shift(torch.empty_like(u))
        slope = self.scratch.slope.clone()
        return delta, slope, activation.slope_gap(h, delta, slope)

    def rerun(self, t: int, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same of step t + 1 run again from z_t + d."""
        if self.inner.absolute:
            again = torch.baddbmm(self.x[:, t], self.h[:, t - 1] + d, self.W_hh)
            return self.displaced(t, again - self.a[:, t])
        return self.displaced(t, torch.bmm(d, self.W_hh))

    def masked(self, t: int, x: Tensor) -> Tensor:
        """Zero in the empty steps before a sequence."""
        if t < len(self.states.valid):
            x = x * self.states.valid[t].view(*x.shape[:2], 1)
        return x

    def losses(self, watch: Watch | None = None) -> None:
        """From the last step on: each loss, its error, and the inner loop that makes the next."""
        if self.model.compiled and not self.inner.absolute and watch is None:
            self.losses_compiled()
            return
        inner, T = self.inner, self.a.shape[1]
        n = 0.5 * self.a.shape[2] * self.a.shape[3]
        own = self.moved.unbind(1)
        delta, _, gap = self.displaced(T - 1, own[-1])
        # d / d a_T of L(sigma(a_T), sigma(a_T + u_T))
        P = inner.psi_(delta.clone()) / n
        self.error[:, -1] = P * gap
        for t in range(T - 1, 0, -1):
            u = own[t - 1 - T].clone() if t > T - len(own) else torch.zeros_like(delta)
            advance = inner.mover(inner.gamma, u)
            for k in range(inner.K):
                if k == 0:
                    g, slope, z = self.error[:, t], self.slopes[:, t - 1], self.h[:, t - 1]
                else:
                    d, slope, _ = self.displaced(t - 1, u)
                    e, slope_again, _ = self.rerun(t, d)
                    P = inner.psi_(e) / n
                    g, z = P * slope_again, self.h[:, t - 1] + d
                step = self.masked(t - 1, torch.bmm(g, self.W_hh_T) * slope)
                if isinstance(inner.omega, Tensor) or inner.omega:
                    bend, p = self.model.activation.bend(z), step
                    if inner.released:
                        if k == 0:
                            P = -P if t == T - 1 else torch.bmm(self.C[:, t], self.W_hh_T)
                        g, p = P, self.masked(t - 1, torch.bmm(P, self.W_hh_T) * slope)
                    da, _, _ = omega(self.masked(t - 1, g), p, bend, inner.omega_form)
                    step = step + like(inner.omega, step) * da
                step = -like(inner.gamma, step) * step
                advance(u, step)
            if watch is not None:
                watch(t, delta, step)
            self.d[:, t - 1], _, gap_before = self.displaced(t - 1, u)
            delta, slope_again, gap = self.rerun(t, self.d[:, t - 1])
            P = inner.psi_(delta.clone()) / n
            self.A[:, t - 1], self.C[:, t - 1], self.S[:, t - 1] = P * slope_again, -P * self.slopes[:, t], P * gap
            on = torch.bmm(self.S[:, t - 1], self.W_hh_T) * self.slopes[:, t - 1]
            self.error[:, t - 1] = self.masked(t - 1, on + torch.bmm(self.A[:, t - 1], self.W_hh_T) * gap_before)
        if watch is not None:
            watch(0, delta, torch.zeros_like(delta))
        for x in (self.error, self.S, self.A, self.C):  # step 1 has no loss: the program's loop ends before it
            x[:, 0].zero_()

    def losses_compiled(self) -> None:
        """`losses` in one call, for displacements."""
        from tprnn.trainers.lra.released_compiled import losses

        inner, R = self.inner, len(self.a)
        losses(
            self.error.numpy(),
            self.S.numpy(),
            self.A.numpy(),
            self.C.numpy(),
            self.d.numpy(),
            scans.array(self.a),
            self.states.h.numpy(),
            scans.array(self.moved),
            scans.array(self.W_hh),
            self.W_hh_T.numpy(),
            scans.starts(self.states.batch.start, R),
            inner.K,
            scans.numbers(inner.gamma, R),
            scans.numbers(inner.c_1, R),
            inner.force,
            inner.log_penalty,
            scans.numbers(inner.omega, R),
            inner.omega_form == "ratio",
            inner.released,
        )

    def gradients(self) -> dict[str, Tensor]:
        """d(loss of each step)/dw, [R, T, ...]."""
        found = self.back(self.error)
        first, S, A = self.inputs()[:, 1:], self.S[:, :-1], self.A[:, :-1]  # what the re-run step itself adds
        found["W_hh"][:, :-1] += self.h[:, :-1].mT @ S + self.d[:, :-1].mT @ A
        found["b_h"][:, :-1] += S.sum(2)
        found["W_xh"][:, :-1] += first.mT @ S
        return found

    def omega_gradients(self) -> dict[str, Tensor]:
        """dOmega_t/dw of each step t < T, [R, T, ...], with g = dL/da_{t+1} held fixed."""
        da, left, right = self.omega_terms()
        gradients = self.back(da)
        gradients["W_hh"] += left.mT @ right
        return gradients

    def omega_terms(self) -> Omega:
        """dOmega_t/da_t, and left and right of what W_hh gets where it stands; [R, T, B, H] each."""
        g = torch.stack([self.masked(t, c) for t, c in enumerate(self.C.unbind(1))], 1)
        p = (rows(g) @ self.W_hh_T).view(g.shape) * self.slopes
        da, left, right = omega(g, p, self.model.activation.bend(self.h), self.inner.omega_form)
        return da, left * self.slopes, right

    def sums(self, c_0: Tensor | float, regularized: Sequence[str]) -> dict[str, Tensor]:
        """sum_t Normalize(dL_t/dw + lambda dOmega_t/dw, c_0), compiled; `regularized` are those that get the second."""
        if not regularized:
            return self.summed(c_0, self.error, self.d, self.A)
        da, left, right = self.omega_terms()
        weight = like(self.inner.omega, da)
        error = self.error + weight * da
        found = self.summed(c_0, error, torch.cat([self.d, weight * left], 2), torch.cat([self.A, right], 2))
        if len(regularized) < len(found):
            found = self.summed(c_0, self.error, self.d, self.A) | {name: found[name] for name in regularized}
        return found

    def summed(self, c_0: Tensor | float, error: Tensor, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        """`sums` of one set of errors."""
        from tprnn.trainers.lra.released_compiled import sums

        R, T, _, H = error.shape
        x, tokens = self.states.batch.inputs, self.states.batch.tokens
        found = {
            "W_hh": error.new_empty(R, H, H),
            "b_h": error.new_empty(R, H),
            "W_xh": error.new_empty(R, self.model.inputs, H),
        }
        sums(
            found["W_hh"].numpy(),
            found["b_h"].numpy(),
            found["W_xh"].numpy(),
            scans.array(error),
            self.S.numpy(),
            scans.array(left),
            scans.array(right),
            self.states.h.numpy(),
            scans.nothing(error.dtype, 1, 0, 0, 0) if tokens else scans.array(x),
            scans.array(x) if tokens else scans.nothing(torch.int64, 1, 0, 0),
            self.W_hh_T.numpy(),
            scans.starts(self.states.batch.start, R),
            scans.numbers(c_0, R),
            not self.inner.released,
            self.inner.force,
            norm_bound(self.W_hh, T).numpy(),
        )
        return found

    def inputs(self) -> Tensor:
        """Inputs as features [R, T, B, I]."""
        x = self.states.batch.inputs
        if not self.states.batch.tokens:
            return x
        return (x.unsqueeze(-1) == torch.arange(self.model.inputs, device=x.device)).to(self.a.dtype)

    def back(self, error: Tensor) -> dict[str, Tensor]:
        """Errors [R, T, B, H], the one of loss t at step t, back through all earlier steps: gradients [R, T, ...]."""
        R, T, _, H = error.shape
        x = self.inputs()
        found = {
            "W_hh": error.new_zeros(R, T, H, H),
            "b_h": error.new_zeros(R, T, H),
            "W_xh": error.new_zeros(R, T, x.shape[-1], H),
        }
        at = error.clone()
        for t in range(T - 1, -1, -1):
            if t < T - 1:
                later = at[:, t + 1 :]
                carried = (rows(later) @ self.W_hh_T).view(later.shape) * self.masked(t, self.slopes[:, t]).unsqueeze(1)
                later.copy_(carried)
            here = at[:, t:]
            found["W_hh"][:, t:] += self.states.h[:, t].mT.unsqueeze(1) @ here
            found["b_h"][:, t:] += here.sum(2)
            found["W_xh"][:, t:] += x[:, t].mT.unsqueeze(1) @ here
        return found
