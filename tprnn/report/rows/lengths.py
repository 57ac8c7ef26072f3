"""Of climbs, length by length: how many of how many seeds solved, in what time, and whether rules differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from tprnn.papers.recipes import Recipe, RecipeCell
from tprnn.report.rows.intervals import log_rank, median_time, share
from tprnn.report.rows.scores import Answer, Record
from tprnn.report.tables.cell_text import number, times

Line = dict[str, str]
Answers = Sequence[tuple[RecipeCell, Answer]]

SOLVED = (
    "Solved at each length, k of the n seeds that were trained there, with the exact binomial interval (95 %, in "
    "percent). A climb ends at its first failure, so that at greater lengths only the seeds remain that came so far."
)
TIMES = (
    "Iterations to solve at each length, Kaplan–Meier median [95 %]. Cut runs are censored; those that diverged or ran "
    "out of patience never solve, and no iteration of theirs is a bound."
)


def solved(plan: Recipe, answers: Answers) -> list[Line]:
    """`2/3 [9–99]` at each length."""
    return _table(plan, answers, _share)


def iterations(plan: Recipe, answers: Answers) -> list[Line]:
    """`400 [300–∞]` at each length."""
    return _table(plan, answers, _time)


def _share(runs: Sequence[Record]) -> str:
    k, n = sum(run.solved for run in runs), len(runs)
    low, high = share(k, n)
    return f"{k}/{n} [{100 * float(low):.0f}–{100 * float(high):.0f}]"


def _time(runs: Sequence[Record]) -> str:
    found = median_time(times(runs))
    if math.isinf(found.value):
        return "never"
    value = f"{'> ' if found.bound else ''}{number(found.value)}"
    return value if len(runs) == 1 else f"{value} [{number(found.low)}–{number(found.high)}]"


def _table(plan: Recipe, answers: Answers, write: Callable[[Sequence[Record]], str]) -> list[Line]:
    """Tasks and lengths down, columns across."""
    table: dict[tuple[str, int], Line] = {}
    for cell, found in answers:
        for T, runs in (found.lengths or {}).items():
            line = table.setdefault((cell.row.task, T), {"task": cell.row.task, "T": str(T)})
            line[cell.column.label] = write(runs)
    order = [row.task for row in plan.rows]
    columns = ["task", "T", *(column.label for column in plan.columns)]
    lines = [table[key] for key in sorted(table, key=lambda key: (order.index(key[0]), key[1]))]
    return [{column: line.get(column, "") for column in columns} for line in lines]


def between(plan: Recipe, answers: Answers) -> list[Line]:
    """Each column against the first one, at each length at which both have two seeds: the log-rank test."""
    lines = []
    for row in plan.rows:
        mine = [(cell, _runs(cell, found)) for cell, found in answers if cell.row == row]
        first = [(cell, runs) for cell, runs in mine if cell.column == plan.columns[0]]
        for cell, runs in mine:
            if not first or cell.column == plan.columns[0]:
                continue
            for T in sorted(set(runs) & set(first[0][1])):
                one, two = times(first[0][1][T]), times(runs[T])
                p = log_rank(one, two)
                if p is not None:
                    told = {"task": row.task, "T": str(T), "column": cell.column.label}
                    told |= {"median": _time(runs[T]), plan.columns[0].label: _time(first[0][1][T])}
                    lines.append(told | {"n": f"{two.runs}, {one.runs}", "log-rank p": f"{p:.2g}"})
    return lines


def _runs(cell: RecipeCell, found: Answer) -> Mapping[int, Sequence[Record]]:
    if cell.metric == "t_max":
        return found.lengths or {}
    return {cell.first_T: found.records} if cell.metric == "iterations_to_solve" else {}
