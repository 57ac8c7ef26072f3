"""Global losses E with their derivative by the network's raw outputs, one value per run.

E_t is the mean over the batch, so its derivative carries 1/B; E is the mean of E_t over the S steps that carry
an output.
"""

from __future__ import annotations

import torch
from torch import Tensor


def softmax_cross_entropy(y: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """E = -(1/SB) sum log softmax(y)[target].

    Args:
        y: [S, R, B, O] raw outputs. targets: [S, R, B] classes.
    Returns:
        E [R] and dE/dy = (softmax(y) - onehot)/(S B), [S, R, B, O].
    """
    S, _, B, _ = y.shape
    log_p = torch.log_softmax(y, -1)
    picked = targets.unsqueeze(-1)
    loss = -log_p.gather(-1, picked).sum((0, 2, 3)) / (S * B)
    gradient = log_p.exp_()
    gradient.scatter_add_(-1, picked, gradient.new_full((1, 1, 1, 1), -1.0).expand(picked.shape))
    return loss, gradient.div_(S * B)


def squared_error(y: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """E = (1/SB) sum (y - target)^2, summed over outputs.

    Args:
        y, targets: [S, R, B, O].
    Returns:
        E [R] and dE/dy = 2 (y - target)/(S B), [S, R, B, O].
    """
    S, _, B, _ = y.shape
    difference = y - targets
    return difference.square().sum((0, 2, 3)) / (S * B), difference.mul_(2.0 / (S * B))


LOSSES = {"softmax": softmax_cross_entropy, "linear": squared_error}
