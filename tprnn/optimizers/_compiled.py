"""Updates compiled for the CPU: one pass over parameters, gradients and slots, where PyTorch makes one for each sum.

Arrays w, g and slots are [R, N]; rate is [R, 1] or [R, N]; settings and Adam's counts are [R], [R, 1] in float64.
"""

from __future__ import annotations

import math
from typing import Any

from tprnn.core.compiled import jit


@jit
def nesterov(w: Any, g: Any, v: Any, rate: Any, momentum: Any) -> None:
    """optimizers/nesterov.py."""
    R, N = w.shape
    for r in range(R):
        mu, alpha = w.dtype.type(momentum[r]), rate[r, 0]
        for i in range(N):
            step = g[r, i] * (alpha if rate.shape[1] == 1 else rate[r, i])
            v[r, i] = mu * v[r, i] - step
            w[r, i] += mu * v[r, i] - step


@jit
def adam(
    w: Any, g: Any, m: Any, s: Any, n: Any, rate: Any, beta1: Any, rest1: Any, beta2: Any, rest2: Any, eps: Any
) -> None:
    """optimizers/adam.py; rest = 1 - beta."""
    R, N = w.shape
    number = w.dtype.type
    for r in range(R):
        n[r, 0] += 1.0
        b1, b2, c1, c2 = number(beta1[r]), number(beta2[r]), number(rest1[r]), number(rest2[r])
        bias = number(1.0 - (1.0 - rest1[r]) ** n[r, 0])
        root, least = number(math.sqrt(1.0 - (1.0 - rest2[r]) ** n[r, 0])), number(eps[r])
        for i in range(N):
            s[r, i] = b2 * s[r, i] + c2 * g[r, i] * g[r, i]
            m[r, i] = b1 * m[r, i] + c1 * g[r, i]
            alpha = (rate[r, 0] if rate.shape[1] == 1 else rate[r, i]) / bias
            w[r, i] -= m[r, i] / (math.sqrt(s[r, i]) / root + least) * alpha
