"""Published cells, the recipes that answer them, and their tables before anything is run."""

from __future__ import annotations

import csv
import io
import shlex
from collections import Counter
from importlib import resources

import pytest
import yaml
from paper_cells import CELLS, the

from tprnn import compose
from tprnn.errors import UserError
from tprnn.papers import published
from tprnn.papers.recipes import RecipeCell, names, recipe
from tprnn.protocols import reproduce
from tprnn.report.tables.paper import paper_report

PRINTED = [f"{paper}/{table}" for paper in published.papers() for table in published.paper(paper).tables]
# recipes of published tables; the others are ours
ANSWERING = [name for name in names() if f"{name.partition('/')[0]}/{recipe(name).table}" in PRINTED]


# ---- published cells and recipes


def test_cell_ids_are_unique_and_say_their_table() -> None:
    cells = [
        (table, cell)
        for paper in published.papers().values()
        for table in paper.tables.values()
        for cell in table.cells
    ]
    assert len({cell.id for _, cell in cells}) == len(cells)
    assert all(cell.id.startswith(f"{table.paper}.{table.id}.") for table, cell in cells)


def test_cells_hold_what_the_head_of_the_file_describes() -> None:
    text = resources.files("tprnn.papers").joinpath("tables.yaml").read_text(encoding="utf-8")
    head = yaml.safe_load(text.partition("\npapers:")[0])
    for paper in published.papers().values():
        for table in paper.tables.values():
            for cell in table.cells:
                assert set(cell.fields) - set(table.common) <= set(head["fields"]), cell.id
                for field, known in (("task", "tasks"), ("trainer", "trainers"), ("metric", "metrics")):
                    assert cell.fields[field] in head[known], cell.id


def test_a_cell_whose_place_or_reading_is_inferred_says_so() -> None:
    cells = [c for p in published.papers().values() for table in p.tables.values() for c in table.cells]
    for cell in cells:
        fields = cell.fields
        if candidates := fields.get("T_candidates"):
            assert "T" in fields["inferred"], cell.id
            assert cell.T in candidates, cell.id
        if fields.get("value_alternatives"):
            assert cell.uncertain, cell.id
        if cell.uncertain:
            assert cell.note or fields["inferred"], cell.id


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("manchev2021/table1", "manchev2020"),
        ("manchev2020/tabel1", "manchev2020/table1"),
        ("manchev2020", "manchev2020/t"),
    ],
)
def test_unknown_published_tables_name_the_nearest(name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        published.table(name)


@pytest.mark.parametrize("name", ["manchev2020/tabel1", "manchev2021/table1", "manchev2020/table3", "manchev2020"])
def test_unknown_recipes_name_the_nearest(name: str) -> None:
    with pytest.raises(UserError, match="manchev2020"):
        recipe(name)


@pytest.mark.parametrize("cell", CELLS, ids=lambda c: f"{c.recipe}:{c.row.key}:{c.column.key}")
def test_every_recipe_cell_composes_to_the_run_it_names(cell: RecipeCell) -> None:
    spec = cell.spec()
    assert spec.config["task"]["name"] == cell.row.task
    assert spec.config["task"]["T"] == cell.first_T
    assert {key: spec.config["trainer"][key] for key in cell.params} == dict(cell.params)


@pytest.mark.parametrize("name", ANSWERING)
def test_every_published_cell_is_answered_once_and_at_its_length(name: str) -> None:
    plan = recipe(name)
    printed = published.table(f"{name.partition('/')[0]}/{plan.table}").cells
    wanted = [cell.id for cell in printed if cell.trainer not in plan.not_run]
    answers = [cell for cell in plan.cells if cell.published]
    assert Counter(cell.published.id for cell in answers if cell.published) == Counter(wanted)
    for cell in answers:
        assert cell.published is not None
        assert cell.published.T == cell.row.T
        assert cell.published.metric == cell.metric


def test_only_tables_of_ours_answer_no_published_one() -> None:
    ours = {"beyond/rules", "dai2021/literal", "manchev2020/literal", "manchev2020/numerics"}
    ours |= {"manchev2025/literal", "manchev2025/readings", "manchev2025/unit"}
    assert set(names()) - set(ANSWERING) == ours


def test_a_row_says_what_all_of_its_cells_have() -> None:
    copy = [cell for cell in recipe("beyond/rules").cells if cell.row.task == "copy_memory"]
    assert {cell.spec().config["optimizer"]["name"] for cell in copy} == {"adam"}
    others = [cell for cell in recipe("beyond/rules").cells if cell.row.task != "copy_memory"]
    assert {cell.spec().config["optimizer"]["name"] for cell in others} == {"nesterov", "sgd"}


@pytest.mark.parametrize("name", ANSWERING)
def test_what_a_recipe_calls_no_run_is_printed_and_not_answered(name: str) -> None:
    plan = recipe(name)
    printed = {cell.trainer for cell in published.table(f"{name.partition('/')[0]}/{plan.table}").cells}
    assert set(plan.not_run) <= printed - {cell.published.trainer for cell in plan.cells if cell.published}


def test_recipes_use_the_published_parameters_where_there_are_any() -> None:
    printed = [cell for cell in CELLS if cell.published and cell.published.params]
    assert printed
    for cell in printed:
        assert cell.published is not None
        assert cell.params == cell.published.params


@pytest.mark.parametrize("name", names())
def test_a_column_and_its_controls_differ_in_what_is_trained(name: str) -> None:
    for row in recipe(name).rows:
        cells = [cell for cell in recipe(name).cells if cell.row == row]
        for own in {cell.column.of or cell.column.key for cell in cells}:
            group = [cell.spec().signature for cell in cells if own in (cell.column.key, cell.column.of)]
            assert len(set(group)) == len(group), (row.key, own)


@pytest.mark.parametrize("name", [name for name in names() if any(column.of for column in recipe(name).columns)])
def test_where_there_are_controls_every_rule_has_the_same(name: str) -> None:
    found: dict[str, set[str]] = {}
    for cell in recipe(name).cells:
        trainer, control = cell.spec().config["trainer"], cell.column.control
        # a read-out alone is one, though it stands in a column of its own
        alone = {"readout"} if {"W_hh", "b_h", "W_xh"} <= set(trainer["freeze"]) else set()
        found.setdefault(trainer["name"], set()).update(alone or {control.key if control else ""})
    assert len(set(map(frozenset, found.values()))) == 1, found


def test_controls_slow_freeze_and_leave_the_readout_alone() -> None:
    for column in ("BPTT", "TPTT", "TPTT_hx"):
        cells = [the("manchev2020/table1", "adding", f"{column}_{key}") for key in ("factor", "frozen", "readout")]
        slow, frozen, readout = (cell.spec().config["trainer"] for cell in cells)
        assert slow["rate_factors"] == {"W_hh": 0.01, "b_h": 0.01}
        assert frozen["freeze"] == ["W_hh", "b_h"]
        assert readout["freeze"] == ["W_hh", "b_h", "W_xh"]


def test_table_a1_has_rates_of_the_ordinary_grid_and_table_1_the_best_of_table_a3() -> None:
    ordinary = {0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6}
    for task in ("temporal_order", "temporal_order_3bit", "random_permutation"):
        assert set(the("manchev2020/tableA1", task, "TPTT_hx").params.values()) <= ordinary
        wide = the("manchev2020/table1", task, "TPTT_hx").params
        assert wide == the("manchev2020/tableA3", task, "TPTT_hx_best").params
        assert wide["alpha_f"] == 0.2


@pytest.mark.parametrize("column", ["BPTT_best", "TPTT_best"])
def test_best_cells_have_the_whole_grid_as_candidates_under_the_paper_budget_alone(column: str) -> None:
    cell = the("manchev2020/table2", "adding", column)
    lines = [line for line in cell.overrides if not line.startswith("trainer.alpha")]
    grid = {spec.signature for spec in compose.points([*lines, "grid=manchev2020"])}
    assert {spec.signature for spec in cell.candidates("paper")} == grid | {cell.spec().signature}
    assert [spec.signature for spec in cell.candidates("laptop")] == [cell.spec().signature]


# ---- tables without runs


@pytest.mark.parametrize("name", names())
def test_the_command_of_a_cell_not_run_is_accepted(name: str, outputs: str) -> None:
    for row in csv.DictReader(io.StringIO(paper_report(outputs, name, "csv"))):
        assert len(reproduce.parse(shlex.split(row["command"])[2:]).cells) == 1


@pytest.mark.parametrize("name", names())
def test_every_table_has_a_line_for_each_cell_in_each_format(name: str, outputs: str) -> None:
    count = len(recipe(name).cells)
    assert len(list(csv.reader(io.StringIO(paper_report(outputs, name, "csv"))))) == count + 1
    latex = paper_report(outputs, name, "latex")
    assert latex.count(r"\\") == count + 1
    assert "≥" not in latex
    markdown = paper_report(outputs, name, "md")
    assert sum("tprnn reproduce" in line for line in markdown.splitlines()) == count


@pytest.mark.parametrize("paper", sorted({name.partition("/")[0] for name in names()}))
def test_a_paper_alone_lists_its_tables_and_ours(outputs: str, paper: str) -> None:
    listed = list(csv.DictReader(io.StringIO(paper_report(outputs, paper, "csv"))))
    mine = {f"{paper}/{recipe(name).table}": name for name in names() if name.startswith(f"{paper}/")}
    printed = [key for key in PRINTED if key.startswith(f"{paper}/")]
    assert [row["table"] for row in listed] == [*printed, *(key for key in mine if key not in printed)]
    for row in listed:
        name = mine.get(row["table"])
        assert row["command"] == (f"tprnn reproduce {name}" if name else "–")


@pytest.mark.parametrize(
    ("paper", "fmt", "says"), [("manchev202", "md", "manchev2020"), ("manchev2020/table1", "htm", "choices: csv")]
)
def test_unknown_papers_and_formats_are_one_clear_line(outputs: str, paper: str, fmt: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        paper_report(outputs, paper, fmt)
