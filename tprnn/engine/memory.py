"""Memory in words, and one line for the many ways in which it is said that there is too little of it."""

from __future__ import annotations

import errno
import re

import torch

_UNITS = {"B": 1, "bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50, "EiB": 2**60}
_ASKED = re.compile(
    # PyTorch's allocators on a CPU and on a GPU; NumPy
    r"(?:tried to allocate|unable to allocate) (?P<count>[\d.]+) (?P<unit>\w+)",
    re.IGNORECASE,
)
_NO_ADDRESS = re.compile(
    # PyTorch, NumPy and Python: sizes beyond 2^63
    "storage size calculation overflowed|integer multiplication overflow|overflow when unpacking"
    "|array is too big|maximum allowed dimension exceeded|cannot fit 'int' into an index-sized integer",
    re.IGNORECASE,
)
_FULL = re.compile(
    # CUDA's driver and libraries; Numba, PyTorch on Windows
    "out of memory|not enough memory|can't allocate memory|ALLOC_FAILED|allocation failed",
    re.IGNORECASE,
)
# an SVD whose work has 2^31 numbers (H = 26,755), which PyTorch takes for a bug of its own
_LAPACK = re.compile(r"linalg\.\w+: Argument \d+ has illegal value")


def size(value: float) -> str:
    """Bytes in words: `350 MiB`, `2.4 GiB`, `7.3 TiB`.

    >>> size(3 * 2**29)
    '1.5 GiB'
    """
    unit = max((name for name in _UNITS if _UNITS[name] <= max(value, 2**20)), key=_UNITS.__getitem__)
    return f"{two_digits(value / _UNITS[unit])} {unit}"


def two_digits(value: float) -> str:
    """More would promise too much."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}"


def ran_out(error: BaseException) -> str | None:
    """What an error says of memory, in one line; None for an error of another kind."""
    text = str(error)
    if isinstance(error, (RuntimeError, TypeError, ValueError, OverflowError)) and _NO_ADDRESS.search(text):
        return "out of memory: needs more than can be addressed"
    if isinstance(error, RuntimeError) and _LAPACK.search(text):
        return "a matrix is too large for LAPACK, which counts with 32 bits: lower model.H, or start without an SVD"
    full = isinstance(error, RuntimeError) and _FULL.search(text)
    no_memory = isinstance(error, OSError) and error.errno == errno.ENOMEM
    if not (full or no_memory or isinstance(error, (MemoryError, torch.OutOfMemoryError))):
        return None
    asked = _ASKED.search(text)
    if asked is None or asked["unit"] not in _UNITS:
        return "out of memory"
    return f"out of memory: needs at least {size(float(asked['count']) * _UNITS[asked['unit']])} more"
