"""The way back of lra (manchev2025, Algorithm 1, lines 14 to 27): targets of all steps by local losses, linear in T.

What is carried is u = h_bar - h, how far a pre-activation was moved from its place in the forward pass (h_bar, h the
paper's; h is called a here, for `states.h` holds the activations z). With e the displacement of a re-run step from the
forward pass and psi = -(B H / 2) dL/dz_bar as a function of z_hat - z_bar, an inner step is

    g  = psi(delta_t - e) * sigma'(a_t + w),      w = (z_bar_{t-1} - z_{t-1}) W_hh,   e = sigma(a_t + w) - sigma(a_t)
    u <- u + gamma Normalize((2 / B H) (g W_hh^T) * sigma'(a_{t-1} + u), c_1)

The first inner step stands at the forward pass (w = e = 0): its g is the signal of the weights of step t too.
`inner: literal` puts the re-run value in the place of the target: from the second inner step on, delta_t = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tprnn.core import scans
from tprnn.core.activations import Shift
from tprnn.core.directions import normalizer, omega, unit
from tprnn.core.products import one_step
from tprnn.core.work import step_slices
from tprnn.models.base import Model, States
from tprnn.optimizers.base import like
from tprnn.readouts.base import Tensors

Watch = Callable[[int, Tensor, Tensor], None]


@dataclass(frozen=True)
class Inner:
    """How targets are moved, as the settings of lra say; numbers are per run, [R] or one for all."""

    K: int
    gamma: Tensor | float
    c_1: Tensor | float
    force: bool
    log_penalty: bool
    literal: bool
    absolute: bool
    omega: Tensor | float
    omega_form: str
    released: bool
    """Whether Delta h and the limits are those of the released program (`gradient: released`)."""

    def psi_(self, r: Tensor) -> Tensor:
        """-(B H / 2) dL/dz_bar of r = z_hat - z_bar, in place: r, or r / (1 + r^2) for the log-penalty (eq. 8)."""
        return r.div_(r.square().add_(1.0)) if self.log_penalty else r

    def mover(self, gamma: Tensor | float, x: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """(place, n) -> place + gamma Normalize(n / gamma, c_1), in place, for n of the shape of x."""
        C = like(self.c_1 * gamma, x)
        if not isinstance(C, Tensor) and not C:
            return torch.Tensor.add_
        if self.force:  # by directions: the square of what has all but vanished would leave the range

            def forced(place: Tensor, n: Tensor) -> Tensor:
                step = unit(n)[0] * C
                return place.add_(torch.where(C > 0, step, n) if isinstance(C, Tensor) else step)

            return forced
        norm, every = torch.linalg.vector_norm, None if x.dim() == 2 else (-2, -1)
        if isinstance(C, Tensor):

            def scaled(place: Tensor, n: Tensor) -> Tensor:
                factor = normalizer(norm(n, dim=every, keepdim=True), C, force=False)
                return place.add_(n) if factor is None else place.addcmul_(n, factor)

            return scaled
        least, maximum = x.new_full((), C), torch.maximum

        def divided(place: Tensor, n: Tensor) -> Tensor:  # C n / max(||n||, C)
            length = norm(n) if every is None else norm(n, dim=every, keepdim=True)
            return place.addcdiv_(n, maximum(length, least), value=C)

        return divided


def carry_compiled(inner: Inner, model: Model, params: Tensors, states: States, a: Tensor, moved: Tensor) -> Tensor:
    """`carry_back` in one call, for displacements; a [R, T, B, H]."""
    from tprnn.trainers.lra.compiled import carry_back

    R, T, B, H = a.shape
    g = model.work.tensor("g", R, T, B, H)
    scans.kernels()
    carry_back(
        g.numpy(),
        scans.array(a),
        states.h.numpy(),
        scans.array(moved),
        scans.array(params["W_hh"]),
        scans.array(params["W_hh"].mT),
        scans.starts(states.batch.start, R),
        inner.K,
        scans.numbers(inner.gamma, R),
        scans.numbers(inner.c_1, R),
        inner.force,
        inner.log_penalty,
        inner.literal,
        scans.numbers(inner.omega, R),
        inner.omega_form == "ratio",
    )
    return g


def carry_back(
    inner: Inner,
    model: Model,
    params: Tensors,
    states: States,
    a: Sequence[Tensor],
    x: Sequence[Tensor],
    moved: Tensor,
    watch: Watch | None = None,
) -> Tensor:
    """Lines 14 to 27: -(B H / 2) dL(z_t, z_hat_t)/da_t of all steps, [R, T, B, H], each target held fixed.

    Args:
        a: pre-activations of the forward pass, T slices. x: their input parts, for `absolute` only.
        moved: u of the last S steps through their own outputs, [R, S, B, H].
        watch: told (step - 1, delta_t, last n of the step before) of every step, from the last on.
    """
    activation, h_t, valid = model.activation, states.h_t, states.valid
    R, T, B, H = states.h[:, 1:].shape
    g, g_t = model.work.steps("g", R, T, B, H)
    own = step_slices(moved)
    W_hh, add_product, product = one_step(params["W_hh"])
    back = params["W_hh"].mT * like(inner.gamma * (2.0 / (B * H)), params["W_hh"])
    W_back, _, _ = one_step(back.contiguous())
    W_back_opposite = -W_back
    psi_, literal, absolute, log_penalty = inner.psi_, inner.literal, inner.absolute, inner.log_penalty
    move, again = Shift(a[0]), Shift(a[0])
    to_move, to_rerun = (None, None) if absolute else (activation.shift(move), activation.shift(again))
    base = torch.zeros_like(again.place)  # a_t and -U_t: the place of the re-run, and its distance from the target
    d, w, r, n, z_hat = (torch.empty_like(a[0]) for _ in range(5))
    place, start, slope, there, slope_again = move.place, move.start, move.slope, again.place, again.slope
    advance, add = inner.mover(inner.gamma, n), torch.add
    with_omega = isinstance(inner.omega, Tensor) or inner.omega > 0
    regularized = like(inner.gamma * inner.omega, n)
    scale = like(inner.gamma * (2.0 / (B * H)), n)

    def begin(i: int, u: Tensor | None) -> None:
        """The moved step is i + 1, from u on."""
        move.there.copy_(a[i])
        if u is None:
            move.u.zero_()
        else:
            move.u.copy_(u)
            move.there.add_(u)
        if not absolute:
            activation.anchor(a[i], start)

    def displaced(i: int, out: Tensor) -> Tensor:
        """z_bar - z of the moved step i + 1; its slope goes to `slope`."""
        if to_move is not None:
            return to_move(out)
        activation.slope(activation.apply_(move.v.copy_(move.there)), out=slope)
        return torch.sub(move.v, h_t[i + 1], out=out)

    def aim(i: int) -> None:
        """The target of step i + 1 for its re-runs, once it has been moved."""
        if absolute:
            z_hat.copy_(h_t[i + 1] if literal else move.v)
            return
        base[0].copy_(a[i])
        if literal:
            base[1].zero_()
            activation.anchor(a[i], again.start)
        else:
            torch.neg(move.u, out=base[1])
            activation.anchor(move.there, again.start)

    def rerun(i: int) -> Tensor:
        """z_bar - z_hat of step i + 1 run again from the moved step before it; its slope goes to `slope_again`."""
        if to_rerun is not None:
            add(base, product(d, W_hh, out=w), out=there)
            return to_rerun(r)
        activation.slope(activation.apply_(add_product(x[i], move.v, W_hh, out=again.v)), out=slope_again)
        return torch.sub(again.v, z_hat, out=r)

    def regularize_(i: int, z_bar: Tensor, signal: Tensor) -> None:
        """n - gamma lambda dOmega/da of the moved step i + 1, whose error is that of sequences that have begun."""
        error = signal * valid[i] if i < len(valid) else signal
        n.sub_(omega(error, n, activation.bend(z_bar), inner.omega_form, scale)[0] * regularized)

    begin(T - 1, own[-1])
    delta = displaced(T - 1, torch.empty_like(n))
    for i in range(T - 1, -1, -1):  # step i + 1 asks, step i is moved
        activation.back(psi_(r.copy_(delta)), h_t[i + 1], out=g_t[i])
        if watch is not None:
            before = delta.clone()
        if i > 0:
            masked = i <= len(valid)
            if inner.K > 1:
                aim(i)
            begin(i - 1, own[i - 1 - T] if i > T - len(own) else None)
            product(g_t[i], W_back, out=n)
            activation.back(n, h_t[i], out=n)
            if masked:
                n.mul_(valid[i - 1])
            if with_omega:
                regularize_(i - 1, h_t[i], g_t[i])
            advance(place, n)
            for _ in range(inner.K - 1):
                displaced(i - 1, d)
                rerun(i)
                if log_penalty:
                    psi_(r)
                r.mul_(slope_again)
                product(r, W_back_opposite, out=n)
                n.mul_(slope)
                if masked:
                    n.mul_(valid[i - 1])
                if with_omega:
                    regularize_(i - 1, h_t[i] + d, r)
                advance(place, n)
            displaced(i - 1, delta)
        if watch is not None:
            watch(i, before, n)
    return g
