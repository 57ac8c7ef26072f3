"""A budget is a view of a run: what is known of its trajectory as of so many iterations, or seconds.

A run's trajectory is a function of its config but for `Budget`, and ends where a rule of the config ends it (solved,
diverged, patience). A budget cuts it short and leaves no trace in it: a run with a larger budget goes on from where it
was cut, and what it came to within a smaller one is read off its records.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tprnn.scores import ACCURACY, Score, score_of

FINISHED = ("solved", "not_solved", "diverged")
CUT = ("max_iterations", "max_seconds")
"""What a result is `stopped_by` where its budget ended the run; any other end of a finished run is the run's own."""

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Budget:
    """Iterations and wall-clock seconds after which a run is left where it is."""

    iterations: int
    seconds: float | None = None

    def spent(self, iterations: int, seconds: float) -> str | None:
        """Which part of it is used up, one of `CUT`, or None. Seconds count as they are recorded, to milliseconds."""
        if iterations >= self.iterations:
            return "max_iterations"
        return "max_seconds" if self.seconds is not None and round(seconds, 3) >= self.seconds else None

    @property
    def size(self) -> tuple[int, float]:
        """An order of budgets: by iterations, then by seconds."""
        return self.iterations, math.inf if self.seconds is None else self.seconds


def is_finished(result: Result) -> bool:
    """Whether a result is an end, of the run or of its budget; else it was interrupted or failed."""
    return result["status"] in FINISHED


def is_cut(result: Result) -> bool:
    """Whether a larger budget would go on from a result."""
    return result.get("stopped_by") in CUT


def ending(result: Result) -> str:
    """How a run ended or where it stands, by kind: its status, but for two.

    A "not_solved" one was "cut" by its budget or is "out_of_patience". An "interrupted" one that was stopped because
    another run of its rung had decided it is "left": no signal came, and it is not solved within its iterations.
    """
    status, why = result["status"], result.get("stopped_by")
    if status == "not_solved":
        return "out_of_patience" if why == "patience" else "cut"
    return "left" if status in ("interrupted", "left") and why == "decided" else str(status)


def is_made(result: Result) -> bool:
    """Whether a result was not recorded but read off the metrics of a run that went further."""
    return f"seen_{score_of(result).name}" in result


def view(
    budget: Budget,
    results: Sequence[Result],
    metrics: Callable[[], Sequence[Mapping[str, Any]]],
    full: int,
    stands: int = 0,
    score: Score = ACCURACY,
) -> Result | None:
    """The result of a run as of `budget`; None where the run has not come to its end within it.

    The answer is a recorded result where the run ended by itself within the budget, or was once cut by this very one.
    Of a run that went beyond, it is made from the metrics, which are read only then: "not_solved", with the training
    loss of the last check before the budget's end. Its score (`accuracy`) is that of the last full validation set by
    then, `best_accuracy` and `best_validation_loss` are over all full sets by then; None where there was none. (A run
    that is cut has its full set looked at there; what that would have shown in passing is not known afterwards.)
    `seen_accuracy`, and so for other scores, is that of the last check, however few sequences it looked at.

    Args:
        results: what was recorded at the run's ends so far, the last first.
        metrics: reads its metrics, by iteration.
        full: sequences of the full validation set.
        stands: the iteration up to which the run is known to have gone, beside results and metrics.
        score: what it is judged by, where no result says so yet: it was killed before its first end.
    """
    for result in results:
        if is_finished(result) and _answers(result, budget):
            return result
    reached = max(stands, *(result.get("iterations") or 0 for result in results)) if results else stands
    ended = any(map(is_finished, results))
    score = score_of(results[0]) if results else score
    if ended and reached < budget.iterations and budget.seconds is None:
        return None
    rows = metrics()
    reached = max(reached, rows[-1]["iteration"]) if rows else reached
    timely = [row for row in rows if row["iteration"] < budget.iterations]
    late = next((row for row in timely if budget.spent(row["iteration"], row.get("seconds") or 0.0)), None)
    if late is not None:
        at = [result for result in results if is_finished(result) and result.get("iterations") == late["iteration"]]
        return at[0] if at else _cut(late["iteration"], "max_seconds", timely[: timely.index(late) + 1], full, score)
    if reached <= budget.iterations:
        return None
    kept = [row for row in rows if row["iteration"] <= budget.iterations]
    return _cut(budget.iterations, "max_iterations", kept, full, score)


def _answers(result: Result, budget: Budget) -> bool:
    """Whether a finished result is, without a look at the metrics, what a run with `budget` comes to."""
    iterations = result.get("iterations") or 0
    in_time = budget.seconds is None or (result.get("seconds") or 0.0) < budget.seconds
    if result.get("stopped_by") == "max_iterations":
        return in_time and iterations == budget.iterations
    return in_time and iterations <= budget.iterations and not is_cut(result)


def _cut(iterations: int, reason: str, rows: Sequence[Mapping[str, Any]], full: int, score: Score) -> dict[str, Any]:
    """A result made from the metrics up to a cut."""
    whole = [row for row in rows if row.get("validated") == full]
    last = rows[-1] if rows else {}
    told = {"score": score.as_dict()} if score != ACCURACY else {}
    values = _numbers(whole, score.name)
    return told | {
        "status": "not_solved",
        "stopped_by": reason,
        "iterations": iterations,
        score.name: whole[-1].get(score.name) if whole else None,
        f"seen_{score.name}": last.get(score.name),
        "loss": last.get("loss"),
        f"best_{score.name}": functools.reduce(score.better, values) if values else None,
        "best_validation_loss": min(_numbers(whole, "validation_loss"), default=None),
        "seconds": last.get("seconds"),
    }


def _numbers(rows: Iterable[Mapping[str, Any]], key: str) -> list[float]:
    return [row[key] for row in rows if isinstance(row.get(key), (int, float)) and not math.isnan(row[key])]
