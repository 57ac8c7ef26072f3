"""The ways back of lra, compiled for tanh networks on the CPU.

trainers/_lra_local.py says what `carry_back` computes, trainers/_lra_released.py what `losses` and `through_time` do.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tprnn.core.compiled import blank, jit, sum_rows, tanh


@jit
def _displace(a: Any, y: Any, u: Any, d: Any, slope: Any) -> None:
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


def _sum_squares(x: Any) -> Any:
    total = 0.0
    for i in range(x.size):
        total += np.float64(x[i]) * np.float64(x[i])
    return np.sqrt(total)


_length = jit(_sum_squares, "reassoc")
"""||x||, summed in float64: squares of what has all but vanished stay in range. Summands in any order: vectorised."""


@jit
def _move(u: Any, n: Any, C: float, force: bool) -> None:
    """u += C n / max(||n||, C); with `force` C n / ||n||; C = 0: u += n."""
    factor = 1.0
    if C > 0:
        length = _length(n)
        if force:
            factor = C / max(length, 1e-300)
        elif not length < C:  # nan too
            factor = C / length
    scale = u.dtype.type(factor)
    for i in range(u.size):
        u[i] += scale * n[i]


@jit
def _regularize(n: Any, g: Any, z: Any, d: Any, scale: float, weight: float, ratio: bool) -> None:
    """n -= weight dOmega/da (core/directions.py), for n = scale p, the error g and the activation z + d moved to."""
    p, q = _length(n), _length(g) * scale
    if p == 0:
        return
    rho = p / max(q, 1e-300)
    outer = 1.0 if ratio else 2.0 * (rho - 1.0)
    inverse, factor = n.dtype.type(1.0 / p), n.dtype.type(weight * outer * rho * -2.0)
    for i in range(n.size):
        direction = n[i] * inverse
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
        _displace(a[run, T - 1].reshape(-1), h[run, T].reshape(-1), u, delta, slope)
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
                    _displace(a_before, z_before, u, d, slope)
                    np.dot(d.reshape(B, H), W[run], w.reshape(B, H))
                    _rerun(a_t, w, U, z_hat, log_penalty, r)
                    np.dot(r.reshape(B, H), W_back[run], n.reshape(B, H))
                    for i in range(N):
                        n[i] *= -step * slope[i]
                blank(n.reshape(B, H), start[run], t - 1)
                if weight != 0:
                    _regularize(n, g_t if k == 0 else r, z_before, nothing if k == 0 else d, scale, weight, ratio)
                _move(u, n, C, force)
            _displace(a_before, z_before, u, delta, slope)


@jit
def _psi(x: Any, one: Any, log_penalty: bool) -> Any:
    return x / (one + x * x) if log_penalty else x


@jit
def losses(
    error: Any,
    S: Any,
    A: Any,
    C: Any,
    moves: Any,
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
    omega: Any,
    ratio: bool,
) -> None:
    """The loss used at each step of the released program: its error, S, A, C and the move d, all [R, T, B, H]."""
    R, T, B, H = error.shape
    own_steps, one, two, N = moved.shape[1], error.dtype.type(1), error.dtype.type(2), B * H
    share = error.dtype.type(2.0 / N)
    rows = np.zeros((9, N), error.dtype)
    u, n, d, w, e = rows[0], rows[1], rows[2], rows[3], rows[4]
    slope, again, delta, g = rows[5], rows[6], rows[7], rows[8]
    for run in range(R):
        step, length = error.dtype.type(-gamma[run]), c_1[run] * gamma[run]
        _displace(a[run, T - 1].reshape(-1), h[run, T].reshape(-1), moved[run, own_steps - 1].reshape(-1), delta, slope)
        first, z_last = error[run, T - 1].reshape(-1), h[run, T].reshape(-1)
        for i in range(N):
            first[i] = _psi(delta[i], one, log_penalty) * share * -delta[i] * (two * z_last[i] + delta[i])
        for t in range(T - 1, 0, -1):
            a_t, z_t = a[run, t].reshape(-1), h[run, t + 1].reshape(-1)
            a_before, z_before = a[run, t - 1].reshape(-1), h[run, t].reshape(-1)
            if t - 1 >= T - own_steps:
                u[:] = moved[run, t - 1 - T + own_steps].reshape(-1)
            else:
                u[:] = 0
            for k in range(K):
                if k == 0:
                    g[:] = error[run, t].reshape(-1)
                    d[:] = 0
                    for i in range(N):
                        slope[i] = one - z_before[i] * z_before[i]
                else:
                    _displace(a_before, z_before, u, d, slope)
                    np.dot(d.reshape(B, H), W[run], w.reshape(B, H))
                    _displace(a_t, z_t, w, e, again)
                    for i in range(N):
                        g[i] = _psi(e[i], one, log_penalty) * share * again[i]
                np.dot(g.reshape(B, H), W_back[run], n.reshape(B, H))
                for i in range(N):
                    n[i] *= slope[i]
                blank(n.reshape(B, H), start[run], t - 1)
                if omega[run] != 0:
                    blank(g.reshape(B, H), start[run], t - 1)
                    _regularize(n, g, z_before, d, 1.0, -omega[run], ratio)
                for i in range(N):
                    n[i] *= step
                _move(u, n, length, force)
            move, loss = moves[run, t - 1].reshape(-1), error[run, t - 1].reshape(-1)
            _displace(a_before, z_before, u, move, slope)
            np.dot(moves[run, t - 1], W[run], w.reshape(B, H))
            _displace(a_t, z_t, w, delta, again)
            S_t, A_t, C_t = S[run, t - 1].reshape(-1), A[run, t - 1].reshape(-1), C[run, t - 1].reshape(-1)
            for i in range(N):
                P = _psi(delta[i], one, log_penalty) * share
                A_t[i], C_t[i] = P * again[i], -P * (one - z_t[i] * z_t[i])
                S_t[i] = P * -delta[i] * (two * z_t[i] + delta[i])
            np.dot(S[run, t - 1], W_back[run], n.reshape(B, H))
            np.dot(A[run, t - 1], W_back[run], g.reshape(B, H))
            for i in range(N):
                gap = -move[i] * (two * z_before[i] + move[i])
                loss[i] = n[i] * (one - z_before[i] * z_before[i]) + g[i] * gap
            blank(error[run, t - 1], start[run], t - 1)
        # step 1 has no loss: the program's loop ends before it
        error[run, 0], S[run, 0], A[run, 0], C[run, 0] = 0, 0, 0, 0


@jit
def through_time(
    W_hh: Any, b_h: Any, W_xh: Any, error: Any, h: Any, x: Any, tokens: Any, W_back: Any, start: Any
) -> None:
    """The error of the loss of each step [R, T, B, H] back through all earlier steps: gradients [R, T, ...]."""
    R, T, B, H = error.shape
    one = error.dtype.type(1)
    signal = np.empty((T, B, H), error.dtype)
    W_xh[:] = 0
    for run in range(R):
        for s in range(T):
            signal[s] = error[run, s]
            for t in range(s - 1, -1, -1):
                np.dot(signal[t + 1], W_back[run], signal[t])
                here, z = signal[t].reshape(-1), h[run, t + 1].reshape(-1)
                for i in range(here.size):
                    here[i] *= one - z[i] * z[i]
                blank(signal[t], start[run], t)
            so_far = signal[: s + 1]
            flat = so_far.reshape(-1, H)
            np.dot(h[run, : s + 1].reshape(-1, H).T, flat, W_hh[run, s])
            sum_rows(b_h[run, s], so_far)
            if tokens.size:
                for t in range(s + 1):
                    for b in range(B):
                        total, row = W_xh[run, s, tokens[run, t, b]], signal[t, b]
                        for i in range(H):
                            total[i] += row[i]
            else:
                np.dot(x[run, : s + 1].reshape(-1, x.shape[3]).T, flat, W_xh[run, s])
