"""How a cell's answer is held against the published one: a function of recorded runs and of the printed number alone.

The words are those of tprnn/report/tables/words.py, the intervals those of tprnn/report/rows/intervals.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from tprnn.papers.published import Cell
from tprnn.papers.recipes import Recipe, RecipeCell
from tprnn.report.rows.intervals import Interval, accuracies, alike_needed, iterations, lengths, losses
from tprnn.report.rows.scores import Answer, Score
from tprnn.report.tables.words import FACTOR, FAR, FEWEST, LOSS_LIMIT, POINTS

NONE = "–"
CONSISTENT, INCONCLUSIVE, HIGHER, LOWER = "consistent", "inconclusive", "higher", "lower"
OTHERWISE, NOT_RUN = "does not replicate", "not run"
MORE_IS_BETTER = ("t_max", "accuracy_pct")


@dataclass(frozen=True)
class Limits:
    """What the paper allowed: iterations of a run, and the share of mistakes below which it counts as solved."""

    iterations: int
    # None where no run of the cell can solve
    error: float | None
    # first length of a climb, and its step
    start: int = 10
    step: int = 10


def limits(plan: Recipe, cell: RecipeCell) -> Limits:
    error = cell.spec().train.success_error
    return Limits(plan.budgets["paper"].max_iterations, error, plan.start, plan.step)


# ---- intervals of an answer


def _share(scores: Sequence[Score]) -> Interval | None:
    """Accuracy in percent of one new run: by the test sets, else by the best checks; None where it is not recorded."""
    runs = [score.last for score in scores]
    if len(runs) < 2:
        return None
    tested = all(run.test_sequences and run.test_right is not None for run in runs)
    if not tested and any(run.best_accuracy is None for run in runs):
        return None
    sizes = [int(run.test_sequences or 0) if tested else run.validation_size for run in runs]
    size = min(sizes)  # the same for all, but where somebody changed it between two seeds
    parts = [
        float(run.test_right or 0) / each if tested else float(run.best_accuracy or 0)
        for run, each in zip(runs, sizes, strict=True)
    ]
    found = accuracies([round(part * size) for part in parts], size)
    return Interval(*(100.0 * float(end) for end in (found.low, found.middle, found.high)))


def interval(metric: str, scores: Sequence[Score], of: Limits) -> Interval | None:
    """Where one new run lies; None for one seed, and where some seed has only a bound, or no number at all."""
    values = [score.value for score in scores]
    if metric == "accuracy_pct":
        return _share(scores)
    if len(values) < 2 or not all(map(math.isfinite, values)) or any(_open(score, of) for score in scores):
        return None
    if metric == "loss":
        found = losses(values)
    elif metric == "t_max":
        found = lengths(values, of.start, of.step)
    else:
        found = iterations(values, max(score.last.check_every for score in scores))
    return Interval(float(found.low), float(found.middle), float(found.high))


def _open(score: Score, of: Limits) -> bool:
    """Whether a score may still grow within the paper's budget."""
    return score.bound or (score.cut is not None and score.cut < of.iterations)


def narrow(metric: str, found: Interval) -> bool:
    """Whether an interval is no wider to either side than a verdict of `consistent` may have it."""
    low, middle, high = found.low, found.middle, found.high
    if metric == "accuracy_pct":
        return max(high - middle, middle - low) <= POINTS
    if metric == "loss":  # what is below float32's limit is one value
        low, middle, high = (max(end, LOSS_LIMIT) for end in (low, middle, high))
    return high <= FACTOR * middle and middle <= FACTOR * low


def printed_range(published: Cell) -> tuple[float, float]:
    """What a printed number may be the rounding of: 99.835 and 99.845 for 99.84. Raises ValueError for a mark."""
    if published.value is None:
        raise ValueError(f"{published.id}: no number")
    try:
        exponent = Decimal((published.printed or "").rstrip("%").replace(",", "")).as_tuple().exponent
        half = 0.5 * 10.0 ** int(exponent)
    except (InvalidOperation, ValueError):
        half = 0.0
    return published.value - half, published.value + half


# ---- what a new run would do


def solves(scores: Sequence[Score], of: Limits) -> bool | None:
    """Whether a new run would be solved within the paper's iterations, with 95 %; None where that cannot be said.

    From 7 equal outcomes on (`intervals.alike_needed`) it would, or it would not. For fewer the log-normal scatter of
    iterations may say it, where all were solved, if need be after that limit: the interval ends within, or begins
    beyond. Of runs that were not solved there is no such scatter: an accuracy far from the criterion is that of runs
    before they leap, and does not say how many would.
    """
    runs = [score.last for score in scores]
    won = [run.solved and run.iterations <= of.iterations for run in runs]
    if len(runs) < FEWEST or any(won) != all(won) or of.error is None:
        return None
    if not all(won) and any(not run.definite and run.iterations < of.iterations for run in runs):
        return None
    if len(runs) >= alike_needed():
        return all(won)
    if not all(run.solved for run in runs):
        return None
    found = iterations([run.iterations for run in runs], max(run.check_every for run in runs))
    return True if found.high <= of.iterations else False if found.low > of.iterations else None


def _first(scores: Sequence[Score]) -> list[Score]:
    """Of climbs: their runs at the first length."""
    return [Score(score.value, score.bound, score.records[:1]) for score in scores]


# ---- verdicts


def verdict(plan: Recipe, cell: RecipeCell, found: Answer | None) -> str:
    """`consistent`, `inconclusive (REASON)`, `higher`, `lower`, or `does not replicate (higher | lower)`.

    `not run` where nothing was, "–" for a control.
    """
    if found is None:
        return NOT_RUN
    if cell.published is None:
        return NONE
    return judge(cell.metric, cell.published, found, limits(plan, cell))


def judge(metric: str, published: Cell, found: Answer, of: Limits) -> str:
    """`verdict` of a cell with runs and with a published counterpart."""
    if metric in ("accuracy_pct", "loss") and published.value is not None:
        return _number(metric, published, found, of)
    if published.value is None:
        scores = _first(found.scores) if metric == "t_max" else found.scores
        return _mark(bool(published.solved), scores, found, of)
    return _length(published, found, of) if metric == "t_max" else _count(published, found, of)


def _inconclusive(*reasons: str | None) -> str:
    told = "; ".join(dict.fromkeys(reason for reason in reasons if reason))
    return f"{INCONCLUSIVE} ({told})"


def _few(found: Answer) -> str | None:
    """`2 seeds` where they are too few for any verdict."""
    n = len(found.seeds)
    return f"{n} seed{'s' * (n > 1)}" if n < FEWEST else None


def _short(scores: Sequence[Score], of: Limits) -> str | None:
    """`5,000 of 100,000 iterations` where a run was cut unsolved before the paper's limit."""
    cuts = [score.cut for score in scores if score.cut is not None and score.cut < of.iterations]
    return f"{min(cuts):,} of {of.iterations:,} iterations" if cuts else None


def _fewer(found: Answer) -> str | None:
    """`1 of 15 points` where the grid of the paper's budget was not run whole."""
    run, all_of_them = found.paper_points
    return f"{run} of {all_of_them} points" if run < all_of_them else None


def _beyond(metric: str, scores: Sequence[Score], of: Limits) -> str | None:
    """`150,000 iterations, not 100,000` where accuracies, losses or lengths solved rest on more than the paper's."""
    runs = [run for score in scores for run in score.records if run.solved or metric != "t_max"]
    most = max((run.iterations for run in runs), default=0)
    counts = metric != "iterations_to_solve" and most > of.iterations
    return f"{most:,} iterations, not {of.iterations:,}" if counts else None


def _solved(scores: Sequence[Score], of: Limits) -> str:
    won = sum(score.last.solved and score.last.iterations <= of.iterations for score in scores)
    return f"{won} of {len(scores)} solved"


def _against(metric: str, published: Cell, inside: Interval, found: Answer, of: Limits) -> str:
    """A number against the interval.

    The best of more points can only be better: fewer points excuse what is worse. So can what rests on more iterations
    than the paper's: they excuse what is better.
    """
    low, high = printed_range(published)
    fewer, beyond = _fewer(found), _beyond(metric, found.scores, of)
    if low <= inside.high and inside.low <= high:
        if fewer or beyond:
            return _inconclusive(fewer, beyond)
        if not narrow(metric, Interval(low, published.value, high)):
            return _inconclusive("too few digits are printed")
        return CONSISTENT if narrow(metric, inside) else _inconclusive("the interval is too wide")
    side = HIGHER if inside.low > high else LOWER
    better = side == (HIGHER if metric in MORE_IS_BETTER else LOWER)
    excuse = beyond if better else fewer
    return _inconclusive(excuse) if excuse else side


def _number(metric: str, published: Cell, found: Answer, of: Limits) -> str:
    """A printed accuracy or loss."""
    scores = found.scores
    if published.solved is False and solves(scores, of):
        return f"{OTHERWISE} ({HIGHER}: {_solved(scores, of)})"
    reasons = [_few(found), _short(scores, of), None if found.tested else "no test set recorded"]
    if any(reasons):
        return _inconclusive(*reasons, _fewer(found))
    inside = interval(metric, scores, of)
    if inside is None:
        lost = sum(not math.isfinite(score.value) for score in scores)
        return _inconclusive(f"{lost} of {len(scores)} without a finite loss")
    said = _against(metric, published, inside, found, of)
    far = metric == "accuracy_pct" and abs(inside.middle - (published.value or 0.0)) >= FAR
    return f"{OTHERWISE} ({said})" if said in (HIGHER, LOWER) and far else said


def _mark(ticked: bool, scores: Sequence[Score], found: Answer, of: Limits) -> str:
    """A printed tick, or "not solved". Of more points one may solve: fewer of them excuse that none did."""
    new = None if _few(found) else solves(scores, of)
    fewer = None if new else _fewer(found)
    if new is None or fewer:
        return _inconclusive(_few(found), _short(scores, of), fewer, _solved(scores, of))
    return CONSISTENT if new == ticked else f"{OTHERWISE} ({HIGHER if new else LOWER}: {_solved(scores, of)})"


def _count(published: Cell, found: Answer, of: Limits) -> str:
    """Printed iterations to solve."""
    scores = found.scores
    if any(reasons := [_few(found), _short(scores, of)]):
        return _inconclusive(*reasons, _fewer(found))
    if inside := interval("iterations_to_solve", scores, of):
        return _against("iterations_to_solve", published, inside, found, of)
    return _mark(True, scores, found, of)


def _length(published: Cell, found: Answer, of: Limits) -> str:
    """A printed largest length. Climbs that a budget cut are longer than they look: only 7 beyond it say so."""
    low, high = printed_range(published)
    scores = found.scores
    if _few(found):
        return _inconclusive(_few(found), _short(scores, of), _fewer(found))
    if inside := interval("t_max", scores, of):
        said = _against("t_max", published, inside, found, of)
        none = said == LOWER and not any(score.value for score in scores)
        return f"{OTHERWISE} ({said}: none solves T = {of.start})" if none else said
    beyond = _beyond("t_max", scores, of)
    if all(score.value > high for score in scores) and len(scores) >= alike_needed() and not beyond:
        return HIGHER
    reach = sum(score.value >= low for score in scores)
    ended = "the budget ended climbs" if any(score.bound for score in scores) else None
    fewer = None if reach == len(scores) else _fewer(found)
    reached = f"{reach} of {len(scores)} reach T = {published.value:g}"
    return _inconclusive(reached, _short(scores, of), beyond, ended, fewer)
