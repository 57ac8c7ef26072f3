"""The memory of a run, estimated from its shapes, beside what is allocated; what is free; what want of it is called."""

from __future__ import annotations

import errno
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import image_files
import numba
import numpy as np
import psutil
import pytest
import torch
from conftest import MEMBERS, OPTIMIZERS, TASKS, make_spec

from tprnn.core import scans
from tprnn.core.allocations import Allocations
from tprnn.core.init import svd_bytes
from tprnn.cost import memory
from tprnn.cost import modelled as cost
from tprnn.engine.ensemble import Ensemble
from tprnn.engine.memory import ran_out, size

# ---- the estimate


def allocated(changes: dict[str, Any], **choices: str) -> tuple[float, int]:
    """The estimate for a run, and the most that its tensors take over some iterations and two checks."""
    spec = make_spec({"train.check_every": 2} | changes, **choices)
    with torch.inference_mode(), Allocations() as counted:
        ensemble = Ensemble([spec])
        for _ in range(4):  # batches are drawn a second time
            ensemble.advance()
        for check in range(2):
            ensemble.validate([check], [False])
    return cost.stack_bytes(spec, 1), counted.peak


SHAPES = [(100, 100, 20, 1200), (20, 60, 30, 100), (20, 20, 300, 10)]
PICKED = [
    *itertools.product(MEMBERS["trainer"], ["temporal_order"], SHAPES),
    *itertools.product(["bptt", "tptt"], TASKS, SHAPES[1:2]),
]


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(("trainer", "task", "shape"), PICKED, ids=str)
def test_no_run_takes_less_than_is_estimated(
    trainer: str, task: str, shape: tuple[int, ...], compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scans, "COMPILED", {torch.float32} if compiled else set())
    monkeypatch.setattr(cost, "_STEP_BYTES", 0)  # of views, which are no allocations of tensors
    T, H, B, V = shape
    changes = {"task.T": T, "model.H": H, "train.batch_size": B, "train.validation_size": V}
    estimated, peak = allocated(changes, trainer=trainer, task=task)
    assert estimated <= 1.001 * peak
    assert estimated >= 0.4 * peak or (not compiled and B >= 300), f"{estimated / peak:.2f}"


@pytest.mark.parametrize("order", ["file", "shuffled"])
def test_a_run_on_images_takes_what_is_estimated(order: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cost, "_STEP_BYTES", 0)
    image_files.install(monkeypatch).write(tmp_path)
    changes = {"data": str(tmp_path), "task.order": order, "train.batch_size": 100, "train.validation_size": 20}
    estimated, peak = allocated(changes, task="mnist_sequential")
    assert 0.4 * peak <= estimated <= 1.001 * peak, f"{estimated / peak:.2f}"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parameters_slots_and_gradients_are_counted(optimizer: str, dtype: str) -> None:
    changes = {"task.T": 10, "model.H": 300, "train.batch_size": 1, "train.validation_size": 1, "dtype": dtype}
    estimated, peak = allocated(changes | {"model.init": "gaussian"}, optimizer=optimizer)
    assert 0.6 * peak <= estimated <= 1.001 * peak


GROWTH = """
import torch
from tprnn.core.init import orthogonal
from tprnn.core.streams import Stream
torch.set_num_threads(1)
def status(name):
    return 1024 * next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
orthogonal(Stream([0], ""), 10, 10, torch.float32)
before = status("VmRSS:")
orthogonal(Stream([0], ""), 700, 700, torch.float32)
print(status("VmHWM:") - before)
with torch.inference_mode():
    before = status("VmRSS:")
    views = torch.zeros(1, 300_000, 1, 1).squeeze(0).unbind(-3)
    print((status("VmRSS:") - before) / 300_000)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory of a process as Linux tells it")
def test_what_is_no_tensor_is_as_measured() -> None:
    """LAPACK's work for the SVD of a start, and the view that every buffer has of each step."""
    done = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True)
    svd, view = map(float, done.stdout.split())
    assert 0.8 * svd <= sum(svd_bytes(700, 700)) <= svd
    assert 0.7 * view <= cost._STEP_BYTES <= view


def test_the_start_counts_where_the_network_is_wide() -> None:
    wide = make_spec({"model.H": 30_000})
    assert cost.stack_bytes(wide, 1) == sum(svd_bytes(30_000, 30_000))
    assert cost.stack_bytes(wide.replace({"model.init": "gaussian"}), 1) < 0.5 * cost.stack_bytes(wide, 1)


def test_an_estimate_takes_no_memory_of_the_runs_size() -> None:
    huge = {"task.T": 10**9, "train.batch_size": 10**9, "model.H": 10**9}
    with Allocations() as counted:
        assert cost.stack_bytes(make_spec(huge, trainer="tptt"), 1) > 10**27  # beyond 2^63: no overflow
    on_meta = counted.peak  # counts tensors without values too
    assert on_meta < 2**40


def test_runs_that_wait_for_their_turn_need_parameters_alone_and_a_gpu_computes_all_at_once() -> None:
    spec = make_spec({"task.T": 100})
    one, eight, many = (cost.stack_bytes(spec, R) for R in (1, 8, 64))
    assert one < eight < 2 * one
    assert many - eight == 8 * (eight - one)
    at_once = [cost.stack_bytes(spec.replace({"device": "cuda"}), R) for R in (1, 8)]
    assert 5 * at_once[0] < at_once[1] < 8 * at_once[0]


# ---- what is free


def groups(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_control_groups_of_version_2_and_those_around_them(tmp_path: Path) -> None:
    mount = groups(
        tmp_path / "fs",
        {
            "cgroup.controllers": "memory",
            "outer/memory.max": "1000",
            "outer/memory.current": "700",
            "outer/memory.stat": "anon 400\ninactive_file 200\nactive_file 50\n",
            "outer/inner/memory.max": "max",
            "outer/inner/memory.current": "10",
        },
    )
    process = groups(tmp_path, {"cgroup": "0::/outer/inner\n"}) / "cgroup"
    assert list(memory.control_groups(process, mount)) == [1000 - 700 + 250]


def test_control_groups_of_version_1(tmp_path: Path) -> None:
    stat = "inactive_file 1\ntotal_inactive_file 30\ntotal_active_file 5\n"
    files = {"memory.limit_in_bytes": "500", "memory.usage_in_bytes": "450", "memory.stat": stat}
    process = groups(tmp_path, {"cgroup": "5:cpu:/a\n4:memory:/a\n0::/\n"}) / "cgroup"
    mount = groups(tmp_path / "fs", {f"memory/a/{name}": text for name, text in files.items()})
    assert list(memory.control_groups(process, mount)) == [85]
    inside = groups(tmp_path / "inside", {f"memory/{name}": text for name, text in files.items()})
    assert list(memory.control_groups(process, inside)) == [85], "a container does not see its group's name"


def test_no_control_groups_no_limit(tmp_path: Path) -> None:
    assert list(memory.control_groups(tmp_path / "none", tmp_path)) == []
    assert 0 < memory.free_bytes("cpu") <= psutil.virtual_memory().total + psutil.swap_memory().total


def test_the_least_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    limit = psutil.Process().memory_info().vms + 2**26
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, resource.RLIM_INFINITY))
    assert 2**25 < memory.free_bytes("cpu") <= 2**26
    monkeypatch.setattr(memory, "control_groups", lambda: iter([12345]))
    assert memory.free_bytes("cpu") == 12345


# ---- what is said where it is too little


@numba.njit
def _compiled(n: int) -> Any:
    return np.empty(n)


FAILS: list[tuple[Callable[[], Any], str]] = [
    (lambda: torch.empty(10**15), "needs at least 3.6 PiB more"),
    (lambda: torch.zeros(1).expand(10**15).contiguous(), "needs at least 3.6 PiB more"),
    (lambda: torch.empty(10**10, 10**10), "needs more than can be addressed"),
    (lambda: torch.empty(10**20), "needs more than can be addressed"),
    (lambda: torch.empty(2, 2**61, dtype=torch.int64, device="meta"), "needs more than can be addressed"),
    (lambda: np.empty(10**15), "needs at least 7.1 PiB more"),
    (lambda: np.empty((10**10, 10**10)), "needs more than can be addressed"),
    (lambda: np.empty(10**20), "needs more than can be addressed"),
    (lambda: [0] * 10**15, "out of memory"),
    (lambda: [0] * 10**20, "needs more than can be addressed"),
    (lambda: _compiled(10**15), "out of memory"),
]


@pytest.mark.parametrize("index", range(len(FAILS)))
def test_an_allocation_that_fails_is_told_in_one_line(index: int) -> None:
    fail, line = FAILS[index]
    with pytest.raises((RuntimeError, TypeError, ValueError, MemoryError, OverflowError)) as caught:
        fail()
    assert ran_out(caught.value) == (line if line == "out of memory" else f"out of memory: {line}")


SVD = (
    'false INTERNAL ASSERT FAILED at "/aten/src/ATen/native/BatchLinearAlgebra.cpp":1613, please report a bug to '
    "PyTorch. linalg.svd: Argument 12 has illegal value. Most certainly there is a bug in the implementation calling"
)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has"), "at least 20 GiB more"),
        (RuntimeError("CUDA error: out of memory\nCompile with"), "out of memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), "out of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory"),
        (RuntimeError(SVD), "too large for LAPACK"),
    ],
    ids=str,
)
def test_errors_of_other_machines_are_told_in_one_line(error: Exception, line: str) -> None:
    """As they were seen: a GPU, and an SVD of 27,000 rows, which takes 12 GiB to fail."""
    assert line in (ran_out(error) or "")


@pytest.mark.parametrize(
    "fail",
    [
        lambda: torch.zeros(2, 3) @ torch.zeros(2, 3),
        lambda: torch.linalg.cholesky(-torch.eye(3)),
        lambda: torch.empty(-1),
        lambda: [][0],
        lambda: Path("/no/such/file").read_text(),
    ],
)
def test_other_errors_are_left_as_they_are(fail: Callable[[], Any]) -> None:
    with pytest.raises((RuntimeError, IndexError, OSError)) as caught:
        fail()
    assert ran_out(caught.value) is None


def test_sizes_have_the_unit_that_fits() -> None:
    assert [size(2.0**n) for n in (10, 20, 35, 45, 55, 75)] == [
        *("0.0 MiB", "1.0 MiB", "32 GiB", "32 TiB", "32 PiB", "32,768 EiB")
    ]
