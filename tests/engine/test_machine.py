"""A result says what it was made on."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch
from quick_runs import quick
from run_files import in_process

from tprnn.engine import machine
from tprnn.sweep.run import run_all


def test_a_result_says_what_it_was_made_on(tmp_path: Path) -> None:
    (outcome,) = run_all([quick(tmp_path)])
    assert outcome.result is not None
    made_on = outcome.result["machine"]
    assert set(made_on) == {"cpu", "instructions", "blas", "compiled_blas", "system"}
    assert made_on["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert made_on["system"] == platform.platform()
    assert outcome.result["versions"]["numba"]


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="asks Linux")
def test_the_processor_is_the_one_that_the_system_names() -> None:
    assert f": {machine.machine()['cpu']}\n" in Path("/proc/cpuinfo").read_text() or platform.machine() != "x86_64"


def test_nothing_is_imported_for_a_machine_that_is_not_imported_already() -> None:
    code = """
        import sys, torch
        from tprnn.engine.machine import machine
        before = set(sys.modules)
        assert "compiled_blas" not in machine()
        print(sorted({name.split(".")[0] for name in set(sys.modules) - before}))
        """
    found = in_process(code)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "[]"


def test_the_kernels_of_another_processor_are_told() -> None:
    code = """
        from tprnn.core.scans import kernels
        from tprnn.engine.machine import machine
        kernels()
        print(machine()["compiled_blas"])
        """
    found = in_process(code, env={"OPENBLAS_CORETYPE": "Nehalem", "PATH": "", "HOME": str(Path.home())})
    assert found.returncode == 0, found.stderr
    assert "openblas" not in found.stdout or "Nehalem" in found.stdout
