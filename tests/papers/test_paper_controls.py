"""Controls of recipes: the same for every column, laid over what the column has."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tprnn.errors import UserError
from tprnn.listing import conf_folder
from tprnn.papers import recipes
from tprnn.papers.lines import merged, spread
from tprnn.papers.recipes import RecipeCell, recipe
from tprnn.protocols import reproduce

NAME = "manchev2020/trial"
TRIAL = """\
# A table for tests.
title: Accuracy by grid
metric: accuracy_pct
controls: [factor, frozen, readout]
budgets:
  laptop: &all {seeds: 2, max_iterations: 500}
  paper: *all
overrides: [optimizer=sgd]
rows:
  - {task: temporal_order, T: 20}
  - {task: temporal_order, T: 40, overrides: ["trainer.freeze=[b_y]"]}
columns:
  - {key: rule, label: the rule, overrides: [trainer=tptt],
     grid: {laptop: &grid {alpha_f: [0.1, 0.01], alpha_i: [1.0]}, paper: *grid}}
  - {key: same, label: the loss of the same runs, metric: loss, overrides: [trainer=tptt],
     grid: {laptop: *grid, paper: *grid}}
  - {key: own, label: own, overrides: [trainer=bptt, "trainer.freeze=[W_xh]",
     "trainer.rate_factors={W_hh:0.5,W_hy:3.0}"],
     parameters: {default: {alpha: 0.5}}, controls: [factor, frozen]}
  - {key: alone, label: alone, overrides: [trainer=dfa], parameters: {default: {}}, controls: []}
"""


def write_recipe(folder: Path, text: str) -> None:
    (folder / "paper" / f"{NAME}.yaml").write_text(text)
    recipes.names.cache_clear()
    recipes.figure_names.cache_clear()
    recipes.recipe.cache_clear()


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of recipes that stands for conf/, with the one of `TRIAL` and the controls of all recipes."""
    folder = tmp_path / "conf"
    (folder / "paper" / NAME).parent.mkdir(parents=True)
    shutil.copy(conf_folder() / "paper" / "controls.yaml", folder / "paper")
    monkeypatch.setattr(recipes, "conf_folder", lambda: folder)
    write_recipe(folder, TRIAL)
    yield folder
    recipes.names.cache_clear()
    recipes.figure_names.cache_clear()
    recipes.recipe.cache_clear()


def the(column: str, T: int = 20) -> RecipeCell:
    (cell,) = [c for c in recipe(NAME).cells if (c.row.T, c.column.key) == (T, column)]
    return cell


def trainer(cell: RecipeCell) -> dict[str, Any]:
    found: dict[str, Any] = cell.spec().config["trainer"]
    return found


def test_every_column_has_the_controls_but_those_that_name_their_own(conf: Path) -> None:
    keys = [column.key for column in recipe(NAME).columns]
    assert keys == ["rule", "same", "own", "alone"] + [
        f"{column}_{control}" for column in ("rule", "same") for control in ("factor", "frozen", "readout")
    ] + ["own_factor", "own_frozen"]
    for column in recipe(NAME).columns[4:]:
        assert column.control is not None
        assert column.key == f"{column.of}_{column.control.key}"
        assert column.answers is None


def test_a_control_has_the_parameters_and_the_grid_of_its_column(conf: Path) -> None:
    for control, changed in {
        "factor": {"rate_factors": {"W_hh": 0.01, "b_h": 0.01}},
        "frozen": {"freeze": ["W_hh", "b_h"]},
        "readout": {"freeze": ["W_hh", "b_h", "W_xh"]},
    }.items():
        plain, controlled = the("rule"), the(f"rule_{control}")
        assert controlled.column.label == f"the rule, {controlled.column.control.label}"  # type: ignore[union-attr]
        points = [spec.config["trainer"] for spec in plain.candidates("laptop")]
        assert [spec.config["trainer"] for spec in controlled.candidates("laptop")] == [p | changed for p in points]


def test_columns_that_read_the_same_runs_share_their_controls(conf: Path) -> None:
    for control in ("factor", "frozen", "readout"):
        loss, accuracy = the(f"same_{control}"), the(f"rule_{control}")
        assert (loss.metric, accuracy.metric) == ("loss", "accuracy_pct")
        signatures = [[spec.signature for spec in cell.candidates("laptop")] for cell in (loss, accuracy)]
        assert signatures[0] == signatures[1]
    words = [NAME, "rows=temporal_order-T20", "columns=rule_factor,same_factor"]
    assert len(reproduce.distinct(reproduce.climbers(reproduce.parse(words)))) == 2 * 2


def test_a_control_adds_to_what_its_column_and_row_freeze_and_slow(conf: Path) -> None:
    assert trainer(the("own_factor"))["rate_factors"] == {"W_hh": 0.01, "b_h": 0.01, "W_hy": 3.0}
    assert trainer(the("own_factor"))["freeze"] == ["W_xh"]
    assert trainer(the("own_frozen"))["freeze"] == ["W_xh", "W_hh", "b_h"]
    assert trainer(the("own_frozen"))["rate_factors"] == {"W_hh": 0.5, "W_hy": 3.0}
    # the list of a row takes the place of its columns'
    assert trainer(the("rule_readout", T=40))["freeze"] == ["b_y", "W_hh", "b_h", "W_xh"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("controls: [factor, frozen, readout]", "controls: [facto]", "column rule: controls: no control 'facto'"),
        (
            "controls: [factor, frozen]}",
            "controls: frozn}",
            "column own: controls: no control 'frozn'; nearest: frozen",
        ),
        ("key: alone", "key: own_factor", "2 columns 'own_factor'"),
    ],
)
def test_controls_that_cannot_be_had_are_one_clear_line(conf: Path, old: str, new: str, says: str) -> None:
    assert TRIAL.count(old) == 1
    write_recipe(conf, TRIAL.replace(old, new))
    with pytest.raises(UserError, match=says):
        recipe(NAME)


def test_a_recipe_without_controls_has_its_own_columns_alone(conf: Path) -> None:
    (conf / "paper" / "controls.yaml").unlink()  # is not even looked at
    write_recipe(
        conf,
        "\n".join(line for line in TRIAL.splitlines() if not line.startswith("controls:")).replace(
            ", controls: [factor, frozen]", ""
        ),
    )
    assert [column.key for column in recipe(NAME).columns] == ["rule", "same", "own", "alone"]


def test_lines_of_a_figure_have_controls_too(conf: Path) -> None:
    drawn = TRIAL.replace("metric: accuracy_pct\n", "figure: {kind: curves, panels: [{key: loss, label: loss}]}\n")
    write_recipe(conf, drawn)
    assert "rule_frozen" in [column.key for column in recipe(NAME).columns]


# ---- override lines


def test_a_list_among_overrides_gives_its_own() -> None:
    columns = yaml.safe_load("a: [&a [x=1, &b [y=2]], z=3]\nb: [*a, w=4]\nc: *b")
    assert [list(spread(lines)) for lines in columns.values()] == [
        ["x=1", "y=2", "z=3"],
        ["x=1", "y=2", "w=4"],
        ["y=2"],
    ]


def test_lists_and_mappings_that_are_added_keep_what_was_there() -> None:
    lines = [
        "trainer=tptt",
        "trainer.freeze=[b_y, W_hh]",
        "trainer.alpha_f=0.1",
        "trainer.rate_factors={b_y: 3,W_hh:1}",
    ]
    added = ["trainer.freeze=[W_hh,b_h]", "trainer.alpha_f=0.2", "trainer.rate_factors={W_hh:0.01}"]
    frozen, factors = "trainer.freeze=[b_y,W_hh,b_h]", "trainer.rate_factors={b_y:3,W_hh:0.01}"
    assert merged(lines, added) == [*lines, frozen, "trainer.alpha_f=0.2", factors]
    assert merged([], added) == added
