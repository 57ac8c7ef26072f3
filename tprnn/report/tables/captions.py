"""What stands under a paper's table: where its numbers come from, what they mean, and what it cannot show."""

from __future__ import annotations

from collections.abc import Sequence

from tprnn.papers import published
from tprnn.papers.recipes import Recipe, RecipeCell
from tprnn.report.rows.scores import JUDGED, Answer
from tprnn.report.tables import words

Answers = Sequence[tuple[RecipeCell, Answer | None]]

LEGEND = {
    "t_max": "Ours: the largest T of an unbroken climb (T = {start}, {next}, ...), median [least–most] over seeds; "
    "≥ marks a climb that the budget ended, not a failure.",
    "iterations_to_solve": "Ours: iterations to solve, Kaplan–Meier median [least–most] over seeds; > marks a run that "
    "was cut unsolved, never one that diverged or ran out of patience.",
    "accuracy_pct": "Ours: percent of the test set, with the weights of the best check, for each seed of the best "
    "point of the grid by its checks; median [least–most] over seeds. Beside it the exact binomial interval of all "
    "test sets together (what is left open within the seeds; between them see the interval of a new run), and the "
    "validation accuracy at the best and at the last check.",
    "loss": "Ours: loss on the test set (lower is better), with the weights of the best check (fewest mistakes, then "
    "least loss: the least over all checks is rather lower), for each seed of the best point of the grid by its "
    "checks; median [least–most] over seeds. Below 1e-7, float32's limit, a loss is not told from 0.",
}
ENDS = (
    "Solved, diverged, cut (by the budget), out of patience: how the last run of each seed ended. No iteration of a "
    "run that diverged or ran out of patience is a bound."
)
UNTESTED = "(validation): runs of before there was a test set; the best of many checks, which is rather too high."
LUCK = (
    "Best of m by luck: the middle point of those run, and what the best of m equally good ones gives on average by "
    "chance (its validation accuracy). That is the chance of validation sets alone: seeds that scatter add to it."
)


def notes(plan: Recipe, answers: Answers) -> list[str]:
    """Every remark on a table."""
    return [
        f"{source(plan)}{legend(plan)} {ENDS}",
        *(words.explained() if any(cell.published for cell in plan.cells) else []),
        *smoke(plan, answers),
        *searched(plan, answers),
        *_of_numbers(answers),
        *plan.notes,
        *(f"{trainer}: {reason}" for trainer, reason in plan.not_run.items()),
        *_uncertain(plan),
    ]


def legend(plan: Recipe) -> str:
    """What the numbers of each metric of the table are."""
    values = {"start": plan.start, "next": plan.start + plan.step}
    return " ".join(LEGEND[metric].format(**values) for metric in plan.metrics)


def _of_numbers(answers: Answers) -> list[str]:
    judged = [(cell, found) for cell, found in answers if found and cell.metric in JUDGED]
    told = [UNTESTED] if any(not found.tested for _, found in judged if found) else []
    several = any(cell.metric == "accuracy_pct" and found.points[1] > 1 for cell, found in judged if found)
    return told + ([LUCK] if several else [])


def smoke(plan: Recipe, answers: Answers) -> list[str]:
    """One line, where no run had more than the smallest budget, on what such a table can show."""
    least = min(plan.budgets.values(), key=lambda budget: budget.max_iterations)
    paper = plan.budgets["paper"]
    records = [record for _, found in answers if found for record in found.records]
    if not records or least.max_iterations >= paper.max_iterations:
        return []
    seeds = max(len(found.seeds) for _, found in answers if found)
    if seeds > len(least.seeds) or any(record.max_iterations > least.max_iterations for record in records):
        return []
    had = f"{seeds} seed{'s' * (seeds > 1)}, {least.max_iterations:,} of {paper.max_iterations:,} iterations"
    told = "they show that every rule runs and what it costs, and can neither confirm nor contradict a printed number."
    return [f"These are runs of the budget {least.name} ({had}): {told}"]


def searched(plan: Recipe, answers: Answers) -> list[str]:
    """A line where one column was given more points of search than another: of those run, else of the budget paper."""
    run: dict[str, int] = {}
    for cell, found in answers:
        if found is not None:
            run[cell.column.label] = max(run.get(cell.column.label, 0), found.points[1])
    if not run:
        run = {cell.column.label: len(cell.candidates("paper")) for cell in plan.cells}
    counts: dict[int, list[str]] = {}
    for label, points in run.items():
        counts.setdefault(points, []).append(label)
    if len(counts) < 2:
        return []
    told = "; ".join(
        f"{points} point{'s' * (points > 1)}: {', '.join(labels)}" for points, labels in sorted(counts.items())
    )
    return [f"Not the same search for every column, and the best of more points is better by luck too ({told})."]


def source(plan: Recipe) -> str:
    """Where the published numbers stand; empty for a table of ours alone."""
    cell = next((cell.published for cell in plan.cells if cell.published), None)
    if cell is None:
        return ""
    paper = published.paper(plan.name.partition("/")[0])
    return (
        f"Published, in brackets: {' and '.join(paper.authors)}, {paper.title} ({paper.year}). "
        "A column without is a control of ours. "
    )


def _uncertain(plan: Recipe) -> list[str]:
    """What makes published cells uncertain, each remark once."""
    found: dict[str | None, list[str]] = {}
    for cell in plan.cells:
        if cell.published and cell.published.uncertain:
            found.setdefault(cell.published.note, []).append(f"{cell.row.task}, {cell.column.label}")
    return [f"{'; '.join(dict.fromkeys(where))}: {note}" for note, where in found.items()]
