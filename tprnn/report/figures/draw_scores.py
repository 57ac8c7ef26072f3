"""A score of a grid search against one setting, a line for each task; and beside it the change from value to value.

The score is that of the tables (`tprnn.report.rows.scores`): the best point of the grid for each seed, then the median
over seeds, with a bar from the least to the most. The change is the difference of two neighbouring scores divided by
that of the settings, a level line between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from tprnn.config import flatten
from tprnn.errors import UserError, nearest
from tprnn.report.figures.drawing import legend
from tprnn.report.figures.paper import Found, Line, Point
from tprnn.report.figures.runs import look
from tprnn.report.rows.scores import answer, median, records_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {
    "accuracy_pct": ("best accuracy (%)", "accuracy"),
    "loss": ("best validation loss", "loss"),
    "iterations_to_solve": ("iterations to solve", "iterations"),
}
SCORE, CHANGE = "score", "change"


@dataclass(frozen=True)
class Options:
    """The key `figure` of the recipe."""

    # the setting that the columns differ in
    x: str
    x_label: str


def points(found: Found, options: Options) -> list[Point]:
    """One line of the CSV for each score, and one for each change between neighbours. Raises UserError."""
    if found.plan.metric not in LABELS:
        raise UserError(
            f"recipe {found.plan.name}: metric '{found.plan.metric}' cannot be drawn as scores; "
            f"{nearest(found.plan.metric, LABELS)}"
        )
    rows: list[Point] = []
    for line in found.lines:
        scored = answer(found.plan, line.cell, records_of(line.rows))
        if scored is not None:
            x = _place(found, line, options.x)
            values = {"value": median(scored.scores).value, "seeds": len(scored.scores)}
            values |= {"least": scored.scores[0].value, "most": scored.scores[-1].value}
            rows.append({"panel": SCORE, "task": line.cell.row.key, "x": x, "x_to": "", **values})
    if not rows:
        raise UserError(f"{found.plan.name}: no run has ended yet")
    rows.sort(key=lambda row: ([line.key for line in found.plan.rows].index(row["task"]), row["x"]))
    changes = [
        {"panel": CHANGE, "task": one["task"], "x": one["x"], "x_to": two["x"]}
        | {"value": (two["value"] - one["value"]) / (two["x"] - one["x"])}
        for one, two in pairwise(rows)
        if one["task"] == two["task"]
    ]
    return [*rows, *changes]


def _place(found: Found, line: Line, key: str) -> float:
    config = flatten(line.specs[0].config)
    if not isinstance(config.get(key), (int, float)):
        where = f"recipe {found.plan.name}, column {line.cell.column.key}"
        raise UserError(f"{where}: figure.x: no number '{key}' in its config; {nearest(key, config)}")
    return float(config[key])


def draw(found: Found, rows: Sequence[Point], options: Options) -> Figure:
    """Two panels, with a legend below."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    label, short = LABELS[found.plan.metric]
    figure = Figure(figsize=(6.8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    entries = {}
    for number, line in enumerate(found.plan.rows):
        mine = [row for row in rows if row["task"] == line.key]
        if mine:
            _draw_task(left, right, mine, number)
            entries[f"{line.task}, T = {line.T}"] = Line2D([], [], marker=_MARKERS[number % 4], **look(number))
    left.set_ylabel(label)
    if found.plan.metric == "accuracy_pct":
        bottom, top = left.get_ylim()
        left.set_ylim(min(bottom, 98.0), min(top, 100.5))
    right.set_ylabel(f"Δ {short} / Δ{options.x_label}")
    right.axhline(0, color="#888888", linewidth=0.8, zorder=1)
    for panel in (left, right):
        panel.set_xlabel(options.x_label)
        panel.set_xticks(sorted({row["x"] for row in rows}))
        panel.xaxis.set_major_formatter("{x:g}")
    legend(figure, entries, zeros=False)
    figure.suptitle(found.title, fontsize=9)
    return figure


_MARKERS = "os^D"


def _draw_task(left: Axes, right: Axes, rows: Sequence[Point], number: int) -> None:
    scores = [row for row in rows if row["panel"] == SCORE]
    values = [row["value"] for row in scores]
    bars = [[row["value"] - row["least"] for row in scores], [row["most"] - row["value"] for row in scores]]
    shown = look(number) | {"marker": _MARKERS[number % 4], "markersize": 4}
    left.errorbar([row["x"] for row in scores], values, yerr=bars, capsize=2, linewidth=1.4, **shown)
    for row in rows:
        if row["panel"] == CHANGE:
            right.plot(
                [row["x"], row["x_to"]], [row["value"]] * 2, linewidth=1.8, solid_capstyle="butt", **look(number)
            )
