"""What the tests of papers share: the cells of the recipes, and their lines in a report."""

from __future__ import annotations

import csv
import io

from tprnn.papers.recipes import RecipeCell, names, recipe
from tprnn.report.tables.paper import paper_report

CELLS = [cell for name in names() for cell in recipe(name).cells]


def the(name: str, task: str, column: str) -> RecipeCell:
    (cell,) = [c for c in recipe(name).cells if (c.row.task, c.column.key) == (task, column)]
    return cell


def row_of(outputs: str, cell: RecipeCell, budget: str | None = None) -> dict[str, str]:
    rows = list(csv.DictReader(io.StringIO(paper_report(outputs, cell.recipe, "csv", budget))))
    (row,) = [
        row
        for row in rows
        if row["task"] == cell.row.task
        and row["column"] == cell.column.label
        and row.get("T", "") in ("", str(cell.row.T))
    ]
    return row
