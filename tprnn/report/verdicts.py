"""How a cell's answer is written, and how it is held against the published one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tprnn.papers.recipes import Recipe, RecipeCell
from tprnn.report.scores import Answer, Score, median

NONE = "–"


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def _length(plan: Recipe, score: Score) -> str:
    return f"{'≥ ' if score.bound else ''}{_number(score.value)}" if score.value else f"< {plan.start}"


def _iterations(plan: Recipe, score: Score) -> str:
    return f"{'> ' if score.bound else ''}{_number(score.value)}"


def _percent(plan: Recipe, score: Score) -> str:
    return f"{score.value:.2f}"


def _loss(plan: Recipe, score: Score) -> str:
    return f"{score.value:.3g}"


SHOWN = {"t_max": _length, "iterations_to_solve": _iterations, "accuracy_pct": _percent, "loss": _loss}

RATIOS = ("iterations_to_solve", "loss")

# A published accuracy or loss agrees with ours up to the range of our seeds, and at least up to
POINTS = 1.0  # percentage points of accuracy,
SHARE = 0.1  # of a published loss.


def spread(plan: Recipe, scores: Sequence[Score], metric: str) -> str:
    """`median [least–most]` over seeds. "≥ 100": no failure on record; "> 20,000": not solved when it was stopped."""
    show = SHOWN[metric]
    middle, least, most = (show(plan, score) for score in (median(scores), scores[0], scores[-1]))
    return middle if least == most else f"{middle} [{least}–{most}]"


def ours(plan: Recipe, cell: RecipeCell, found: Answer | None) -> str:
    """The spread of a cell over its seeds; for accuracies how many of them solved, where runs can solve."""
    if found is None:
        return NONE
    shown = spread(plan, found.scores, cell.metric)
    if cell.metric == "accuracy_pct" and cell.spec().train.success_error is not None:
        shown += f", {sum(score.solved for score in found.scores)}/{len(found.scores)} solved"
    return shown


def verdict(plan: Recipe, cell: RecipeCell, found: Answer | None) -> str:
    """`reached`, `below` or `not run`, with the reason where the budget decided; "–" for a control.

    t_max: the median climb against the published length. Iterations: solved within the paper's limit or not; where
    the paper did not solve it, not to solve it within the same limit is as good. Accuracies and losses: `_against`.
    """
    if found is None:
        return "not run"
    if cell.published is None:
        return NONE
    limit = plan.budgets["paper"].max_iterations
    middle = median(found.scores)
    goal = cell.published.value
    cut = not middle.definite and middle.spent < limit  # more iterations might have solved it
    below = f"below at {_number(middle.spent)} iterations" if cut else "below"
    if cell.metric in ("accuracy_pct", "loss"):
        return _against(cell, found.scores, below)
    if cell.metric == "t_max":
        if goal is None:
            if middle.value:
                return "reached (not solved in the paper)"
            return f"not run to {limit:,} iterations" if cut else "reached (not solved either)"
        if middle.value >= goal:
            return "reached"
        return f"not run to T = {_number(goal)}" if middle.bound else below
    if not middle.bound:
        within = "reached" if middle.value <= limit else "below"
        return within if goal is not None else "reached (not solved in the paper)"
    if goal is None:
        return f"not run to {limit:,} iterations" if cut else "reached (not solved either)"
    return f"not run to {_number(goal)} iterations" if cut and middle.spent < goal else below


def _against(cell: RecipeCell, scores: Sequence[Score], below: str) -> str:
    """A published tick: `reached` where the median seed solves it. A number: `agrees`, or on which side ours is.

    It agrees where it is no farther from our median than the range of our seeds or, if that is less, than one
    percentage point of accuracy, or than a tenth of the published loss. To solve what the paper did not is `above`.
    """
    middle, goal = median(scores), cell.published.value if cell.published else None
    if goal is None:
        return "reached" if middle.solved else below
    if middle.solved and cell.published and cell.published.solved is False:
        return "above (solved)"
    least = POINTS if cell.metric == "accuracy_pct" else SHARE * goal
    apart = scores[-1].value - scores[0].value
    away = middle.value - goal
    if abs(away) <= max(least, apart if math.isfinite(apart) else 0.0):
        return "agrees"
    if cell.metric == "loss":
        return "higher" if away > 0 else "lower"
    return "above" if away > 0 else below


def published_text(cell: RecipeCell) -> str:
    """The published number as printed; for a mark `solved` or `not solved`."""
    if cell.published is None:
        return NONE
    mark = "solved" if cell.published.solved else "not solved"
    shown = mark if cell.published.value is None else cell.published.printed or _number(cell.published.value)
    return f"{shown} (uncertain)" if cell.published.uncertain else shown


def ratio(cell: RecipeCell, found: Answer | None) -> str:
    """Ours by the published number, for iterations and losses."""
    if cell.metric not in RATIOS:
        return NONE
    goal = cell.published.value if cell.published else None
    middle = median(found.scores) if found else None
    return NONE if not goal or middle is None or middle.bound else f"{middle.value / goal:.2g}"
