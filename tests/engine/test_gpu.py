"""What only a GPU can show: its bits, its graphs, its memory. `make gpu` runs these first.

TPRNN_TEST_DEVICE=cpu runs them on a CPU, where nothing can be recorded: a rehearsal, which finds mistakes of the tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import image_files
import pytest
import torch
from conftest import MEMBERS, TASKS, make_spec
from quick_runs import QUICK, After, strip

from tprnn.config import RunSpec
from tprnn.engine.ensemble import Ensemble
from tprnn.engine.loop import work_through
from tprnn.engine.queue import Queue
from tprnn.store import Store
from tprnn.sweep.run import run_all
from tprnn.trainers.base import State

DEVICE = os.environ.get("TPRNN_TEST_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a GPU: PyTorch sees none"),
]
records = pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU: a CPU records no graphs")
ITERATIONS = 8  # three of them before a recording
Record = Any


def specs_of(count: int = 3, changes: dict[str, Any] | None = None, **choices: str) -> list[RunSpec]:
    return [make_spec({"task.T": 20} | (changes or {}) | {"seed": seed}, **choices) for seed in range(count)]


def advanced(ensemble: Ensemble, iterations: int = ITERATIONS) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        for _ in range(iterations):
            ensemble.advance()
        return {name: value.cpu() for name, value in (ensemble.state.flat() | {"loss_sum": ensemble.loss_sum}).items()}


def bits(found: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {name: value.contiguous().numpy().tobytes() for name, value in found.items()}


@torch.inference_mode()
def ensemble_on(device: str, specs: list[RunSpec], state: State | None = None) -> Ensemble:
    return Ensemble(specs, device, state)


@pytest.mark.parametrize("R", [1, 3])
@pytest.mark.parametrize("trainer", MEMBERS["trainer"])
def test_the_same_bits_every_time(trainer: str, R: int) -> None:
    specs = specs_of(R, trainer=trainer)
    assert bits(advanced(ensemble_on(DEVICE, specs))) == bits(advanced(ensemble_on(DEVICE, specs)))


@records
@pytest.mark.parametrize("R", [1, 3])
@pytest.mark.parametrize("trainer", MEMBERS["trainer"])
def test_recorded_iterations_are_the_plain_ones(trainer: str, R: int, record_property: Record) -> None:
    specs = specs_of(R, trainer=trainer)
    recorded, plain = ensemble_on(DEVICE, specs), ensemble_on(DEVICE, specs)
    plain._graph = None
    with warnings.catch_warnings(record=True) as refusals:
        warnings.simplefilter("always")
        found = advanced(recorded)
    record_property("recorded", not refusals)
    assert recorded._graph is not None
    assert (recorded._graph.graph is None) == bool(refusals)
    assert bits(found) == bits(advanced(plain))


@pytest.mark.parametrize("task", TASKS)
def test_the_data_are_those_of_the_cpu_to_the_bit(task: str) -> None:
    same_data(specs_of(task=task, trainer="bptt"))


@pytest.mark.parametrize("settings", [{}, {"order": "shuffled", "permuted": True, "subset": 1}], ids=str)
def test_images_are_those_of_the_cpu_to_the_bit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: dict[str, Any]
) -> None:
    image_files.install(monkeypatch).write(tmp_path)
    changes = {"data": str(tmp_path), "dtype": "float64", "train.validation_size": 5}
    changes |= {f"task.{key}": value for key, value in settings.items()}
    same_data([make_spec(changes | {"seed": seed}, task="mnist_sequential") for seed in range(3)])


def same_data(specs: list[RunSpec]) -> None:
    there, here = ensemble_on(DEVICE, specs), ensemble_on("cpu", specs)
    for of_there, of_here in [
        *zip(there.batches(there.positions, 3), here.batches(here.positions, 3), strict=True),
        (there.draw("validation", 7, 50)[0], here.draw("validation", 7, 50)[0]),
    ]:
        assert torch.equal(of_there.inputs.cpu(), of_here.inputs)
        assert torch.equal(of_there.targets.cpu(), of_here.targets)
        assert (of_there.start is None) == (of_here.start is None)
        if of_there.start is not None and of_here.start is not None:
            assert torch.equal(of_there.start.cpu(), of_here.start)


@pytest.mark.parametrize("init", ["orthogonal", "gaussian"])
def test_weights_begin_as_on_the_cpu(init: str) -> None:
    """Logarithms and singular vectors round in another way."""
    specs = specs_of(changes={"model.init": init, "dtype": "float64"}, trainer="tptt")
    there, here = ensemble_on(DEVICE, specs).state.flat(), ensemble_on("cpu", specs).state.flat()
    for name, value in here.items():
        assert torch.allclose(there[name].cpu(), value, rtol=1e-8, atol=1e-10), name


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("trainer", MEMBERS["trainer"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])  # in this order: the second compiles on the CPU first
def test_an_iteration_is_that_of_the_cpu(trainer: str, task: str, dtype: str) -> None:
    """From the same start; sums differ in their order only."""
    specs = specs_of(changes={"dtype": dtype}, trainer=trainer, task=task)
    here = ensemble_on("cpu", specs)
    start = State.from_flat({name: value.to(DEVICE, copy=True) for name, value in here.state.flat().items()})
    there = ensemble_on(DEVICE, specs, start)
    found, expected = advanced(there, 1), advanced(here, 1)
    tolerance = {"rtol": 1e-9, "atol": 1e-11} if dtype == "float64" else {"rtol": 1e-3, "atol": 1e-5}
    for name, value in expected.items():
        assert torch.allclose(found[name], value.to(found[name].dtype), **tolerance), name


def contents(specs: list[RunSpec]) -> list[Any]:
    folders = [Store(spec.execution["outputs"]).folder(spec) for spec in specs]
    return [
        (strip(folder.read_metrics()), {name: w.tolist() for name, w in folder.load_model()[0].items()})
        for folder in folders
    ]


def runs_in(folder: Path) -> list[RunSpec]:
    changes = QUICK | {"outputs": str(folder), "device": DEVICE, "trainer.noise": 0.05}
    return specs_of(changes=changes, trainer="tptt", probe="default")


def test_a_run_goes_on_from_its_checkpoint_to_the_same_bits(tmp_path: Path) -> None:
    straight, broken = runs_in(tmp_path / "straight"), runs_in(tmp_path / "broken")
    run_all(straight)
    for looks in (7, 26):  # in the middle of blocks: before a graph is recorded, and after
        work_through(Queue(broken), Store(tmp_path / "broken"), After(looks), lambda *event: None)
    assert {Store(tmp_path / "broken").folder(spec).result()["status"] for spec in broken} == {"interrupted"}
    run_all(broken)
    assert contents(broken) == contents(straight)


def test_a_cpu_goes_on_with_what_a_gpu_began(tmp_path: Path) -> None:
    specs = runs_in(tmp_path)
    work_through(Queue(specs), Store(tmp_path), After(25), lambda *event: None)
    outcomes = run_all([spec.replace({"device": "cpu"}) for spec in specs])
    assert [outcome.status for outcome in outcomes] == ["not_solved"] * len(specs)
    assert {outcome.result["iterations"] for outcome in outcomes} == {QUICK["train.max_iterations"]}


def test_no_operation_is_known_to_differ_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch refuses those it knows, and fills what it allocates with nan: what is read was written."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        for trainer in MEMBERS["trainer"]:
            found = advanced(ensemble_on(DEVICE, specs_of(trainer=trainer)), 2)
            assert all(value.isfinite().all() for value in found.values()), trainer
    finally:
        torch.use_deterministic_algorithms(False)


def test_too_large_a_network_is_refused_in_a_line(tmp_path: Path) -> None:
    words = ["task=temporal_order", "trainer=tptt", "model.H=1000000", f"device={DEVICE}", f"outputs={tmp_path}"]
    done = subprocess.run([sys.executable, "-m", "tprnn", "train", *words], capture_output=True, text=True)
    assert done.returncode in (1, 2)
    assert "memory" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
