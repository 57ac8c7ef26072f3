"""A published table rebuilt from recorded runs: ours beside published, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tprnn.errors import UserError
from tprnn.papers import published
from tprnn.papers.recipes import Recipe, RecipeCell, figure_names, names, recipe
from tprnn.report.rows import lengths
from tprnn.report.rows.across import across
from tprnn.report.rows.scores import ENDS, JUDGED, Answer, Records, answer, load
from tprnn.report.rows.verdicts import NONE, verdict
from tprnn.report.tables import captions
from tprnn.report.tables import cell_text as text
from tprnn.report.tables.captions import Answers
from tprnn.report.tables.cell_command import budget_to_run, command
from tprnn.report.tables.plain import render


def _budget(cell: RecipeCell, found: Answer | None) -> str:
    """The lengths and iterations that were really used."""
    if found is None:
        return NONE
    limits = sorted({record.max_iterations for record in found.records})
    iterations = " to ".join(f"{limit:,}" for limit in dict.fromkeys((limits[0], limits[-1])))
    top = max(record.T for record in found.records)
    length = f"T = {cell.row.T}" if cell.row.T else f"T ≤ {top}"
    least, most, all_of_them = found.points
    if cell.metric not in JUDGED or all_of_them == 1:
        return f"{length}, {iterations} iterations"
    run = f"{least}" if least == most else f"{least} to {most}"
    return f"{length}, {iterations} iterations, {run} of {all_of_them} points"


# ---- tables


def cells(plan: Recipe, records: Records, outputs: str = "outputs") -> list[dict[str, Any]]:
    """One row for each cell of a recipe; columns that say nothing in any of them are left out."""
    return _rows(plan, [(cell, answer(plan, cell, records)) for cell in plan.cells], outputs)


def _rows(plan: Recipe, answers: Answers, outputs: str) -> list[dict[str, Any]]:
    rows = []
    for cell, found in answers:
        rows.append(
            {
                "task": cell.row.task,
                "T": cell.row.T,
                "column": cell.column.label,
                "published": text.published_text(cell),
                "ours": text.ours(plan, cell, found),
                "new run (95 %)": text.new_run(plan, cell, found),
                "test sets (95 %)": text.test_set(cell, found),
                "best check": text.of_checks(plan, cell, found, last=False),
                "last check": text.of_checks(plan, cell, found, last=True),
                "best of m by luck": text.luck(cell, found),
                "ratio": text.ratio(cell, found),
                "seeds": len(found.seeds) if found else 0,
                **{end: found.ends[end] if found else 0 for end in ENDS},
                "budget": _budget(cell, found),
                "verdict": verdict(plan, cell, found),
                "parameters": found.parameters if found else cell.described(budget_to_run(plan, cell)),
                "command": command(plan, cell, found, outputs),
            }
        )
    left = _left_out(plan, rows)
    return [{key: value for key, value in row.items() if key not in left} for row in rows]


_OF_ACCURACY = ("test sets (95 %)", "best check", "last check")


def _left_out(plan: Recipe, rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Columns of nothing: by what the recipe is, and the luck of a search by whether there was one."""
    left = set() if set(text.RATIOS) & set(plan.metrics) else {"ratio"}
    left |= {"T"} if all(line.T is None for line in plan.rows) else set()
    left |= set() if "accuracy_pct" in plan.metrics else {*_OF_ACCURACY}
    left |= {"best of m by luck"} if all(row["best of m by luck"] == NONE for row in rows) else set()
    return left | (set() if any(cell.published for cell in plan.cells) else {"published", "ratio", "verdict"})


def _overview(plan: Recipe, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Tasks down, columns across: `ours, n = SEEDS (published)`."""
    table: dict[str, dict[str, str]] = {}
    for cell, row in zip(plan.cells, rows, strict=True):
        line = table.setdefault(cell.row.key, {"task": cell.row.task} | ({"T": str(cell.row.T)} if cell.row.T else {}))
        shown = f"{row['ours']}, n = {row['seeds']}" if row["seeds"] else row["ours"]
        line[cell.column.label] = shown if cell.published is None else f"{shown} ({row['published']})"
    return list(table.values())


def _most(plan: Recipe, budget: str | None) -> int | None:
    """The iterations of a budget of the recipe, by its name or as a number. Raises UserError."""
    if budget is None or not budget.isascii() or not budget.isdigit():
        return None if budget is None else plan.budget(budget).max_iterations
    return int(budget)


def paper_report(
    outputs: str | Path, paper: str, fmt: str = "md", budget: str | None = None, trainers: tuple[str, ...] = ()
) -> str:
    """The table `paper` ("manchev2020/table1") from the runs in `outputs`, as md, latex or csv.

    With `trainers`, a column more for each of these rules.

    With `budget`, a name or a number of iterations, no run counts for more. A paper alone ("manchev2020") lists its
    tables. Raises UserError for an unknown paper, table, budget or format.
    """
    if "/" not in paper:
        return _text(_tables(paper), fmt)
    if paper in figure_names():
        raise UserError(f"--paper: {paper} is a figure; give a table, or draw it: tprnn plot {paper}")
    plan = recipe(paper, trainers)
    records, damaged = load(outputs, _most(plan, budget))
    answers = [(cell, answer(plan, cell, records)) for cell in plan.cells]
    rows = _rows(plan, answers, str(outputs))
    if fmt != "md":
        return _text(rows, fmt)
    ranked, lines = across(plan, answers)
    notes = [*captions.notes(plan, answers), *(f"Left out: {error}" for error in damaged)]
    return "\n\n".join(
        [
            f"**{plan.name}: {plan.title}**",
            _text(_overview(plan, rows), "md"),
            *_in_time(plan, [(cell, found) for cell, found in answers if found]),
            *([ranked] if ranked else []),
            *([_text(lines, "md")] if lines else []),
            "Cell by cell:",
            _text(rows, "md"),
            "\n".join(f"- {note}" for note in notes),
        ]
    )


def _in_time(plan: Recipe, answers: lengths.Answers) -> list[str]:
    """Of climbs, length by length; of these and of iterations, whether columns differ."""
    parts = []
    if "t_max" in plan.metrics and (solved := lengths.solved(plan, answers)):
        parts += [f"{lengths.SOLVED}", _text(solved, "md")]
        parts += [f"{lengths.TIMES}", _text(lengths.iterations(plan, answers), "md")]
    if between := lengths.between(plan, answers):
        told = (
            f"Each column against {plan.columns[0].label}, log-rank test of the times to solve (exact for few runs), "
            f"where both have two seeds; {len(between)} test{'s' * (len(between) > 1)}, p without correction for their "
            "number:"
        )
        parts += [told, _text(between, "md")]
    return parts


def _tables(paper: str) -> list[dict[str, Any]]:
    """What is known of a paper's tables, ours (without published cells) included. Raises UserError."""
    ours_alone = paper not in published.papers() and any(name.startswith(f"{paper}/") for name in names())
    tables = {} if ours_alone else published.paper(paper).tables
    rebuilt = {recipe(name).table: name for name in names() if name.startswith(f"{paper}/")}
    return [
        {
            "table": f"{paper}/{key}",
            "published cells": len(tables[key].cells) if key in tables else 0,
            "what it shows": tables[key].caption if key in tables else recipe(rebuilt[key]).title,
            "command": f"tprnn reproduce {rebuilt[key]}" if key in rebuilt else NONE,
        }
        for key in [*tables, *(key for key in rebuilt if key not in tables)]
    ]


def _text(rows: Sequence[Mapping[str, Any]], fmt: str) -> str:
    header = list(rows[0])
    numeric = [key in ("T", "published", "published cells", "ours", "ratio", "seeds", *ENDS) for key in header]
    return render(header, [[row.get(key) for key in header] for row in rows], fmt, numeric)
