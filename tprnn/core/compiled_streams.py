"""Random words and normal numbers compiled for the CPU: those of core/streams.py, ten times as fast."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tprnn.core.compiled import jit

# sin x = x S(x^2) and cos x = C(x^2) on |x| <= pi / 4, by their series: the first term left out is below 1e-15
_S = [(-1.0) ** k / math.factorial(2 * k + 1) for k in range(8)]
_C = [(-1.0) ** k / math.factorial(2 * k) for k in range(9)]
_S0, _S1, _S2, _S3, _S4, _S5, _S6, _S7 = _S
_C0, _C1, _C2, _C3, _C4, _C5, _C6, _C7, _C8 = _C
_LN2, _ROOT2, _TURN = math.log(2.0), math.sqrt(2.0), 2.0 * math.pi * 2.0**-32
_AT_ONCE = 1024


@jit
def _fill(out: Any, k0: Any, k1: Any, position: int, first: int) -> None:
    """The words from number 4 `first` on of one key at one position; as many as out [N] holds, N a multiple of 4."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    m0, m1, w0, w1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57), np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
    at = np.uint64(position)
    for q in range(out.size // 4):
        c0, c1, c2, c3 = np.uint64(first + q), np.uint64(0), at & mask, at >> half
        a, b = np.uint64(k0), np.uint64(k1)
        for _ in range(10):
            p0, p1 = c0 * m0, c2 * m1
            c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ a, p1 & mask, (p0 >> half) ^ c3 ^ b, p0 & mask
            a, b = (a + w0) & mask, (b + w1) & mask
        i = 4 * q
        out[i], out[i + 1], out[i + 2], out[i + 3] = c0, c1, c2, c3


@jit
def words(out: Any, k0: Any, k1: Any, positions: Any) -> None:
    """Philox4x32-10: out [P, R, N] for keys [R] and positions [P, R]."""
    P, R, N = out.shape
    last, rest = np.empty(4, out.dtype), N % 4
    for p in range(P):
        for r in range(R):
            _fill(out[p, r, : N - rest], k0[r], k1[r], positions[p, r], 0)
            if rest:
                _fill(last, k0[r], k1[r], positions[p, r], N // 4)
                out[p, r, N - rest :] = last[:rest]


@jit
def box_muller(cosines: Any, sines: Any, radii: Any, angles: Any, x: Any) -> None:
    """sqrt(-2 log u) times the cosine and the sine of a turn, u and the turn by words [N]; x [>= N] is scratch.

    Computed in float64. Logarithm, sine and cosine are written out, for loops over those of the library are not
    vectorised.
    """
    n = sines.size
    bits = x.view(np.int64)
    for i in range(n):  # 1 .. 2^32, by way of 32 bits, which are converted faster
        x[i] = np.float64(np.int32(radii[i] - 2147483648)) + 2147483649.0
    for i in range(n):
        exponent = np.float64(np.int32((bits[i] >> 52) - 1055))  # of x 2^-32
        bits[i] = (bits[i] & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000  # 1 <= x < 2
        m = x[i]
        large = m > _ROOT2
        m = 0.5 * m if large else m
        exponent = exponent + 1.0 if large else exponent
        s = (m - 1.0) / (m + 1.0)  # log m = 2 artanh s, |s| < 0.172
        q = s * s
        tail = 1.0 / 13 + q * (1.0 / 15 + q * (1.0 / 17 + q * (1.0 / 19)))
        tail = q * (1.0 / 3 + q * (1.0 / 5 + q * (1.0 / 7 + q * (1.0 / 9 + q * (1.0 / 11 + q * tail)))))
        x[i] = math.sqrt(max(-2.0 * (exponent * _LN2 + 2.0 * (s + s * tail)), 0.0))
    for i in range(n):
        quarter = (angles[i] + 536870912) >> 30  # nearest quarter turn
        a = np.float64(np.int32(angles[i] - (quarter << 30))) * _TURN
        q = a * a
        sine = a * (_S0 + q * (_S1 + q * (_S2 + q * (_S3 + q * (_S4 + q * (_S5 + q * (_S6 + q * _S7)))))))
        cosine = _C4 + q * (_C5 + q * (_C6 + q * (_C7 + q * _C8)))
        cosine = _C0 + q * (_C1 + q * (_C2 + q * (_C3 + q * cosine)))
        odd = (quarter & 1) == 1
        across, up = (sine, cosine) if odd else (cosine, sine)
        left, down = ((quarter + 1) & 2) == 2, (quarter & 2) == 2
        cosines[i] = x[i] * (-across if left else across)
        sines[i] = x[i] * (-up if down else up)


@jit
def normals(out: Any, k0: Any, k1: Any, positions: Any) -> None:
    """Box and Muller: standard normal numbers out [R, N] for keys and positions [R].

    With N rounded up to an even number, the first half of the words gives radii, the second angles, cosines the first
    half of the numbers and sines the second. Words are made where they are used: they never leave the first cache.
    """
    R, N = out.shape
    half = (N + 1) // 2
    x, lost = np.empty(_AT_ONCE), np.empty(1, out.dtype)
    radii, angles = np.empty(_AT_ONCE, np.int64), np.empty(_AT_ONCE + 4, np.int64)
    for r in range(R):
        for first in range(0, half, _AT_ONCE):
            n = min(_AT_ONCE, half - first)
            pairs = min(n, N - half - first)
            skip = (half + first) % 4
            _fill(radii[: (n + 3) // 4 * 4], k0[r], k1[r], positions[r], first // 4)
            _fill(angles[: (n + skip + 3) // 4 * 4], k0[r], k1[r], positions[r], (half + first) // 4)
            turns, cosines, sines = angles[skip:], out[r, first : first + n], out[r, half + first :][:pairs]
            box_muller(cosines, sines, radii, turns, x)
            if pairs < n:  # the last sine of an odd number is not asked for
                box_muller(cosines[pairs:], lost, radii[pairs:], turns[pairs:], x)
