"""What computes here, as far as it decides the last bits of a result."""

from __future__ import annotations

import functools
import platform
import re
import sys
from pathlib import Path

import torch

_PRODUCTS = "scipy.linalg.cython_blas"  # where compiled code has its products from, once it is used


def machine() -> dict[str, str]:
    """Processor, instruction set, the BLAS of PyTorch and that of compiled code, operating system.

    Of what is not known (the BLAS of compiled code before its first use) there is no word.
    """
    return dict(_machine(_PRODUCTS in sys.modules))


@functools.cache
def _machine(compiled: bool) -> dict[str, str]:
    found = {
        "cpu": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "blas": _blas_of_pytorch(),
        "compiled_blas": _blas_of_scipy() if compiled else "",
        "system": platform.platform(),
    }
    return {name: value for name, value in found.items() if value}


def _processor() -> str:
    try:
        named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # not Linux
        named = None
    return named[1].strip() if named else platform.processor() or platform.machine()


def _blas_of_pytorch() -> str:
    """`MKL 2024.2`, or the name of another library: PyTorch is built with one."""
    build = torch.__config__.show()
    if mkl := re.search(r"Math Kernel Library Version ([\d.]+)", build):
        return f"MKL {mkl[1]}"
    other = re.search(r"BLAS_INFO=(\w+)", build)
    return other[1] if other else ""


def _blas_of_scipy() -> str:
    """`openblas 0.3.30 Haswell`: the library, its version and the kernels that it chose for this processor."""
    from threadpoolctl import threadpool_info

    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    # numpy brings a library of its own, of nearly the same name
    own = [library for library in libraries if "scipy" in Path(library["filepath"]).parent.name] or libraries
    parts = [own[0].get(key) for key in ("internal_api", "version", "architecture")] if own else []
    return " ".join(str(part) for part in parts if part)
