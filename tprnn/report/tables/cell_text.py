"""How the numbers of a cell are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tprnn.papers.recipes import Recipe, RecipeCell
from tprnn.report.rows.intervals import Times, median_time, share
from tprnn.report.rows.scores import BUDGET, JUDGED, Answer, Number, Record, median
from tprnn.report.rows.verdicts import NONE, interval, limits
from tprnn.report.tables.words import LOSS_LIMIT
from tprnn.statistics import highest_by_chance

RATIOS = ("iterations_to_solve", "loss")
NEVER = "never"


def number(value: float) -> str:
    """1,600, 12.5, or ∞."""
    if math.isinf(value):
        return "∞"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def _length(plan: Recipe, given: Number) -> str:
    return f"{'≥ ' if given.bound else ''}{number(given.value)}" if given.value else f"< {plan.start}"


def _iterations(plan: Recipe, given: Number) -> str:
    return f"{'> ' if given.bound else ''}{number(given.value)}" if math.isfinite(given.value) else NEVER


def _percent(plan: Recipe, given: Number) -> str:
    return f"{given.value:.2f}"


def _loss(plan: Recipe, given: Number) -> str:
    return loss(given.value)


def loss(value: float) -> str:
    """Three digits; what is below float32's limit is only known to be."""
    return f"< {LOSS_LIMIT:.0e}".replace("e-0", "e-") if value < LOSS_LIMIT else f"{value:.3g}"


SHOWN: dict[str, Callable[[Recipe, Number], str]] = {
    "t_max": _length,
    "iterations_to_solve": _iterations,
    "accuracy_pct": _percent,
    "loss": _loss,
}


def _range(plan: Recipe, metric: str, middle: Number, scores: Sequence[Number]) -> str:
    show = SHOWN[metric]
    shown, least, most = (show(plan, each) for each in (middle, scores[0], scores[-1]))
    return shown if least == most == shown else f"{shown} [{least}–{most}]"


def times(records: Sequence[Record]) -> Times:
    """How runs at one length ended."""
    solved = [record.iterations for record in records if record.solved]
    cut = [record.iterations for record in records if record.end == BUDGET]
    return Times(solved, cut, len(records) - len(solved) - len(cut))


def ours(plan: Recipe, cell: RecipeCell, found: Answer | None) -> str:
    """`median [least–most]` over seeds. "≥ 100": no failure on record; "> 20,000": not solved when it was cut.

    The median of iterations is Kaplan–Meier's; "never": diverged or out of patience.
    """
    if found is None:
        return NONE
    middle = median(found.scores)
    if cell.metric == "iterations_to_solve":
        timed = median_time(times(found.records))
        middle = Number(timed.value, timed.bound)
    unseen = cell.metric in JUDGED and not found.tested
    return _range(plan, cell.metric, middle, found.scores) + (" (validation)" if unseen else "")


def new_run(plan: Recipe, cell: RecipeCell, found: Answer | None) -> str:
    """`low–high`: where one new run lies with 95 %."""
    inside = interval(cell.metric, found.scores, limits(plan, cell)) if found else None
    if inside is None:
        return NONE
    show = SHOWN[cell.metric]
    return f"{show(plan, Number(inside.low))}–{show(plan, Number(inside.high))}"


def test_set(cell: RecipeCell, found: Answer | None) -> str:
    """The exact interval that the test sets of all seeds together leave for the share answered rightly, in percent."""
    if found is None or cell.metric != "accuracy_pct" or not found.tested:
        return NONE
    low, high = share(
        sum(score.last.test_right or 0 for score in found.scores),
        sum(score.last.test_sequences or 0 for score in found.scores),
    )
    return f"{100 * float(low):.2f}–{100 * float(high):.2f}"


def of_checks(plan: Recipe, cell: RecipeCell, found: Answer | None, last: bool) -> str:
    """Validation accuracy of the same runs, at the best check or at the last, in percent."""
    if found is None or cell.metric != "accuracy_pct":
        return NONE
    runs = [score.last for score in found.scores]
    values = sorted(v for run in runs if (v := run.last_accuracy if last else run.best_accuracy) is not None)
    if len(values) < len(runs) or not values:
        return NONE
    numbers = [Number(100.0 * value) for value in values]
    return _range(plan, "accuracy_pct", median(numbers), numbers)


def luck(cell: RecipeCell, found: Answer | None) -> str:
    """`50.1 → 50.9`: the middle point of the grid, and what the best of so many equally good ones gives by luck."""
    if found is None or cell.metric != "accuracy_pct" or found.points[1] < 2:
        return NONE
    tried = found.tried
    size = min(one.score.last.validation_size for one in tried)
    middle = median([Number(value) for value in sorted((one.score.last.best_accuracy or 0.0) for one in tried)]).value
    most = found.points[1]
    highest, _ = highest_by_chance({round(middle * size) / size: most}, size)
    return f"{100 * middle:.2f} → {100 * highest:.2f} (best of {most})"


def published_text(cell: RecipeCell) -> str:
    """The published number as printed; for a mark `solved` or `not solved`."""
    if cell.published is None:
        return NONE
    mark = "solved" if cell.published.solved else "not solved"
    shown = mark if cell.published.value is None else cell.published.printed or number(cell.published.value)
    return f"{shown} (uncertain)" if cell.published.uncertain else shown


def ratio(cell: RecipeCell, found: Answer | None) -> str:
    """Ours by the published number, for iterations and losses."""
    goal = cell.published.value if cell.published else None
    if cell.metric not in RATIOS or not goal or found is None:
        return NONE
    middle = median_time(times(found.records)) if cell.metric == "iterations_to_solve" else median(found.scores)
    return NONE if middle.bound or not math.isfinite(middle.value) else f"{middle.value / goal:.2g}"
