"""What the jobs of a sweep return to Hydra: shared by the command and by the plugins that it is carried out with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tprnn.engine.runs import Outcome


class RunFailed(Exception):
    """A run of a sweep failed; what and why stands in its folder and has been printed."""

    code = 1
    """The exit code."""


class RunLeft(RunFailed):
    """No run failed, but some were left to another call that works on them."""

    code = 3


def job_value(outcome: Outcome) -> float | None:
    """What a job returns to Hydra: the score at its end, its accuracy for most tasks (for optimising sweepers).

    Raises RunFailed for a failed run, and for one whose job on a cluster ended before it; RunLeft. None for a run that
    nobody waits for.
    """
    from tprnn.scores import last_of
    from tprnn.sweep.run import exit_code

    code = exit_code([outcome])
    if code:
        kind = RunLeft if code == RunLeft.code else RunFailed
        raise kind(f"{outcome.spec.folder_name}: {outcome.error or outcome.status}")
    return None if outcome.result is None else last_of(outcome.result)
