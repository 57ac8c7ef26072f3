"""What a rule tells of each time step (probe.layers): a column of panels for each step, a row for each quantity.

All panels of a row share a logarithmic axis, for such signals fall by tens of orders of magnitude from step to step.
What is exactly 0 has no place on it: a tick at the lower edge stands for it. Lines are medians over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tprnn.errors import UserError
from tprnn.report.figures.drawing import legend, log_limits, plot_log, series
from tprnn.report.figures.paper import Found, Line, Point
from tprnn.report.figures.runs import median_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Quantity:
    """A row of panels."""

    # of metrics.jsonl, a list over time steps
    key: str
    label: str
    # of metrics.jsonl, a number: shown in the panel of the last step, with an axis of its own
    last: str | None = None
    last_label: str | None = None


@dataclass(frozen=True)
class Options:
    """The key `figure` of the recipe."""

    quantities: list[Quantity]


def points(found: Found, options: Options) -> list[Point]:
    """One line of the CSV for each quantity, step, line and iteration. Raises UserError for more than one task."""
    if len(found.plan.rows) != 1:
        raise UserError(f"recipe {found.plan.name}: a figure of kind 'layers' has one row, got {len(found.plan.rows)}")
    rows: list[Point] = []
    for quantity in options.quantities:
        for line in found.one_point():
            by_step = list(zip(*(curve.layer_points(quantity.key) for curve in line.curves), strict=True))
            shown = [(step, quantity.key, runs) for step, runs in enumerate(by_step, start=1)]
            if quantity.last and by_step:
                shown[-1] = (len(by_step), quantity.last, tuple(curve.points(quantity.last) for curve in line.curves))
            rows += [
                {"key": key, "layer": step, "line": line.label, "iteration": iteration, "value": value}
                for step, key, runs in shown
                for iteration, value in median_points(runs).items()
            ]
    if not rows:
        wanted = ", ".join(quantity.key for quantity in options.quantities)
        raise UserError(f"{found.plan.name}: its runs have recorded none of {wanted}")
    return rows


def draw(found: Found, rows: Sequence[Point], options: Options) -> Figure:
    """The grid of panels, with a legend below."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import EngFormatter

    T, count = max(row["layer"] for row in rows), len(options.quantities)
    figure = Figure(figsize=(1.5 + 0.88 * T, 1.1 + 1.2 * count), layout="constrained")
    grid = figure.subplots(count, T, sharex=True, squeeze=False)
    titled = set()
    zeros = False
    for quantity, panels in zip(options.quantities, grid, strict=True):
        zeros |= _draw_row(found, [row for row in rows if row["key"] == quantity.key], quantity.label, panels)
        own = [row for row in rows if row["key"] == quantity.last]
        if own:
            zeros |= _draw_row(found, own, None, panels[-1:])
        for step, panel in enumerate(panels, start=1):
            title = quantity.last_label or str(quantity.last) if own and step == T else f"t = {step}"
            if title not in titled:
                panel.set_title(title, fontsize=8)
            titled.add(title)
    end = max(row["iteration"] for row in rows)
    grid[0][0].set_xlim(0, end)
    for panel in grid[-1]:
        panel.set_xticks([0, end])
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        panel.set_xlabel("iteration", fontsize=7, labelpad=-6)
    figure.suptitle(found.title, fontsize=9)
    looks = {line.label: Line2D([], [], **_look(found, line)) for line in found.lines if line.curves}
    legend(figure, looks, zeros)
    return figure


def _look(found: Found, line: Line) -> dict[str, Any]:
    # lines lie upon each other where the arithmetic makes no difference: those below are wider
    return found.look(line) | {"linewidth": max(1.0, 2.6 - 0.8 * found.lines.index(line))}


def _draw_row(found: Found, rows: Sequence[Point], label: str | None, panels: Sequence[Axes]) -> bool:
    """Panels with one axis; without a label, one with an axis of its own at the right. Whether there were zeros."""
    zeros = False
    steps = sorted({row["layer"] for row in rows})
    for step, panel in zip(steps, panels if label else panels[-1:], strict=False):
        for number, line in enumerate(found.lines):
            values = series(rows, layer=step, line=line.label)
            zeros |= plot_log(panel, values, number, **_look(found, line))
    drawn = panels[: len(steps)]
    log_limits(drawn, [row["value"] for row in rows], zeros)
    for panel in drawn:
        panel.tick_params(axis="both", labelsize=7)
        panel.tick_params(axis="y", labelleft=False, length=0 if label else 3)
    if label:
        panels[0].set_ylabel(label, fontsize=8)
        panels[0].tick_params(axis="y", labelleft=True, length=3)
    else:
        panels[0].yaxis.tick_right()
        panels[0].tick_params(axis="y", labelright=True)
    return zeros
