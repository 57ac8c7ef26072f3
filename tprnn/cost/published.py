"""What a published table leads to expect of the runs behind it: how far climbs go, and how long runs take to solve."""

from __future__ import annotations

from collections.abc import Iterator

from tprnn.papers import published
from tprnn.papers.recipes import Recipe, RecipeCell

BEYOND = 2
"""Lengths beyond a published t_max to which the cost of a climb is counted: its first failure, and one in reserve."""
SHARE = 0.1
"""Of its limit of iterations, what a run that solves is taken to need where nobody has printed it."""


def reach(recipe: Recipe, cell: RecipeCell) -> int | None:
    """The published t_max of a climb (0: it solves nothing); of a control the longest of its row; None without any.

    Where the row has none, the longest that any table of the paper has of the task.
    """
    if cell.row.T is not None:
        return None
    if cell.published is not None:
        return int(cell.published.value or 0)
    row = [one.published for one in recipe.cells if one.row == cell.row and one.published is not None]
    task = [one for one in _tables(recipe) if (one.metric, one.task) == ("t_max", cell.row.task)]
    return max((int(one.value or 0) for one in row or task), default=None)


def bound(recipe: Recipe, cell: RecipeCell, last: int) -> int:
    """The length to which a climb that may go to `last` is counted."""
    published_T = reach(recipe, cell)
    return last if published_T is None else min(last, published_T + BEYOND * recipe.step)


def iterations(recipe: Recipe, cell: RecipeCell, T: int, limit: int) -> float:
    """Iterations of one run at length T by what is published, at most `limit`.

    A climb solves each length up to its t_max, fails at the next, and is not at those beyond. A run at one length
    solves it where the paper does. One that solves takes the iterations printed for it, or `SHARE` of the limit; one
    that does not, or of which nothing is known, takes the limit.
    """
    if cell.row.T is None:
        top = reach(recipe, cell)
        if top is None:
            return limit
        solves, tried = top >= T, top + recipe.step >= T
    else:
        of_one_point = len(cell.candidates(None)) == 1  # of a grid a paper prints the best point
        solves, tried = of_one_point and cell.published is not None and bool(cell.published.solved), True
    if not solves:
        return float(limit) if tried else 0.0
    printed = min(_printed(recipe, cell), default=SHARE * limit)
    return min(printed, limit)


def _printed(recipe: Recipe, cell: RecipeCell) -> Iterator[float]:
    """Iterations to solve that the paper of a cell prints for its task and trainer, of its own settings if it has any.

    For another length too: they hardly grow with T, and the printed ones are at long T.
    """
    if cell.published is None:
        return
    mine = ("iterations_to_solve", cell.published.task, cell.published.trainer)
    like = [other for other in _tables(recipe) if (other.metric, other.task, other.trainer) == mine]
    own = [other for other in like if other.params is not None and dict(other.params) == dict(cell.params)]
    yield from (float(other.value) for other in own or like if other.value is not None)


def _tables(recipe: Recipe) -> Iterator[published.Cell]:
    """Every cell that the recipe's paper prints; none where it is of no paper."""
    paper = published.papers().get(recipe.name.partition("/")[0])
    for table in paper.tables.values() if paper else ():
        yield from table.cells
