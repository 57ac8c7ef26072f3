"""A score against a factor on learning rates: a panel for each row, a line for each rule, a dot for each seed.

Columns with the same label are one line. A dot is a run's share of right answers on its test set or, where runs can be
solved, its iterations until then; the line goes through the medians, with a bar from the least to the most. Runs that
were not solved stand at the budget, with their number over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median
from typing import TYPE_CHECKING, Any

from tprnn.config import flatten
from tprnn.errors import UserError, nearest
from tprnn.report.figures.drawing import legend
from tprnn.report.figures.paper import Found, Line, Point
from tprnn.report.figures.runs import look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEVEL = "level"


@dataclass(frozen=True)
class Options:
    """The key `figure` of the recipe."""

    # the factor, and its value where a column does not name it
    x: str
    x_default: float
    x_label: str
    # keys of columns that are no point on the axis: a level line each
    levels: list[str]
    # keys of columns that stand at factor 0
    zeros: list[str]


def points(found: Found, options: Options) -> list[Point]:
    """One line of the CSV for each run. Raises UserError where none has ended, or a named column is not there."""
    known = [column.key for column in found.plan.columns]
    for key in (*options.levels, *options.zeros):
        if key not in known:
            raise UserError(f"recipe {found.plan.name}: figure: no column '{key}'; {nearest(key, known)}")
    rows: list[Point] = []
    for line in found.one_point():
        place = _place(line, options)
        for row in sorted(line.rows, key=lambda row: row["seed"]):
            if row["test_sequences"]:
                told = {"right_pct": 100.0 * row["test_right"] / row["test_sequences"], "status": row["status"]}
                told |= {"iterations": row["iterations"], "can_be_solved": row["train.success_error"] is not None}
                where = {"panel": line.cell.row.key, "line": line.label, "x": place}
                rows.append(where | {"seed": row["seed"]} | told)
    if not rows:
        raise UserError(f"{found.plan.name}: no run with a test set has ended yet")
    return rows


def _place(line: Line, options: Options) -> float | str:
    key = line.cell.column.key
    if key in options.levels:
        return LEVEL
    return 0.0 if key in options.zeros else float(flatten(line.specs[0].config).get(options.x, options.x_default))


def draw(found: Found, rows: Sequence[Point], options: Options) -> Figure:
    """A row of panels for each task, with a legend below."""
    from matplotlib.figure import Figure

    tasks = [list(group) for _, group in groupby(found.plan.rows, key=lambda row: row.task)]
    wide = max(map(len, tasks))
    figure = Figure(figsize=(2.2 * wide + 0.6, 2.3 * len(tasks) + 1.0), layout="constrained")
    panels = figure.subplots(len(tasks), wide, squeeze=False)
    axis = _Axis(
        sorted({row["x"] for row in rows if row["x"] != LEVEL}),
        list(dict.fromkeys(row["line"] for row in rows)),
        found.budget.max_iterations,
    )
    entries: dict[str, Any] = {}
    for across, group in zip(panels, tasks, strict=True):
        solvable = any(row["can_be_solved"] for row in rows if row["panel"] in [one.key for one in group])
        kind = Iterations if solvable else Accuracy
        for panel, row in zip(across, group, strict=False):
            mine = [point for point in rows if point["panel"] == row.key]
            entries |= kind(panel, axis).draw(mine)
            panel.set_title(f"{row.task.replace('_', ' ')}, T = {row.T}", fontsize=9)
        across[0].set_ylabel(kind.label)
        for panel in across[len(group) :]:
            panel.set_axis_off()
    panels[-1][0].set_xlabel(options.x_label, loc="left")
    legend(figure, {label: entries[label] for label in axis.labels if label in entries}, zeros=False)
    counts = [len(list(group)) for _, group in groupby(rows, key=lambda row: (row["panel"], row["line"], row["x"]))]
    seeds = (
        f"{min(counts)} to {max(counts)} seeds" if len(set(counts)) > 1 else f"{counts[0]} seed{'s' * (counts[0] > 1)}"
    )
    figure.suptitle(f"{found.plan.title}\n{found.budget.max_iterations:,} iterations, {seeds}", fontsize=9)
    return figure


@dataclass(frozen=True)
class _Axis:
    """What all panels share. Factors stand side by side and not on a scale, for 0 is one of them."""

    places: Sequence[float]
    labels: Sequence[str]
    budget: int


class Accuracy:
    """A panel of right answers."""

    label = "right on the test set (%)"

    def __init__(self, panel: Axes, axis: _Axis) -> None:
        self.panel, self.axis = panel, axis

    def value(self, row: Point) -> float:
        return float(row["right_pct"])

    def draw(self, rows: Sequence[Point]) -> dict[str, Any]:
        """All lines of the panel; what stands for each in the legend."""
        self.scale()
        entries: dict[str, Any] = {}
        for number, label in enumerate(self.axis.labels):
            mine = [row for row in rows if row["line"] == label]
            if mine and mine[0]["x"] == LEVEL:
                entries |= self.level(label, median(map(self.value, mine)), number)
            elif mine:
                entries |= self.line(label, mine, number)
        names = [f"{x:g}".replace("0.", ".") for x in self.axis.places]
        self.panel.set_xticks(range(len(names)), names, fontsize=8)
        self.panel.set_xlim(-0.4, len(names) - 0.6)
        return entries

    def scale(self) -> None:
        self.panel.set_ylim(-4, 104)

    def level(self, label: str, value: float, number: int) -> dict[str, Any]:
        return {label: self.panel.axhline(value, linewidth=1.2, zorder=1, **look(number))}

    def line(self, label: str, rows: Sequence[Point], number: int) -> dict[str, Any]:
        """The medians, their bars, and a dot for each seed; two rules stand beside each other."""
        by_place = {x: [row for row in rows if row["x"] == x] for x in self.axis.places}
        there = {self.axis.places.index(x) + 0.16 * (number - 0.5): some for x, some in by_place.items() if some}
        values = [sorted(map(self.value, some)) for some in there.values()]
        middle = [median(some) for some in values]
        bars = [
            [m - some[0] for m, some in zip(middle, values, strict=True)],
            [some[-1] - m for m, some in zip(middle, values, strict=True)],
        ]
        shown = look(number)
        drawn = self.panel.errorbar(list(there), middle, yerr=bars, capsize=2, linewidth=1.4, **shown)
        for x, some in there.items():
            self.dots(x, some, shown["color"])
        return {label: drawn}

    def dots(self, x: float, rows: Sequence[Point], colour: str) -> None:
        self.panel.plot([x] * len(rows), list(map(self.value, rows)), "o", markersize=2.5, color=colour, alpha=0.6)


class Iterations(Accuracy):
    """A panel of iterations to solve: a run that was not solved stands at the upper edge."""

    label = "iterations to solve"

    def value(self, row: Point) -> float:
        return float(row["iterations"] if row["status"] == "solved" else self.axis.budget)

    def scale(self) -> None:
        self.panel.set_yscale("log")
        self.panel.set_ylim(70, self.axis.budget * 2.5)
        self.panel.axhline(self.axis.budget, color="#888888", linewidth=0.8, zorder=1)

    def dots(self, x: float, rows: Sequence[Point], colour: str) -> None:
        solved = [row for row in rows if row["status"] == "solved"]
        super().dots(x, solved, colour)
        if len(solved) < len(rows):
            place: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 6, "color": colour}
            height = self.axis.budget * (1.1 if x - round(x) < 0 else 1.5)
            self.panel.text(round(x), height, f"{len(rows) - len(solved)}/{len(rows)}", **place)
