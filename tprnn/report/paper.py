"""A published table rebuilt from recorded runs: ours beside published, cell by cell."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tprnn.errors import UserError
from tprnn.papers import published
from tprnn.papers.recipes import Recipe, RecipeCell, figure_names, names, recipe
from tprnn.report.scores import Answer, Records, answer, iterations_score, load
from tprnn.report.tables import render
from tprnn.report.verdicts import NONE, POINTS, RATIOS, SHARE, ours, published_text, ratio, spread, verdict


def _budget(cell: RecipeCell, found: Answer | None) -> str:
    """The lengths and iterations that were really used."""
    if found is None:
        return NONE
    limits = sorted({record.max_iterations for record in found.records})
    iterations = " to ".join(f"{limit:,}" for limit in dict.fromkeys((limits[0], limits[-1])))
    top = max(record.T for record in found.records)
    length = f"T = {cell.row.T}" if cell.row.T else f"T ≤ {top}"
    least, most, all_of_them = found.points
    if cell.metric not in ("accuracy_pct", "loss") or all_of_them == 1:
        return f"{length}, {iterations} iterations"
    run = f"{least}" if least == most else f"{least} to {most}"
    return f"{length}, {iterations} iterations, {run} of {all_of_them} points"


def command(plan: Recipe, cell: RecipeCell, found: Answer | None, outputs: str = "outputs") -> str:
    """The command that runs the cell anew with the budget that was used; for a cell not run, laptop where it has it."""
    words = ["tprnn", "reproduce", plan.name, f"rows={cell.row.key}", f"columns={cell.column.key}"]
    if found is None:
        words.append(f"budget={_budget_to_run(plan, cell)}")
    else:
        most = max(record.max_iterations for record in found.records)
        top = max(record.T for record in found.records)
        fit = [
            budget
            for budget in plan.budgets.values()
            if budget.max_iterations == most and top in plan.lengths(cell, budget)
        ]
        wide = [budget for budget in fit if found.points[1] <= len(cell.candidates(budget.name))]
        budget = (wide or fit or [plan.budgets["paper"]])[0]
        words.append(f"budget={budget.name}")
        seeds = list(found.seeds)
        if tuple(seeds) != budget.seeds:
            counted = seeds == list(range(len(seeds)))
            words.append(f"seeds={len(seeds)}" if counted else f"seeds=[{','.join(map(str, seeds))}]")
        if cell.row.T is None and top != plan.lengths(cell, budget)[-1] and any(score.bound for score in found.scores):
            words.append(f"T_max={top}")
        if most != budget.max_iterations:
            words.append(f"max_iterations={most}")
    if outputs != "outputs":
        words.append(f"outputs={outputs}")
    return shlex.join(words)


def _budget_to_run(plan: Recipe, cell: RecipeCell) -> str:
    """laptop where it has the cell, else paper."""
    return next(name for name in ("laptop", "paper") if len(plan.lengths(cell, plan.budgets[name])))


# ---- tables


def cells(plan: Recipe, records: Records, outputs: str = "outputs") -> list[dict[str, Any]]:
    """One row for each cell of a recipe."""
    rows = []
    for cell in plan.cells:
        found = answer(plan, cell, records)
        row = {
            "task": cell.row.task,
            "T": cell.row.T,
            "column": cell.column.label,
            "published": published_text(cell),
            "ours": ours(plan, cell, found),
            "ratio": ratio(cell, found),
            "seeds": len(found.seeds) if found else 0,
            "budget": _budget(cell, found),
            "verdict": verdict(plan, cell, found),
            "parameters": found.parameters if found else cell.described(_budget_to_run(plan, cell)),
            "command": command(plan, cell, found, outputs),
        }
        if not set(RATIOS) & set(plan.metrics):
            del row["ratio"]
        if all(line.T is None for line in plan.rows):
            del row["T"]
        if all(other.published is None for other in plan.cells):
            row = {key: value for key, value in row.items() if key not in ("published", "ratio", "verdict")}
        rows.append(row)
    return rows


def _overview(plan: Recipe, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Tasks down, columns across: `ours (published)`."""
    table: dict[str, dict[str, str]] = {}
    for cell, row in zip(plan.cells, rows, strict=True):
        line = table.setdefault(cell.row.key, {"task": cell.row.task} | ({"T": str(cell.row.T)} if cell.row.T else {}))
        line[cell.column.label] = row["ours"] if cell.published is None else f"{row['ours']} ({row['published']})"
    return list(table.values())


def _by_length(plan: Recipe, records: Records) -> list[dict[str, str]]:
    """Iterations to solve at each length of the climbs: tasks and lengths down, columns across."""
    table: dict[tuple[str, int], dict[str, str]] = {}
    for cell in plan.cells:
        found = answer(plan, cell, records)
        for T in sorted({record.T for record in found.records}) if found else ():
            known = [iterations_score(found.records, seed, T) for seed in found.seeds] if found else []
            scores = sorted((score for score in known if score), key=lambda score: (score.bound, score.value))
            if scores:
                line = table.setdefault((cell.row.task, T), {"task": cell.row.task, "T": str(T)})
                line[cell.column.label] = spread(plan, scores, "iterations_to_solve")
    order = [row.task for row in plan.rows]
    columns = ["task", "T", *(column.label for column in plan.columns)]
    lines = [table[key] for key in sorted(table, key=lambda key: (order.index(key[0]), key[1]))]
    return [{column: line.get(column, "") for column in columns} for line in lines]


LEGEND = {
    "t_max": "Ours: the largest T of an unbroken climb (T = {start}, {next}, ...), median [least–most] over seeds; "
    "≥ marks a climb that the budget ended, not a failure.",
    "iterations_to_solve": "Ours: iterations to solve, median [least–most] over seeds; "
    "> marks a run that was not solved when it was stopped.",
    "accuracy_pct": "Ours: best accuracy in percent on the whole validation set, for each seed of the best point of "
    "the grid; median [least–most] over seeds. A published number agrees if it is no farther from our median than our "
    "seeds are apart, or than {points:g} percentage point.",
    "loss": "Ours: best loss on the whole validation set (lower is better), for each seed of the best point of the "
    "grid; median [least–most] over seeds. A published loss agrees if it is no farther from our median than our seeds "
    "are apart, or than {share:.0%} of it.",
}


def _most(plan: Recipe, budget: str | None) -> int | None:
    """The iterations of a budget of the recipe, by its name or as a number. Raises UserError."""
    if budget is None or not budget.isascii() or not budget.isdigit():
        return None if budget is None else plan.budget(budget).max_iterations
    return int(budget)


def paper_report(outputs: str | Path, paper: str, fmt: str = "md", budget: str | None = None) -> str:
    """The table `paper` ("manchev2020/table1") from the runs in `outputs`, as md, latex or csv.

    With `budget`, a name or a number of iterations, no run counts for more. A paper alone ("manchev2020") lists its
    tables. Raises UserError for an unknown paper, table, budget or format.
    """
    if "/" not in paper:
        return _text(_tables(paper), fmt)
    if paper in figure_names():
        raise UserError(f"--paper: {paper} is a figure; give a table, or draw it: tprnn plot {paper}")
    plan = recipe(paper)
    records, damaged = load(outputs, _most(plan, budget))
    rows = cells(plan, records, str(outputs))
    if fmt != "md":
        return _text(rows, fmt)
    notes = [
        f"{_source(plan)}{_legend(plan)}",
        *plan.notes,
        *(f"{trainer}: {reason}" for trainer, reason in plan.not_run.items()),
        *_uncertain(plan),
        *(f"Left out: {error}" for error in damaged),
    ]
    by_length = []
    if "t_max" in plan.metrics and (lengths := _by_length(plan, records)):
        by_length = ["Iterations to solve at each length, over the seeds that came so far:", _text(lengths, "md")]
    return "\n\n".join(
        [
            f"**{plan.name}: {plan.title}**",
            _text(_overview(plan, rows), "md"),
            *by_length,
            "Cell by cell:",
            _text(rows, "md"),
            "\n".join(f"- {note}" for note in notes),
        ]
    )


def _legend(plan: Recipe) -> str:
    """What the numbers of each metric of the table are."""
    values = {"start": plan.start, "next": plan.start + plan.step, "points": POINTS, "share": SHARE}
    return " ".join(LEGEND[metric].format(**values) for metric in plan.metrics)


def _uncertain(plan: Recipe) -> list[str]:
    """What makes published cells uncertain, each remark once."""
    found: dict[str | None, list[str]] = {}
    for cell in plan.cells:
        if cell.published and cell.published.uncertain:
            found.setdefault(cell.published.note, []).append(f"{cell.row.task}, {cell.column.label}")
    return [f"{'; '.join(dict.fromkeys(where))}: {note}" for note, where in found.items()]


def _source(plan: Recipe) -> str:
    """Where the published numbers stand; empty for a table of ours alone."""
    cell = next((cell.published for cell in plan.cells if cell.published), None)
    if cell is None:
        return ""
    paper = published.paper(plan.name.partition("/")[0])
    return (
        f"Published, in brackets: {' and '.join(paper.authors)}, {paper.title} ({paper.year}). "
        "A column without is a control of ours. "
    )


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
    numeric = [key in ("T", "published", "published cells", "ours", "ratio", "seeds") for key in header]
    text = render(header, [[row.get(key) for key in header] for row in rows], fmt, numeric)
    if fmt == "latex":
        for sign, word in (("≥", "$\\geq$"), ("≤", "$\\leq$"), ("α", "$\\alpha$")):
            text = text.replace(sign, word)
    return text
