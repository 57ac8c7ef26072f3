"""The products of a recurrence over a stack.

Layout: sequences are [T, R, B, H], so that a step is one contiguous [R, B, H] slice; weights are [R, H, H] in row
convention (h_t W). Products that need no order in time are ONE product per run over all T B rows.
On a CPU the result for a run has the same bits for every R, which the tests hold to.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rows(x: Tensor) -> Tensor:
    """[T, R, B, H] -> [R, T B, H]: a view for R = 1, else a copy."""
    T, R, B, H = x.shape
    return x.transpose(0, 1).reshape(R, T * B, H)


def steps(y: Tensor, T: int) -> Tensor:
    """[R, T B, H] -> [T, R, B, H], a view."""
    R, TB, H = y.shape
    return y.view(R, T, TB // T, H).transpose(0, 1)


def outer_sum(x: Tensor, d: Tensor) -> Tensor:
    """sum_t x_t^T d_t, the gradient of a weight matrix: rows [R, T B, I], [R, T B, H] -> [R, I, H]."""
    return torch.bmm(x.transpose(1, 2), d)


def row_sum(d: Tensor) -> Tensor:
    """The sum over steps and batch, the gradient of a bias: rows [R, T B, H] -> [R, H]."""
    return d.sum(1)


def lookup(W_xh: Tensor, tokens: Tensor, out: Tensor) -> Tensor:
    """x_t W_xh for one-hot x_t: rows of W_xh [R, I, H] by tokens [T, R, B] -> out [T, R, B, H]."""
    R, I, H = W_xh.shape
    torch.index_select(W_xh.view(R * I, H), 0, flat_tokens(tokens, I), out=out.view(-1, H))
    return out


def lookup_gradient(tokens: Tensor, d: Tensor, I: int) -> Tensor:
    """sum_t x_t^T d_t for one-hot x_t: tokens [T, R, B], rows d [R, T B, H] -> [R, I, H]."""
    R, _, H = d.shape
    gradient = d.new_zeros(R * I, H)
    rows = flat_tokens(tokens, I).view(tokens.shape).transpose(0, 1).reshape(-1)
    return gradient.index_add_(0, rows, d.view(-1, H)).view(R, I, H)


def flat_tokens(tokens: Tensor, I: int) -> Tensor:
    """Token i of run r as row r I + i of the stacked table; [T, R, B] -> [T R B]."""
    R = tokens.shape[1]
    if R == 1:
        return tokens.reshape(-1)
    return (tokens + torch.arange(0, R * I, I, device=tokens.device)[:, None]).view(-1)


def norm(x: Tensor) -> Tensor:
    """The 2-norm of each run's tensor: [R, ...] -> [R]."""
    return x.flatten(1).norm(dim=1)


def spectral_radius(W: Tensor) -> Tensor:
    """The largest absolute eigenvalue of each matrix: [R, H, H] -> [R]; nan where an entry is not finite."""
    radius = torch.full(W.shape[:1], float("nan"), dtype=W.dtype, device=W.device)
    finite = W.flatten(1).isfinite().all(1)
    if finite.any():
        radius[finite] = torch.linalg.eigvals(W[finite]).abs().amax(1)
    return radius
