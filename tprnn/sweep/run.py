"""Any set of runs, from plan to outcomes: what is not finished is given to an executor."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tprnn.config import RunSpec
from tprnn.engine.runs import REFUSED, Outcome
from tprnn.store import Store
from tprnn.sweep.executors.base import UNFINISHED, Executor
from tprnn.sweep.executors.here import Here
from tprnn.sweep.plan import Plan, distinct
from tprnn.sweep.progress import tell_end


def run_all(specs: Sequence[RunSpec], executor: Executor | None = None, first_solved: bool = False) -> list[Outcome]:
    """Bring every run to its end; outcomes in the order of `specs` (equal specs share one run).

    Specs that differ in their budgets alone are one run too, trained once to the largest; each gets what the run came
    to within its own. Finished runs are not repeated (but with `force`), broken-off ones go on from their checkpoints.
    Runs that another call works on are waited for, unless `locked` is "leave".

    Args:
        executor: who carries the runs out (`executors.connect`); None: this machine. There, with `fail_fast` a run
            that fails is the last: others are left as interrupted. A run that needs more memory than is free is
            "refused", and nothing of it is written. One that does not wait for its jobs leaves runs "under way".
        first_solved: on this machine, all runs advance side by side and end where the first of them is solved: those
            that are not, are left there as interrupted.

    Raises UserError before anything is written (no such device or cluster, outputs not writable, every run refused),
    Interrupted after SIGINT, SIGTERM or SIGHUP.
    """
    if not specs:
        return []
    executor = executor or Here()
    plan = Plan(specs, Store(specs[0].execution["outputs"]), first_solved)
    for line in plan.notes:
        print(line, file=sys.stderr)
    executor.prepare(plan)
    if not plan.store.root.is_dir():
        plan.store.check_writable()
    found = plan.as_asked(executor.carry_out(plan))
    if executor.waits:
        tell_end(distinct(found), plan.store)
    return found


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """0; 1 where a run failed, was refused or lost its job; else 3 where runs were left to another call."""
    statuses = {outcome.status for outcome in outcomes}
    return 1 if statuses & {"failed", REFUSED, UNFINISHED} else 3 if "locked" in statuses else 0
