"""Which recurrences run compiled, and PyTorch's tensors as the arrays that compiled code takes."""

from __future__ import annotations

import contextlib
import functools
import importlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from tprnn.core.activations import Activation, Tanh

COMPILED = {torch.float32}
"""Not float64: math.tanh, one number at a time, costs more than PyTorch's calls."""


def compiled(activation: Activation, dtype: torch.dtype, device: str | torch.device) -> bool:
    """Whether a network's recurrences run compiled (core/compiled.py): tanh, float32, CPU."""
    return type(activation) is Tanh and compilable(dtype, device)


def compilable(dtype: torch.dtype, device: str | torch.device) -> bool:
    """Whether what has no activation (updates) runs compiled: float32, CPU."""
    return dtype in COMPILED and torch.device(device).type == "cpu"


@functools.cache
def kernels(name: str = "compiled") -> Any:
    """A file of core/, imported when a network first needs it: Numba takes longer to import than `--help` may take."""
    with _waiting():
        importlib.import_module("scipy.linalg.cython_blas")  # whose products Numba takes
        from threadpoolctl import threadpool_limits

        found = importlib.import_module(f"tprnn.core.{name}")
        # products of this size lose by threads, and processes share the cores
        threadpool_limits(1, user_api="blas")
        return found


class _Waits:
    """Time in which nothing is computed because code is made ready; what is compiled within that counts once."""

    depth = 0
    since = 0.0
    seconds = 0.0

    def begin(self) -> None:
        if self.depth == 0:
            self.since = time.perf_counter()
        self.depth += 1

    def end(self) -> None:
        self.depth -= 1
        if self.depth == 0:
            self.seconds += time.perf_counter() - self.since


_WAITS = _Waits()


@contextlib.contextmanager
def _waiting() -> Iterator[None]:
    _WAITS.begin()
    try:
        yield
    finally:
        _WAITS.end()


def clock() -> float:
    """Seconds that pass in work alone: `time.perf_counter()` without waits for code (under `on_compilation`)."""
    return time.perf_counter() - _WAITS.seconds


@contextlib.contextmanager
def on_compilation(tell: Callable[[], None]) -> Iterator[None]:
    """Calls `tell` whenever something is compiled meanwhile: seconds that a machine spends once."""
    from numba.core import event

    class Listener(event.Listener):
        def on_start(self, event: Any) -> None:
            _WAITS.begin()
            tell()

        def on_end(self, event: Any) -> None:
            _WAITS.end()

    depth = _WAITS.depth
    try:
        with event.install_listener("numba:compile", Listener()):
            yield
    finally:  # a compilation that was broken off tells no end
        while _WAITS.depth > depth:
            _WAITS.end()


def array(x: Tensor) -> Any:
    """A tensor as a C-contiguous array, without a copy where it is one."""
    return x.contiguous().numpy()


def numbers(value: Tensor | float, R: int) -> Any:
    """A per-run number as [R], float64."""
    found = value.double() if isinstance(value, Tensor) else torch.full((R,), value, dtype=torch.float64)
    return found.numpy()


def starts(start: Tensor | None, R: int) -> Any:
    """Empty steps before each sequence [R, B]; [R, 0] where there are none."""
    return nothing(torch.int64, R, 0) if start is None else array(start)


@functools.cache
def nothing(dtype: torch.dtype, *shape: int) -> Any:
    """An array without entries, made once."""
    return torch.empty(shape, dtype=dtype).numpy()
