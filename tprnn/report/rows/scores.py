"""From recorded runs to the answer of a table's cell: a score for each seed, and their median.

Runs belong to a cell by what they are (`RunSpec.family`, seed and length), not by who started them: a run
of `tprnn train` counts like one of `tprnn reproduce`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tprnn.budgets import CUT, FINISHED
from tprnn.errors import DamagedFile
from tprnn.papers.recipes import Recipe, RecipeCell
from tprnn.report.rows.frame import Row, read_rows, show
from tprnn.report.tables.views import as_far_as

SOLVED, DIVERGED, BUDGET, PATIENCE = ENDS = ("solved", "diverged", "cut", "out of patience")
"""How a run ends. Diverged and out of patience compete with a solution: no larger budget would bring one."""

JUDGED = ("accuracy_pct", "loss")
"""Metrics that say how well a run answers, of the best point of each seed; the others say when or whether it solves."""


@dataclass(frozen=True)
class Record:
    """What a finished run says for a table."""

    seed: int
    T: int
    end: str
    iterations: int
    max_iterations: int
    # Iterations from one look to the next, and sequences of the full validation set.
    check_every: int = 100
    validation_size: int = 10_000
    # Best over checks of the full validation set, and at the last of them; None where it was not recorded.
    best_accuracy: float | None = None
    best_loss: float | None = None
    last_accuracy: float | None = None
    # Sequences of the test set, those answered rightly, mean E; None in records that had none.
    test_sequences: int | None = None
    test_right: int | None = None
    test_loss: float | None = None

    @property
    def solved(self) -> bool:
        return self.end == SOLVED

    @property
    def definite(self) -> bool:
        """Ended by a rule that no larger budget would change, not by its limit."""
        return self.end != BUDGET


@dataclass(frozen=True)
class Number:
    """A value, or (a bound) the least that it can be; infinite for the iterations of what never solves."""

    value: float
    bound: bool = False


@dataclass(frozen=True)
class Score(Number):
    """One seed's answer: the largest T solved, the iterations to solve, the accuracy (%) or the loss.

    A bound: a climb without a failure yet, or a run that was cut unsolved.
    """

    # The runs it rests on: of a climb from its first length up, else one.
    records: Sequence[Record] = ()

    @property
    def last(self) -> Record:
        return self.records[-1]

    @property
    def cut(self) -> int | None:
        """Iterations after which its last run was cut unsolved; None where it came to an end of its own."""
        return None if self.last.definite else self.last.iterations


@dataclass(frozen=True)
class Tried:
    """A point with a seed that has an answer, the chosen one or not."""

    family: str
    point: str
    seed: int
    score: Score


@dataclass(frozen=True)
class Answer:
    """What the runs say of a cell: a score for each seed, in ascending order."""

    scores: Sequence[Score]
    seeds: Sequence[int]
    parameters: str
    # Every point and seed that the choice was among.
    tried: Sequence[Tried] = ()
    # Points of the grid with runs: of the seed that has fewest, and of the one that has most; and all there are.
    points: tuple[int, int, int] = (1, 1, 1)
    # Of the grid of the paper's budget: points that every seed has, and all.
    paper_points: tuple[int, int] = (1, 1)
    # Of the chosen point, every run that counts, by length.
    lengths: Mapping[int, Sequence[Record]] | None = None
    # Accuracies and losses are those of the test set, not of the best check.
    tested: bool = False

    @property
    def records(self) -> list[Record]:
        """The runs that the scores rest on."""
        return [record for score in self.scores for record in score.records]

    @property
    def ends(self) -> Counter[str]:
        """How the last run of each seed ended."""
        return Counter(score.last.end for score in self.scores)

    @property
    def cut(self) -> int | None:
        """The fewest iterations after which a seed was cut unsolved."""
        return min((score.cut for score in self.scores if score.cut is not None), default=None)


Records = Mapping[str, Sequence[Record]]


def load(outputs: str | Path, most: int | None = None) -> tuple[dict[str, list[Record]], list[DamagedFile]]:
    """Finished runs by family, none as of more than `most` iterations, and what could not be read.

    A run that is going on with a larger budget counts as of the one before.

    Raises UserError if the folder cannot be listed.
    """
    rows, damaged = read_rows(outputs)
    rows, more = as_far_as(rows, most)
    return records_of(rows), [*damaged, *more]


def _end(row: Row) -> str:
    if row["status"] == "not_solved":
        return BUDGET if row["stopped_by"] in CUT else PATIENCE
    return SOLVED if row["status"] == "solved" else DIVERGED


def records_of(rows: Iterable[Row]) -> dict[str, list[Record]]:
    """The finished ones of some runs, by family."""
    found: dict[str, list[Record]] = {}
    for row in rows:
        T, limit, iterations = row.get("task.T"), row.get("train.max_iterations"), row["iterations"]
        if row["status"] in FINISHED and isinstance(T, int) and isinstance(limit, int) and iterations is not None:
            record = Record(
                seed=row["seed"],
                T=T,
                end=_end(row),
                iterations=int(iterations),
                max_iterations=limit,
                check_every=row["train.check_every"],
                validation_size=row["train.validation_size"],
                best_accuracy=row["best_accuracy"],
                best_loss=row["best_validation_loss"],
                last_accuracy=row["accuracy"],
                test_sequences=row["test_sequences"],
                test_right=row["test_right"],
                test_loss=row["test_loss"],
            )
            found.setdefault(row["family"], []).append(record)
    return found


# ---- scores of a seed


def _decide(records: Sequence[Record], seed: int, T: int) -> Record | None:
    """Of runs that differ in their iteration limit alone: the solved one, else the one that went furthest."""
    same = [record for record in records if (record.seed, record.T) == (seed, T)]
    return max(same, key=lambda record: (record.solved, record.definite, record.iterations), default=None)


def climb_score(records: Sequence[Record], seed: int, start: int, step: int) -> Score | None:
    """The largest T of an unbroken climb of one seed (0: none); None where its first length has not been run.

    A run that was cut after fewer iterations than a length before it took ends no climb: it had less of a budget.
    """
    climbed: list[Record] = []
    T, most = start, 0
    while (record := _decide(records, seed, T)) is not None:
        if not record.definite and record.iterations < most:
            break
        climbed.append(record)
        if not record.solved:
            return Score(climbed[-2].T if len(climbed) > 1 else 0, False, climbed)
        T, most = T + step, max(most, record.iterations)
    return Score(climbed[-1].T, True, climbed) if climbed else None


def iterations_score(records: Sequence[Record], seed: int, T: int) -> Score | None:
    """The iterations to solve of one seed at one length; None where it has not been run.

    Cut: no fewer than those it had. Diverged or out of patience: it never solves, whenever that was.
    """
    record = _decide(records, seed, T)
    if record is None:
        return None
    never = record.definite and not record.solved
    return Score(math.inf if never else record.iterations, not record.definite, (record,))


def best_score(records: Sequence[Record], seed: int, T: int, metric: str) -> Score | None:
    """The best accuracy (%) or loss over checks of one seed at one length; None where it was not run, or not recorded.

    A loss that is no number counts as infinite.
    """
    record = _decide(records, seed, T)
    value = None if record is None else record.best_loss if metric == "loss" else record.best_accuracy
    if record is None or value is None:
        return None
    if metric == "loss":
        return Score(math.inf if math.isnan(value) else value, False, (record,))
    return Score(100.0 * value, False, (record,))


def _tested(score: Score, metric: str) -> Score | None:
    """The same run by its test set; None where it has none."""
    run = score.last
    if run.test_sequences is None or run.test_right is None or run.test_loss is None:
        return None
    if metric == "loss":
        return replace(score, value=run.test_loss if math.isfinite(run.test_loss) else math.inf)
    return replace(score, value=100.0 * run.test_right / run.test_sequences)


def _ascending(metric: str) -> Callable[[Score], tuple[float, ...]]:
    """Order of scores: a bound after the same length; a run that was cut after all that solved, and before "never"."""
    if metric == "t_max":
        return lambda score: (score.value, score.bound)
    if metric == "accuracy_pct":
        return lambda score: (score.value, score.last.solved)
    if metric == "loss":
        return lambda score: (score.value,)
    return lambda score: (score.bound or math.isinf(score.value), score.value)


def median(scores: Sequence[Number]) -> Number:
    """The middle one of ascending scores; for an even number the mean of the middle two, a bound if either is."""
    low, high = scores[(len(scores) - 1) // 2], scores[len(scores) // 2]
    return Number((low.value + high.value) / 2, low.bound or high.bound)


# ---- answers of a cell


def answer(plan: Recipe, cell: RecipeCell, records: Records) -> Answer | None:
    """What the recorded runs say of a cell; None where there are none.

    Of a grid: for largest T and iterations its fastest point; for accuracy and loss the best point of each seed, by
    its checks: no choice looks at a test set.
    """
    tried = []
    for spec in cell.candidates(None):
        mine = records.get(spec.family, [])
        point = " ".join(f"{key}={show(spec.config['trainer'][key])}" for key in cell.settings)
        for seed in sorted({record.seed for record in mine}):
            if cell.metric == "t_max":
                score = climb_score(mine, seed, plan.start, plan.step)
            elif cell.metric == "iterations_to_solve":
                score = iterations_score(mine, seed, cell.first_T)
            else:
                score = best_score(mine, seed, cell.first_T, cell.metric)
            if score is not None:
                tried.append(Tried(spec.family, point, seed, score))
    if not tried:
        return None
    return _best_of_each_seed(cell, tried) if cell.metric in JUDGED else _best_point(cell, tried, records)


def _counted(
    cell: RecipeCell, tried: Sequence[Tried], seeds: Sequence[int]
) -> tuple[tuple[int, int, int], tuple[int, int]]:
    """`points` and `paper_points` of an answer."""
    counts = Counter(one.seed for one in tried)
    ran = {(one.family, one.seed) for one in tried}
    paper = {spec.family for spec in cell.candidates("paper")}
    common = sum(all((family, seed) in ran for seed in seeds) for family in paper)
    return (min(counts.values()), max(counts.values()), len(cell.candidates(None))), (common, len(paper))


def _best_point(cell: RecipeCell, tried: Sequence[Tried], records: Records) -> Answer:
    """The point with the best median over its seeds."""
    ascending = _ascending(cell.metric)
    groups: dict[str, list[Tried]] = {}
    for one in tried:
        groups.setdefault(one.family, []).append(one)
    choose, word = (max, "best") if cell.metric == "t_max" else (min, "fastest")

    def middle(family: str) -> tuple[float, ...]:
        scores: list[Score] = sorted((one.score for one in groups[family]), key=ascending)
        number = median(scores)
        return ascending(Score(number.value, number.bound))

    best = choose(groups, key=middle)
    chosen = groups[best]
    points, paper = _counted(cell, tried, [one.seed for one in chosen])
    run = len(groups)
    told = chosen[0].point + (f" ({word} of {run} points run, of {points[2]})" if points[2] > 1 else "")
    seeds = sorted(one.seed for one in chosen)
    mine = records[best]
    decided = ((T, [_decide(mine, seed, T) for seed in seeds]) for T in sorted({record.T for record in mine}))
    return Answer(
        scores=sorted((one.score for one in chosen), key=ascending),
        seeds=seeds,
        parameters=told,
        tried=tried,
        points=(run, run, points[2]),
        paper_points=paper,
        lengths={T: [record for record in each if record] for T, each in decided},
    )


def _best_of_each_seed(cell: RecipeCell, tried: Sequence[Tried]) -> Answer:
    """The grid search is done anew for each seed, as one who has a single seed would do it."""
    ascending = _ascending(cell.metric)
    choose = min if cell.metric == "loss" else max
    seeds = sorted({one.seed for one in tried})
    best = [choose((t for t in tried if t.seed == seed), key=lambda t: ascending(t.score)) for seed in seeds]
    chosen: dict[str, list[int]] = {}
    for one in best:
        chosen.setdefault(one.point, []).append(one.seed)
    told = [
        f"{point} (seed{'s' * (len(mine) > 1)} {', '.join(map(str, mine))})" if len(chosen) > 1 else point
        for point, mine in chosen.items()
    ]
    tested = [score for one in best if (score := _tested(one.score, cell.metric)) is not None]
    complete = len(tested) == len(best)
    points, paper = _counted(cell, tried, seeds)
    return Answer(
        scores=sorted(tested if complete else [one.score for one in best], key=ascending),
        seeds=seeds,
        parameters="; ".join(told),
        tried=tried,
        points=points,
        paper_points=paper,
        tested=complete,
    )
