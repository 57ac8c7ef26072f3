"""Run folders of when a signature hashed the budget too: found, read, and gone on with.

data/old_runs was written by the code of that time (commit b3def5e), by real runs: temporal_order, T = 10, H = 3, a
check every 20 iterations, of which every second is of the full 2000 sequences.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from quick_runs import strip
from run_files import snapshot

from tprnn.config import RunSpec
from tprnn.engine.runs import Outcome
from tprnn.errors import DamagedFile
from tprnn.report.cli import report_main
from tprnn.report.rows.frame import read_rows
from tprnn.store import RunFolder, Store
from tprnn.sweep.run import run_all

OLD = Path(__file__).parent.parent / "data" / "old_runs"
# seed -> how the run ended
SOLVED, CUT, WITH_CHECKPOINT, OFF_GRID, DIVERGED, TWO_BUDGETS, TIMED, BROKEN_OFF, GIVEN_UP = range(9)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    shutil.copytree(OLD, tmp_path / "outputs")
    return Store(tmp_path / "outputs")


@pytest.fixture
def asked(store: Store) -> Callable[..., RunSpec]:
    """The run of a seed, checked by today's code, with another budget."""

    def find(seed: int, iterations: int | None = None) -> RunSpec:
        (folder, *_) = store.find(f"*-s{seed}-*")
        stored = folder.read_spec()
        changes = {"outputs": str(store.root), "quiet": True, "train.max_seconds": None}
        return stored.replace(changes | ({"train.max_iterations": iterations} if iterations else {}))

    return find


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Iterations of all checks that were made."""
    made: list[int] = []
    append = RunFolder.append_metrics

    def noting(self: RunFolder, rows: Any) -> None:
        made.extend(row["iteration"] for row in rows)
        append(self, rows)

    monkeypatch.setattr(RunFolder, "append_metrics", noting)
    return made


def contents(store: Store) -> dict[str, dict[str, bytes]]:
    return {folder.name: snapshot(folder.path) for folder in store.folders()}


def go_on(spec: RunSpec) -> Outcome:
    (outcome,) = run_all([spec])
    return outcome


def test_every_old_folder_is_found_by_the_run_it_is_of(store: Store) -> None:
    folders = store.folders()
    assert len(folders) == 10
    for folder in folders:
        spec = folder.read_spec()
        assert folder.name.endswith(f"-{spec.old_signature}")
        assert store.folder(spec) == folder
        assert store.find(spec.old_signature) == [folder]


def test_a_report_reads_them_as_they_are(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    rows, damaged = read_rows(store.root)
    assert not damaged
    assert {(row["seed"], row["stopped_by"], row["iterations"]) for row in rows} == {
        (SOLVED, "solved", 20),
        (CUT, "max_iterations", 60),
        (WITH_CHECKPOINT, "max_iterations", 60),
        (OFF_GRID, "max_iterations", 50),
        (DIVERGED, "spectral_radius", 20),
        (TWO_BUDGETS, "max_iterations", 60),
        (TWO_BUDGETS, "max_iterations", 80),
        (TIMED, "max_seconds", 20),
        (BROKEN_OFF, "signal", 28),
        (GIVEN_UP, "patience", 60),
    }
    assert report_main([str(store.root)]) == 0


def test_a_result_of_another_old_run_is_still_damage(store: Store) -> None:
    one, other = store.find(f"*-s{CUT}-*")[0], store.find(f"*-s{SOLVED}-*")[0]
    shutil.copy(one.path / "result.json", other.path / "result.json")
    (error,) = read_rows(store.root)[1]
    assert isinstance(error, DamagedFile)
    assert other.name in str(error)


@pytest.mark.parametrize(
    ("seed", "budget"),
    [(SOLVED, 60), (SOLVED, 5000), (DIVERGED, 5000), (GIVEN_UP, 5000), (CUT, 60), (CUT, 59), (TWO_BUDGETS, 80)],
)
def test_what_needs_no_more_training_is_left_as_it_is(
    store: Store, asked: Callable[..., RunSpec], seed: int, budget: int
) -> None:
    before = contents(store)
    outcome = go_on(asked(seed, budget))
    assert outcome.skipped
    assert outcome.status == {SOLVED: "solved", DIVERGED: "diverged"}.get(seed, "not_solved")
    assert contents(store) == before


@pytest.mark.parametrize(
    ("seed", "stands"),
    # a run that was cut left no checkpoint there: it goes on from the one before, if there is one
    [(CUT, 0), (WITH_CHECKPOINT, 40), (OFF_GRID, 40), (TIMED, 0), (BROKEN_OFF, 28)],
)
def test_a_larger_budget_goes_on_in_the_old_folder(
    store: Store, asked: Callable[..., RunSpec], checks: list[int], seed: int, stands: int
) -> None:
    spec = asked(seed, 100)
    (folder,) = store.find(f"*-s{seed}-*")
    rows, result = folder.read_metrics(), folder.result()
    outcome = go_on(spec)
    assert (outcome.status, outcome.result["iterations"], outcome.skipped) == ("not_solved", 100, False)
    assert checks == [n for n in range(20, 101, 20) if n > stands]
    kept = [row for row in rows if row["iteration"] <= stands]
    assert strip(folder.read_metrics()[: len(kept)]) == strip(kept)
    assert [row["validated"] for row in folder.read_metrics()] == [1000, 2000, 1000, 2000, 1000]
    assert len(store.folders()) == 10
    assert folder.read_spec().train.max_iterations == 100
    if result["stopped_by"] == "max_iterations":  # what was reported for the old budget is still the answer for it
        assert go_on(asked(seed, result["iterations"])).result == result


def test_of_several_folders_of_one_run_the_furthest_serves_and_none_is_lost(
    store: Store, asked: Callable[..., RunSpec]
) -> None:
    short, long = sorted(store.find(f"*-s{TWO_BUDGETS}-*"), key=lambda folder: folder.result()["iterations"])
    kept = snapshot(short.path)
    assert store.folder(asked(TWO_BUDGETS, 60)) == short
    for budget in (61, 80, 100):
        assert store.folder(asked(TWO_BUDGETS, budget)) == long
    assert go_on(asked(TWO_BUDGETS, 60)).result == short.result()
    go_on(asked(TWO_BUDGETS, 120))
    assert (long.result()["iterations"], snapshot(short.path)) == (120, kept)
    assert {budget: go_on(asked(TWO_BUDGETS, budget)).skipped for budget in (60, 80, 120)} == dict.fromkeys(
        (60, 80, 120), True
    )


def test_configs_of_old_folders_are_read_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    shared = RunFolder.shared_config

    def noting(self: RunFolder) -> dict[str, Any]:
        read.append(self.name)
        return shared(self)

    specs = [folder.read_spec() for folder in store.folders()]
    monkeypatch.setattr(RunFolder, "shared_config", noting)
    for number, spec in enumerate([*specs, *specs]):
        store.folder(spec)
        Store(store.root).folder(spec)  # of a later call
        (store.runs / str(number)).mkdir()  # the listing is another one
    assert sorted(read) == sorted(folder.name for folder in store.folders())
