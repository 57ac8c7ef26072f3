"""What the best of many trials is worth: beside what the best of as many gives by chance, and beside new seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tprnn.config import RunSpec, member_class
from tprnn.statistics import highest_by_chance
from tprnn.sweep.run import Outcome


def chance(spec: RunSpec) -> float | None:
    """The accuracy of the best constant answer to a run's task; None where the task does not say."""
    settings = spec.config["task"]
    found: float | None = member_class("task", settings["rule"]).chance(settings)
    return found


def checks(outcome: Outcome) -> int:
    """How many looks at the full validation set the best accuracy of a run that solves nothing is the best of.

    One at every `full_check_every`-th check, and one at the end.
    """
    train = outcome.spec.train
    iterations = (outcome.result or {}).get("iterations", 0)
    return max(1, -(-iterations // (train.check_every * train.full_check_every)))


def chance_of(outcomes: Sequence[Outcome]) -> tuple[float, float] | None:
    """`highest_by_chance` of as many looks as were taken at these runs; None where a task knows no chance."""
    looks: Counter[float] = Counter()
    for outcome in outcomes:
        level = chance(outcome.spec)
        if level is None:
            return None
        looks[level] += checks(outcome)
    return highest_by_chance(looks, outcomes[0].spec.train.validation_size)


def ends(outcomes: Sequence[Outcome]) -> str:
    """`30 not solved, 12 solved, 8 diverged (16 %)`: how runs ended, commonest first; divergence is always among it."""
    counts = Counter(outcome.status.replace("_", " ") for outcome in outcomes)
    diverged = counts.pop("diverged", 0)
    told = [f"{count} {status}" for status, count in counts.most_common()]
    return ", ".join([*told, f"{diverged} diverged ({100 * diverged / len(outcomes):.0f} %)"])
