"""The way back of lra, compiled for tanh networks on the CPU: what trainers/lra/local.py says of `carry_back`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tprnn.core.compiled import blank, jit, length, tanh


@jit
def displace(a: Any, y: Any, u: Any, d: Any, slope: Any) -> None:
    """d = tanh(a + u) - tanh(a) and slope = 1 - tanh(a + u)^2, with y = tanh(a)."""
    one = d.dtype.type(1)
    for i in range(d.size):
        v = tanh(a[i] + u[i])
        d[i] = tanh(u[i]) * (one - y[i] * v)
        slope[i] = one - v * v


@jit
def _rerun(a: Any, w: Any, U: Any, z_hat: Any, log_penalty: bool, r: Any) -> None:
    """psi(z_hat - z_bar) sigma'(a + w), with the sign of z_bar - z_hat; z_bar = tanh(a + w), z_hat = tanh(a + U)."""
    one = r.dtype.type(1)
    for i in range(r.size):
        v = tanh(a[i] + w[i])
        gap = tanh(w[i] - U[i]) * (one - z_hat[i] * v)
        if log_penalty:
            gap = gap / (one + gap * gap)
        r[i] = gap * (one - v * v)


@jit
def move(u: Any, n: Any, C: float, force: bool) -> None:
    """u += C n / max(||n||, C); with `force` C n / ||n||; C = 0: u += n."""
    factor = 1.0
    if C > 0:
        size = length(n)
        if force:
            factor = C / max(size, 1e-300)
        elif not size < C:  # nan too
            factor = C / size
    scale = u.dtype.type(factor)
    for i in range(u.size):
        u[i] += scale * n[i]


@jit
def regularize(n: Any, p: Any, g: Any, z: Any, d: Any, scale: float, weight: float, ratio: bool) -> None:
    """n -= weight dOmega/da (core/directions.py) of the error g, that error carried back, p, and the activation z + d.

    p comes times `scale`, and may be n itself.
    """
    size = length(p)
    if size == 0:
        return
    rho = size / max(length(g) * scale, 1e-300)
    outer = 1.0 if ratio else 2.0 * (rho - 1.0)
    inverse, factor = n.dtype.type(1.0 / size), n.dtype.type(weight * outer * rho * -2.0)
    for i in range(n.size):
        direction = p[i] * inverse
        n[i] -= factor * direction * direction * (z[i] + d[i])


@jit
def carry_back(
    g: Any,
    a: Any,
    h: Any,
    moved: Any,
    W: Any,
    W_back: Any,
    start: Any,
    K: int,
    gamma: Any,
    c_1: Any,
    force: bool,
    log_penalty: bool,
    literal: bool,
    omega: Any,
    ratio: bool,
) -> None:
    """g_t = -(B H / 2) dL(z_t, z_hat_t)/da_t for all steps, each target held fixed.

    Args:
        g: [R, T, B, H], written. a: pre-activations [R, T, B, H]. h: activations z [R, T + 1, B, H].
        moved: u of the last S steps through their own outputs [R, S, B, H].
        W_back: W_hh^T [R, H, H]. start: [R, B]. gamma, c_1, omega: [R], float64.
    """
    R, T, B, H = g.shape
    S, one = moved.shape[1], g.dtype.type(1)
    N = B * H
    rows = np.zeros((10, N), g.dtype)
    u, U, n, d, w = rows[0], rows[1], rows[2], rows[3], rows[4]
    r, slope, delta, z_hat, nothing = rows[5], rows[6], rows[7], rows[8], rows[9]
    for run in range(R):
        scale = gamma[run] * 2.0 / N
        step, C, weight = g.dtype.type(scale), c_1[run] * gamma[run], gamma[run] * omega[run]
        u[:] = moved[run, S - 1].reshape(-1)
        displace(a[run, T - 1].reshape(-1), h[run, T].reshape(-1), u, delta, slope)
        for t in range(T - 1, -1, -1):  # step t + 1 asks, step t is moved
            a_t, z_t, g_t = a[run, t].reshape(-1), h[run, t + 1].reshape(-1), g[run, t].reshape(-1)
            for i in range(N):
                gap = delta[i]
                if log_penalty:
                    gap = gap / (one + gap * gap)
                g_t[i] = gap * (one - z_t[i] * z_t[i])
            if t == 0:
                break
            a_before, z_before = a[run, t - 1].reshape(-1), h[run, t].reshape(-1)
            if literal:  # the re-run value takes the target's place: it is compared with z itself
                U[:] = 0
                z_hat[:] = z_t
            else:
                U[:] = u
                for i in range(N):
                    z_hat[i] = z_t[i] + delta[i]
            if t - 1 >= T - S:
                u[:] = moved[run, t - 1 - T + S].reshape(-1)
            else:
                u[:] = 0
            for k in range(K):
                if k == 0:
                    np.dot(g[run, t], W_back[run], n.reshape(B, H))
                    for i in range(N):
                        n[i] *= step * (one - z_before[i] * z_before[i])
                else:
                    displace(a_before, z_before, u, d, slope)
                    np.dot(d.reshape(B, H), W[run], w.reshape(B, H))
                    _rerun(a_t, w, U, z_hat, log_penalty, r)
                    np.dot(r.reshape(B, H), W_back[run], n.reshape(B, H))
                    for i in range(N):
                        n[i] *= -step * slope[i]
                blank(n.reshape(B, H), start[run], t - 1)
                if weight != 0:
                    regularize(n, n, g_t if k == 0 else r, z_before, nothing if k == 0 else d, scale, weight, ratio)
                move(u, n, C, force)
            displace(a_before, z_before, u, delta, slope)
