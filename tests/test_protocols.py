"""Climbs in depth and reproductions of tables, with a trainer that knows which lengths are solved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tprnn.config import RunSpec
from tprnn.engine.signals import Interrupted
from tprnn.errors import UserError
from tprnn.papers.recipes import names, recipe
from tprnn.protocols import depth, reproduce
from tprnn.protocols.many import Outcome
from tprnn.store import Store

Solves = Callable[[RunSpec], bool]


class Trainer:
    """Stands for `run_all`: finishes runs by a rule, writes their folders, skips finished ones, notes its calls."""

    def __init__(self, solves: Solves) -> None:
        self.solves = solves
        self.calls: list[list[RunSpec]] = []
        self.trained: list[RunSpec] = []
        self.interrupt_at: int | None = None
        self.status = "not_solved"

    def __call__(self, specs: Sequence[RunSpec], first_solved: bool = False) -> list[Outcome]:
        self.first_solved = first_solved
        if len(self.calls) == self.interrupt_at:
            raise Interrupted(2)
        self.calls.append(list(specs))
        return [self._train(spec) for spec in specs]

    def _train(self, spec: RunSpec) -> Outcome:
        folder = Store(spec.execution["outputs"]).folder(spec)
        if result := folder.finished(spec.train):
            return Outcome(spec, result["status"], result, skipped=True)
        self.trained.append(spec)
        status = "solved" if self.solves(spec) else self.status
        result = {"status": status, "stopped_by": "solved", "iterations": 100 + spec.config["seed"], "accuracy": 1.0}
        folder.open(spec)
        folder.write_result(result)
        return Outcome(spec, status, result)


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Callable[[Solves], Trainer]:
    def install(solves: Solves) -> Trainer:
        trainer = Trainer(solves)
        monkeypatch.setattr(depth, "run_all", trainer)
        monkeypatch.setattr(reproduce, "run_all", trainer)
        return trainer

    return install


@pytest.fixture
def outputs(tmp_path: Path) -> str:
    return f"outputs={tmp_path}/outputs"


def lengths(trainer: Trainer) -> list[set[int]]:
    return [{spec.config["task"]["T"] for spec in call} for call in trainer.calls]


def up_to(T: int) -> Solves:
    return lambda spec: spec.config["task"]["T"] <= T


Install = Callable[[Solves], Trainer]
RUN = ["task=random_permutation", "trainer=bptt"]


# ---- depth


def test_a_climb_grows_by_its_step_and_stops_at_the_first_failure(train: Install, outputs: str) -> None:
    trainer = train(up_to(35))
    assert depth.main([*RUN, "depth.start=5", "depth.step=15", outputs]) == 0
    assert lengths(trainer) == [{5}, {20}, {35}, {50}]


def test_a_climb_goes_on_while_any_run_solves_a_length(train: Install, outputs: str) -> None:
    trainer = train(lambda spec: spec.config["seed"] == 1 and spec.config["task"]["T"] <= 20)
    depth.main([*RUN, "seed=0,1,2", outputs])
    assert lengths(trainer) == [{10}, {20}, {30}]
    assert all([spec.config["seed"] for spec in call] == [0, 1, 2] for call in trainer.calls)


@pytest.mark.parametrize(("words", "expected"), [([], True), (["depth.rung=all"], False)])
def test_a_rung_ends_with_its_first_success_unless_all_are_asked_for(
    train: Install, outputs: str, words: list[str], expected: bool
) -> None:
    trainer = train(up_to(10))
    depth.main([*RUN, "seed=0,1", outputs, *words])
    assert trainer.first_solved is expected


def test_a_dry_climb_says_what_it_costs_and_trains_nothing(
    train: Install, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = train(up_to(10))
    words = [*RUN, "seed=0,1", "train.max_iterations=1000", "depth.max=30", outputs]
    assert depth.main([*words, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "T = 10:\nat most 2,000 run-iterations" in printed
    assert "T = 10 to 30:\nat most 6,000 run-iterations" in printed
    assert not trainer.calls


def test_each_rung_has_all_points_of_the_grid(train: Install, outputs: str) -> None:
    trainer = train(lambda spec: spec.config["trainer"]["alpha"] == 0.01 and spec.config["task"]["T"] <= 10)
    depth.main([*RUN, "grid=manchev2020", "seed=0,1", outputs])
    for call in trainer.calls:
        points = {(spec.config["trainer"]["alpha"], spec.config["seed"]) for spec in call}
        assert points == {(10.0**-k, seed) for k in range(1, 7) for seed in (0, 1)}


def test_the_table_of_a_climb_says_how_many_solved_and_what_was_fastest(
    train: Install, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train(lambda spec: spec.config["trainer"]["alpha"] == 0.01 and spec.config["task"]["T"] <= 20)
    depth.main([*RUN, "trainer.alpha=0.1,0.01", "seed=3,4", outputs])
    printed = capsys.readouterr().out
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("| ")]
    assert [(row[0], row[1]) for row in rows[1:]] == [("10", "2/4"), ("20", "2/4"), ("30", "0/4")]
    assert rows[1][3:] == ["103", "trainer.alpha=0.01 seed=3"]
    assert printed.splitlines()[-1] == "t_max = 20 with trainer.alpha=0.01 seed=3"


def test_a_climb_to_its_last_length_is_a_lower_bound(
    train: Install, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = train(up_to(1000))
    depth.main([*RUN, "depth.max=25", outputs])
    assert lengths(trainer) == [{10}, {20}]
    assert capsys.readouterr().out.splitlines()[-1].startswith("t_max ≥ 20 (depth.max reached")


def test_a_climb_without_success_says_so(train: Install, outputs: str, capsys: pytest.CaptureFixture[str]) -> None:
    train(up_to(0))
    assert depth.main([*RUN, outputs]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "t_max: none, T = 10 is not solved"


def test_failed_runs_make_the_exit_code_one(train: Install, outputs: str) -> None:
    trainer = train(up_to(10))
    trainer.status = "failed"
    assert depth.main([*RUN, outputs]) == 1


def test_an_interrupted_climb_shows_how_far_it_came(
    train: Install, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = train(up_to(100))
    trainer.interrupt_at = 2
    with pytest.raises(Interrupted):
        depth.main([*RUN, outputs])
    assert capsys.readouterr().out.splitlines()[-1] == "t_max ≥ 20"


def test_a_climb_repeated_trains_nothing_again(train: Install, outputs: str) -> None:
    train(up_to(20))
    depth.main([*RUN, outputs])
    again = train(up_to(20))
    depth.main([*RUN, outputs])
    assert lengths(again) == [{10}, {20}, {30}]
    assert not again.trained


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([*RUN, "task.T=20"], "task.T"),
        ([*RUN, "depth.stat=10"], "nearest: depth.start"),
        ([*RUN, "depth.rung=first"], "depth.rung: 'first' is not a choice; nearest: first_solved"),
        ([*RUN, "depth.step=0"], "depth.step: expected a whole number"),
        ([*RUN, "depth.max"], "depth.max: expected a whole number"),
        ([*RUN, "depth.start=50", "depth.max=40"], "depth.max"),
        ([*RUN, "trainer.alfa=1"], "trainer.alpha"),
        (["task=adding", "trainer=tptt", "depth.start=3"], "adding needs"),
        (["task=adding"], "trainer"),
    ],
)
def test_bad_climbs_are_refused_before_anything_is_trained(
    train: Install, outputs: str, words: list[str], says: str
) -> None:
    trainer = train(up_to(100))
    with pytest.raises(UserError, match=says):
        depth.main([*words, outputs])
    assert not trainer.calls


# ---- reproduce


TABLE1 = ["manchev2020/table1", "budget=laptop"]


def test_climbs_of_a_table_go_up_together_and_leave_at_their_first_failure(train: Install, outputs: str) -> None:
    def solves(spec: RunSpec) -> bool:
        return (
            spec.config["task"]["T"]
            <= {"bptt": 10, "tptt": 20}[spec.config["trainer"]["rule"]] + spec.config["seed"] * 10
        )

    trainer = train(solves)
    assert reproduce.main([*TABLE1, "rows=temporal_order", "columns=BPTT,TPTT", "seeds=2", outputs]) == 0
    rungs = [
        (spec.config["task"]["T"], spec.config["trainer"]["name"], spec.config["seed"])
        for call in trainer.calls
        for spec in call
    ]
    assert lengths(trainer) == [{10}, {20}, {30}, {40}]
    for name, seed, top in (("bptt", 0, 20), ("bptt", 1, 30), ("tptt", 0, 30), ("tptt", 1, 40)):
        assert max(T for T, *who in rungs if who == [name, seed]) == top


def test_climbs_end_at_the_longest_length_of_the_budget(train: Install, outputs: str) -> None:
    trainer = train(up_to(1000))
    reproduce.main([*TABLE1, "columns=TPTT", "seeds=1", outputs])
    top = {spec.config["task"]["name"]: spec.config["task"]["T"] for call in trainer.calls for spec in call}
    assert top == recipe("manchev2020/table1").budgets["laptop"].T_max


def test_rows_at_one_length_are_trained_in_one_call(train: Install, outputs: str) -> None:
    trainer = train(up_to(1000))
    reproduce.main(["manchev2020/table2", "columns=TPTT_common,BPTT_best", "seeds=2", outputs])
    assert len(trainer.calls) == 1
    assert len(trainer.calls[0]) == 4 * 2 * 2


def test_budgets_and_overrides_reach_the_runs(train: Install, tmp_path: Path) -> None:
    trainer = train(up_to(1000))
    words = ["rows=adding", "columns=TPTT", "seeds=4,7", "T_max=20", "max_iterations=321", "workers=3", "threads=2"]
    reproduce.main([*TABLE1, *words, f"outputs={tmp_path}/here"])
    assert lengths(trainer) == [{10}, {20}]
    for spec in (spec for call in trainer.calls for spec in call):
        assert spec.train.max_iterations == 321
        assert spec.config["seed"] in (4, 7)
        assert (spec.execution["workers"], spec.execution["threads"]) == (3, 2)
        assert spec.execution["outputs"] == f"{tmp_path}/here"


def test_the_paper_budget_of_a_best_cell_trains_its_grid(train: Install, outputs: str) -> None:
    trainer = train(up_to(0))
    reproduce.main(["manchev2020/table2", "budget=paper", "rows=adding", "columns=BPTT_best", "seeds=1", outputs])
    assert {spec.config["trainer"]["alpha"] for spec in trainer.trained} == {10.0**-k for k in range(1, 7)}


def test_a_broken_off_reproduction_goes_on_where_it_was(train: Install, outputs: str) -> None:
    words = [*TABLE1, "rows=adding", "columns=BPTT,TPTT", "seeds=2", outputs]
    first = train(up_to(100))
    first.interrupt_at = 2
    with pytest.raises(Interrupted):
        reproduce.main(words)
    second = train(up_to(100))
    reproduce.main(words)
    assert lengths(second) == [{10}, {20}, {30}]
    assert {spec.config["task"]["T"] for spec in second.trained} == {30}


def test_a_dry_run_lists_what_is_done_and_to_do_and_trains_nothing(
    train: Install, outputs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TABLE1, "rows=adding", "columns=BPTT,TPTT", "seeds=2", outputs]
    trainer = train(up_to(0))
    assert reproduce.main([*words, "--dry-run"]) == 0
    assert not trainer.calls
    assert not (tmp_path / "outputs").exists()
    assert "up to 12 runs to do" in capsys.readouterr().out
    reproduce.main([*words, "columns=TPTT", "T_max=10"])
    capsys.readouterr()
    reproduce.main([*words, "--dry-run"])
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| adding")]
    assert {row[2].strip(): (row[5].strip(), row[6].strip()) for row in rows} == {
        "BPTT": ("0", "up to 6"),
        "TPTT": ("2", "0"),
    }


def test_the_last_line_names_the_report_and_failures_make_the_exit_code_one(
    train: Install, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = train(up_to(10))
    trainer.status = "failed"
    assert reproduce.main([*TABLE1, "rows=adding", "columns=TPTT", "seeds=1", outputs]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert "1 failed" in last
    assert last.endswith(f"tprnn report {outputs} --paper manchev2020/table1")


@pytest.mark.parametrize("name", names())
def test_every_budget_of_every_table_has_something_to_run(name: str) -> None:
    for budget in recipe(name).budgets:
        assert reproduce.parse([name, f"budget={budget}"]).cells


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["manchev2020/tabel1"], "nearest: manchev2020/table1"),
        (["manchev1999/table1"], "no paper 'manchev1999'"),
        ([], "expected one table"),
        (["manchev2020/table1", "budget=laptob"], "laptop"),
        (["manchev2020/table1", "rows=addin"], "adding"),
        (["manchev2020/table1", "columns=TPT"], "TPTT"),
        (["manchev2020/table1", "seeds=none"], "seeds"),
        (["manchev2020/table1", "seeds=0"], "seeds"),
        (["manchev2020/table1", "T_max=ten"], "T_max"),
        (["manchev2020/table1", "trainer.alpha=1"], "unknown key 'trainer.alpha'"),
        (["manchev2020/table1", "worker=2"], "workers"),
        (["manchev2020/table1", "workers=many"], "workers"),
        (["manchev2020/table1", "--dry"], "--dry-run"),
        (["manchev2020/table2", "budget=smoke", "rows=adding"], "nothing to run"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_trained(train: Install, words: list[str], says: str) -> None:
    trainer = train(up_to(100))
    with pytest.raises(UserError, match=says):
        reproduce.main(words)
    assert not trainer.calls
