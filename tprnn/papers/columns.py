"""Columns of a recipe: a trainer with its parameters or a grid over them, and the controls of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tprnn.errors import UserError, nearest
from tprnn.papers import controls, grids
from tprnn.papers.lines import merged, spread

# as tables.yaml names them
METRICS = ("t_max", "iterations_to_solve", "accuracy_pct", "loss")
# of the lines of a figure that are no score but what was recorded on the way
RECORDED = "recorded"


@dataclass(frozen=True)
class Column:
    """A trainer and its settings. `answers`: `<table>/<trainer>[/<selection>]`, None for a control."""

    key: str
    label: str
    metric: str
    overrides: tuple[str, ...]
    # task -> what its cells have beside those
    of_task: Mapping[str, tuple[str, ...]]
    answers: str | None
    # further fields of the published cells, e.g. {K: 10}
    where: Mapping[str, Any]
    # None: the grid alone says which runs there are
    parameters: Mapping[str, Any] | None
    # budget -> grid whose best point the cell reports: the name of one, or its axes
    grid: Mapping[str, str | grids.Axes]
    # of a control: which one, and the key of the column that it is a control of
    control: controls.Control | None = None
    of: str | None = None

    def lines(self, task: str, row: tuple[str, ...]) -> list[str]:
        """Its override lines in a row of a task, those of the row and of its control among them."""
        own = [*self.overrides, *self.of_task.get(task, ()), *row]
        return own if self.control is None else merged(own, self.control.overrides)

    def with_control(self, control: controls.Control) -> Column:
        """The same column under a control, without a published counterpart."""
        key, label = f"{self.key}_{control.key}", f"{self.label}, {control.label}"
        return replace(self, key=key, label=label, answers=None, control=control, of=self.key)


def _column(record: Mapping[str, Any], shared: Mapping[str, Any]) -> Column:
    """A column without its controls."""
    parameters, given = record.get("parameters"), record.get("grid")
    if given is None:
        given = shared["grid"] if parameters is None else {}
    if parameters is None and not given and shared["drawn"]:
        parameters = {"default": {}}  # a line of a figure may be its overrides alone
    grid = {budget: axes if isinstance(axes, str) else grids.inline(axes) for budget, axes in given.items()}
    missing = [budget for budget in shared["budgets"] if budget not in grid]
    if parameters is None and missing:
        raise UserError(f"{shared['where']}, column {record['key']}: no parameters and no grid for budget {missing[0]}")
    metric = record.get("metric", shared["metric"])
    if metric not in METRICS and not (shared["drawn"] and metric == RECORDED):
        raise UserError(f"{shared['where']}: metric '{metric}'; {nearest(metric, METRICS)}")
    own = record["overrides"]
    of_task = {task: tuple(spread(lines)) for task, lines in own.items()} if isinstance(own, dict) else {}
    return Column(
        key=record["key"],
        label=record["label"],
        metric=metric,
        overrides=tuple(spread([*shared["overrides"], *([] if of_task else own)])),
        of_task=of_task,
        answers=record.get("answers"),
        where=record.get("where", {}),
        parameters=parameters if isinstance(parameters, dict) or parameters is None else {"default": parameters},
        grid=grid,
    )


def of_trainer(
    name: str, rates: Sequence[str], shared: Mapping[str, Any], spaces: Sequence[Mapping[str, grids.Axes]]
) -> Column:
    """A column for a trainer that the recipe does not name: at its defaults and, where others are searched, searched.

    `spaces`: of each column of the recipe, budget -> the axes of its rates, and keys of the whole run. A rate has the
    values of the axis of its name, where there is one, else those of all rates together.
    """
    grid: dict[str, grids.Axes] = {}
    for budget in shared["budgets"]:
        values: dict[str, dict[Any, None]] = {}
        for axes in (space[budget] for space in spaces if budget in space):
            for key, each in axes:
                values.setdefault(key, {}).update(dict.fromkeys(each))
        whole = {key: tuple(each) for key, each in values.items() if grids.is_key(key)}
        searched = {key: tuple(each) for key, each in values.items() if not grids.is_key(key)}
        every = tuple(sorted({value for each in searched.values() for value in each}, reverse=True))
        if every:
            own = {rate: searched.get(rate, every) for rate in rates}
            grid[budget] = tuple((own | {key: each for key, each in whole.items() if len(each) == 1}).items())
    return Column(
        key=name,
        label=name,
        metric=shared["metric"],
        overrides=(*spread(shared["overrides"]), f"trainer={name}"),
        of_task={},
        answers=None,
        where={},
        parameters={"default": {}},
        grid=grid,
    )


def read(record: Mapping[str, Any], shared: Mapping[str, Any]) -> tuple[Column, ...]:
    """All columns of a recipe's file: its own, then the controls of each.

    `shared` holds what the recipe gives to all of them. Raises UserError for a column that cannot be, and for a key
    that is there twice.
    """
    own = [_column(entry, shared) for entry in record["columns"]]
    columns = list(own)
    for column, entry in zip(own, record["columns"], strict=True):
        given = entry.get("controls", record.get("controls", ()))
        named = controls.named(shared["conf"], given, f"{shared['where']}, column {column.key}")
        columns += [column.with_control(control) for control in named]
    keys = [column.key for column in columns]
    for key in keys:
        if keys.count(key) > 1:
            raise UserError(f"{shared['where']}: {keys.count(key)} columns '{key}'; give each a key of its own")
    return tuple(columns)
