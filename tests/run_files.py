"""What the tests of the store share: contents of run folders, and other processes that work on them."""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import torch

RESULT = {"status": "solved", "iterations": 300, "accuracy": 1.0, "best_accuracy": 1.0, "loss": 0.01, "seconds": 2.5}
STATE = {"iteration": 200, "best": 0.1, "text": "Grüße", "none": None}


def some_tensors(shift: float = 0.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "W_hh": torch.randn(5, 5, generator=generator) + shift,
        "double": torch.randn(3, generator=generator, dtype=torch.float64),
        "steps": torch.tensor(2**60 + 1),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "odd": torch.tensor([math.nan, math.inf, -math.inf, -0.0, 1e-45]),
        "empty": torch.zeros(0, 4),
    }


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype
        and a[k].shape == b[k].shape
        and a[k].contiguous().numpy().tobytes() == b[k].contiguous().numpy().tobytes()
        for k in a
    )


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def in_process(code: str, *args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)
