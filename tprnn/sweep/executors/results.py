"""What jobs have come to, read from run folders and never from what a job returns."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tprnn.budgets import is_finished
from tprnn.config import RunSpec
from tprnn.engine.runs import Outcome
from tprnn.store import RESULT, Store
from tprnn.sweep.plan import look


class Results:
    """What stands in result.json of some runs, beyond what stood there before their jobs were handed over."""

    def __init__(self, store: Store, specs: Sequence[RunSpec]) -> None:
        self.store, self.specs = store, list(specs)
        self.before = {spec.signature: self._stamp(spec) for spec in specs}
        self.ended: dict[str, Outcome] = {}

    def _stamp(self, spec: RunSpec) -> tuple[int, int] | None:
        try:
            found = os.stat(self.store.folder(spec).path / RESULT)
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_ino

    def look(self) -> None:
        """Take in the runs that have ended since."""
        new = [
            spec
            for spec in self.left(self.specs)
            if self._stamp(spec) not in (None, self.before[spec.signature])  # a stat for each, as they are many
        ]
        for spec, seen in zip(new, look(self.store, new), strict=True):
            result = seen.result or seen.stands or {"status": None}
            # an interrupted run goes on when its job does
            if is_finished(result) or result["status"] == "failed":
                self.ended[spec.signature] = Outcome(spec, result["status"], result, error=result.get("error"))

    def left(self, specs: Sequence[RunSpec]) -> list[RunSpec]:
        """Those of the runs that have not ended."""
        return [spec for spec in specs if spec.signature not in self.ended]
