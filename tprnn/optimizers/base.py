"""The contract of an optimizer: update rules on stacked parameters, in place, with a rate per run."""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from tprnn.core import scans


def per_run(values: list[Any], dtype: torch.dtype, device: str | torch.device) -> Tensor | float:
    """A hyper-parameter of R runs: a plain number where all agree, else [R]."""
    if all(value == values[0] for value in values):
        return float(values[0])
    return torch.tensor(values, dtype=dtype, device=device)


def like(value: Tensor | float, w: Tensor) -> Tensor | float:
    """A per-run hyper-parameter shaped to broadcast over w [R, ...]."""
    return value.view(-1, *[1] * (w.dim() - 1)) if isinstance(value, Tensor) else value


def step_(w: Tensor, x: Tensor, rate: Tensor | float, sign: float) -> Tensor:
    """w + sign rate x, in place and in one pass; `rate` a number or a tensor that broadcasts over w."""
    if isinstance(rate, Tensor):
        return w.addcmul_(x, rate, value=sign)
    return w.add_(x, alpha=sign * rate)


def flat(x: Tensor) -> Any:
    """A contiguous tensor [R, ...] as an array [R, N] of the same memory."""
    return (x if x.dim() == 2 else x.view(len(x), -1)).numpy()


def wide(rate: Tensor | float, w: Tensor) -> Any:
    """The rate of an update of w [R, ...] as an array [R, 1] or [R, N]."""
    if isinstance(rate, Tensor):
        return scans.array(rate.reshape(len(w), -1))
    return _column(len(w), rate, w.dtype)


@functools.lru_cache
def _column(R: int, rate: float, dtype: torch.dtype) -> Any:
    return torch.full((R, 1), rate, dtype=dtype).numpy()


class Optimizer(ABC):
    """`Settings` are its YAML keys; `slots` name the tensors it keeps for each parameter."""

    Settings: ClassVar[Any]
    slots: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: list[Any], dtype: torch.dtype, device: str | torch.device) -> None:
        for entry in dataclasses.fields(self.Settings):
            setattr(self, entry.name, per_run([getattr(one, entry.name) for one in settings], dtype, device))
        self.settings, self.dtype, self.device = settings, dtype, device
        self._rests: dict[tuple[str, torch.dtype], Tensor | float] = {}
        self.compiled = scans.compilable(dtype, device)
        """Whether a rule that has a compiled update (_compiled.py) may use it."""
        self._arrays: dict[str, Any] = {}

    def rest(self, name: str, dtype: torch.dtype | None = None) -> Tensor | float:
        """1 - beta for the setting beta: taken before rounding, whose error would be a thousand times larger after."""
        dtype = dtype or self.dtype
        if (name, dtype) not in self._rests:
            self._rests[name, dtype] = per_run([1.0 - getattr(one, name) for one in self.settings], dtype, self.device)
        return self._rests[name, dtype]

    def array(self, name: str, rest: bool = False) -> Any:
        """A setting, or 1 - it, of each run [R], as compiled updates take it."""
        key = f"{name} rest" if rest else name
        if key not in self._arrays:
            values = [getattr(one, name) for one in self.settings]
            numbers = [1.0 - value if rest else value for value in values]
            self._arrays[key] = torch.tensor(numbers, dtype=torch.float64).numpy()
        return self._arrays[key]

    def start(self, w: Tensor) -> dict[str, Tensor]:
        """The slots of a parameter w [R, ...] before the first update."""
        return {slot: torch.zeros_like(w) for slot in self.slots}

    @abstractmethod
    def update(self, w: Tensor, g: Tensor, rate: Tensor | float, slots: Mapping[str, Tensor]) -> None:
        """One step of w [R, ...] against its gradient g, in place; may overwrite g. `rate` broadcasts over w."""
