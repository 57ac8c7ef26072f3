"""Initial weights as functions of (seed, parameter name)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tprnn.core.streams import Stream, normals

Initialisation = Callable[[Stream, int, int, torch.dtype], Tensor]


def orthogonal(stream: Stream, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """[R, rows, columns] with all singular values 1: U V^T of the SVD of a normal random matrix.

    Haar distributed for square matrices. manchev2020's program takes the same product of a matrix that is
    uniform on (-a, a): other entries of the random matrix, the same singular values.
    """
    matrix = normals(stream, 0, (rows, columns), torch.float64)
    U, _, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return (U @ Vh).to(dtype)


def svd_bytes(rows: int, columns: int) -> tuple[int, int]:
    """What `orthogonal` holds at once, at least: for each run, and once.

    The matrix and LAPACK's copy of it, U and V^T; LAPACK's work is of one matrix at a time, and measured.
    """
    k = min(rows, columns)
    return 8 * (2 * rows * columns + k * (rows + columns)), 8 * 3 * k * k


def gaussian(stream: Stream, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """[R, rows, columns] from N(0, 0.1), 0.1 being the standard deviation."""
    return normals(stream, 0, (rows, columns), dtype) * 0.1


def identity(stream: Stream, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """[R, rows, columns], ones on the diagonal (Le, Jaitly and Hinton, 2015)."""
    return torch.eye(rows, columns, dtype=dtype, device=stream.k0.device).repeat(len(stream.k0), 1, 1)


WORK: dict[Initialisation, Callable[[int, int], tuple[int, int]]] = {orthogonal: svd_bytes}
"""Initialisations that hold more than what they return, and how much: bytes for each run and once."""

# name of an initialisation -> (recurrent matrices, all other matrices)
INITIALISATIONS: dict[str, tuple[Initialisation, Initialisation]] = {
    "orthogonal": (orthogonal, orthogonal),
    "orthogonal_whh": (orthogonal, gaussian),
    "gaussian": (gaussian, gaussian),
    "identity_whh": (identity, gaussian),
}
