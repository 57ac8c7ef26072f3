"""The parts of `python -m tprnn.bench.gpu`: each runs in a process of its own and tells its rows as they come."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tprnn.bench.cards import card_of, floor_of
from tprnn.bench.gpu_sizes import Sizes
from tprnn.compose import compose
from tprnn.config import RunSpec
from tprnn.cost.modelled import shape_of
from tprnn.engine.ensemble import Ensemble, prepare_process
from tprnn.engine.runs import commit
from tprnn.trainers.base import State

ROOT = Path(__file__).parent.parent.parent
Row = dict[str, Any]
FACTS = "facts"
"""The key of what results were made on."""


@dataclass(frozen=True)
class Setting:
    """What a part works with."""

    device: str
    sizes: Sizes
    folder: Path
    """For runs."""
    rows: dict[str, Row]
    """What earlier calls found, by key."""
    tell: Callable[[str, Row], None]
    """Takes a row under its key, at once and for good; the same key replaces it."""

    @property
    def on_gpu(self) -> bool:
        """Whether this is no rehearsal."""
        return self.device != "cpu"

    def wait(self) -> None:
        """Until the device has done all that it was told."""
        if self.on_gpu:
            torch.cuda.synchronize()


def specs_of(setting: Setting, trainer: str, T: int, R: int, *words: str) -> list[RunSpec]:
    """R runs of temporal order that differ in their seeds."""
    lines = ["task=temporal_order", f"trainer={trainer}", f"task.T={T}", "probe=none", *setting.sizes.words, *words]
    first = compose([*lines, f"device={setting.device}"])
    return [first.replace({"seed": seed}) for seed in range(R)]


# ---- the machine


def same_machine(one: Row, other: Row) -> bool:
    """Whether two calls may go on with each other."""
    return all(one.get(name) == other.get(name) for name in ("card", "torch", "cpu", "cores"))


def facts(device: str) -> Row:
    """What the results were made on."""
    found: Row = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": importlib.import_module("numba").__version__,
        "system": platform.platform(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "commit": commit(),
        "card": None,
    }
    if device != "cpu":
        card = torch.cuda.get_device_properties(device)
        found |= {
            "card": card.name,
            "card_memory_gib": round(card.total_memory / 2**30, 1),
            "multiprocessors": card.multi_processor_count,
            "cuda": torch.version.cuda,
            "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        }
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def machine(setting: Setting) -> None:
    """Its names, and its rates: of a large product, a copy, a chain of small kernels, and factorisations [100, 100]."""
    found = facts(setting.device)
    setting.tell(FACTS, found)
    if "rates" in setting.rows and same_machine(setting.rows[FACTS], found):
        return
    setting.tell("rates", rates(setting, setting.sizes.square))


def rates(setting: Setting, n: int) -> Row:
    """FLOP/s and bytes/s by matrices [n, n] and four times as much."""
    matrices = torch.randn(4, n, n, device=setting.device)
    copy = torch.empty_like(matrices)
    found: Row = {
        "flops": 2.0 * n**3 / _seconds(setting, lambda: matrices[0] @ matrices[1]),
        "bytes_per_second": 2.0 * matrices.nbytes / _seconds(setting, lambda: copy.copy_(matrices)),
        "kernel_us": chain_us(setting) if setting.on_gpu else None,
    }
    small = torch.randn(8, 100, 100, device=setting.device)
    for place, x in (("", small), ("_cpu", small.cpu())):
        found[f"eigenvalues_ms{place}"] = _seconds(setting, partial(torch.linalg.eigvals, x), 2) / len(x) * 1e3
        found[f"svd_ms{place}"] = _seconds(setting, partial(torch.linalg.svd, x.double()), 2) / len(x) * 1e3
    return found


def _seconds(setting: Setting, call: Callable[[], object], count: int = 10) -> float:
    call()
    setting.wait()
    start = time.perf_counter()
    for _ in range(count):
        call()
    setting.wait()
    return (time.perf_counter() - start) / count


def chain_us(setting: Setting, length: int = 1000) -> float:
    """Microseconds of a product [20, 100] x [100, 100] in a graph of products of which each waits for the last."""
    h, W = torch.zeros(20, 100, device=setting.device), torch.zeros(100, 100, device=setting.device)
    out = torch.empty_like(h)
    torch.mm(h, W, out=out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(length // 2):
            torch.mm(h, W, out=out)
            torch.mm(out, W, out=h)
    return _seconds(setting, graph.replay) / length * 1e6


# ---- tests


class _Recorder:
    """A plugin of pytest that tells each test's outcome, and leaves out what has passed before."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [one for one in items if self.setting.rows.get(one.nodeid, {}).get("outcome") != "passed"]

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or (report.outcome != "passed" and report.when == "setup"):
            row: Row = {"outcome": report.outcome, "seconds": round(report.duration, 2), **dict(report.user_properties)}
            if report.skipped:
                row["why"] = report.longrepr[2]
            elif report.failed:
                row["why"] = str(report.longrepr)[-1500:]
            self.setting.tell(report.nodeid, row)


def tests(setting: Setting) -> None:
    """The tests with the marker `gpu`. Raises RuntimeError where one fails."""
    import pytest

    file = ROOT / "tests" / "engine" / "test_gpu.py"
    os.environ |= {"TPRNN_TEST_DEVICE": setting.device, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    os.chdir(ROOT)
    words = ["-m", "gpu", "-k", setting.sizes.tests, "-p", "no:cacheprovider", str(file)]
    code = pytest.main(words, plugins=[_Recorder(setting)])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError(f"pytest ended with {int(code)}")


# ---- times


class _Calls(TorchDispatchMode):
    """Counts what is called but views: about as many kernels."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


def times(setting: Setting, trainers: Sequence[str]) -> None:
    """ms per run-iteration of every rule, T and R, beside the floor. Raises RuntimeError after all where some broke."""
    broken = []
    for trainer, T, R in itertools.product(trainers, setting.sizes.lengths, setting.sizes.stacks):
        key = f"{trainer}, T = {T}, R = {R}"
        if key not in setting.rows:
            try:
                setting.tell(key, {"trainer": trainer, "T": T, "R": R} | _cell(setting, trainer, T, R))
            except RuntimeError as error:
                broken.append(f"{key}: {str(error).splitlines()[0]}")
    if broken:
        raise RuntimeError("; ".join(broken))


def _cell(setting: Setting, trainer: str, T: int, R: int) -> Row:
    if setting.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        return measured(setting, trainer, T, R)
    except torch.OutOfMemoryError as error:
        return {"left_out": str(error).splitlines()[0]}


@torch.inference_mode()
def measured(setting: Setting, trainer: str, T: int, R: int) -> Row:
    """One cell: whole iterations, data and updates included, as `Ensemble.advance` has them."""
    specs = specs_of(setting, trainer, T, R)
    ensemble = Ensemble(specs, setting.device, repeated_start(setting, specs))
    ensemble.advance()
    with _Calls() as calls:
        ensemble.advance()
    plain = _timed(setting, ensemble, 1)
    record = _timed(setting, ensemble, 1)
    each = max(_timed(setting, ensemble, 1), 1e-6)
    count = max(1, int(setting.sizes.seconds / 3 / each))
    rounds = [_timed(setting, ensemble, count) for _ in range(3)]
    seconds = statistics.median(rounds)
    row: Row = {
        "ms": seconds / R * 1e3,
        "iteration_ms": seconds * 1e3,
        "spread": (max(rounds) - min(rounds)) / seconds,
        "iterations": 3 * count,
        "call_by_call_ms": plain / R * 1e3,
        "record_s": round(record, 3),
        "calls": calls.count,
        "recorded": ensemble._graph is not None and ensemble._graph.graph is not None,
    }
    if setting.on_gpu:
        row["memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        if card := card_of(torch.cuda.get_device_name(setting.device)):
            floor = floor_of(shape_of(specs[0]), R, card)
            row |= {"flops_ms": floor.flops / R * 1e3, "bytes_ms": floor.bytes / R * 1e3}
            row |= {"floor_ms": floor.seconds / R * 1e3, "ratio": seconds / floor.seconds}
    return row


def _timed(setting: Setting, ensemble: Ensemble, count: int) -> float:
    setting.wait()
    start = time.perf_counter()
    for _ in range(count):
        ensemble.advance()
    setting.wait()
    return (time.perf_counter() - start) / count


def repeated_start(setting: Setting, specs: Sequence[RunSpec], distinct: int = 4) -> State:
    """The start of a few runs, over and over: to draw orthogonal weights for a thousand runs takes half a minute."""
    few = Ensemble([spec.replace({"device": "cpu"}) for spec in specs[:distinct]]).state.flat()
    rows = torch.arange(len(specs)) % min(distinct, len(specs))
    return State.from_flat({name: value[rows].to(setting.device) for name, value in few.items()})


def core(setting: Setting) -> None:
    """ms per run-iteration on one core of the machine's CPU, compiled, a run by itself as the engine has them."""
    from tprnn.bench.__main__ import rounds

    cpu = replace(setting, device="cpu")
    for trainer in (*setting.sizes.first, *setting.sizes.then):
        for T in setting.sizes.lengths:
            key = f"{trainer}, T = {T}"
            if key in setting.rows:
                continue
            ensemble = Ensemble(specs_of(cpu, trainer, T, 1))

            @torch.inference_mode()
            def iterate(ensemble: Ensemble = ensemble) -> None:
                ensemble.advance()

            (found,) = rounds([iterate], setting.sizes.seconds)
            setting.tell(key, {"trainer": trainer, "T": T, "ms": found.median, "spread": found.spread})


# ---- the same bits


def bits(setting: Setting) -> None:
    """States of some iterations, hashed: twice in each of two processes. Raises RuntimeError where they differ."""
    context = multiprocessing.get_context("fork")
    T, R = setting.sizes.lengths[0], setting.sizes.stacks[1]
    for trainer in (*setting.sizes.first, *setting.sizes.then):
        if trainer in setting.rows:
            continue
        hashes: list[str] = []
        for _ in range(2):
            receiving, sending = context.Pipe(duplex=False)
            process = context.Process(target=_hashes, args=(setting, trainer, T, R, sending))
            process.start()
            sending.close()
            try:
                hashes += receiving.recv()
            except EOFError:
                raise RuntimeError(f"{trainer}: the process that was to hash its states broke off") from None
            process.join()
        setting.tell(trainer, {"T": T, "R": R, "iterations": _HASHED, "sha256": hashes, "equal": len(set(hashes)) == 1})
        if len(set(hashes)) > 1:
            raise RuntimeError(f"{trainer}: not the same bits every time")


_HASHED = 40


@torch.inference_mode()
def _hashes(setting: Setting, trainer: str, T: int, R: int, sending: Connection) -> None:
    prepare_process(threads=1)
    found = []
    for _ in range(2):
        ensemble = Ensemble(specs_of(setting, trainer, T, R), setting.device)
        for _ in range(_HASHED):
            ensemble.advance()
        digest = hashlib.sha256()
        for name, value in sorted(ensemble.state.flat().items()):
            digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        found.append(digest.hexdigest())
    sending.send(found)
