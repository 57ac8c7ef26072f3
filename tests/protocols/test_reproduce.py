"""Reproductions of tables, with a trainer that knows which lengths are solved."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_trainer import Install, Solves, Trainer, lengths, up_to

from tprnn.config import RunSpec
from tprnn.engine.signals import Interrupted
from tprnn.errors import UserError
from tprnn.papers.recipes import names, recipe
from tprnn.protocols import reproduce


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Install:
    def install(solves: Solves) -> Trainer:
        trainer = Trainer(solves)
        monkeypatch.setattr(reproduce, "run_all", trainer)
        return trainer

    return install


@pytest.fixture
def outputs(tmp_path: Path) -> str:
    return f"outputs={tmp_path}/outputs"


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
