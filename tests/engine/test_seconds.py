"""The seconds of a run are those of its own work: not of code that is compiled meanwhile, nor of other runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from numba.core import event
from quick_runs import After, quick

from tprnn.core import scans
from tprnn.engine import loop
from tprnn.engine.ensemble import Ensemble
from tprnn.engine.queue import Queue
from tprnn.store import Store


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock shows."""
    now = [1000.0]
    monkeypatch.setattr(scans.time, "perf_counter", lambda: now[0])
    return now


def compile_for(seconds: float, time: list[float], inside: float = 0.0) -> None:
    """As Numba does it, with another function that is compiled on the way."""
    event.broadcast(event.Event("numba:compile", event.EventStatus.START))
    time[0] += seconds - inside
    if inside:
        compile_for(inside, time)
    event.broadcast(event.Event("numba:compile", event.EventStatus.END))


def test_the_clock_of_work_stands_while_code_is_compiled(time: list[float]) -> None:
    with scans.on_compilation(lambda: None):
        before = scans.clock()
        time[0] += 3.0
        compile_for(20.0, time, inside=5.0)
        time[0] += 4.0
        assert scans.clock() - before == pytest.approx(7.0)


def test_a_compilation_that_tells_no_end_stops_no_clock_for_ever(time: list[float]) -> None:
    with scans.on_compilation(lambda: None):
        event.broadcast(event.Event("numba:compile", event.EventStatus.START))
    with scans.on_compilation(lambda: None):
        before = scans.clock()
        compile_for(20.0, time)
        time[0] += 4.0
        assert scans.clock() - before == pytest.approx(4.0)


def test_a_run_beside_another_is_charged_for_its_own_blocks_alone(
    tmp_path: Path, time: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = {0: 1.0, 1: 10.0}
    advance = Ensemble.advance

    def slowly(ensemble: Ensemble) -> None:
        seed = ensemble.specs[0].config["seed"]
        if (seed, int(ensemble.positions[0])) == (0, 5):
            compile_for(500.0, time)
        time[0] += costs[seed]
        advance(ensemble)

    monkeypatch.setattr(Ensemble, "advance", slowly)
    specs = [quick(tmp_path, {"seed": seed, "train.success_error": None}) for seed in costs]
    queue = Queue(specs)
    outcomes = loop.run_stack(queue.take_stack(), queue, Store(tmp_path), After(10**6), lambda *_: None)
    seconds = {one.spec.config["seed"]: one.result["seconds"] for one in outcomes if one.result}
    assert seconds == {seed: pytest.approx(60 * cost) for seed, cost in costs.items()}
