"""The released program's reading of lra, compiled for tanh networks on the CPU: see trainers/lra/released.py."""

from __future__ import annotations

from typing import Any

import numpy as np

from tprnn.core.compiled import blank, jit, sum_rows
from tprnn.trainers.lra.compiled import displace, length, move, regularize


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
    released: bool,
) -> None:
    """The loss used at each step of the released program: its error, S, A, C and the move d, all [R, T, B, H]."""
    R, T, B, H = error.shape
    own_steps, one, two, N = moved.shape[1], error.dtype.type(1), error.dtype.type(2), B * H
    share = error.dtype.type(2.0 / N)
    rows = np.zeros((11, N), error.dtype)
    u, n, d, w, e = rows[0], rows[1], rows[2], rows[3], rows[4]
    slope, again, delta, g = rows[5], rows[6], rows[7], rows[8]
    by_z, p = rows[9], rows[10]  # the program's own g, and the same carried back
    for run in range(R):
        step, limit = error.dtype.type(-gamma[run]), c_1[run] * gamma[run]
        displace(a[run, T - 1].reshape(-1), h[run, T].reshape(-1), moved[run, own_steps - 1].reshape(-1), delta, slope)
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
                    displace(a_before, z_before, u, d, slope)
                    np.dot(d.reshape(B, H), W[run], w.reshape(B, H))
                    displace(a_t, z_t, w, e, again)
                    for i in range(N):
                        g[i] = _psi(e[i], one, log_penalty) * share * again[i]
                np.dot(g.reshape(B, H), W_back[run], n.reshape(B, H))
                for i in range(N):
                    n[i] *= slope[i]
                blank(n.reshape(B, H), start[run], t - 1)
                if omega[run] != 0 and released:
                    if k == 0 and t < T - 1:
                        np.dot(C[run, t], W_back[run], by_z.reshape(B, H))
                    else:
                        for i in range(N):
                            by_z[i] = _psi(e[i], one, log_penalty) if k else -_psi(delta[i], one, log_penalty)
                            by_z[i] *= share
                    np.dot(by_z.reshape(B, H), W_back[run], p.reshape(B, H))
                    for i in range(N):
                        p[i] *= slope[i]
                    blank(by_z.reshape(B, H), start[run], t - 1)
                    blank(p.reshape(B, H), start[run], t - 1)
                    regularize(n, p, by_z, z_before, d, 1.0, -omega[run], ratio)
                elif omega[run] != 0:
                    blank(g.reshape(B, H), start[run], t - 1)
                    regularize(n, n, g, z_before, d, 1.0, -omega[run], ratio)
                for i in range(N):
                    n[i] *= step
                move(u, n, limit, force)
            d_t, loss = moves[run, t - 1].reshape(-1), error[run, t - 1].reshape(-1)
            displace(a_before, z_before, u, d_t, slope)
            np.dot(moves[run, t - 1], W[run], w.reshape(B, H))
            displace(a_t, z_t, w, delta, again)
            S_t, A_t, C_t = S[run, t - 1].reshape(-1), A[run, t - 1].reshape(-1), C[run, t - 1].reshape(-1)
            for i in range(N):
                P = _psi(delta[i], one, log_penalty) * share
                A_t[i], C_t[i] = P * again[i], -P * (one - z_t[i] * z_t[i])
                S_t[i] = P * -delta[i] * (two * z_t[i] + delta[i])
            np.dot(S[run, t - 1], W_back[run], n.reshape(B, H))
            np.dot(A[run, t - 1], W_back[run], g.reshape(B, H))
            for i in range(N):
                gap = -d_t[i] * (two * z_before[i] + d_t[i])
                loss[i] = n[i] * (one - z_before[i] * z_before[i]) + g[i] * gap
            blank(error[run, t - 1], start[run], t - 1)
        # step 1 has no loss: the program's loop ends before it
        error[run, 0], S[run, 0], A[run, 0], C[run, 0] = 0, 0, 0, 0


@jit
def _before(signal: Any, t: int, h: Any, W_back: Any, start: Any) -> None:
    """signal_t = (signal_{t+1} W^T) (1 - h_{t+1}^2), of one run; index t holds step t + 1."""
    one = signal.dtype.type(1)
    np.dot(signal[t + 1], W_back, signal[t])
    here, z = signal[t].reshape(-1), h[t + 1].reshape(-1)
    for i in range(here.size):
        here[i] *= one - z[i] * z[i]
    blank(signal[t], start, t)


@jit
def _weigh(W_hh: Any, b_h: Any, W_xh: Any, signal: Any, h: Any, x: Any, tokens: Any) -> None:
    """The gradients of one run by its errors [T', B, H] of the first steps."""
    steps, B, H = signal.shape
    flat = signal.reshape(-1, H)
    np.dot(h[:steps].reshape(-1, H).T, flat, W_hh)
    sum_rows(b_h, signal)
    if tokens.size:
        W_xh[:] = 0
        for t in range(steps):
            for b in range(B):
                total, row = W_xh[tokens[t, b]], signal[t, b]
                for i in range(H):
                    total[i] += row[i]
    else:
        np.dot(x[:steps].reshape(-1, x.shape[2]).T, flat, W_xh)


@jit
def apart(
    alone: Any, error: Any, S: Any, left: Any, right: Any, x: Any, limit: float, force: bool, growth: float
) -> None:
    """Which losses of a run [T] may have a gradient longer than `limit`, by a bound on their lengths.

    ||sum_t x_t^T d_t|| <= max ||x_t|| sum_t ||d_t||, ||z_t|| < sqrt(B H), and an error grows by ||W_hh|| at most.
    """
    T, B, H = error.shape
    size, reach = np.sqrt(np.float64(B * H)), 0.0
    for t in range(x.shape[0]):
        size = max(size, length(x[t].reshape(-1)))
    for s in range(T):
        reach = reach * growth + 1.0
        most = size * (length(S[s].reshape(-1)) + reach * length(error[s].reshape(-1)))
        most += length(left[s].reshape(-1)) * length(right[s].reshape(-1))
        alone[s] = limit > 0 and (force or not most < 0.999 * limit)  # nan too


@jit
def sums(
    W_hh: Any,
    b_h: Any,
    W_xh: Any,
    error: Any,
    S: Any,
    left: Any,
    right: Any,
    h: Any,
    x: Any,
    tokens: Any,
    W_back: Any,
    start: Any,
    c_0: Any,
    limit_b: bool,
    force: bool,
    growth: Any,
) -> None:
    """The gradients of the loss of each step through all earlier steps, each normalised to c_0, and summed.

    What Normalize leaves as it is goes back together, in one pass; a loss that may reach c_0 goes alone.

    Args:
        W_hh, b_h, W_xh: [R, H, H], [R, H], [R, I, H], written. error, S: [R, T, B, H].
        left, right: [R, T, M, H], what W_hh gets besides: left_t^T right_t. c_0, growth >= ||W_hh||: [R], float64.
        limit_b: whether c_0 is for b_h too.
    """
    R, T, B, H = error.shape
    signal, some = np.empty((T, B, H), error.dtype), np.empty_like(right[0])
    own_hh, own_b, own_xh = np.empty_like(W_hh[0]), np.empty_like(b_h[0]), np.empty_like(W_xh[0])
    besides, alone = np.empty_like(own_hh), np.empty(T, np.bool_)
    for run in range(R):
        z, x_run = h[run], x[run] if x.size else x[0]
        tokens_run = tokens[run] if tokens.size else tokens[0]
        apart(alone, error[run], S[run], left[run], right[run], x_run, c_0[run], force, growth[run])
        for t in range(T - 1, -1, -1):
            here = signal[t].reshape(-1)
            if t == T - 1:
                here[:] = 0
            else:
                _before(signal, t, z, W_back[run], start[run])
            if not alone[t]:
                own = error[run, t].reshape(-1)
                for i in range(here.size):
                    here[i] += own[i]
        for t in range(T):
            if alone[t]:
                some[t] = 0
            else:
                some[t] = right[run, t]
                if t + 1 < T:
                    here, own = signal[t + 1].reshape(-1), S[run, t].reshape(-1)
                    for i in range(here.size):
                        here[i] += own[i]
        _weigh(W_hh[run], b_h[run], W_xh[run], signal, z, x_run, tokens_run)
        np.dot(left[run].reshape(-1, H).T, some.reshape(-1, H), besides)
        move(W_hh[run].reshape(-1), besides.reshape(-1), 0.0, False)
        for s in range(T):
            if not alone[s]:
                continue
            last = min(s + 1, T - 1)
            signal[last] = S[run, s]  # 0 for the last loss
            signal[s] = error[run, s]
            for t in range(s - 1, -1, -1):
                _before(signal, t, z, W_back[run], start[run])
            _weigh(own_hh, own_b, own_xh, signal[: last + 1], z, x_run, tokens_run)
            np.dot(left[run, s].T, right[run, s], besides)
            move(own_hh.reshape(-1), besides.reshape(-1), 0.0, False)
            move(W_hh[run].reshape(-1), own_hh.reshape(-1), c_0[run], force)
            move(b_h[run], own_b, c_0[run] if limit_b else 0.0, force)
            move(W_xh[run].reshape(-1), own_xh.reshape(-1), c_0[run], force)
