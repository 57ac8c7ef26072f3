"""A paper's figure drawn from recorded runs: which runs those are, which of them are missing, and the files.

What a figure shows is in its recipe (conf/paper/<paper>/<figure>.yaml); how it is drawn is its kind, one module
`draw_<kind>.py` each, found by its name:

    Options                           a dataclass: what the key `figure` may hold beside `kind`
    points(found, options) -> rows    all that is drawn, as the lines of the CSV beside the figure
    draw(found, rows, options)        the figure, from those rows alone
"""

from __future__ import annotations

import csv
import importlib
import io
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tprnn.budgets import FINISHED
from tprnn.config import RunSpec
from tprnn.errors import DamagedFile, UserError, nearest
from tprnn.papers import published
from tprnn.papers.recipes import Budget, Recipe, RecipeCell, figure_names, recipe
from tprnn.report.figures.runs import Curve, look, read_curves, save
from tprnn.report.rows.frame import Row, rows_of
from tprnn.report.tables.views import as_of
from tprnn.settings import check_settings
from tprnn.store import Store

Point = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """A cell of the recipe with its runs."""

    cell: RecipeCell
    specs: Sequence[RunSpec]
    # of its runs that are there: those with metrics, and all that have begun
    curves: Sequence[Curve]
    rows: Sequence[Row]

    @property
    def label(self) -> str:
        return self.cell.column.label

    @property
    def missing(self) -> int:
        """How many of its runs are not finished."""
        return len(self.specs) - sum(row["status"] in FINISHED for row in self.rows)


@dataclass(frozen=True)
class Found:
    """A figure's runs."""

    plan: Recipe
    budget: Budget
    lines: Sequence[Line]
    damaged: Sequence[DamagedFile]

    @property
    def total(self) -> int:
        return sum(len(line.specs) for line in self.lines)

    @property
    def missing(self) -> int:
        return sum(line.missing for line in self.lines)

    def one_point(self) -> Sequence[Line]:
        """Its lines, of each of which all runs differ in their seeds only. Raises UserError for a grid."""
        for line in self.lines:
            if len(line.specs) > len(self.budget.seeds):
                raise UserError(
                    f"recipe {self.plan.name}, column {line.cell.column.key}: a line of kind "
                    f"'{self.plan.figure['kind']}' is one point; give parameters, no grid"
                )
        return self.lines

    def look(self, line: Line) -> dict[str, Any]:
        """The colour and style of a column, the same in every row."""
        return look(self.plan.columns.index(line.cell.column))

    @property
    def title(self) -> str:
        """The recipe's, with what was run."""
        seeds = len(self.budget.seeds)
        told = f"seed {self.budget.seeds[0]}" if seeds == 1 else f"{seeds} seeds"
        return f"{self.plan.title}\n{self.budget.max_iterations:,} iterations, {told}"


# ---- kinds


def kinds() -> list[str]:
    """Every kind of drawing there is."""
    return sorted(path.stem.removeprefix("draw_") for path in Path(__file__).parent.glob("draw_*.py"))


def kind_of(plan: Recipe) -> tuple[Any, Any]:
    """(module, options) of a figure's drawing. Raises UserError for an unknown kind or option."""
    given = dict(plan.figure)
    kind = str(given.pop("kind", ""))
    if kind not in kinds():
        raise UserError(f"recipe {plan.name}: figure.kind: no kind '{kind}'; {nearest(kind, kinds())}")
    module = importlib.import_module(f"tprnn.report.figures.draw_{kind}")
    try:
        return module, module.Options(**check_settings("figure", given, module.Options))
    except UserError as error:
        raise UserError(f"recipe {plan.name}: {error}") from error


# ---- runs


def find_runs(plan: Recipe, budget: Budget, outputs: str | Path) -> Found:
    """The runs of a figure that are in `outputs`. Raises UserError."""
    store = Store(outputs)
    lines: list[Line] = []
    damaged: list[DamagedFile] = []
    for cell in plan.cells:
        if not len(plan.lengths(cell, budget)):
            continue
        specs = cell.runs(budget)
        folders = [folder for folder in map(store.folder, specs) if folder.path.is_dir()]
        rows, unread = rows_of(folders)
        rows, more = as_of(rows, budget.max_iterations)
        curves, torn = read_curves(rows)
        lines.append(Line(cell, specs, curves, rows))
        damaged += [*unread, *more, *torn]
    return Found(plan, budget, lines, damaged)


def command(found: Found, outputs: str | Path) -> str:
    """The command that makes the missing runs; finished ones are skipped by it."""
    words = ["tprnn", "reproduce", found.plan.name, f"budget={found.budget.name}"]
    return shlex.join([*words, *([] if str(outputs) == "outputs" else [f"outputs={outputs}"])])


def missing(found: Found, outputs: str | Path) -> str | None:
    """One line about the runs that are not there or not finished; None where all are."""
    if not found.missing:
        return None
    several = len(found.plan.rows) > 1
    counts: Counter[str] = Counter()
    for line in found.lines:
        counts[f"{line.label}{f' of {line.cell.row.key}' if several else ''}"] += line.missing
    told = ", ".join(f"{name} ({count})" for name, count in counts.items() if count)
    return f"{found.missing} of {found.total} runs are not finished: {told}; make them: {command(found, outputs)}"


class NoRuns(UserError):
    """A figure of which nothing can be drawn yet; `command` makes its runs."""

    def __init__(self, message: str, command: str) -> None:
        super().__init__(message)
        self.command = command


@dataclass(frozen=True)
class Drawn:
    """What became of a figure: lines to tell."""

    told: str
    missing: str | None
    damaged: Sequence[str]


def draw_paper_figure(name: str, budget: str, outputs: str | Path, output: str | None) -> Drawn:
    """Draw a figure from the runs of one budget, to `output` or outputs/plots/<paper>-<figure>.png.

    Raises UserError for an unknown figure or budget, NoRuns where none of its runs is there.
    """
    plan = recipe(name)
    module, options = kind_of(plan)
    found = find_runs(plan, plan.budget(budget), outputs)
    if not any(line.curves for line in found.lines):
        others = [
            f"; there are some with budget={other}: tprnn plot {name} budget={other}"
            for other in plan.budgets
            if other != budget and any(line.curves for line in find_runs(plan, plan.budget(other), outputs).lines)
        ]
        make = command(found, outputs)
        raise NoRuns(
            f"{name}: none of its {found.total} runs with budget={budget} is in {outputs}; "
            f"make them: {make}{''.join(others[:1])}",
            make,
        )
    rows = module.points(found, options)
    file = Path(output) if output else Path(outputs) / "plots" / f"{name.replace('/', '-')}.png"
    written = save(file, lambda: module.draw(found, rows, options), as_csv(rows))
    drawn = sum(len(line.curves) for line in found.lines)
    told = f"{name}, budget {budget}: {drawn} of {found.total} runs drawn: {' '.join(map(str, written))}"
    return Drawn(told, missing(found, outputs), [str(error) for error in found.damaged])


def figure_block(name: str, budget: str, outputs: str, output: str, page: Path) -> tuple[str, list[str]]:
    """The figure drawn to `output`, as an image with its notes for a markdown page; and lines about damaged files.

    Where nothing can be drawn, the image of an earlier drawing stays. Raises UserError.
    """
    plan, file = recipe(name), Path(output).with_suffix("")
    damaged: Sequence[str] = ()
    notes = list(plan.notes)
    try:
        drawn = draw_paper_figure(name, budget, outputs, output)
        damaged, more = drawn.damaged, drawn.missing
        notes += [more] if more else []
    except NoRuns as error:
        if not file.with_suffix(".png").exists():
            return f"Not drawn yet; `{error.command}` makes its runs.", []
    link = Path(os.path.relpath(file, page.parent)).as_posix()
    head = f"**{name}: {plan.title}** ([SVG]({link}.svg), [data]({link}.csv))"
    return "\n\n".join([head, f"![{plan.title}]({link}.png)", "\n".join(f"- {note}" for note in notes)]), list(damaged)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The points that are drawn, one line each."""
    out = io.StringIO()
    header = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(out, header, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


# ---- names


def is_figure(word: str) -> bool:
    """Whether a word of the command line names a figure and no run. Raises UserError for one that is close to it."""
    if word in figure_names():
        return True
    paper, slash, _ = word.partition("/")
    if Path(word).exists() or word.count("/") > 1 or set(word) & set("*?["):
        return False
    if paper in published.papers():
        own = [name for name in figure_names() if name.startswith(f"{paper}/")]
        if slash and word not in own:
            _refuse_table(word)
        raise UserError(f"no figure '{word}'; {nearest(word, own or figure_names())}")
    if slash and nearest(paper, published.papers()).startswith("nearest"):
        raise UserError(f"no figure '{word}'; {nearest(word, figure_names())}")
    return False


def _refuse_table(word: str) -> None:
    from tprnn.papers.recipes import names

    if word in names():
        raise UserError(f"{word} is a table, not a figure: tprnn report --paper {word}")
