"""What a call is to bring to its end and what the store says of it: asked once, for all who need it.

Executors, the lines that tell what is about to be run, and dry runs go by the same `Plan`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tprnn.config import RunSpec
from tprnn.cost import memory
from tprnn.engine.runs import Outcome
from tprnn.errors import RunLocked, UserError
from tprnn.store import RunFolder, Store
from tprnn.sweep.codes import settled


@dataclass(frozen=True)
class Seen:
    """What the store says of a run within a budget, at one moment."""

    folder: RunFolder
    result: dict[str, Any] | None
    """As of the budget; None where the run has not come to its end within it."""
    stands: dict[str, Any] | None
    """Without such a result, the one of where the run was left: interrupted, failed, or cut before."""


def look(store: Store, specs: Iterable[RunSpec], force: bool = False) -> list[Seen]:
    """What the store says of each run; with `force` results do not count. Raises DamagedFile."""
    found = []
    for spec in specs:
        folder = store.folder(spec)
        result = None if force else folder.finished(spec.train, score=spec.score)
        found.append(Seen(folder, result, None if force or result is not None else folder.result()))
    return found


def holder_of(folder: RunFolder) -> str | None:
    """Who works on a run now, in words; None: nobody."""
    return folder.holder() if folder.is_locked() else None


def locked(spec: RunSpec, folder: RunFolder, holder: str) -> Outcome:
    """That a run is left to the call that works on it."""
    return Outcome(spec, "locked", error=str(RunLocked.by(holder, f"run {folder.name}")))


class Plan:
    """The runs of a call, each once, and which of them are to be trained. Nothing is written.

    Specs that differ in their budgets alone are one run, planned with the furthest of them.

    Args:
        specs: what is asked for, one at least; the first one's execution settings hold for all.
        first_solved: whether only the fastest run counts. Runs that were left beyond the iterations of a solved one
            then need no more training.

    Raises UserError where of two budgets of a run neither is the larger, DamagedFile.
    """

    def __init__(self, specs: Sequence[RunSpec], store: Store, first_solved: bool = False) -> None:
        self.asked, self.notes = settled(specs, store)
        """What is meant, and lines about runs of other code (`sweep/codes`)."""
        self.store, self.first_solved = store, first_solved
        self.execution: Mapping[str, Any] = self.asked[0].execution
        self.runs = furthest(self.asked)
        """By signature, as all that follows."""
        self._seen = dict(zip(self.runs, look(store, self.runs.values(), self.execution["force"]), strict=True))
        self.done = {
            signature: Outcome(self.runs[signature], one.result["status"], one.result, skipped=True)
            for signature, one in self._seen.items()
            if one.result is not None
        }
        """What needs no more training."""
        self.bound = self._fewest() if first_solved else None
        """The iterations of the fastest run that is known already."""
        for signature, one in self._seen.items():
            if self.bound is not None and one.stands and _is_beyond(one.stands, self.bound):
                self.done[signature] = Outcome(self.runs[signature], "interrupted", one.stands, skipped=True)
        self.refused: dict[str, Outcome] = {}
        """What needs more memory than there is (`refuse_too_large`)."""

    def _fewest(self) -> int | None:
        solved = [one.result for one in self.done.values() if one.result and one.status == "solved"]
        return min((result["iterations"] for result in solved), default=None)

    @property
    def waiting(self) -> list[RunSpec]:
        """What is to be trained."""
        return [
            spec
            for signature, spec in self.runs.items()
            if signature not in self.done and signature not in self.refused
        ]

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """Of all that is not to be trained."""
        return self.done | self.refused

    @cached_property
    def held(self) -> dict[str, Outcome]:
        """Of what waits, what another call works on at the time of the first question, as outcomes."""
        folders = {spec.signature: self._seen[spec.signature].folder for spec in self.waiting}
        return {
            signature: locked(self.runs[signature], folder, holder)
            for signature, folder in folders.items()
            if (holder := holder_of(folder)) is not None
        }

    def refuse_too_large(self) -> None:
        """Take out the runs that need more memory than this machine has free. Raises TooLarge where that is all."""
        found = memory.refused(self.waiting, others=bool(self.done))
        self.refused = {outcome.spec.signature: outcome for outcome in found}

    def as_asked(self, outcomes: Mapping[str, Outcome]) -> list[Outcome]:
        """What the runs came to within the budgets that were asked for, in the order of the specs.

        Args:
            outcomes: of every run, by signature.
        """
        return [self._within(spec, outcomes[spec.signature]) for spec in self.asked]

    def _within(self, spec: RunSpec, outcome: Outcome) -> Outcome:
        """The outcome of a run as of the budget of `spec`; `outcome` itself where it came to no end there."""
        if spec is outcome.spec or spec.train.budget == outcome.spec.train.budget:
            return outcome
        (seen,) = look(self.store, [spec])
        if seen.result is None:
            return replace(outcome, spec=spec)
        return Outcome(spec, seen.result["status"], seen.result, skipped=outcome.skipped)


def _is_beyond(stands: Mapping[str, Any], bound: int) -> bool:
    """Whether a run was interrupted where it can no longer be the first to be solved."""
    return stands["status"] == "interrupted" and stands["iterations"] >= bound


def furthest(specs: Iterable[RunSpec]) -> dict[str, RunSpec]:
    """The spec with the largest budget of each run, by signature.

    Raises UserError where one budget of a run has more iterations and another more seconds.
    """
    found: dict[str, RunSpec] = {}
    for spec in specs:
        if (known := found.setdefault(spec.signature, spec)) is spec:
            continue
        less, more = sorted((known, spec), key=lambda one: one.train.budget.size)
        if less.train.budget.size[1] > more.train.budget.size[1]:
            raise UserError(
                f"train.max_seconds: {spec.short_name} is asked for with max_iterations={less.train.max_iterations} "
                f"without the limit of max_iterations={more.train.max_iterations}, "
                f"max_seconds={more.train.max_seconds:g}; ask for one after the other"
            )
        found[spec.signature] = more
    return found


def distinct(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """One outcome for each run and budget."""
    return list({(one.spec.signature, one.spec.train.budget): one for one in outcomes}.values())
