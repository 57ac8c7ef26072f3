"""The products of a recurrence over a stack.

Sequences are [R, T, B, H]: a step is a slice [R, B, H], and all steps of a run are the T B rows of one product, without
a copy. Weights are [R, H, H] in row convention (h_t W). A run's result does not depend on R but for rounding: a BLAS
may have another kernel for another R.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def rows(x: Tensor) -> Tensor:
    """[R, T, B, H] -> [R, T B, H], a view, also of some of the steps."""
    return x.flatten(1, 2)


def one_step(W: Tensor) -> tuple[Tensor, Callable[..., Tensor], Callable[..., Tensor]]:
    """How a step multiplies by W [R, H, H]: (weights, add_product(a, x, weights, out=), product(x, weights, out=)).

    A single run is a plain matrix: the stacked product of one matrix takes half as long again as the plain one.
    """
    if W.shape[0] == 1:
        return W[0], torch.addmm, torch.mm
    return W, torch.baddbmm, torch.bmm


def row_product(x: Tensor, W: Tensor) -> Tensor:
    """x W for all rows: [R, T, B, I], [R, I, O] -> [R, T, B, O]."""
    return torch.bmm(rows(x), W).view(*x.shape[:3], -1)


def outer_sum(x: Tensor, d: Tensor) -> Tensor:
    """sum_t x_t^T d_t, the gradient of a weight matrix: [R, T, B, I], [R, T, B, H] -> [R, I, H]."""
    return torch.bmm(rows(x).mT, rows(d))


def row_sum(d: Tensor) -> Tensor:
    """The sum over steps and batch, the gradient of a bias: [R, T, B, H] -> [R, H]."""
    return rows(d).sum(1)


def flat_tokens(tokens: Tensor, I: int) -> Tensor:
    """Token i of run r as row r I + i of the stacked table: [R, T, B] -> [R T B]."""
    R = tokens.shape[0]
    if R > 1:
        tokens = tokens + torch.arange(0, R * I, I, device=tokens.device)[:, None, None]
    return tokens.reshape(-1)


def lookup(table: Tensor, tokens: Tensor, out: Tensor) -> Tensor:
    """x_t W for one-hot x_t: rows of table [R, I, H] by tokens [R, T, B] -> out [R, T, B, H]."""
    R, I, H = table.shape
    torch.index_select(table.view(R * I, H), 0, flat_tokens(tokens, I), out=out.view(-1, H))
    return out


def lookup_gradient(tokens: Tensor, d: Tensor, I: int) -> Tensor:
    """sum_t x_t^T d_t for one-hot x_t: tokens [R, T, B], d [R, T, B, H] -> [R, I, H]."""
    R, _, _, H = d.shape
    if d.device.type != "cpu":  # an indexed sum adds in whatever order its threads come: other bits every time
        return outer_sum((tokens.unsqueeze(-1) == torch.arange(I, device=d.device)).to(d.dtype), d)
    return d.new_zeros(R * I, H).index_add_(0, flat_tokens(tokens, I), d.reshape(-1, H)).view(R, I, H)


def norm(x: Tensor) -> Tensor:
    """The 2-norm of each run's tensor: [R, ...] -> [R]."""
    return x.flatten(1).norm(dim=1)


def norm_bound(W: Tensor, steps: int) -> Tensor:
    """At least ||W||_2 of each matrix [R, H, H], and at most e^(2 / steps) times as much: [R], float64.

    ||W||_2^(2n) <= ||(W^T W)^n||_F <= sqrt(H) ||W||_2^(2n), for n a power of two: squared some times instead of an SVD.
    """
    M, log = W.mT @ W, torch.zeros(len(W), dtype=torch.float64, device=W.device)
    squarings = max(0, math.ceil(math.log2(max(steps, 1) * math.log(max(W.shape[1], 2)))) - 3)
    for k in range(squarings + 1):
        M = M @ M if k else M
        length = torch.linalg.vector_norm(M, dim=(1, 2), keepdim=True)
        M = M / length.clamp(min=torch.finfo(W.dtype).tiny)
        log = (2.0 if k else 1.0) * log + length[:, 0, 0].double().log()
    return torch.exp(log / 2.0 ** (squarings + 1))


def spectral_radius(W: Tensor) -> Tensor:
    """The largest absolute eigenvalue of each matrix: [R, H, H] -> [R]; nan where an entry is not finite."""
    radius = torch.full(W.shape[:1], float("nan"), dtype=W.dtype, device=W.device)
    finite = W.flatten(1).isfinite().all(1)
    if finite.any():
        radius[finite] = torch.linalg.eigvals(W[finite]).abs().amax(1)
    return radius
