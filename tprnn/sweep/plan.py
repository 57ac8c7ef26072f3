"""Specs of one call that share a run: they differ in their budgets alone, or in nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from tprnn.config import RunSpec
from tprnn.engine.runs import Outcome
from tprnn.errors import UserError
from tprnn.store import Store


def furthest(specs: Iterable[RunSpec]) -> dict[str, RunSpec]:
    """The spec with the largest budget of each run, by signature.

    Raises UserError where one budget of a run has more iterations and another more seconds.
    """
    found: dict[str, RunSpec] = {}
    for spec in specs:
        known = found.setdefault(spec.signature, spec)
        less, more = sorted((known, spec), key=lambda one: one.train.budget.size)
        if less.train.budget.size[1] > more.train.budget.size[1]:
            raise UserError(
                f"train.max_seconds: {spec.short_name} is asked for with max_iterations={less.train.max_iterations} "
                f"without the limit of max_iterations={more.train.max_iterations}, "
                f"max_seconds={more.train.max_seconds:g}; ask for one after the other"
            )
        found[spec.signature] = more
    return found


def as_asked(spec: RunSpec, outcome: Outcome, store: Store) -> Outcome:
    """What the run of `outcome` came to within the budget of `spec`; `outcome` itself where it came to no end there."""
    if spec.train.budget == outcome.spec.train.budget:
        return outcome
    result = store.folder(spec).finished(spec.train)
    if result is None:
        return replace(outcome, spec=spec)
    return Outcome(spec, result["status"], result, skipped=outcome.skipped)


def distinct(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """One outcome for each run and budget."""
    return list({(one.spec.signature, one.spec.train.budget): one for one in outcomes}.values())
