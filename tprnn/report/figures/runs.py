"""Training curves from recorded runs: loss, accuracy and spectral radius against iteration.

Matplotlib draws without a display (Agg). Colours are those of Okabe and Ito, which colour-blind eyes tell apart;
line styles differ as well, so that a grey print stays readable.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from tprnn.config import SEED_KEYS, seeds_of
from tprnn.errors import DamagedFile, UserError
from tprnn.files import write_atomically
from tprnn.report.rows.frame import Group, Row, common, extras, group_rows, show
from tprnn.scores import ACCURACY
from tprnn.store import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette without its yellow, which white paper swallows; the dark ones first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
STYLES = ("-", "--", ":", "-.")
MOST = len(COLOURS) * len(STYLES)
LINE_LENGTH = 130  # characters of the legend that fit side by side

STYLE: Any = {
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "svg.hashsalt": "tprnn",  # else every drawing of the same curves is another file
}


@dataclass(frozen=True)
class Curve:
    """One recorded run."""

    row: Row
    metrics: list[dict[str, Any]]

    def points(self, key: str) -> dict[int, float]:
        """{iteration: value} of what was recorded under `key`, non-finite values left out."""
        return _finite({entry["iteration"]: entry.get(key) for entry in self.metrics})

    def layer_points(self, key: str) -> list[dict[int, float]]:
        """`points` of each time step of what was recorded under `key` as a list (probe.layers)."""
        found = {entry["iteration"]: entry.get(key) or [] for entry in self.metrics}
        T = max(map(len, found.values()), default=0)
        return [_finite({n: values[t] for n, values in found.items() if t < len(values)}) for t in range(T)]


def _finite(found: Mapping[int, Any]) -> dict[int, float]:
    return {
        iteration: float(value)
        for iteration, value in found.items()
        if isinstance(value, (int, float)) and math.isfinite(value)
    }


def read_curves(rows: Iterable[Row]) -> tuple[list[Curve], list[DamagedFile]]:
    """The metrics of all runs that have any, up to the budget of their rows, and the files that are damaged."""
    curves, damaged = [], []
    for row in rows:
        try:
            metrics = RunFolder(Path(row["path"])).read_metrics()
        except DamagedFile as error:
            damaged.append(error)
            continue
        if within := [entry for entry in metrics if entry["iteration"] <= row["train.max_iterations"]]:
            curves.append(Curve(row, within))
    return curves, damaged


def default_file(outputs: Path, curves: Sequence[Curve]) -> Path:
    """outputs/plots/curves-<hash>.png, the same name for the same runs."""
    runs = ",".join(sorted(curve.row["run"] for curve in curves))
    return outputs / "plots" / f"curves-{hashlib.sha256(runs.encode()).hexdigest()[:10]}.png"


def plot_curves(curves: Sequence[Curve], file: Path) -> list[Path]:
    """Draw `curves` to `file` and beside it (`save`). The files that were written.

    Runs that differ in their seeds only share a colour: a thin line each and their median (`median_curve`) in bold.
    Raises UserError as `save` does.
    """
    return save(file, lambda: draw(curves), data_csv(curves))


def save(file: Path, drawn: Callable[[], Figure], data: str) -> list[Path]:
    """Write a figure as PNG and SVG (and PDF where `file` is one), and the data beside it as CSV.

    Raises UserError for a suffix that is none of .png, .svg, .pdf, or a place that cannot be written.
    """
    if file.suffix not in ("", ".png", ".svg", ".pdf"):
        raise UserError(f"--output: cannot draw '{file.suffix}'; choices: .png, .svg, .pdf")
    import matplotlib

    matplotlib.use("agg")
    kinds = [".png", ".svg", *([".pdf"] if file.suffix == ".pdf" else [])]
    written = [file.with_suffix(kind) for kind in (*kinds, ".csv")]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output: cannot write to '{file.parent}' ({error.strerror})") from error
    with matplotlib.rc_context(STYLE):
        figure = drawn()
        for kind, path in zip(kinds, written, strict=False):
            buffer = io.BytesIO()
            dated: dict[str, Any] = {} if kind == ".png" else {"Date" if kind == ".svg" else "CreationDate": None}
            figure.savefig(buffer, format=kind[1:], dpi=200, metadata=dated)
            write_atomically(path, buffer.getvalue())
    write_atomically(written[-1], data.encode())
    return written


def panels_of(curves: Sequence[Curve]) -> dict[str, str]:
    """Key of the metrics -> label, of the three panels; the score is that of the first run."""
    score = curves[0].row["score"] if curves else ACCURACY.name
    told = f"validation {ACCURACY.heading if score == ACCURACY.name else score}"
    return {"loss": "training loss", score: told, "rho_W_hh": "spectral radius of W_hh"}


def draw(curves: Sequence[Curve]) -> Figure:
    """The figure itself: three panels side by side, the legend below."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    groups = group_rows([curve.row for curve in curves])
    by_path = {curve.row["path"]: curve for curve in curves}
    figure = Figure(figsize=(9.0, 2.9), layout="constrained")
    panels = figure.subplots(1, 3, sharex=True)
    ends: dict[str, str] = {}
    for number, group in enumerate(groups):
        mine = [by_path[row["path"]] for row in group.rows]
        for panel, key in zip(panels, panels_of(curves), strict=True):
            ends |= _draw_group(panel, mine, key, look(number))
    _dress(panels, curves)
    entries = {text: Line2D([], [], linewidth=1.8, **look(number)) for number, text in enumerate(_legend(groups))}
    for text, marker in ends.items():
        entries[text] = Line2D([], [], color="#555555", linestyle="none", marker=marker, markersize=4)
    if entries:
        columns = max(1, min(4, len(entries), LINE_LENGTH // (max(map(len, entries)) + 10)))
        figure.set_figheight(2.9 + 0.17 * sum(1 + text.count("\n") for text in entries) / columns)
        figure.legend(entries.values(), entries, loc="outside lower center", ncols=columns, handlelength=2.6)
    figure.suptitle(_title(curves, groups), fontsize=9)
    return figure


def look(number: int) -> dict[str, Any]:
    """Colour and line style of the n-th line."""
    # 7 colours and 4 styles have no factor in common: the first 28 pairs differ
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": STYLES[number % len(STYLES)]}


def _title(curves: Sequence[Curve], groups: Sequence[Group]) -> str:
    """What all groups share, their seeds included."""
    rows = [curve.row for curve in curves]
    shared = common(rows)
    title = Group({name: shared[name] for name in ("task", "T", "trainer", "H") if name in shared} | extras(rows)).title
    seeds = {group.seeds for group in groups}
    return textwrap.fill(" ".join([title, *(f"({text})" for text in seeds if len(seeds) == 1)]), LINE_LENGTH)


def _legend(groups: Sequence[Group]) -> list[str]:
    """What differs between groups, and nothing else."""
    if len(groups) == 1:
        return []
    same = len({group.seeds for group in groups}) == 1
    texts = [textwrap.fill(group.title + f" ({group.seeds})" * (not same), LINE_LENGTH) for group in groups]
    if len(texts) > MOST:
        texts = [*texts[: MOST - 1], f"… and {len(texts) - MOST + 1} more (colours repeat; the CSV names them all)"]
    return texts


def _draw_group(panel: Axes, curves: Sequence[Curve], key: str, look: dict[str, Any]) -> dict[str, str]:
    """Draw one group into one panel. Gives {status: marker} of the runs whose end was marked."""
    scale = 100.0 if key == ACCURACY.name else 1.0
    alone = len(curves) == 1
    used = {}
    for curve in curves:
        points = {n: scale * value for n, value in curve.points(key).items() if key != "loss" or value > 0}
        if not points:
            continue
        thin: dict[str, Any] = look | {"linestyle": "-", "linewidth": 0.7, "alpha": 0.5}
        panel.plot(list(points), list(points.values()), **({"linewidth": 1.4} | look if alone else thin))
        marker = {"solved": "o", "diverged": "X"}.get(curve.row["status"])
        if marker:
            used[curve.row["status"]] = marker
            last = max(points)
            panel.plot([last], [points[last]], marker=marker, markersize=4, color=look["color"], clip_on=False)
    if not alone:
        middle = {n: scale * value for n, value in median_curve(curves, key).items() if key != "loss" or value > 0}
        panel.plot(list(middle), list(middle.values()), linewidth=2.0, **look)
    return used


def median_curve(curves: Sequence[Curve], key: str) -> dict[int, float]:
    """`median_points` of what the runs recorded under `key`."""
    return median_points([curve.points(key) for curve in curves])


def median_points(runs: Iterable[dict[int, float]]) -> dict[int, float]:
    """{iteration: median over runs}. A run that has ended keeps its last value; drawn while half of the runs go on.

    Without the kept values the median would be that of the slow runs only, as soon as the quick ones are solved.
    """
    points = [found for found in runs if found]
    middle: dict[int, float] = {}
    latest: list[float | None] = [None] * len(points)
    for iteration in sorted(set().union(*points)):
        for index, found in enumerate(points):
            latest[index] = found.get(iteration, latest[index])
        going = sum(max(found) >= iteration for found in points)
        known = [value for value in latest if value is not None]
        if 2 * going >= len(points) and 2 * len(known) >= len(points):
            middle[iteration] = median(known)
    return middle


def _dress(panels: Sequence[Axes], curves: Sequence[Curve]) -> None:
    """Scales, labels, and a word where nothing was recorded."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    for panel, (key, label) in zip(panels, panels_of(curves).items(), strict=True):
        panel.set_xlabel("iteration")
        panel.set_ylabel(label)
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
        if not any(curve.points(key) for curve in curves):
            told = "not recorded" + (":\nprobe.spectral_radius=true\nrecords it" if key == "rho_W_hh" else "")
            panel.text(0.5, 0.5, told, transform=panel.transAxes, ha="center", va="center", color="#555555")
            panel.set_yticks([])
        elif key == "loss" and any(value > 0 for curve in curves for value in curve.points(key).values()):
            panel.set_yscale("log")
    panels[0].set_xlim(left=0)
    if any(curve.points("rho_W_hh") for curve in curves):
        panels[2].axhline(1.0, color="#888888", linewidth=0.8, zorder=1)


def data_csv(curves: Sequence[Curve]) -> str:
    """The drawn data in full, one line per run and check: run, its group's settings, seeds, then the metrics."""
    groups = group_rows([curve.row for curve in curves])
    labels = list(groups[0].labels) if groups else []
    shared = extras([curve.row for curve in curves])
    keys = list(dict.fromkeys(key for curve in curves for entry in curve.metrics for key in entry))
    by_run = {curve.row["path"]: curve for curve in curves}
    agree = all(init == data for init, data in (seeds_of(curve.row) for curve in curves))
    seeds = SEED_KEYS[:1] if agree else SEED_KEYS[1:]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["run", *labels, *shared, *seeds, *keys])
    for group in groups:
        told = ["" if value is None else show(value) for value in (*group.labels.values(), *shared.values())]
        for row in group.rows:
            for entry in by_run[row["path"]].metrics:
                of_run = [row["run"], *told, *(row.get(key) for key in seeds)]
                writer.writerow([*of_run, *(entry.get(key, "") for key in keys)])
    return out.getvalue()
