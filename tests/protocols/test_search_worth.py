"""What the best of a search is worth: ends, what as many looks give by chance, and seeds that decided nothing."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import make_spec
from search_trainer import BPTT, Install

from tprnn.config import RunSpec, member_class
from tprnn.protocols.search import command as search
from tprnn.protocols.search import luck as best_of
from tprnn.statistics import highest_by_chance
from tprnn.sweep.run import Outcome

ORDER = ["task=temporal_order", "trainer=bptt", "search.sampler=random", "train.validation_size=100"]


@pytest.mark.parametrize(
    ("iterations", "expected"), [(None, 1), (0, 1), (100, 1), (2000, 1), (2001, 2), (25_000, 13), (24_000, 12)]
)
def test_looks_are_checks_of_the_full_set(iterations: int | None, expected: int) -> None:
    spec = make_spec({"train.check_every": 100, "train.full_check_every": 20})
    result = {} if iterations is None else {"iterations": iterations}
    assert best_of.checks(Outcome(spec, "not_solved", result)) == expected


def test_a_search_over_lengths_takes_each_at_its_own_chance() -> None:
    specs = [make_spec({"task.T": T, "train.validation_size": 50}, task="sequence_expansion") for T in (2, 4, 4)]
    assert [best_of.chance(spec) for spec in specs] == [0.25, 0.0625, 0.0625]  # four symbols
    found = best_of.chance_of([Outcome(spec, "not_solved", {"iterations": 1}) for spec in specs])
    assert found == highest_by_chance({0.25: 1, 0.0625: 2}, 50)


def test_a_task_that_does_not_say_its_chance(
    train: Install, into: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(member_class("task", "copy_memory"), "chance", classmethod(lambda cls, settings: None))
    train()
    search.main([*BPTT, into, "search.trials=2"])
    told = capsys.readouterr().out
    assert "| by chance: task=copy_memory does not say" in told
    assert "By chance: the highest of 2 looks at 10000 sequences, as many as the best is the best of. New" in told


# ---- in the summary


def rows(text: str) -> dict[str, list[str]]:
    """The table of what the best is worth: first column -> the others."""
    found = [[part.strip() for part in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in found if len(row) == 3}


def by_seed(spec: RunSpec) -> dict[str, Any]:
    """Seed 0 is lucky: the others have 0.3, 0.5, 0.4 and a test set of their own."""
    seed = spec.config["seed"]
    accuracy = (0.9, 0.3, 0.5, 0.4)[seed]
    return {
        "best_accuracy": accuracy if seed or spec.config["trainer"]["alpha"] < 1e-2 else 0.2,
        "test_sequences": 100,
        "test_right": round(100 * accuracy) - 10,
    }


def test_the_best_stands_beside_chance_and_beside_new_seeds(
    train: Install, into: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train(by_seed)
    assert search.main([*ORDER, into, "search.trials=12"]) == 0
    told = capsys.readouterr().out
    expected, bound = highest_by_chance({0.25: 12}, 100)
    assert rows(told) == {
        "": ["accuracy (%)", "test (%)"],
        **{key: value for key, value in rows(told).items() if set(key) == {"-"}},  # the rule below the names
        "best of 12 runs": ["90.00", "80.00"],
        "by chance: expected (95 % at most)": [f"{100 * expected:.2f} ({100 * bound:.2f})", "–"],
        "its setting with 3 new seeds: median (range)": ["40.00 (30.00 to 50.00)", "30.00 (20.00 to 40.00)"],
    }
    line = next(line for line in told.splitlines() if line.startswith("By chance: "))
    assert "the highest of 12 looks at 100 sequences" in line
    assert "answered rightly with 25 %" in line
    assert line.endswith("it owes to being the best of 12.")


def test_without_new_seeds_nothing_is_said_of_them(
    train: Install, into: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = train(by_seed)
    assert search.main([*ORDER, into, "search.trials=3", "search.confirm=0"]) == 0
    assert len(trainer.trained) == 3
    assert "ew seeds" not in capsys.readouterr().out


def ending(spec: RunSpec) -> dict[str, Any]:
    alpha = spec.config["trainer"]["alpha"]
    status = "diverged" if alpha > 0.05 else "solved" if alpha > 0.005 else "not_solved"
    return {"status": status, "best_accuracy": float(status == "solved")}


def test_ends_are_counted_and_divergence_has_its_share(
    train: Install, into: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = train(ending)
    search.main([*ORDER, into, "search.trials=20", "search.confirm=0"])
    ends = [ending(spec)["status"] for spec in trainer.trained]
    counts = {status: ends.count(status) for status in set(ends)}
    assert counts["diverged"] > 1
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("ends: "))
    assert line.endswith(f"{counts['diverged']} diverged ({100 * counts['diverged'] / 20:.0f} %)")
    for status in ("solved", "not_solved"):
        assert f"{counts[status]} {status.replace('_', ' ')}" in line


def test_that_nothing_diverged_is_said_too() -> None:
    assert best_of.ends([Outcome(make_spec(), "not_solved")] * 3) == "3 not solved, 0 diverged (0 %)"


def test_trials_that_share_a_run_are_one_of_the_best_of(
    train: Install, into: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = train(by_seed)
    search.main([*ORDER, into, "search.trials=9", "search.confirm=0", "trainer.alpha=choice(0.001,0.1)"])
    assert len(trainer.trained) == 2
    told = capsys.readouterr().out
    assert "9 of 9 trials" in told
    assert "ends of 2 different runs: 2 not solved, 0 diverged (0 %)" in told
    assert "best of 2 runs" in rows(told)
