"""Recipes: which runs answer each cell of a table (conf/paper/<paper>/<table>.yaml).

A recipe is a grid of cells, one per row (a task, sometimes at a fixed length) and column (a trainer with
its parameters). A cell with a published counterpart *answers* it; one without is a control.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import yaml

from tprnn.config import RunSpec
from tprnn.errors import UserError, nearest
from tprnn.listing import conf_folder
from tprnn.papers import published

METRICS = ("t_max", "iterations_to_solve")


@dataclass(frozen=True)
class Budget:
    """How much of a recipe is run."""

    name: str
    seeds: tuple[int, ...]
    max_iterations: int
    # Longest T of each task; a task that is missing is left out. None: no limit for any task.
    T_max: Mapping[str, int] | None

    def limit(self, task: str) -> int | None:
        """Longest T of a task; 0 where the budget leaves the task out, None where it has no limit."""
        return None if self.T_max is None else self.T_max.get(task, 0)


@dataclass(frozen=True)
class Row:
    """A task, climbed (T is None) or at one length."""

    task: str
    T: int | None

    @property
    def key(self) -> str:
        return self.task if self.T is None else f"{self.task}-T{self.T}"


@dataclass(frozen=True)
class Column:
    """A trainer and its settings. `answers`: `<table>/<trainer>[/<selection>]`, None for a control."""

    key: str
    label: str
    overrides: tuple[str, ...]
    answers: str | None
    parameters: Mapping[str, Any]
    # budget -> grid whose fastest point the cell reports
    grid: Mapping[str, str]


@dataclass(frozen=True)
class RecipeCell:
    """One cell of a recipe: what answers it, and its published counterpart."""

    recipe: str
    row: Row
    column: Column
    first_T: int
    # trainer setting -> value
    params: Mapping[str, float]
    published: published.Cell | None

    @property
    def overrides(self) -> list[str]:
        """The overrides that make this cell's run at its first length, seed 0."""
        rates = [f"trainer.{key}={value!r}" for key, value in self.params.items()]
        return [f"task={self.row.task}", f"task.T={self.first_T}", *self.column.overrides, *rates]

    def spec(self, execution: Sequence[str] = ()) -> RunSpec:
        """The run with the cell's own parameters, at its first length, seed 0. Raises UserError."""
        return _points((*self.overrides, *execution), (), ())[0]

    def candidates(self, budget: str | None, execution: Sequence[str] = ()) -> Sequence[RunSpec]:
        """The points whose fastest the cell reports: its own parameters and, where `budget` names a grid, that grid.

        None stands for all budgets: every grid that any of them names. Raises UserError.
        """
        named = self.column.grid.values() if budget is None else [self.column.grid.get(budget)]
        grids = sorted({name for name in named if name})
        return _points((*self.overrides, *execution), tuple(grids), tuple(self.params))


@cache  # one table is asked for its points by every command that a process runs on it
def _points(overrides: tuple[str, ...], grids: tuple[str, ...], params: tuple[str, ...]) -> tuple[RunSpec, ...]:
    """The run of override lines, and those that differ from it by the points of grids over the trainer's `params`."""
    from tprnn.compose import compose  # imports hydra

    own = compose(overrides)
    others = [own.replace(values) for grid in grids for values in _grid_points(grid, params)]
    return tuple({spec.signature: spec for spec in (own, *others)}.values())


@cache
def _grid_points(grid: str, params: tuple[str, ...]) -> list[dict[str, float]]:
    """The points of a grid over the trainer's `params`, which all must be axes of it. Raises UserError."""
    axes = yaml.safe_load((conf_folder() / "grid" / f"{grid}.yaml").read_text(encoding="utf-8"))["axes"]
    keys = [f"trainer.{name}" for name in params]
    for key in keys:
        if key not in axes:
            raise UserError(f"grid {grid}: no axis '{key}'; {nearest(key, axes)}")
    return [dict(zip(keys, values, strict=True)) for values in itertools.product(*(axes[key] for key in keys))]


@dataclass(frozen=True)
class Recipe:
    """How a table is rebuilt."""

    name: str
    title: str
    metric: str
    start: int
    step: int
    budgets: Mapping[str, Budget]
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    cells: tuple[RecipeCell, ...]
    notes: tuple[str, ...]

    def budget(self, name: str, **changes: Any) -> Budget:
        """A budget by name, with fields changed where a change is not None. Raises UserError."""
        if name not in self.budgets:
            raise UserError(f"budget: no budget '{name}' in {self.name}; {nearest(name, self.budgets)}")
        return replace(self.budgets[name], **{key: value for key, value in changes.items() if value is not None})

    def select(self, rows: Sequence[str] | None, columns: Sequence[str] | None) -> list[RecipeCell]:
        """Cells of some rows (by key or task) and columns (by key); None: all. Raises UserError for unknown ones."""
        row_names = {row.key for row in self.rows} | {row.task for row in self.rows}
        column_names = {column.key for column in self.columns}
        for kind, wanted, known in (("rows", rows, row_names), ("columns", columns, column_names)):
            for name in wanted or ():
                if name not in known:
                    raise UserError(f"{kind}: '{name}' is not in {self.name}; {nearest(name, known)}")
        return [
            cell
            for cell in self.cells
            if (rows is None or cell.row.key in rows or cell.row.task in rows)
            and (columns is None or cell.column.key in columns)
        ]

    def lengths(self, cell: RecipeCell, budget: Budget) -> range:
        """Lengths at which the budget has the cell trained, in order; unbounded climbs end at 10,000."""
        limit = budget.limit(cell.row.task)
        if cell.row.T is not None:
            return range(cell.row.T, cell.row.T + (limit is None or cell.row.T <= limit))
        return range(self.start, (10_000 if limit is None else limit) + 1, self.step)


def _budget(name: str, record: Mapping[str, Any], tasks: Iterable[str]) -> Budget:
    limit = record.get("T_max")
    return Budget(
        name=name,
        seeds=tuple(range(record["seeds"])),
        max_iterations=record["max_iterations"],
        T_max=dict.fromkeys(tasks, limit) if isinstance(limit, int) else limit,
    )


def _column(record: Mapping[str, Any]) -> Column:
    parameters = record["parameters"]
    return Column(
        key=record["key"],
        label=record["label"],
        overrides=tuple(record["overrides"]),
        answers=record.get("answers"),
        parameters=parameters if isinstance(parameters, dict) else {"default": parameters},
        grid=record.get("grid", {}),
    )


def _published(paper: str, reference: str, row: Row, where: str) -> published.Cell:
    """The cell that `<table>/<trainer>[/<selection>]` names in a row. Raises UserError where there is none."""
    table_id, trainer, *selection = reference.split("/")
    table = published.table(f"{paper}/{table_id}")
    cell = table.find(task=row.task, trainer=trainer, selection=selection[0] if selection else None, T=row.T)
    # parameters may come from a table of another length
    cell = cell or table.find(task=row.task, trainer=trainer, selection=selection[0] if selection else None)
    if cell is None:
        raise UserError(f"{where}: no published cell {reference} for {row.task}")
    return cell


def _cell(paper: str, recipe: str, row: Row, column: Column, start: int) -> RecipeCell:
    where = f"recipe {recipe}, column {column.key}"
    source = column.parameters.get(row.task, column.parameters.get("default"))
    if isinstance(source, str):
        source = _published(paper, source, row, where).params
    if source is None:
        raise UserError(f"{where}: no parameters for {row.task}")
    answered = None if column.answers is None else _published(paper, column.answers, row, where)
    return RecipeCell(
        recipe=recipe,
        row=row,
        column=column,
        first_T=start if row.T is None else row.T,
        params={key: float(value) for key, value in source.items()},
        published=answered,
    )


def _recipe(name: str, record: Mapping[str, Any]) -> Recipe:
    if record["metric"] not in METRICS:
        raise UserError(f"recipe {name}: metric '{record['metric']}'; {nearest(record['metric'], METRICS)}")
    climb = record.get("climb", {"start": 10, "step": 10})
    rows = tuple(Row(entry["task"], entry.get("T")) for entry in record["rows"])
    columns = tuple(_column(entry) for entry in record["columns"])
    tasks = [row.task for row in rows]
    paper = name.partition("/")[0]
    return Recipe(
        name=name,
        title=record["title"],
        metric=record["metric"],
        start=climb["start"],
        step=climb["step"],
        budgets={key: _budget(key, entry, tasks) for key, entry in record["budgets"].items()},
        rows=rows,
        columns=columns,
        cells=tuple(_cell(paper, name, row, column, climb["start"]) for row in rows for column in columns),
        notes=tuple(record.get("notes", ())),
    )


@cache
def names() -> tuple[str, ...]:
    """Every recipe as `<paper>/<table>`, sorted."""
    root = conf_folder() / "paper"
    return tuple(sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.glob("*/*.yaml")))


@cache
def recipe(name: str) -> Recipe:
    """A recipe by name, e.g. "manchev2020/table1". Raises UserError for an unknown paper or table."""
    if name not in names():
        key = name.partition("/")[0]
        own = [entry for entry in names() if entry.startswith(f"{key}/")]
        published.paper(key)  # an unknown paper is named first
        raise UserError(f"no table '{name}' that can be reproduced; {nearest(name, own or names())}")
    text = (conf_folder() / "paper" / f"{name}.yaml").read_text(encoding="utf-8")
    try:
        return _recipe(name, yaml.safe_load(text))
    except (KeyError, TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"recipe {name}: not as docs/extending.md describes it: {error!r}") from error
