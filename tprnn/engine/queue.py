"""Runs that wait for a process to train them, and what the processes of one call need to know of each other."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tprnn.config import RunSpec

_CPU_PLACES = 8  # enough to share: a process that has none left takes half of another's
_LOOK_AGAIN = 2.0  # seconds between two looks at runs that another call works on
_DEATHS = 2  # of processes under a run, after which it is trained alone


def ensemble_size(spec: RunSpec) -> int:
    """How many runs are computed at once on the spec's device, as one tensor program.

    On a CPU each run is one by itself, so that its bits cannot depend on others (docs/performance.md: what it costs).
    """
    return 1 if spec.execution["device"] == "cpu" else int(spec.execution["stack_size"])


def runs_under_way(spec: RunSpec) -> int:
    """How many runs take turns in a process, ensemble by ensemble, on the spec's device."""
    stack = int(spec.execution["stack_size"])
    return min(stack, _CPU_PLACES) if spec.execution["device"] == "cpu" else stack


def processes(execution: Mapping[str, Any]) -> int:
    """Worker processes: as many as asked for; otherwise one for a GPU, and on a CPU all cores that we may use."""
    if execution["workers"] is not None:
        return int(execution["workers"])
    if execution["device"] != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // execution["threads"])


@dataclass(frozen=True)
class News:
    """What a process hears between two blocks of iterations."""

    idle: int
    """Processes that have nothing to do, where nothing waits either."""
    bound: int | None
    """Iterations after which no run can be the first to be solved; None: go on."""


class Source(Protocol):
    """Where a process that trains gets its runs: a `Queue`, or the way to one in another process."""

    def take_stack(self) -> list[RunSpec]:
        """Runs that may share a stack, for a process that has none; no more than its share, so that all end together.

        Empty where nothing waits.
        """
        ...

    def take(self, key: str, most: int) -> list[RunSpec]:
        """At most `most` more runs for a stack under way, leaving their share to processes that have nothing to do."""
        ...

    def places(self, spec: RunSpec) -> int:
        """How many runs of the stack of `spec` are under way at a time in one process."""
        ...

    def give_back(self, specs: Sequence[RunSpec]) -> None:
        """Let another process go on with runs, from their checkpoints."""
        ...

    def elsewhere(self, spec: RunSpec) -> bool:
        """Another call works on the run: whether it comes back when that call lets it go. Else it is left to it."""
        ...

    def leave(self) -> None:
        """A process has nothing to do."""
        ...

    def over(self) -> bool:
        """Whether nothing waits and nobody could give anything back."""
        ...

    def solved(self, iterations: int) -> None:
        """A run was solved."""
        ...

    def news(self) -> News:
        """What changed while a process was computing."""
        ...


class Queue:
    """The `Source` of one call; safe to share between threads.

    Args:
        specs: what is to be trained.
        workers: how many processes will ask.
        first_solved: whether only the fastest run counts. All runs then advance side by side, and end where the first
            is solved; otherwise few are under way at a time, and others take the places of those that end.
        bound: with `first_solved`, the iterations of the fastest run that is known already.
        free: whether no other call works on a run any more. None: what others work on is left to them.
    """

    def __init__(
        self,
        specs: Sequence[RunSpec],
        workers: int = 1,
        first_solved: bool = False,
        bound: int | None = None,
        free: Callable[[RunSpec], bool] | None = None,
    ) -> None:
        self._waiting: dict[str, deque[RunSpec]] = {}
        for spec in specs:
            self._waiting.setdefault(spec.stack_key, deque()).append(spec)
        self._workers, self._first_solved = workers, first_solved
        self._busy = 0
        self._bound = bound if first_solved else None
        self._free = free
        self._elsewhere: list[RunSpec] = []
        self._looked = 0.0
        self._deaths: Counter[str] = Counter()
        self._alone: deque[RunSpec] = deque()
        self._lock = threading.RLock()

    def take_stack(self) -> list[RunSpec]:
        with self._lock:
            groups = self._groups() or self._come_back()
            found: list[RunSpec] = []
            if groups:
                idle = max(1, self._workers - self._busy)
                share = -(-sum(map(len, groups)) // idle)
                found = self._hand_out(groups[0], min(share, self.places(groups[0][0])))
            elif self._alone:
                found = [self._alone.popleft()]
            self._busy += bool(found)
            return found

    def _groups(self) -> list[deque[RunSpec]]:
        return [group for group in self._waiting.values() if group]

    def _come_back(self) -> list[deque[RunSpec]]:
        """Look, now and then, for runs that their other call has let go."""
        if self._free is None or not self._elsewhere or time.monotonic() - self._looked < _LOOK_AGAIN:
            return []
        self._looked = time.monotonic()
        back: list[RunSpec] = []
        held: list[RunSpec] = []
        for spec in self._elsewhere:
            (back if self._free(spec) else held).append(spec)
        self._elsewhere = held
        self.give_back(back)
        return self._groups()

    def take(self, key: str, most: int) -> list[RunSpec]:
        with self._lock:
            group = self._waiting.get(key, deque())
            return self._hand_out(group, min(most, len(group) // (1 + self._workers - self._busy)))

    def _hand_out(self, group: deque[RunSpec], count: int) -> list[RunSpec]:
        return [group.popleft() for _ in range(min(count, len(group)))]

    def places(self, spec: RunSpec) -> int:
        if self._deaths[spec.signature] >= _DEATHS:
            return 1
        return int(spec.execution["stack_size"]) if self._first_solved else runs_under_way(spec)

    def give_back(self, specs: Sequence[RunSpec]) -> None:
        with self._lock:
            for spec in specs:
                alone = self._deaths[spec.signature] >= _DEATHS
                (self._alone if alone else self._waiting.setdefault(spec.stack_key, deque())).appendleft(spec)

    def elsewhere(self, spec: RunSpec) -> bool:
        with self._lock:
            if self._free is not None:
                self._elsewhere.append(spec)
            return self._free is not None

    def died(self, specs: Sequence[RunSpec]) -> list[RunSpec]:
        """The process that had these runs under way is dead: they wait again. Those that are beyond hope.

        A run under which two processes have died is trained alone; it is given up if a third one dies of it.
        """
        with self._lock:
            self._deaths.update(spec.signature for spec in specs)
            given_up = [spec for spec in specs if self._deaths[spec.signature] > _DEATHS]
            self.give_back([spec for spec in specs if spec not in given_up])
            return given_up

    def leave(self) -> None:
        with self._lock:
            self._busy -= 1

    def over(self) -> bool:
        with self._lock:
            return self._busy == 0 and not self._groups() and not self._alone and not self._elsewhere

    def solved(self, iterations: int) -> None:
        with self._lock:
            if self._first_solved:
                self._bound = min(iterations, self._bound or iterations)

    def news(self) -> News:
        with self._lock:
            idle = 0 if self._groups() or self._alone else self._workers - self._busy
            return News(idle, self._bound)
