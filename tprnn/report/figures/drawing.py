"""What the kinds of figures share: logarithmic panels that show zeros, legends, ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tprnn.report.figures.runs import LINE_LENGTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

ZERO = "exactly 0 (ticks at the lower edge)"
# share of a panel's height for the ticks of zeros, and the height of each line's own
BAND, TICKS = 0.2, 0.05


def plot_log(panel: Axes, values: Mapping[int, float], number: int, **look: Any) -> bool:
    """A line of positive values; what is 0 becomes a tick at the lower edge. Whether there were any.

    Args:
        number: which line it is: each has ticks at a height of its own.
    """
    shown = [value if value > 0 else float("nan") for value in values.values()]  # a gap in the line, not a bridge
    panel.plot(list(values), shown, **look)
    zeros = [x for x, value in values.items() if value == 0]
    height = [0.03 + TICKS * number] * len(zeros)
    ticks: dict[str, Any] = {"linestyle": "none", "marker": "|", "markersize": 3.5, "markeredgewidth": 0.8}
    panel.plot(zeros, height, transform=panel.get_xaxis_transform(), color=look["color"], **ticks)
    return bool(zeros)


def log_limits(panels: Iterable[Axes], values: Iterable[float], zeros: bool) -> None:
    """One logarithmic y axis for panels, with room for ticks below where there are zeros."""
    positive = [math.log10(value) for value in values if value > 0]
    low, high = (min(positive), max(positive)) if positive else (-1.0, 0.0)
    margin = max(0.06 * (high - low), 0.1)
    low, high = low - margin, high + margin
    if math.floor(high) - math.ceil(low) < 1:  # fewer than two powers of ten to put a number to
        low, high = math.floor(low), math.ceil(high)
    if zeros:
        low -= BAND / (1 - BAND) * (high - low)
    for panel in panels:
        panel.set_yscale("log")
        panel.set_ylim(10**low, 10**high)
        panel.minorticks_off()


def legend(figure: Figure, entries: Mapping[str, Line2D], zeros: bool) -> None:
    """The legend below all panels."""
    from matplotlib.lines import Line2D

    shown = dict(entries)
    if zeros:
        shown[ZERO] = Line2D([], [], color="#555555", linestyle="none", marker="|", markersize=5)
    columns = max(1, min(len(shown), LINE_LENGTH // (max(map(len, shown)) + 10)))
    figure.legend(shown.values(), shown, loc="outside lower center", ncols=columns, handlelength=2.6)


def few_numbers(panels: Iterable[Axes], count: int) -> None:
    """Iterations as 0, 10k, 20k on the x axis."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    for panel in panels:
        panel.xaxis.set_major_locator(MaxNLocator(count, integer=True))
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))


def series(rows: Sequence[Mapping[str, Any]], **wanted: Any) -> dict[int, float]:
    """{iteration: value} of the points that have all of the given fields."""
    return {row["iteration"]: row["value"] for row in rows if all(row[key] == value for key, value in wanted.items())}
