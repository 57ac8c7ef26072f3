"""Recorded iterations (engine/graph), on graphs that need no GPU, and what a slab leaves behind."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from conftest import MEMBERS, make_spec
from fake_graphs import Graph, fake_graphs, recording
from test_device import EVERYTHING, SMALL, STRUCTURES

from tprnn.engine import slab as slab_module
from tprnn.engine.graph import Captured
from tprnn.engine.slab import Slab

__all__ = ["fake_graphs"]
WARM_UP, REPLAYS = 3, 3


def slab_of(structural: dict[str, Any] | None = None, recorded: bool = False, **choices: str) -> Slab:
    """Two runs that differ in all they can, on the CPU, as on a GPU where `recorded`."""
    settings = make_spec(**choices).config["trainer"]
    specs = []
    for r in range(2):
        numbers = {key: values[r] for key, values in EVERYTHING.items() if key.removeprefix("trainer.") in settings}
        changes = SMALL | {"device": "cpu", "seed": r} | numbers | (structural or {})
        specs.append(make_spec(changes, **choices))
    slab = Slab(specs)
    if recorded:
        slab._graph = Captured("cpu")
    return slab


def advanced(slab: Slab, iterations: int = WARM_UP + REPLAYS) -> dict[str, torch.Tensor]:
    for _ in range(iterations):
        slab.advance()
    return slab.state.flat() | {"loss_sum": slab.loss_sum, "positions": slab.positions}


def differences(slab: Slab, plain: Slab) -> list[str]:
    found, expected = advanced(slab), advanced(plain)
    return [name for name, x in expected.items() if not torch.equal(x.nan_to_num(7.0), found[name].nan_to_num(7.0))]


@pytest.mark.usefixtures("fake_graphs")
@pytest.mark.parametrize(("structural", "choices"), STRUCTURES, ids=str)
def test_recorded_iterations_are_the_plain_ones(structural: dict[str, Any], choices: dict[str, str]) -> None:
    """To the bit: nothing is decided by Python alone, no tensor is replaced, nothing that is kept is made late."""
    slab = slab_of(structural, recorded=True, **choices)
    assert differences(slab, slab_of(structural, **choices)) == []
    assert slab._graph is not None
    assert slab._graph.graph is not None


def count_in_python(slab: Slab, batch: Any) -> None:
    slab.counted = getattr(slab, "counted", 0) + 1
    slab.loss_sum += slab.counted


def replace_a_tensor(slab: Slab, batch: Any) -> None:
    slab.loss_sum = slab.loss_sum + 1


@pytest.mark.usefixtures("fake_graphs")
@pytest.mark.parametrize("fault", [count_in_python, replace_a_tensor])
def test_the_recording_shows_what_a_gpu_would_get_wrong(monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    monkeypatch.setattr(Slab, "_iterate", fault)
    assert differences(slab_of(recorded=True, trainer="tptt"), slab_of(trainer="tptt")) == ["loss_sum"]


@pytest.mark.usefixtures("fake_graphs")
def test_a_recording_computes_nothing_and_leaves_rubbish_in_what_it_makes() -> None:
    there, graph = torch.ones(3), Graph()
    with recording(graph):
        there += 1.0
        made = there * 2.0
    assert there.tolist() == [1.0] * 3
    assert min(made.tolist()) > 1e30
    graph.replay()
    graph.replay()
    assert (there.tolist(), made.tolist()) == ([3.0] * 3, [6.0] * 3)


def broken(error: Exception) -> Any:
    """torch.cuda.graph whose recording ends in `error`, and whose end then raises once more, as PyTorch's does."""

    @contextlib.contextmanager
    def graph(graph: Graph, stream: Any = None) -> Iterator[None]:
        with graph:
            yield
        graph.recorded()
        try:
            raise error
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    return graph


@pytest.mark.usefixtures("fake_graphs")
def test_what_cannot_be_recorded_runs_call_by_call_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "graph", broken(RuntimeError("operation not permitted when stream is capturing")))
    current: list[Any] = []
    monkeypatch.setattr(torch.cuda, "set_stream", current.append)
    slab = slab_of(recorded=True, trainer="tptt")
    with pytest.warns(UserWarning, match="runs call by call: operation not permitted") as told:
        assert differences(slab, slab_of(trainer="tptt")) == []
    assert len(told) == 1
    assert current == [torch.cuda.current_stream("cpu")]
    assert slab._graph is not None
    assert slab._graph.refused


@pytest.mark.usefixtures("fake_graphs")
@pytest.mark.filterwarnings("error")
def test_a_recording_that_finds_no_memory_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "graph", broken(torch.OutOfMemoryError("of 80 GiB")))
    slab = slab_of(recorded=True, trainer="tptt")
    with pytest.raises(torch.OutOfMemoryError, match="of 80 GiB"):
        advanced(slab)
    assert slab._graph is not None
    assert not slab._graph.refused


@pytest.mark.parametrize("trainer", MEMBERS["trainer"])
@pytest.mark.parametrize("recorded", [False, True])
def test_a_slab_that_is_let_go_is_gone_at_once(request: pytest.FixtureRequest, trainer: str, recorded: bool) -> None:
    """The garbage collector does not know how full a GPU is."""
    if recorded:
        request.getfixturevalue("fake_graphs")
    advanced(slab_of(trainer=trainer))  # to compile leaves circles of its own
    gc.collect()
    gc.disable()
    try:
        slab = slab_of(recorded=recorded, trainer=trainer)
        advanced(slab, WARM_UP + 1)
        slab.validate([0, 0], [False, False])
        smaller = slab.select([1])
        buffer = weakref.ref(next(iter(slab.model.work._buffers.values()))[0])
        gone = weakref.ref(slab), weakref.ref(slab.trainer), weakref.ref(slab.model), buffer
        del slab
        assert [thing() for thing in gone] == [None] * 4
        assert len(smaller.specs) == 1
    finally:
        gc.enable()


@pytest.mark.usefixtures("fake_graphs")
@pytest.mark.filterwarnings("ignore:an iteration could not be recorded")
def test_a_slab_that_could_not_be_recorded_is_gone_at_once_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "graph", broken(RuntimeError("not permitted")))
    slab = slab_of(recorded=True, trainer="tptt")
    gc.collect()
    gc.disable()
    try:
        advanced(slab, WARM_UP + 1)
        gone = weakref.ref(slab)
        del slab
        assert gone() is None
    finally:
        gc.enable()


def test_eigenvalues_are_asked_of_those_runs_alone_whose_norms_exclude_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    slab = Slab([make_spec({"seed": seed}) for seed in range(4)])
    W_hh = slab.state.params["W_hh"]
    W_hh[1] *= 100.0
    W_hh[2, 0, 0] = float("nan")
    asked: list[int] = []

    def count(W: torch.Tensor) -> torch.Tensor:
        asked.append(len(W))
        return radius(W)

    radius = slab_module.spectral_radius
    monkeypatch.setattr(slab_module, "spectral_radius", count)
    few = slab.radii(20.0)["W_hh"]
    every = slab.radii(None)["W_hh"]
    assert asked == [2, 4]
    assert few.isnan().tolist() == [True, False, True, True]
    assert few[1] == every[1]
    assert every.isnan().tolist() == [False, False, True, False]
