"""From recorded runs to the answer of a table's cell: a score for each seed, and their median.

Runs belong to a cell by what they are (`RunSpec.family`, seed and length), not by who started them: a run
of `tprnn train` counts like one of `tprnn reproduce`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tprnn.errors import DamagedFile
from tprnn.papers.recipes import Recipe, RecipeCell
from tprnn.report.frame import read_rows
from tprnn.store import FINISHED


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


@dataclass(frozen=True)
class Score:
    """One seed's answer: the largest T solved, or the iterations to solve."""

    value: float
    # The true value is no smaller: a climb without a failure yet, or a run that was stopped unsolved.
    bound: bool
    # Iterations of the run that was not solved; 0 where none was.
    spent: int
    definite: bool


@dataclass(frozen=True)
class Answer:
    """What the runs say of a cell: a score for each seed, in ascending order."""

    scores: Sequence[Score]
    seeds: Sequence[int]
    records: Sequence[Record]
    parameters: str


Records = Mapping[str, Sequence[Record]]


def load(outputs: str | Path) -> tuple[dict[str, list[Record]], list[DamagedFile]]:
    """Finished runs by family, and what could not be read. Raises UserError if the folder cannot be listed."""
    rows, damaged = read_rows(outputs)
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
                definite=row["stopped_by"] not in ("max_iterations", "max_seconds"),
            )
            found.setdefault(row["family"], []).append(record)
    return found, damaged


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


def _ascending(plan: Recipe) -> Callable[[Score], tuple[float, ...]]:
    """Order of scores: a bound after the same length; a run that was not solved after all that were."""
    if plan.metric == "t_max":
        return lambda score: (score.value, score.bound)
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
    """What the recorded runs say of a cell, by its fastest point where it has several; None where there are none."""
    found = []
    points = cell.candidates(None)
    for spec in points:
        mine = records.get(spec.family, [])
        if plan.metric == "t_max":
            scores = {r.seed: climb_score(mine, r.seed, plan.start, plan.step) for r in mine}
        else:
            mine = [record for record in mine if record.T == cell.first_T]
            scores = {r.seed: iterations_score(mine, r.seed, cell.first_T) for r in mine}
        known = {seed: score for seed, score in scores.items() if score is not None}
        if known:
            rates = " ".join(f"{key}={spec.config['trainer'][key]:g}" for key in cell.params)
            found.append(Answer(sorted(known.values(), key=_ascending(plan)), sorted(known), mine, rates))
    if not found:
        return None
    best = min(found, key=lambda one: _ascending(plan)(median(one.scores)))
    if len(points) == 1:
        return best
    return replace(best, parameters=f"{best.parameters} (fastest of {len(found)} points run, of {len(points)})")
