"""A program that tprnn is only a part of: what is left there as it was found."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def torch_as_it_was() -> Iterator[None]:
    """Give back the settings of PyTorch that hold for a whole process, and that training makes (`prepare_process`)."""
    threads, flushing = torch.get_num_threads(), flushes_denormals()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushing)


def flushes_denormals() -> bool:
    """Whether PyTorch takes numbers below the normal range as 0 in this thread."""
    smallest = torch.tensor(torch.finfo(torch.float64).tiny, dtype=torch.float64)  # a literal below it may be read as 0
    return float(smallest.mul(0.5)) == 0.0
