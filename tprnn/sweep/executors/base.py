"""The contract of executors: this machine (here.py), and jobs (cluster.py) of submitit, SLURM and Ray."""

from __future__ import annotations

from typing import Protocol

from tprnn.engine.runs import Outcome
from tprnn.sweep.plan import Plan

UNFINISHED = "unfinished"
"""The status of a run whose job ended (killed, lost, cancelled) before the run did."""

UNDER_WAY = "under way"
"""The status of a run that nobody waits for: a job has it, or another call."""


class Executor(Protocol):
    """Carries out a plan. Results lie in run folders; an executor says what they came to."""

    @property
    def waits(self) -> bool:
        """Whether runs have come to their ends when `carry_out` returns; else it has told itself what goes on."""
        ...

    def prepare(self, plan: Plan) -> None:
        """Take out of the plan what cannot be run. Raises UserError; nothing is written."""
        ...

    def carry_out(self, plan: Plan) -> dict[str, Outcome]:
        """Train what waits and tell how it goes; the outcome of every run of the plan, by signature.

        Runs that others work on are waited for, but with `locked=leave`. Raises UserError; Interrupted or
        KeyboardInterrupt after a signal, when it is told what has been done by then.
        """
        ...
