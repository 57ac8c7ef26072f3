"""Runs that wait for a process to train them, and what the processes of one call need to know of each other."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.managers import SyncManager
from typing import TYPE_CHECKING, Any

from tprnn.config import RunSpec

_CPU_SLAB = 8  # runs computed at once; measured (docs/performance.md)


def slab_size(spec: RunSpec) -> int:
    """How many runs are computed at once on the spec's device, as one tensor program."""
    return spec.execution["stack_size"] if spec.execution["device"] != "cpu" else _CPU_SLAB


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


class Backlog:
    """Hands out runs; safe to share between threads, and between processes through a manager.

    Args:
        specs: what is to be trained.
        workers: how many processes will ask.
        first_solved: whether only the fastest run counts. All runs then advance side by side, and end where the first
            is solved; otherwise few are under way at a time, and others take the places of those that end.
        bound: with `first_solved`, the iterations of the fastest run that is known already.
    """

    def __init__(
        self, specs: Sequence[RunSpec], workers: int = 1, first_solved: bool = False, bound: int | None = None
    ) -> None:
        self._waiting: dict[str, deque[RunSpec]] = {}
        for spec in specs:
            self._waiting.setdefault(spec.stack_key, deque()).append(spec)
        self._workers, self._first_solved = workers, first_solved
        self._busy = 0
        self._bound = bound if first_solved else None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    def take_stack(self) -> list[RunSpec]:
        """Runs that may share a stack, for a process that has none; no more than its share, so that all end together.

        Empty where nothing waits.
        """
        with self._lock:
            groups = [group for group in self._waiting.values() if group]
            if not groups:
                return []
            idle = max(1, self._workers - self._busy)
            share = -(-sum(map(len, groups)) // idle)
            self._busy += 1
            return self._hand_out(groups[0], min(share, self.places(groups[0][0])))

    def take(self, key: str, most: int) -> list[RunSpec]:
        """At most `most` more runs for a stack under way, leaving their share to processes that have nothing to do."""
        with self._lock:
            group = self._waiting.get(key, deque())
            return self._hand_out(group, min(most, len(group) // (1 + self._workers - self._busy)))

    def _hand_out(self, group: deque[RunSpec], count: int) -> list[RunSpec]:
        return [group.popleft() for _ in range(min(count, len(group)))]

    def places(self, spec: RunSpec) -> int:
        """How many runs of a stack are under way at a time in one process."""
        most = spec.execution["stack_size"]
        return int(most if self._first_solved else min(most, slab_size(spec)))

    def give_back(self, specs: Sequence[RunSpec]) -> None:
        """Let another process go on with runs, from their checkpoints."""
        with self._lock:
            for spec in specs:
                self._waiting[spec.stack_key].appendleft(spec)

    def leave(self) -> None:
        """A process has nothing to do."""
        with self._lock:
            self._busy -= 1

    def over(self) -> bool:
        """Whether nothing waits and nobody could give anything back."""
        with self._lock:
            return self._busy == 0 and not any(self._waiting.values())

    def solved(self, iterations: int) -> None:
        """A run was solved."""
        with self._lock:
            if self._first_solved:
                self._bound = min(iterations, self._bound or iterations)

    def news(self) -> News:
        """What changed while a process was computing."""
        with self._lock:
            idle = 0 if any(self._waiting.values()) else self._workers - self._busy
            return News(idle, self._bound)


def _itself(backlog: Backlog) -> Backlog:
    return backlog


class BacklogManager(SyncManager):
    """A process that holds the backlog that several share."""

    if TYPE_CHECKING:  # `register` makes it

        def Backlog(self, backlog: Backlog) -> Backlog: ...


BacklogManager.register(
    "Backlog",
    _itself,
    exposed=("take_stack", "take", "places", "give_back", "leave", "over", "solved", "news"),
)
