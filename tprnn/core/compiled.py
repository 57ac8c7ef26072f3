"""The recurrences of tanh networks compiled for the CPU (Numba): a step is a product and one pass over its result.

PyTorch's calls cost as much as what they compute here, a product of 20 rows by a 100 x 100 matrix. Compiled, a run is
carried through all its steps at once, with its weights in the first cache; runs do not meet. Models and rules have the
same recurrences call by call, for a GPU, for float64 and for other activations; core/scans.py says which are taken.

Arrays are C-contiguous. States h are [R, T + 1, B, H], signals [R, T, B, H]; `start` [R, B] are empty steps before a
sequence, whose rows are kept at 0. Input parts come as x [R, T, B, H], or as tokens [R, T, B] that choose rows of W_xh
[R, I, H], to which a bias [R, H] is added (then x is empty, as tokens are in the other case).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba import types
from numba.core.caching import FunctionCache
from numba.extending import overload

from tprnn.core import code_cache

Function = TypeVar("Function", bound=Callable[..., Any])
_folder = code_cache.choose()
_settings: Any = numba.config
_settings.CACHE_DIR = str(_folder or "")


class _Kept(FunctionCache):
    """Numba's cache of one function, whose troubles (a full disk, a torn file) cost a compilation and no run."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a torn file raises whatever its bytes mean to pickle
            with contextlib.suppress(OSError):
                self.flush()  # or it could not be saved to either
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)


def jit(function: Function, *flags: str) -> Function:
    """Compiled at its first call and kept in the folder of core/code_cache.py, with fused multiply-adds.

    `flags` of LLVM are further freedoms of arithmetic. Those that all have never let a nan or the difference of nearly
    equal numbers vanish; `reassoc` might, and is for sums alone.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz", *flags}}
    compiled = numba.njit(**options)(function)
    if _folder is not None:
        with contextlib.suppress(RuntimeError):  # Numba finds no place there: it is not kept
            compiled._cache = _Kept(function)
    return cast(Function, compiled)


# tanh x = x P(x^2) / Q(x^2) on |x| <= 9.02, beyond which float32 has 1: relative error 2e-8, by our own minimax fit,
# and within 4e-7 with rounding, for all coefficients are positive. Unlike math.tanh it is vectorised.
_P0, _P1, _P2, _P3, _P4 = map(
    np.float32, (1.0, 0.1337968068737513, 0.003493988867021196, 2.0582696971799136e-05, 1.3317953558556e-08)
)
_Q0, _Q1, _Q2, _Q3, _Q4 = map(
    np.float32, (1.0, 0.4671299670282081, 0.025870902517287294, 0.0003283016499024558, 7.761567006398761e-07)
)
_END, _ONE = np.float32(9.02), np.float32(1.0)


def tanh(x: Any) -> Any:
    """tanh x inside compiled code, in the precision of x."""
    return math.tanh(x)


def _rational(x: Any) -> Any:
    x = min(max(x, -_END), _END)
    s = x * x
    p = (((_P4 * s + _P3) * s + _P2) * s + _P1) * s + _P0
    q = (((_Q4 * s + _Q3) * s + _Q2) * s + _Q1) * s + _Q0
    return min(max(x * p / q, -_ONE), _ONE)


def _exact(x: Any) -> Any:
    return math.tanh(x)


@overload(tanh, inline="always")
def _tanh(x: Any) -> Any:
    return _rational if x is types.float32 else _exact


def _length(x: Any) -> Any:
    total = 0.0
    for i in range(x.size):
        total += np.float64(x[i]) * np.float64(x[i])
    return np.sqrt(total)


length = jit(_length, "reassoc")
"""||x||, summed in float64: squares of what has all but vanished stay in range. Summands in any order: vectorised."""


@jit
def lengths(found: Any, x: Any) -> None:
    """found [R, T] = ||x_t|| of x [R, T, B, H]."""
    for r in range(x.shape[0]):
        for t in range(x.shape[1]):
            found[r, t] = length(x[r, t].reshape(-1))


@jit
def blank(z: Any, start: Any, t: int) -> None:
    """Zero the rows of z [B, H] whose sequence begins after step t."""
    for b in range(start.size):
        if t < start[b]:
            z[b] = 0


@jit
def add_input(z: Any, x: Any, tokens: Any, W_xh: Any, bias: Any, r: int, t: int) -> None:
    """z [B, H] += the input part of step t of run r."""
    if tokens.size:
        shift = bias[r]
        for b in range(z.shape[0]):
            row = W_xh[r, tokens[r, t, b]]
            for i in range(row.size):
                z[b, i] += row[i] + shift[i]
    else:
        out, add = z.reshape(-1), x[r, t].reshape(-1)
        for i in range(out.size):
            out[i] += add[i]


@jit
def forward(h: Any, x: Any, tokens: Any, W_xh: Any, bias: Any, W: Any, start: Any) -> None:
    """h_t = tanh(x_t + h_{t-1} W), from h[:, 0] on."""
    R, T = h.shape[0], h.shape[1] - 1
    for r in range(R):
        for t in range(T):
            np.dot(h[r, t], W[r], h[r, t + 1])
            add_input(h[r, t + 1], x, tokens, W_xh, bias, r, t)
            z = h[r, t + 1].reshape(-1)
            for i in range(z.size):
                z[i] = tanh(z[i])
            blank(h[r, t + 1], start[r], t)


@jit
def adjoint(da: Any, h: Any, dh: Any, W_T: Any, start: Any) -> None:
    """da_t = (da_{t+1} W^T + dh_t) (1 - h_t^2), dh [R, S, B, H] being that of the last S steps."""
    R, T, S = da.shape[0], da.shape[1], dh.shape[1]
    one = da.dtype.type(1)  # an integer 1 would make the pass one in float64
    for r in range(R):
        for t in range(T - 1, -1, -1):
            signal, z = da[r, t].reshape(-1), h[r, t + 1].reshape(-1)
            if t == T - 1:
                signal[:] = 0
            else:
                np.dot(da[r, t + 1], W_T[r], da[r, t])
            if t >= T - S:
                own = dh[r, t - T + S].reshape(-1)
                for i in range(z.size):
                    signal[i] += own[i]
            for i in range(z.size):
                signal[i] *= one - z[i] * z[i]
            blank(da[r, t], start[r], t)


@jit
def displacements(
    delta: Any,
    h: Any,
    e: Any,
    factors: Any,
    corrected: bool,
    x: Any,
    tokens: Any,
    W_xh: Any,
    bias: Any,
    V: Any,
    start: Any,
) -> None:
    """Targets carried back as displacements: delta_t = f_t (tanh(a + u) - tanh(a)) + e_t (trainers/tptt.py, Eq. 8).

    a = x_{t+1} + h_{t+1} V and u = delta_{t+1} V; without `corrected` the gap tanh(a) - h_t is added. Index t of
    `delta` holds step t + 1. e: [R, S, B, H], the pull of the last S steps' own outputs. factors: [R, T], or
    empty where all are 1.
    """
    R, T, B, H = delta.shape
    S, one = e.shape[1], delta.dtype.type(1)
    place, moved = np.empty((B, H), h.dtype), np.empty((B, H), h.dtype)
    a, u = place.reshape(-1), moved.reshape(-1)
    for r in range(R):
        delta[r, T - 1] = e[r, S - 1]
        for t in range(T - 2, -1, -1):
            np.dot(h[r, t + 2], V[r], place)
            np.dot(delta[r, t + 1], V[r], moved)
            add_input(place, x, tokens, W_xh, bias, r, t + 1)
            out = delta[r, t].reshape(-1)
            for i in range(out.size):
                out[i] = tanh(u[i]) * (one - tanh(a[i]) * tanh(a[i] + u[i]))
            if not corrected:
                z = h[r, t + 1].reshape(-1)
                for i in range(out.size):
                    out[i] += tanh(a[i]) - z[i]
            if factors.size:
                factor = factors[r, t]
                if factor == 0:
                    out[:] = 0
                elif factor != 1:
                    for i in range(out.size):
                        out[i] *= factor
            if t >= T - S:
                own = e[r, t - T + S].reshape(-1)
                for i in range(out.size):
                    out[i] += own[i]
            blank(delta[r, t], start[r], t)


@jit
def noisy(z: Any, before: Any, h: Any, deviation: Any, x: Any, tokens: Any, W_xh: Any, bias: Any, W: Any) -> None:
    """before_t = h_{t-1} + deviation_t before_t, then z_t = tanh(x_t + before_t W) (trainers/tptt.py).

    z, before: [R, T, B, H]. h: [R, T + 1, B, H]. deviation: [R, T].
    """
    R, T, _, _ = z.shape
    for r in range(R):
        for t in range(T):
            noise, state, factor = before[r, t].reshape(-1), h[r, t].reshape(-1), deviation[r, t]
            for i in range(noise.size):
                noise[i] = state[i] + factor * noise[i]
            np.dot(before[r, t], W[r], z[r, t])
            add_input(z[r, t], x, tokens, W_xh, bias, r, t)
            out = z[r, t].reshape(-1)
            for i in range(out.size):
                out[i] = tanh(out[i])


@jit
def inverse_signal(
    d: Any, h: Any, first: int, back: Any, x: Any, tokens: Any, W_xh: Any, bias: Any, V: Any, start: Any
) -> None:
    """d_t = (g_t - h_{t-1}) (1 - g_t^2) with g_t = tanh(x_t + h_t V), for the first steps (trainers/tptt.py, Eq. 9).

    d: [R, T' <= T, B, H]. h: h_1 stands at index `first`. back: what g_t is to give back, from t = 1 on.
    """
    R, T, B, H = d.shape
    one = d.dtype.type(1)
    for r in range(R):
        for t in range(T):
            np.dot(h[r, t + first], V[r], d[r, t])
            add_input(d[r, t], x, tokens, W_xh, bias, r, t)
            out, z = d[r, t].reshape(-1), back[r, t].reshape(-1)
            for i in range(out.size):
                g = tanh(out[i])
                out[i] = (g - z[i]) * (one - g * g)
            blank(d[r, t], start[r], t)


@jit
def spread(da: Any, h: Any, dy: Any, B_yh: Any, start: Any) -> None:
    """da_t = dy_t B_yh (1 - h_t^2) (trainers/dfa.py). dy [R, S, B, O] is that of the last S steps; the first of them is
    that of all steps before too."""
    R, T, B, H = da.shape
    S, one = dy.shape[1], da.dtype.type(1)
    error = np.empty((B, H), da.dtype)
    own = error.reshape(-1)
    for r in range(R):
        for t in range(T):
            s = t - T + S
            if t == 0 or s > 0:
                np.dot(dy[r, max(s, 0)], B_yh[r], error)
            signal, z = da[r, t].reshape(-1), h[r, t + 1].reshape(-1)
            for i in range(z.size):
                signal[i] = own[i] * (one - z[i] * z[i])
            blank(da[r, t], start[r], t)


@jit
def sum_rows(total: Any, d: Any) -> None:
    """total [H] = the sum of d [T, B, H] over steps and batch, step by step first, which rounds less."""
    part = np.empty_like(total)
    total[:] = 0
    for t in range(d.shape[0]):
        part[:] = d[t, 0]
        for b in range(1, d.shape[1]):
            row = d[t, b]
            for i in range(part.size):
                part[i] += row[i]
        for i in range(part.size):
            total[i] += part[i]


@jit
def sum_by_token(table: Any, d: Any, tokens: Any) -> None:
    """table [R, I, H] = the sums of d [R, T, B, H] over the places of each token."""
    R, T, B, _ = d.shape
    table[:] = 0
    for r in range(R):
        for t in range(T):
            for b in range(B):
                total, row = table[r, tokens[r, t, b]], d[r, t, b]
                for i in range(row.size):
                    total[i] += row[i]


@jit
def sums(totals: Any, d: Any) -> None:
    """totals [R, H]: `sum_rows` of each run's d [R, T, B, H]."""
    for r in range(d.shape[0]):
        sum_rows(totals[r], d[r])


@jit
def back(signal: Any, h: Any) -> None:
    """signal_t *= 1 - h_t^2: from states [R, T, B, H] to their pre-activations."""
    R, T, _, _ = signal.shape
    one = signal.dtype.type(1)
    for r in range(R):
        for t in range(T):
            out, z = signal[r, t].reshape(-1), h[r, t + 1].reshape(-1)
            for i in range(out.size):
                out[i] *= one - z[i] * z[i]


@jit
def carry_linear(delta: Any, h: Any, tolerance: float, e: Any, V: Any, start: Any) -> None:
    """delta_{t-1} = (delta_t / (1 - h_t^2)) V + e_{t-1} (trainers/tptt_inverse.py).

    Index t of `delta` holds step t + 1. h_t enters no nearer than `tolerance` to -1 and 1.
    """
    R, T, B, H = delta.shape
    S, one = e.shape[1], delta.dtype.type(1)
    end = delta.dtype.type(1.0 - tolerance)
    u = np.empty((B, H), delta.dtype)
    flat = u.reshape(-1)
    for r in range(R):
        delta[r, T - 1] = e[r, S - 1]
        for t in range(T - 2, -1, -1):
            signal, z = delta[r, t + 1].reshape(-1), h[r, t + 2].reshape(-1)
            for i in range(flat.size):
                inner = min(max(z[i], -end), end)
                flat[i] = signal[i] / (one - inner * inner)
            np.dot(u, V[r], delta[r, t])
            if t >= T - S:
                out, own = delta[r, t].reshape(-1), e[r, t - T + S].reshape(-1)
                for i in range(out.size):
                    out[i] += own[i]
            blank(delta[r, t], start[r], t)
