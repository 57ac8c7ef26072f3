"""What was recorded at every check against the iteration: panels side by side, a row of them for each task.

One thin line for each seed, and their median in bold where there are several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tprnn.config import flatten, member_class
from tprnn.errors import UserError
from tprnn.report.figures.drawing import few_numbers, legend, log_limits, plot_log, series
from tprnn.report.figures.paper import Found, Line, Point
from tprnn.report.figures.runs import median_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BASELINE = "without memory"
MEDIAN = "median"

_LEVEL: Any = {"color": "#555555", "linewidth": 1.0, "linestyle": (0, (6, 2))}
_MARK: Any = {"linestyle": (0, (1, 2)), "linewidth": 1.2}


@dataclass(frozen=True)
class Panel:
    """What one column of panels shows."""

    # of metrics.jsonl
    key: str
    label: str
    log: bool = False
    percent: bool = False
    # a line at this value
    line: float | None = None
    # a line at the loss of a learner without memory (Task.baseline)
    baseline: bool = False


@dataclass(frozen=True)
class Options:
    """The key `figure` of the recipe."""

    panels: list[Panel]
    # an iteration to mark: a setting of those lines whose config has it, e.g. trainer.g_first
    mark: str | None = None
    mark_label: str | None = None
    # iterations on a logarithmic axis
    log_x: bool = False


def points(found: Found, options: Options) -> list[Point]:
    """One line of the CSV for each panel, task, line, seed and check; and one for each horizontal line."""
    rows: list[Point] = []
    for line in found.one_point():
        for panel in options.panels:
            scale = 100.0 if panel.percent else 1.0
            runs: dict[Any, dict[int, float]] = {curve.row["seed"]: curve.points(panel.key) for curve in line.curves}
            if len(runs) > 1:
                runs[MEDIAN] = median_points(runs.values())
            place = {"task": line.cell.row.key, "key": panel.key}
            rows += [
                {**place, "line": line.label, "seed": seed, "iteration": iteration, "value": scale * value}
                for seed, values in runs.items()
                for iteration, value in values.items()
            ]
    if not rows:
        wanted = ", ".join(panel.key for panel in options.panels)
        raise UserError(f"{found.plan.name}: its runs have recorded none of {wanted}")
    for task, line in {line.cell.row.key: line for line in found.lines}.items():
        for panel in options.panels:
            place = {"task": task, "key": panel.key, "seed": "", "iteration": ""}
            if panel.line is not None:
                rows.append({**place, "line": "", "value": panel.line})
            if panel.baseline and (value := _baseline(line)) is not None:
                rows.append({**place, "line": BASELINE, "value": value})
    return rows


def _baseline(line: Line) -> float | None:
    settings = line.specs[0].config["task"]
    loss: float | None = member_class("task", settings["rule"]).baseline(settings)
    return loss


def draw(found: Found, rows: Sequence[Point], options: Options) -> Figure:
    """The panels, with a legend below."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    tasks = list(dict.fromkeys(row["task"] for row in rows))
    across = len(options.panels)
    figure = Figure(figsize=(4.6 if across == 1 else 3.3 * across, 0.9 + 2.5 * len(tasks)), layout="constrained")
    grid = figure.subplots(len(tasks), across, sharex=True, squeeze=False)
    zeros = False
    for task, panels in zip(tasks, grid, strict=True):
        for panel, shown in zip(panels, options.panels, strict=True):
            mine = [row for row in rows if (row["task"], row["key"]) == (task, shown.key)]
            zeros |= _draw_panel(found, panel, shown, mine)
            for line in found.lines:
                if line.cell.row.key == task and (at := _marked(line, options.mark)):
                    panel.axvline(at, color=found.look(line)["color"], **_MARK)
        if len(tasks) > 1:
            panels[0].set_title(task, fontsize=9, loc="left")
    for panel in grid[-1]:
        panel.set_xlabel("iteration")
    if options.log_x:
        grid[0][0].set_xscale("log")
    else:
        grid[0][0].set_xlim(left=0)
        few_numbers(grid[-1], 5)
    entries = {line.label: Line2D([], [], linewidth=1.8, **found.look(line)) for line in found.lines if line.curves}
    for line in found.lines:
        if options.mark_label and _marked(line, options.mark):
            entries[options.mark_label] = Line2D([], [], color=found.look(line)["color"], **_MARK)
    for row in rows:
        if row["line"] == BASELINE:
            entries[f"{BASELINE}: {row['value']:.4f}"] = Line2D([], [], **_LEVEL)
    legend(figure, entries, zeros)
    figure.suptitle(found.title, fontsize=9)
    return figure


def _marked(line: Line, key: str | None) -> int:
    """The iteration to mark; 0 for none."""
    return int(flatten(line.specs[0].config).get(key, 0) or 0) if key else 0


def _draw_panel(found: Found, panel: Axes, shown: Panel, rows: Sequence[Point]) -> bool:
    """All lines of one panel. Whether there were zeros on a logarithmic axis."""
    zeros = False
    panel.set_ylabel(shown.label)
    mine = [line for line in found.lines if line.cell.row.key in {row["task"] for row in rows}]
    for number, line in enumerate(mine):
        own = [row for row in rows if row["line"] == line.label and row["iteration"] != ""]
        for seed in dict.fromkeys(row["seed"] for row in own):
            values, look = series(own, seed=seed), found.look(line)
            if seed != MEDIAN and len(line.curves) > 1:
                look |= {"linestyle": "-", "linewidth": 0.7, "alpha": 0.5}
            else:
                look |= {"linewidth": 1.6}
            if shown.log:
                zeros |= plot_log(panel, values, number % 3, **look)
            else:
                panel.plot(list(values), list(values.values()), **look)
    if shown.log:
        log_limits([panel], [row["value"] for row in rows], zeros)
    for row in rows:
        if row["iteration"] == "":
            panel.axhline(row["value"], zorder=1, **_LEVEL)
    return zeros
