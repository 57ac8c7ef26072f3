"""Cells that a grid search answers: their points, the best of each seed, and verdicts on accuracies and losses."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from paper_cells import row_of

from tprnn.config import RunSpec
from tprnn.errors import UserError
from tprnn.papers import published, recipes
from tprnn.papers.recipes import RecipeCell, recipe
from tprnn.protocols import reproduce
from tprnn.report.rows.scores import answer, load
from tprnn.report.tables.cell_text import loss as loss_text
from tprnn.report.tables.cell_text import luck, published_text
from tprnn.report.tables.paper import paper_report
from tprnn.statistics import highest_by_chance
from tprnn.store import Store
from tprnn.sweep.run import Outcome

NAME = "manchev2025/trial"
# table I of the paper, with a rule that has a rate and one more number
TRIAL = """\
# A table for tests.
title: Accuracy by grid
table: tableI
metric: accuracy_pct
budgets:
  laptop: {seeds: 3, max_iterations: 500}
  paper: {seeds: 3, max_iterations: 2000}
grid:
  laptop: {alpha: [0.1, 0.01], clip_norm: [1.0]}
  paper: {alpha: [0.1, 0.01, 0.001], clip_norm: [1.0, 0.5]}
overrides: [trainer=bptt, optimizer=sgd]
rows:
  - {task: temporal_order, T: 10}
  - {task: temporal_order, T: 20}
  - {task: random_permutation, T: 10}
columns:
  - {key: K10, label: K = 10, answers: tableI/LRA_diff, where: {K: 10}, overrides: []}
  - {key: same, label: the loss of the same runs, metric: loss, overrides: []}
  - {key: both, label: own rate and grid, overrides: [trainer.omega=0.5], parameters: {default: {alpha: 0.5}},
     grid: {paper: {alpha: [0.5, 0.1], omega: [0.5, 2.0]}}}
  - {key: bare, label: as the YAML of the rule, overrides: [], parameters: {default: {}}}
"""
TICK, NUMBER, CHANCE = (
    ("temporal_order", 10),
    ("temporal_order", 20),
    ("random_permutation", 10),
)  # solved, 99.84, 50.90


def write_recipe(folder: Path, text: str) -> None:
    path = folder / "paper" / f"{NAME}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    recipes.names.cache_clear()
    recipes.figure_names.cache_clear()
    recipes.recipe.cache_clear()


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of recipes that stands for conf/, with the one of `TRIAL`."""
    monkeypatch.setattr(recipes, "conf_folder", lambda: tmp_path / "conf")
    write_recipe(tmp_path / "conf", TRIAL)
    yield tmp_path / "conf"
    recipes.names.cache_clear()
    recipes.figure_names.cache_clear()
    recipes.recipe.cache_clear()


def trial(place: tuple[str, int] = NUMBER, column: str = "K10") -> RecipeCell:
    (cell,) = [c for c in recipe(NAME).cells if (c.row.task, c.row.T, c.column.key) == (*place, column)]
    return cell


def record(outputs: str, cell: RecipeCell, seed: int, accuracy: float, **given: Any) -> None:
    """Writes a finished run of a point of the cell; `accuracy` in percent."""
    point = {f"trainer.{key}": given[key] for key in cell.settings if key in given}
    limit = given.get("limit", 500)
    spec = cell.spec().replace({"seed": seed, "train.max_iterations": limit, **point})
    folder = Store(outputs).folder(spec)
    folder.open(spec)
    folder.set_budget(spec.train)
    result = {"status": "solved" if accuracy == 100 else "not_solved", "stopped_by": "max_iterations", "accuracy": 0.5}
    result |= {"best_accuracy": accuracy / 100, "best_validation_loss": given.get("loss", 0.1), "iterations": limit}
    if "test" in given:
        test_loss = given.get("test_loss", 0.2)
        result |= {"test_sequences": 10_000, "test_right": round(100 * given["test"]), "test_loss": test_loss}
    folder.write_result(result | {"signature": spec.signature, "stopped_by": given.get("stopped_by", "max_iterations")})


def values(specs: Sequence[RunSpec], *keys: str) -> list[tuple[Any, ...]]:
    return [tuple(spec.config["trainer"][key] for key in keys) for spec in specs]


# ---- points


def test_points_are_every_value_of_one_axis_with_every_value_of_the_others(conf: Path) -> None:
    cell = trial()
    assert values(cell.candidates("laptop"), "alpha", "clip_norm") == [(0.1, 1.0), (0.01, 1.0)]
    whole = [(alpha, clip) for alpha in (0.1, 0.01, 0.001) for clip in (1.0, 0.5)]
    assert values(cell.candidates("paper"), "alpha", "clip_norm") == whole
    assert {*values(cell.candidates(None), "alpha", "clip_norm")} == {*whole}
    assert all(spec.config["optimizer"]["name"] == "sgd" for spec in cell.candidates("paper"))


def test_own_parameters_come_before_the_grid_and_are_the_only_point_without_one(conf: Path) -> None:
    cell = trial(column="both")
    assert values(cell.candidates("laptop"), "alpha", "omega") == [(0.5, 0.5)]
    assert values(cell.candidates("paper"), "alpha", "omega") == [(0.5, 0.5), (0.5, 2.0), (0.1, 0.5), (0.1, 2.0)]


def test_a_trainer_that_is_added_is_searched_as_the_others_are(conf: Path) -> None:
    """At its defaults, and its rates over the values of theirs: those of the same name, else of all together."""
    plan = recipe(NAME, ("dfa", "tptt"))
    assert [column.key for column in plan.columns] == ["K10", "same", "both", "bare", "dfa", "tptt"]
    dfa, tptt = (next(c for c in plan.cells if c.column.key == key and c.row.T == 10) for key in ("dfa", "tptt"))
    (default,) = values([dfa.spec()], "alpha")
    assert values(dfa.candidates("laptop"), "alpha") == list(dict.fromkeys([default, (0.1,), (0.01,)]))
    assert values(dfa.candidates("paper"), "alpha") == list(dict.fromkeys([default, (0.1,), (0.01,), (0.001,), (0.5,)]))
    (default,) = values([tptt.spec()], "alpha_i", "alpha_f", "alpha_g")
    points = values(tptt.candidates("laptop"), "alpha_i", "alpha_f", "alpha_g")
    assert set(points) == {default, *itertools.product((0.1, 0.01), repeat=3)}
    assert tptt.spec().config["optimizer"]["name"] == "sgd"  # what the table has of all columns
    assert recipe(NAME).columns == plan.columns[:4]


def test_a_trainer_that_is_added_has_the_controls_of_the_table() -> None:
    plan = recipe("dai2021/table1", ("dfa",))
    controls = dict.fromkeys(column.control.key for column in plan.columns if column.control)
    assert controls
    added = [column.key for column in plan.columns if column.key.startswith("dfa")]
    assert added == ["dfa", *(f"dfa_{key}" for key in controls)]


@pytest.mark.parametrize(
    ("name", "trainer", "says"),
    [
        ("beyond/rules", "bptt", "trainers: beyond/rules has a column 'bptt' already"),
        ("beyond/rules", "bpt", "trainers: no trainer 'bpt'; nearest: bptt"),
        ("beyond/rates", "dfa", "trainers: beyond/rates is a figure"),
    ],
)
def test_what_cannot_be_added_is_told(name: str, trainer: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        recipe(name, (trainer,))


def test_a_dotted_key_of_a_grid_is_of_all_points_of_its_budget_and_no_axis(conf: Path) -> None:
    column = "{key: K10, label: none, overrides: [train.patience=30], parameters: {default: {alpha: 0.5}}, grid: GRID}"
    head, _ = TRIAL.split("columns:")
    grid = "{paper: {alpha: [0.5, 0.1], train.patience: [null]}}"
    write_recipe(conf, f"{head}columns:\n  - {column.replace('GRID', grid)}\n")
    cell = trial()

    def found(budget: str | None) -> list[tuple[float, int | None]]:
        specs = cell.candidates(budget)
        return [(spec.config["trainer"]["alpha"], spec.config["train"]["patience"]) for spec in specs]

    assert found("laptop") == [(0.5, 30)]
    assert found("paper") == [(0.5, None), (0.1, None)]  # its own parameters are a point of the grid
    assert found(None) == [(0.5, 30), (0.5, None), (0.1, None)]
    assert cell.settings == ("alpha",)
    assert cell.described("paper") == "alpha=0.5 or alpha=0.5,0.1 train.patience=null"
    write_recipe(conf, f"{head}columns:\n  - {column.replace('GRID', grid.replace('null', '30, 60'))}\n")
    with pytest.raises(UserError, match=r"'train.patience' is no axis: expected one value, got 2"):
        recipe(NAME)


def test_a_published_cell_is_found_by_its_length_and_further_fields(conf: Path) -> None:
    table = published.table("manchev2025/tableI")
    assert table.find(task="temporal_order", trainer="LRA_diff", T=20) is None  # three K
    for cell in (c for c in recipe(NAME).cells if c.published):
        assert cell.published is not None
        assert (cell.published.T, cell.published.fields["K"]) == (cell.row.T, 10)
    assert [published_text(trial(place)) for place in (TICK, NUMBER, CHANCE)] == [
        "solved (uncertain)",
        "99.84",
        "50.90",
    ]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("where: {K: 10}", "where: {K: 11}", "not one published cell tableI/LRA_diff for temporal_order-T10, K = 11"),
        (", where: {K: 10}", "", "not one published cell"),
        ("metric: loss", "metric: los", "metric 'los'; nearest: loss"),
        (
            "  laptop: {alpha: [0.1, 0.01], clip_norm: [1.0]}\n",
            "",
            "column K10: no parameters and no grid for budget laptop",
        ),
        ("alpha: [0.1, 0.01], ", "alpha: [], ", "not as docs/extending.md describes it"),
    ],
)
def test_a_recipe_that_cannot_be_run_is_one_clear_line(conf: Path, old: str, new: str, says: str) -> None:
    assert TRIAL.count(old) == 1
    write_recipe(conf, TRIAL.replace(old, new))
    with pytest.raises(UserError, match=says):
        recipe(NAME)


# ---- what is run


def test_all_points_and_seeds_are_one_call_and_a_run_of_two_columns_is_there_once(
    conf: Path, outputs: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[Sequence[RunSpec]] = []

    def run_all(specs: Sequence[RunSpec]) -> list[Outcome]:
        calls.append(specs)
        return [Outcome(spec, "not_solved") for spec in specs]

    monkeypatch.setattr(reproduce, "run_all", run_all)
    words = [NAME, "rows=temporal_order-T20", "columns=K10,same", f"outputs={outputs}"]
    reproduce.main([*words, "--dry-run"])
    assert "\n6 runs to do" in capsys.readouterr().out
    assert reproduce.main(words) == 0
    assert "2 cells, 6 runs, seeds 0, 1, 2" in capsys.readouterr().out
    (specs,) = calls
    assert [(*values([spec], "alpha")[0], spec.config["seed"]) for spec in specs] == [
        (alpha, seed) for alpha in (0.1, 0.01) for seed in (0, 1, 2)
    ]
    reproduce.main([*words, "budget=paper"])
    assert len(calls[1]) == 3 * 2 * 3


@pytest.mark.parametrize(
    ("column", "budget", "shown"),
    [
        ("K10", "laptop", "alpha=0.1,0.01 clip_norm=1"),
        ("both", "laptop", "alpha=0.5"),
        ("both", "paper", "alpha=0.5 or alpha=0.5,0.1 omega=0.5,2"),
        ("bare", "laptop", ""),
    ],
)
def test_a_dry_run_shows_parameters_and_axes(
    conf: Path, outputs: str, capsys: pytest.CaptureFixture[str], column: str, budget: str, shown: str
) -> None:
    reproduce.main([NAME, f"columns={column}", f"budget={budget}", f"outputs={outputs}", "--dry-run"])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| temporal_order"))
    assert line.split("|")[-2].strip() == shown


# ---- what is reported


def test_of_each_seed_the_best_point_counts(conf: Path, outputs: str) -> None:
    cell = trial()
    for seed, (fast, slow) in enumerate([(99.5, 99.9), (98.0, 60.0), (97.0, 96.0)]):
        record(outputs, cell, seed, fast, alpha=0.1)
        record(outputs, cell, seed, slow, alpha=0.01)
    row = row_of(outputs, cell)
    assert (row["ours"], row["seeds"]) == ("98.00 [97.00–99.90] (validation)", "3")
    assert row["parameters"] == "alpha=0.01 clip_norm=1 (seed 0); alpha=0.1 clip_norm=1 (seeds 1, 2)"
    assert row["budget"] == "T = 20, 500 iterations, 2 of 6 points"
    assert row["verdict"] == "inconclusive (500 of 2,000 iterations; no test set recorded; 2 of 6 points)"


def test_seeds_with_fewer_points_are_told(conf: Path, outputs: str) -> None:
    record(outputs, trial(), 0, 90.0, alpha=0.1)
    record(outputs, trial(), 0, 91.0, alpha=0.01)
    record(outputs, trial(), 1, 92.0, alpha=0.1)
    assert row_of(outputs, trial())["budget"].endswith(", 1 to 2 of 6 points")


def test_points_outside_the_grid_do_not_count(conf: Path, outputs: str) -> None:
    record(outputs, trial(), 0, 100.0, alpha=0.7)
    assert row_of(outputs, trial())["verdict"] == "not run"


def test_a_larger_budget_of_the_same_point_overrules_the_smaller(conf: Path, outputs: str) -> None:
    record(outputs, trial(), 0, 90.0)
    record(outputs, trial(), 0, 95.0, limit=2000)
    row = row_of(outputs, trial())
    assert (row["ours"], row["budget"]) == ("95.00 (validation)", "T = 20, 2,000 iterations, 1 of 6 points")


def test_the_test_set_is_shown_and_the_checks_choose(conf: Path, outputs: str) -> None:
    """The point with the best check counts, though another has the better test; best and last check stand beside."""
    for seed in (0, 1):
        record(outputs, trial(), seed, 99.0, alpha=0.1, test=97.0, limit=2000)
        record(outputs, trial(), seed, 98.0, alpha=0.01, test=99.9, limit=2000)
    row = row_of(outputs, trial())
    assert (row["ours"], row["best check"], row["last check"]) == ("97.00", "99.00", "50.00")
    assert row["test sets (95 %)"] == "96.75–97.23"
    assert row["parameters"] == "alpha=0.1 clip_norm=1"


def test_one_seed_without_a_test_set_puts_all_back_to_their_checks(conf: Path, outputs: str) -> None:
    record(outputs, trial(), 0, 99.0, test=97.0, limit=2000)
    record(outputs, trial(), 1, 98.0, limit=2000)
    row = row_of(outputs, trial())
    assert (row["ours"], row["test sets (95 %)"]) == ("98.50 [98.00–99.00] (validation)", "–")
    assert row["verdict"] == "inconclusive (2 seeds; no test set recorded; 1 of 6 points)"
    assert "best of many checks" in paper_report(outputs, NAME)


@pytest.mark.parametrize(
    ("place", "accuracies", "says"),
    [
        (NUMBER, (99.8, 99.81, 99.82), "consistent"),  # 99.84
        (NUMBER, (98.1, 98.12, 98.14), "lower"),
        (NUMBER, (98.5, 95.0, 99.5), "inconclusive (the interval is too wide)"),
        (CHANCE, (98.0, 98.1, 97.9), "does not replicate (higher)"),  # 50.90
        (TICK, (84.0, 84.1, 84.2), "inconclusive (0 of 3 solved)"),
    ],
)
def test_an_accuracy_is_held_against_the_published_one_once_the_grid_is_run(
    conf: Path, outputs: str, place: tuple[str, int], accuracies: Sequence[float], says: str
) -> None:
    cell = trial(place)
    for seed, accuracy in enumerate(accuracies):
        record(outputs, cell, seed, accuracy, alpha=0.1, clip_norm=1.0, test=accuracy, limit=2000)
    assert row_of(outputs, cell)["verdict"] == (says if "higher" in says else said_of_fewer(says))
    for seed in range(3):
        for alpha, clip in ((0.1, 0.5), (0.01, 1.0), (0.01, 0.5), (0.001, 1.0), (0.001, 0.5)):
            record(outputs, cell, seed, 40.0, alpha=alpha, clip_norm=clip, test=40.0, limit=2000)
    assert row_of(outputs, cell)["verdict"] == says


def said_of_fewer(says: str) -> str:
    if "wide" in says or "solved" not in says:
        return "inconclusive (1 of 6 points)"
    return "inconclusive (1 of 6 points; 0 of 3 solved)"


def test_the_best_of_m_stands_beside_what_luck_gives(conf: Path, outputs: str) -> None:
    cell = trial(CHANCE)
    record(outputs, cell, 0, 50.0, alpha=0.1)
    assert "best of m by luck" not in row_of(outputs, cell)
    for alpha, accuracy in ((0.01, 50.2), (0.001, 51.3)):
        record(outputs, cell, 0, accuracy, alpha=alpha)
    plan = recipe(NAME)
    found = answer(plan, cell, load(outputs)[0])
    best = 100 * highest_by_chance({0.502: 3}, 10_000)[0]
    assert luck(cell, found) == row_of(outputs, cell)["best of m by luck"] == f"50.20 → {best:.2f} (best of 3)"
    assert 50.5 < best < 50.8


def test_of_losses_the_least_counts(conf: Path, outputs: str) -> None:
    cell = trial(column="same")
    for alpha, loss in ((0.1, 0.25), (0.01, 0.0125)):
        record(outputs, cell, 0, 60.0, alpha=alpha, loss=loss)
    row = row_of(outputs, cell)
    assert (row["ours"], row["parameters"], row["verdict"]) == ("0.0125 (validation)", "alpha=0.01 clip_norm=1", "–")


@pytest.mark.parametrize(
    ("value", "shown"), [(0.6899, "0.69"), (1.3e-4, "0.00013"), (1e-7, "1e-07"), (9.9e-8, "< 1e-7"), (0.0, "< 1e-7")]
)
def test_losses_below_what_float32_tells_are_only_said_to_be(value: float, shown: str) -> None:
    assert loss_text(value) == shown


def test_a_remark_on_several_published_cells_stands_once(conf: Path, outputs: str) -> None:
    notes = [line for line in paper_report(outputs, NAME).splitlines() if "tick lost" in line]
    assert len(notes) == 1
    assert notes[0].startswith("- temporal_order, K = 10: ")
