"""Recorded iterations (engine/graph), on graphs that need no GPU, and what an ensemble leaves behind."""

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

from tprnn.engine import ensemble as ensemble_module
from tprnn.engine.ensemble import Ensemble
from tprnn.engine.graph import Captured

__all__ = ["fake_graphs"]
WARM_UP, REPLAYS = 3, 3


def ensemble_of(structural: dict[str, Any] | None = None, recorded: bool = False, **choices: str) -> Ensemble:
    """Two runs that differ in all they can, on the CPU, as on a GPU where `recorded`."""
    settings = make_spec(**choices).config["trainer"]
    specs = []
    for r in range(2):
        numbers = {key: values[r] for key, values in EVERYTHING.items() if key.removeprefix("trainer.") in settings}
        changes = SMALL | {"device": "cpu", "seed": r} | numbers | (structural or {})
        specs.append(make_spec(changes, **choices))
    ensemble = Ensemble(specs)
    if recorded:
        ensemble._graph = Captured("cpu")
    return ensemble


def advanced(ensemble: Ensemble, iterations: int = WARM_UP + REPLAYS) -> dict[str, torch.Tensor]:
    for _ in range(iterations):
        ensemble.advance()
    return ensemble.state.flat() | {"loss_sum": ensemble.loss_sum, "positions": ensemble.positions}


def differences(ensemble: Ensemble, plain: Ensemble) -> list[str]:
    found, expected = advanced(ensemble), advanced(plain)
    return [name for name, x in expected.items() if not torch.equal(x.nan_to_num(7.0), found[name].nan_to_num(7.0))]


@pytest.mark.usefixtures("fake_graphs")
@pytest.mark.parametrize(("structural", "choices"), STRUCTURES, ids=str)
def test_recorded_iterations_are_the_plain_ones(structural: dict[str, Any], choices: dict[str, str]) -> None:
    """To the bit: nothing is decided by Python alone, no tensor is replaced, nothing that is kept is made late."""
    ensemble = ensemble_of(structural, recorded=True, **choices)
    assert differences(ensemble, ensemble_of(structural, **choices)) == []
    assert ensemble._graph is not None
    assert ensemble._graph.graph is not None


def count_in_python(ensemble: Ensemble, batch: Any) -> None:
    ensemble.counted = getattr(ensemble, "counted", 0) + 1
    ensemble.loss_sum += ensemble.counted


def replace_a_tensor(ensemble: Ensemble, batch: Any) -> None:
    ensemble.loss_sum = ensemble.loss_sum + 1


@pytest.mark.usefixtures("fake_graphs")
@pytest.mark.parametrize("fault", [count_in_python, replace_a_tensor])
def test_the_recording_shows_what_a_gpu_would_get_wrong(monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    monkeypatch.setattr(Ensemble, "_iterate", fault)
    assert differences(ensemble_of(recorded=True, trainer="tptt"), ensemble_of(trainer="tptt")) == ["loss_sum"]


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
    ensemble = ensemble_of(recorded=True, trainer="tptt")
    with pytest.warns(UserWarning, match="runs call by call: operation not permitted") as told:
        assert differences(ensemble, ensemble_of(trainer="tptt")) == []
    assert len(told) == 1
    assert current == [torch.cuda.current_stream("cpu")]
    assert ensemble._graph is not None
    assert ensemble._graph.refused


@pytest.mark.usefixtures("fake_graphs")
@pytest.mark.filterwarnings("error")
def test_a_recording_that_finds_no_memory_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "graph", broken(torch.OutOfMemoryError("of 80 GiB")))
    ensemble = ensemble_of(recorded=True, trainer="tptt")
    with pytest.raises(torch.OutOfMemoryError, match="of 80 GiB"):
        advanced(ensemble)
    assert ensemble._graph is not None
    assert not ensemble._graph.refused


@pytest.mark.parametrize("trainer", MEMBERS["trainer"])
@pytest.mark.parametrize("recorded", [False, True])
def test_a_ensemble_that_is_let_go_is_gone_at_once(
    request: pytest.FixtureRequest, trainer: str, recorded: bool
) -> None:
    """The garbage collector does not know how full a GPU is."""
    if recorded:
        request.getfixturevalue("fake_graphs")
    advanced(ensemble_of(trainer=trainer))  # to compile leaves circles of its own
    gc.collect()
    gc.disable()
    try:
        ensemble = ensemble_of(recorded=recorded, trainer=trainer)
        advanced(ensemble, WARM_UP + 1)
        ensemble.validate([0, 0], [False, False])
        smaller = ensemble.select([1])
        buffer = weakref.ref(next(iter(ensemble.model.work._buffers.values()))[0])
        gone = weakref.ref(ensemble), weakref.ref(ensemble.trainer), weakref.ref(ensemble.model), buffer
        del ensemble
        assert [thing() for thing in gone] == [None] * 4
        assert len(smaller.specs) == 1
    finally:
        gc.enable()


@pytest.mark.usefixtures("fake_graphs")
@pytest.mark.filterwarnings("ignore:an iteration could not be recorded")
def test_a_ensemble_that_could_not_be_recorded_is_gone_at_once_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "graph", broken(RuntimeError("not permitted")))
    ensemble = ensemble_of(recorded=True, trainer="tptt")
    gc.collect()
    gc.disable()
    try:
        advanced(ensemble, WARM_UP + 1)
        gone = weakref.ref(ensemble)
        del ensemble
        assert gone() is None
    finally:
        gc.enable()


def test_eigenvalues_are_asked_of_those_runs_alone_whose_norms_exclude_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble = Ensemble([make_spec({"seed": seed}) for seed in range(4)])
    W_hh = ensemble.state.params["W_hh"]
    W_hh[1] *= 100.0
    W_hh[2, 0, 0] = float("nan")
    asked: list[int] = []

    def count(W: torch.Tensor) -> torch.Tensor:
        asked.append(len(W))
        return radius(W)

    radius = ensemble_module.spectral_radius
    monkeypatch.setattr(ensemble_module, "spectral_radius", count)
    few = ensemble.radii(20.0)["W_hh"]
    every = ensemble.radii(None)["W_hh"]
    assert asked == [2, 4]
    assert few.isnan().tolist() == [True, False, True, True]
    assert few[1] == every[1]
    assert every.isnan().tolist() == [False, False, True, False]
