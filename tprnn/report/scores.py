"""From recorded runs to the answer of a table's cell: a score for each seed, and their median.

Runs belong to a cell by what they are (`RunSpec.family`, seed and length), not by who started them: a run
of `tprnn train` counts like one of `tprnn reproduce`.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tprnn.budgets import CUT, FINISHED
from tprnn.config import RunSpec
from tprnn.errors import DamagedFile
from tprnn.papers.recipes import Recipe, RecipeCell
from tprnn.report.frame import Row, read_rows, show
from tprnn.report.views import as_far_as


@dataclass(frozen=True)
class Record:
    """What a finished run says for a table."""

    seed: int
    T: int
    solved: bool
    iterations: int
    max_iterations: int
    # Ended by a rule that no larger budget would change (diverged, patience), not by its limit.
    definite: bool
    # Best over checks of the full validation set; None where it was not recorded.
    best_accuracy: float | None
    best_loss: float | None


@dataclass(frozen=True)
class Score:
    """One seed's answer: the largest T solved, the iterations to solve, the best accuracy (%) or the best loss."""

    value: float
    # The true value is no smaller: a climb without a failure yet, or a run that was stopped unsolved.
    bound: bool
    # Iterations of the run that was not solved; 0 where all were.
    spent: int
    definite: bool

    @property
    def solved(self) -> bool:
        return not self.spent


@dataclass(frozen=True)
class Answer:
    """What the runs say of a cell: a score for each seed, in ascending order."""

    scores: Sequence[Score]
    seeds: Sequence[int]
    records: Sequence[Record]
    parameters: str
    # Points of the grid with runs: of the seed that has fewest, and of the one that has most; and all there are.
    points: tuple[int, int, int] = (1, 1, 1)


Records = Mapping[str, Sequence[Record]]


def load(outputs: str | Path, most: int | None = None) -> tuple[dict[str, list[Record]], list[DamagedFile]]:
    """Finished runs by family, none as of more than `most` iterations, and what could not be read.

    A run that is going on with a larger budget counts as of the one before.

    Raises UserError if the folder cannot be listed.
    """
    rows, damaged = read_rows(outputs)
    rows, more = as_far_as(rows, most)
    return records_of(rows), [*damaged, *more]


def records_of(rows: Iterable[Row]) -> dict[str, list[Record]]:
    """The finished ones of some runs, by family."""
    found: dict[str, list[Record]] = {}
    for row in rows:
        T, limit, iterations = row.get("task.T"), row.get("train.max_iterations"), row["iterations"]
        if row["status"] in FINISHED and isinstance(T, int) and isinstance(limit, int) and iterations is not None:
            record = Record(
                seed=row["seed"],
                T=T,
                solved=row["status"] == "solved",
                iterations=int(iterations),
                max_iterations=limit,
                definite=row["stopped_by"] not in CUT,
                best_accuracy=row["best_accuracy"],
                best_loss=row["best_validation_loss"],
            )
            found.setdefault(row["family"], []).append(record)
    return found


def _decide(records: Sequence[Record], seed: int, T: int) -> Record | None:
    """Of runs that differ in their iteration limit alone: the solved one, else the one that went furthest."""
    same = [record for record in records if (record.seed, record.T) == (seed, T)]
    return max(same, key=lambda record: (record.solved, record.definite, record.iterations), default=None)


def climb_score(records: Sequence[Record], seed: int, start: int, step: int) -> Score | None:
    """The largest T of an unbroken climb of one seed (0: none); None where its first length has not been run."""
    top, T = 0, start
    while (record := _decide(records, seed, T)) is not None:
        if not record.solved:
            return Score(top, False, record.iterations, record.definite)
        top, T = T, T + step
    return Score(top, True, 0, False) if top else None


def iterations_score(records: Sequence[Record], seed: int, T: int) -> Score | None:
    """The iterations to solve of one seed at one length; None where it has not been run."""
    record = _decide(records, seed, T)
    if record is None:
        return None
    return Score(record.iterations, not record.solved, 0 if record.solved else record.iterations, record.definite)


def best_score(records: Sequence[Record], seed: int, T: int, metric: str) -> Score | None:
    """The best accuracy or loss of one seed at one length; None where it has not been run, or not recorded."""
    record = _decide(records, seed, T)
    if record is None:
        return None
    value = record.best_loss if metric == "loss" else record.best_accuracy
    if value is None:
        return None
    spent = 0 if record.solved else record.iterations
    return Score(value if metric == "loss" else 100.0 * value, False, spent, record.definite)


def _ascending(metric: str) -> Callable[[Score], tuple[float, ...]]:
    """Order of scores: a bound after the same length; a run that was not solved after all that were."""
    if metric == "t_max":
        return lambda score: (score.value, score.bound)
    if metric == "accuracy_pct":
        return lambda score: (score.value, score.solved)
    if metric == "loss":
        return lambda score: (score.value,)
    return lambda score: (score.bound, score.value)


def median(scores: Sequence[Score]) -> Score:
    """The middle one of ascending scores; for an even number the mean of the middle two, a bound if either is."""
    low, high = scores[(len(scores) - 1) // 2], scores[len(scores) // 2]
    failed = [score for score in (low, high) if score.spent] or [low]
    return Score(
        (low.value + high.value) / 2,
        low.bound or high.bound,
        min(score.spent for score in failed),
        any(score.definite for score in failed),
    )


def answer(plan: Recipe, cell: RecipeCell, records: Records) -> Answer | None:
    """What the recorded runs say of a cell; None where there are none.

    Of a grid: for largest T and iterations its fastest point; for accuracy and loss the best point of each seed.
    """
    if cell.metric in ("accuracy_pct", "loss"):
        return _best_of_each_seed(cell, records)
    found = []
    points = cell.candidates(None)
    for spec in points:
        mine = records.get(spec.family, [])
        if cell.metric == "t_max":
            scores = {r.seed: climb_score(mine, r.seed, plan.start, plan.step) for r in mine}
        else:
            mine = [record for record in mine if record.T == cell.first_T]
            scores = {r.seed: iterations_score(mine, r.seed, cell.first_T) for r in mine}
        known = {seed: score for seed, score in scores.items() if score is not None}
        if known:
            ascending = sorted(known.values(), key=_ascending(cell.metric))
            found.append(Answer(ascending, sorted(known), mine, _point(cell, spec)))
    if not found:
        return None
    choose, word = (max, "best") if cell.metric == "t_max" else (min, "fastest")
    best = choose(found, key=lambda one: _ascending(cell.metric)(median(one.scores)))
    if len(points) == 1:
        return best
    told = f"{best.parameters} ({word} of {len(found)} points run, of {len(points)})"
    return replace(best, parameters=told, points=(len(found), len(found), len(points)))


def _best_of_each_seed(cell: RecipeCell, records: Records) -> Answer | None:
    """The grid search is done anew for each seed, as one who has a single seed would do it."""
    best: dict[int, tuple[Score, str]] = {}
    counts: Counter[int] = Counter()
    used: list[Record] = []
    points = cell.candidates(None)
    ascending = _ascending(cell.metric)
    better = operator.lt if cell.metric == "loss" else operator.gt
    for spec in points:
        mine = [record for record in records.get(spec.family, []) if record.T == cell.first_T]
        used += mine
        for seed in sorted({record.seed for record in mine}):
            score = best_score(mine, seed, cell.first_T, cell.metric)
            if score is not None:
                counts[seed] += 1
                if seed not in best or better(ascending(score), ascending(best[seed][0])):
                    best[seed] = score, _point(cell, spec)
    if not best:
        return None
    chosen: dict[str, list[int]] = {}
    for seed in sorted(best):
        chosen.setdefault(best[seed][1], []).append(seed)
    told = [
        f"{point} (seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))})" if len(chosen) > 1 else point
        for point, seeds in chosen.items()
    ]
    return Answer(
        scores=sorted((score for score, _ in best.values()), key=ascending),
        seeds=sorted(best),
        records=used,
        parameters="; ".join(told),
        points=(min(counts.values()), max(counts.values()), len(points)),
    )


def _point(cell: RecipeCell, spec: RunSpec) -> str:
    return " ".join(f"{key}={show(spec.config['trainer'][key])}" for key in cell.settings)
