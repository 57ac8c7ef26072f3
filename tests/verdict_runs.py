"""What the tests of verdicts share: answers made of hand-made runs, held against a printed number or mark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tprnn.papers.published import Cell
from tprnn.report.rows.scores import Answer, Record, Score
from tprnn.report.rows.verdicts import Limits, judge

PAPER = Limits(iterations=100_000, error=1e-4)
# Draws where each is a verdict of its own.
SMALL = 300


def published(value: float | None, printed: str | None = None, solved: bool | None = None) -> Cell:
    """A printed number, or with None a mark; `printed` may be any number of as many digits."""
    fields: dict[str, Any] = dict.fromkeys(("params", "selection", "T", "note"))
    return Cell(
        id="test", task="t", trainer="t", metric="m", uncertain=False, value=value, printed=printed, solved=solved,
        fields={}, **fields,
    )  # fmt: skip


def answer_of(scores: Sequence[Score], **given: Any) -> Answer:
    """An answer of one point, tested where its runs are."""
    tested = all(score.last.test_sequences is not None for score in scores)
    ascending = sorted(scores, key=lambda score: (score.bound, score.value))
    return Answer(ascending, tuple(range(len(scores))), "", **({"tested": tested} | given))


def judged(metric: str, cell: Cell, found: Answer, of: Limits = PAPER) -> str:
    return judge(metric, cell, found, of)


def run(seed: int = 0, end: str = "cut", iterations: int = 100_000, **given: Any) -> Record:
    """A run at T = 10, at the paper's limit where nothing else is said."""
    return Record(**({"seed": seed, "T": 10, "end": end, "iterations": iterations, "max_iterations": 100_000} | given))


def accuracies(*percent: float, **given: Any) -> Answer:
    """A seed for each accuracy on a test set of 10,000; solved (after 500 iterations) where it is 100 %."""
    scores = []
    for seed, value in enumerate(percent):
        end = {"end": "solved", "iterations": 500} if value == 100 and "end" not in given else {}
        right = {"test_sequences": 10_000, "test_right": round(100 * value), "best_accuracy": value / 100}
        scores.append(Score(value, False, (run(seed, **(end | right | given)),)))
    return answer_of(scores)


def counts(*iterations: int | str, **given: Any) -> Answer:
    """A seed for each count of iterations to solve: 400, ">5000" for one cut there, "diverged" or "out of patience"."""
    scores = []
    for seed, value in enumerate(iterations):
        if isinstance(value, int):
            scores.append(Score(value, False, (run(seed, "solved", value, **given),)))
        elif value.startswith(">"):
            scores.append(Score(int(value[1:]), True, (run(seed, "cut", int(value[1:]), **given),)))
        else:
            scores.append(Score(float("inf"), False, (run(seed, value, 100, **given),)))
    return answer_of(scores)


def climbs(*tops: int | str, fails: str = "out of patience", spent: int = 9000, **given: Any) -> Answer:
    """A seed for each largest T of a climb by 10 (">=40": the budget ended it), failing as said."""
    scores = []
    for seed, value in enumerate(tops):
        bound = isinstance(value, str)
        top = int(str(value).removeprefix(">="))
        runs = [run(seed, "solved", 500, T=T, **given) for T in range(10, top + 1, 10)]
        if not bound:
            runs.append(run(seed, fails, spent, T=top + 10, **given))
        scores.append(Score(top, bound, runs))
    return answer_of(scores)
