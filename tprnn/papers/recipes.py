"""Recipes: which runs answer each cell of a table, or make each line of a figure (conf/paper/<paper>/<name>.yaml).

A recipe is a grid of cells, one per row (a task, sometimes at a fixed length) and column (a trainer with
its parameters or a grid over them). A cell with a published counterpart *answers* it; one without is a control.
A recipe with a key `figure` is drawn (tprnn/report/figures/paper.py) in place of printed: its columns are lines.
docs/extending.md describes the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tprnn.config import RunSpec
from tprnn.errors import UserError, nearest
from tprnn.listing import conf_folder, files
from tprnn.papers import grids, published
from tprnn.papers.columns import RECORDED, Column, of_trainer
from tprnn.papers.columns import read as read_columns
from tprnn.plugins import folders, while_unchanged


@dataclass(frozen=True)
class Budget:
    """How much of a recipe is run."""

    name: str
    seeds: tuple[int, ...]
    max_iterations: int
    # Longest T of each task; a task that is missing is left out. None: no limit for any task.
    T_max: Mapping[str, int] | None
    # Which candidates of a cell, counted from 1; None: all.
    points: tuple[int, ...] | None = None

    def limit(self, task: str) -> int | None:
        """Longest T of a task; 0 where the budget leaves the task out, None where it has no limit."""
        return None if self.T_max is None else self.T_max.get(task, 0)


@dataclass(frozen=True)
class Row:
    """A task, climbed (T is None) or at one length."""

    task: str
    T: int | None
    # what all of its cells have, after the overrides of their columns
    overrides: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return self.task if self.T is None else f"{self.task}-T{self.T}"


@dataclass(frozen=True)
class RecipeCell:
    """One cell of a recipe: what answers it, and its published counterpart."""

    recipe: str
    row: Row
    column: Column
    first_T: int
    # trainer setting -> value; empty where the grid alone says
    params: Mapping[str, float]
    published: published.Cell | None

    @property
    def metric(self) -> str:
        return self.column.metric

    @property
    def overrides(self) -> list[str]:
        """The overrides that make this cell's run at its first length, seed 0, before any point of a grid."""
        rates = [f"trainer.{key}={value!r}" for key, value in self.params.items()]
        shared = self.column.lines(self.row.task, self.row.overrides)
        return [f"task={self.row.task}", f"task.T={self.first_T}", *shared, *rates]

    def spec(self, execution: Sequence[str] = ()) -> RunSpec:
        """The run with its own parameters, else its first point; at its first length, seed 0. Raises UserError."""
        if not self._has_own:
            return self.candidates(None, execution)[0]
        return grids.points((*self.overrides, *execution), (), True)[0]

    def candidates(self, budget: str | None, execution: Sequence[str] = ()) -> Sequence[RunSpec]:
        """The points whose best the cell reports: its own parameters and, where `budget` names a grid, that grid.

        None stands for all budgets: every grid that any of them names. Raises UserError.
        """
        none = ((),) if budget is None and self._has_own else ()  # of a budget without a grid
        return grids.points((*self.overrides, *execution), (*none, *self._grids(budget)), self._has_own)

    def runs(self, budget: Budget, execution: Sequence[str] = ()) -> list[RunSpec]:
        """Every candidate of the budget with every seed of it, at the cell's first length. Raises UserError."""
        limit = {"train.max_iterations": budget.max_iterations}
        found = self.candidates(budget.name, execution)
        for point in budget.points or ():
            if point > len(found):
                raise UserError(
                    f"points: {self.column.key} has {len(found)} of them in budget={budget.name}, no {point}"
                )
        chosen = found if budget.points is None else [found[point - 1] for point in budget.points]
        return [candidate.replace({"seed": seed, **limit}) for candidate in chosen for seed in budget.seeds]

    @property
    def _has_own(self) -> bool:
        return self.column.parameters is not None

    def _grids(self, budget: str | None) -> tuple[grids.Axes, ...]:
        given = self.column.grid.values() if budget is None else [self.column.grid.get(budget)]
        axes = [grids.named(grid, tuple(self.params)) if isinstance(grid, str) else grid for grid in given if grid]
        return tuple(dict.fromkeys(axes))

    @cached_property
    def settings(self) -> tuple[str, ...]:
        """The trainer's settings that tell the cell's points apart."""
        axes = (name for grid in self._grids(None) for name, _ in grid if not grids.is_key(name))
        return tuple(dict.fromkeys([*self.params, *axes]))

    def rates(self, budget: str) -> grids.Axes:
        """The axes of the budget's grid that are rates of its rule, and those that are keys of the whole run."""
        rates = [key.removeprefix("trainer.") for key in self.spec().rates]
        axes = (axis for grid in self._grids(budget) for axis in grid)
        return tuple((key, values) for key, values in axes if grids.is_key(key) or key in rates)

    def described(self, budget: str) -> str:
        """Its own parameters and the axes of the budget's grid: `alpha=0.5 or alpha=0.1,0.01 gamma=10,1`."""
        own = [[(key, (value,)) for key, value in self.params.items()]] if self._has_own else []
        told = [
            " ".join(f"{key}={','.join(map(_shown, values))}" for key, values in axes)
            for axes in [*own, *self._grids(budget)]
        ]
        return " or ".join(told)


def _shown(value: Any) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Recipe:
    """How a table or a figure is rebuilt."""

    name: str
    title: str
    # id of the published table; empty for a figure
    table: str
    # how it is drawn: its kind and the options of that; empty for a table
    figure: Mapping[str, Any]
    # of its columns, but for those that name their own
    metric: str
    start: int
    step: int
    budgets: Mapping[str, Budget]
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    cells: tuple[RecipeCell, ...]
    notes: tuple[str, ...]
    # published trainers that are no runs -> why
    not_run: Mapping[str, str]
    # those that were added to the file's
    trainers: tuple[str, ...] = ()

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric of its columns, once."""
        return tuple(dict.fromkeys(column.metric for column in self.columns))

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


def _published(
    where: str, paper: str, reference: str, row: Row, fields: Mapping[str, Any], any_length: bool = False
) -> published.Cell:
    """The cell that `[<paper>/]<table>/<trainer>[/<selection>]` names in a row. Raises UserError where there is none.

    With `any_length` one of another length will do where there is none of the row's.
    """
    words = reference.split("/")
    if words[0] in published.papers():
        paper, *words = words
    table_id, trainer, *selection = words
    table = published.table(f"{paper}/{table_id}")
    for T in [row.T, None] if any_length else [row.T]:
        found = table.find(
            task=row.task, trainer=trainer, selection=selection[0] if selection else None, T=T, where=fields
        )
        if found is not None:
            return found
    told = "".join(f", {key} = {value}" for key, value in fields.items())
    raise UserError(f"{where}: not one published cell {reference} for {row.key}{told}")


def _cell(paper: str, recipe: str, row: Row, column: Column, start: int) -> RecipeCell:
    where = f"recipe {recipe}, column {column.key}"
    source: Any = {}
    if column.parameters is not None:
        source = column.parameters.get(row.task, column.parameters.get("default"))
    if isinstance(source, str):
        source = _published(where, paper, source, row, column.where, any_length=True).params
    if source is None:
        raise UserError(f"{where}: no parameters for {row.task}")
    answered = None
    if column.answers is not None:
        answered = _published(where, paper, column.answers, row, {**column.where, "metric": column.metric})
    return RecipeCell(
        recipe=recipe,
        row=row,
        column=column,
        first_T=start if row.T is None else row.T,
        params={key: float(value) for key, value in source.items()},
        published=answered,
    )


def _recipe(name: str, record: Mapping[str, Any], trainers: Sequence[str] = ()) -> Recipe:
    paper, _, own_id = name.partition("/")
    climb = record.get("climb", {"start": 10, "step": 10})
    rows = tuple(Row(entry["task"], entry.get("T"), tuple(entry.get("overrides", ()))) for entry in record["rows"])
    drawn = "figure" in record
    metric = record.get("metric", RECORDED) if drawn else record["metric"]
    if drawn and any(row.T is None for row in rows):
        raise UserError(f"recipe {name}: a figure's rows have a length each, e.g. {{task: {rows[0].task}, T: 10}}")
    if not drawn and "paper" not in record["budgets"]:
        raise UserError(f"recipe {name}: budgets: no budget 'paper', which says what a whole cell is")
    shared = {
        "where": f"recipe {name}",
        "conf": conf_folder(),
        "metric": metric,
        "drawn": drawn,
        "overrides": record.get("overrides", ()),
        "grid": record.get("grid", {}),
        "budgets": tuple(record["budgets"]),
    }
    columns = read_columns(record, shared)
    tasks = [row.task for row in rows]
    plan = Recipe(
        name=name,
        title=record["title"],
        table="" if drawn else record.get("table", own_id),
        figure=record.get("figure", {}),
        metric=metric,
        start=climb["start"],
        step=climb["step"],
        budgets={key: _budget(key, entry, tasks) for key, entry in record["budgets"].items()},
        rows=rows,
        columns=columns,
        cells=tuple(_cell(paper, name, row, column, climb["start"]) for row in rows for column in columns),
        notes=tuple(record.get("notes", ())),
        not_run=record.get("not_run", {}),
    )
    return _with_trainers(plan, trainers, shared) if trainers else plan


def _with_trainers(plan: Recipe, trainers: Sequence[str], shared: Mapping[str, Any]) -> Recipe:
    """The recipe with a column for each of some more trainers, and its controls of each. Raises UserError."""
    from tprnn.compose import compose  # imports hydra

    keys = [column.key for column in plan.columns]
    for name in trainers:
        if name not in (known := files("trainer")):
            raise UserError(f"trainers: no trainer '{name}'; {nearest(name, known)}")
        if name in keys:
            raise UserError(f"trainers: {plan.name} has a column '{name}' already; leave it out")
    if plan.figure:
        raise UserError(f"trainers: {plan.name} is a figure; expected a table, e.g. tprnn reproduce beyond/rules")
    own = [cell for cell in plan.cells if cell.column.control is None and cell.row is plan.rows[0]]
    spaces = [{budget: cell.rates(budget) for budget in cell.column.grid} for cell in own]
    controls = dict.fromkeys(column.control for column in plan.columns if column.control)
    paper, start = plan.name.partition("/")[0], plan.start
    added: list[Column] = []
    for name in trainers:
        task = plan.rows[0].task
        rates = [key.removeprefix("trainer.") for key in compose([f"task={task}", f"trainer={name}"]).rates]
        added.append(of_trainer(name, rates, shared, spaces))
    added += [column.with_control(control) for column in added for control in controls]
    columns = (*plan.columns, *added)
    cells = tuple(_cell(paper, plan.name, row, column, start) for row in plan.rows for column in columns)
    return replace(plan, columns=columns, cells=cells, trainers=tuple(trainers))


# `like: <paper>/<figure>` takes all keys from there that are not given
_DRAWN = re.compile(r"^(figure|like)\s*:", re.MULTILINE)


def _every() -> dict[str, Path]:
    """The file of every recipe, by name."""
    roots = [folder / "paper" for folder in (conf_folder(), *(one.path for one in folders()))]
    return {
        path.relative_to(root).with_suffix("").as_posix(): path
        for root in roots
        for path in sorted(root.glob("*/*.yaml"))
    }


def _is_figure(path: Path) -> bool:
    return bool(_DRAWN.search(path.read_text(encoding="utf-8")))


@while_unchanged
def names() -> tuple[str, ...]:
    """Every recipe of a table as `<paper>/<table>`, sorted."""
    return tuple(name for name, path in _every().items() if not _is_figure(path))


@while_unchanged
def figure_names() -> tuple[str, ...]:
    """Every recipe of a figure as `<paper>/<figure>`, sorted."""
    return tuple(name for name, path in _every().items() if _is_figure(path))


def _record(name: str) -> dict[str, Any]:
    """A recipe's file; with `like`, that of another figure, its overrides before our own. Raises UserError."""
    record: dict[str, Any] = yaml.safe_load(_every()[name].read_text(encoding="utf-8"))
    if "like" not in record:
        return record
    other = record.pop("like")
    if other not in figure_names() or "like" in (base := yaml.safe_load(_every()[other].read_text(encoding="utf-8"))):
        whole = [figure for figure in figure_names() if figure != name]
        raise UserError(f"recipe {name}: like: no figure '{other}' with keys of its own; {nearest(str(other), whole)}")
    overrides = [*base.get("overrides", ()), *record.get("overrides", ())]
    return {**base, **record, "overrides": overrides}


@while_unchanged
def recipe(name: str, trainers: tuple[str, ...] = ()) -> Recipe:
    """A recipe by name, e.g. "manchev2020/table1", with a column more for each of `trainers`.

    These stand at their defaults and, where the recipe searches, have its values for their rates, and its controls.
    Raises UserError for an unknown paper, table, figure or trainer.
    """
    if name not in (known := _every()):
        key = name.partition("/")[0]
        own = [entry for entry in known if entry.startswith(f"{key}/")]
        if not own:
            published.paper(key)  # an unknown paper is named first
        raise UserError(f"no table or figure '{name}' that can be reproduced; {nearest(name, own or known)}")
    try:
        return _recipe(name, _record(name), trainers)
    except (KeyError, TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"recipe {name}: not as docs/extending.md describes it: {error!r}") from error
