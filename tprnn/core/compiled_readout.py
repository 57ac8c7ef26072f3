"""The read-out compiled for the CPU: outputs, loss and derivatives in one call, where PyTorch takes ten.

For 20 sequences and a handful of outputs what is computed takes 5 microseconds, and calls took 45. The losses are those
of core/losses.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tprnn.core.compiled import jit


@jit
def _cross_entropy(y: Any, dy: Any, classes: Any, share: float) -> float:
    """-sum log softmax(y)[class] of rows [N, O]; dy = share (softmax(y) - onehot)."""
    N, O = y.shape
    scale, total = dy.dtype.type(share), 0.0
    for i in range(N):
        largest = y[i, 0]
        for o in range(1, O):
            largest = max(largest, y[i, o])
        mass = dy.dtype.type(0)
        for o in range(O):
            dy[i, o] = math.exp(y[i, o] - largest)
            mass += dy[i, o]
        total += math.log(mass) - (y[i, classes[i]] - largest)
        factor = scale / mass
        for o in range(O):
            dy[i, o] *= factor
        dy[i, classes[i]] -= scale
    return total


@jit
def _squared_error(y: Any, dy: Any, values: Any, share: float) -> float:
    """sum (y - value)^2 of rows [N, O]; dy = 2 share (y - value)."""
    scale, total = dy.dtype.type(2.0 * share), 0.0
    for i in range(y.shape[0]):
        for o in range(y.shape[1]):
            difference = y[i, o] - values[i, o]
            total += difference * difference
            dy[i, o] = scale * difference
    return total


@jit
def read(loss: Any, y: Any, dy: Any, dh: Any, h: Any, W: Any, b: Any, classes: Any, values: Any) -> None:
    """y = h W + b, E, dE/dy and dE/dh for the last S states.

    Args:
        loss, y, dy, dh: [R], [R, S, B, O], [R, S, B, O], [R, S, B, H], written. h: [R, >= S, B, H].
        classes: [R, S, B], or empty where the targets are values [R, S, B, O].
    """
    R, S, B, O = y.shape
    first, H = h.shape[1] - S, h.shape[3]
    share = 1.0 / (S * B)
    for r in range(R):
        out, signal = y[r].reshape(-1, O), dy[r].reshape(-1, O)
        np.dot(h[r, first:].reshape(-1, H), W[r], out)
        for i in range(out.shape[0]):
            for o in range(O):
                out[i, o] += b[r, o]
        if classes.size:
            loss[r] = share * _cross_entropy(out, signal, classes[r].reshape(-1), share)
        else:
            loss[r] = share * _squared_error(out, signal, values[r].reshape(-1, O), share)
        np.dot(signal, W[r].T, dh[r].reshape(-1, H))


@jit
def weigh(W: Any, b: Any, h: Any, dy: Any) -> None:
    """dE/dW [R, H, O] and dE/db [R, O] by dE/dy of the last S states h [R, >= S, B, H]."""
    R, S, B, O = dy.shape
    first, H = h.shape[1] - S, h.shape[3]
    for r in range(R):
        signal = dy[r].reshape(-1, O)
        np.dot(h[r, first:].reshape(-1, H).T, signal, W[r])
        b[r] = 0
        for i in range(signal.shape[0]):
            for o in range(O):
                b[r, o] += signal[i, o]
