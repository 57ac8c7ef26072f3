"""A worker process: it trains what its parent hands out, and never outlives it.

It has one pipe to its parent. A thread of its own reads it, so that the wish to stop, and the end of the pipe, which is
the parent's death whatever its cause, are heard while runs are computed, compiled or waited for. Nothing heavy is
imported before that thread listens.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tprnn.config import RunSpec
    from tprnn.engine.queue import News

GRACE = 0.7
"""Seconds for last checkpoints after the parent's death."""
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def main(pipe: Connection, threads: int) -> None:
    """Work for the process at the other end of the pipe until it closes it or dies."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):  # they reach the whole group; the parent decides for all
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    _die_with_parent(signal.SIGKILL)  # imports may keep the thread from hearing anything, and hold nothing yet
    parent = Parent(pipe)
    from tprnn.engine.ensemble import prepare_process
    from tprnn.engine.loop import work_through
    from tprnn.store import Store

    prepare_process(threads)
    parent.tell("ready")
    _die_with_parent(0)
    while (outputs := parent.orders.get()) is not None:
        try:
            work_through(parent, Store(outputs), parent.stop, parent.emit)
        except Exception as error:
            parent.tell("error", _portable(error))
        parent.tell("done")
    os._exit(0)  # all is saved; taking PyTorch and Numba down would cost seconds, in which the thread cannot end it


def _portable(error: Exception) -> Exception:
    """An error that is sure to survive the way to another process."""
    from tprnn.errors import UserError

    return error if isinstance(error, UserError) else RuntimeError("".join(traceback.format_exception(error)))


def _die_with_parent(signum: int) -> None:
    """Have the operating system send `signum` when the parent ends (Linux; elsewhere its end is only heard)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signum)


class Parent:
    """The parent as seen from here: the `Source` of runs, the wish to stop, and who is told what comes out."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.stop = threading.Event()
        self.orders: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        """Outputs folders to work for; None: the end."""
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._gone = False
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                kind, value = self.pipe.recv()
                if kind == "work":
                    self.stop.clear()
                    self.orders.put(value)
                elif kind == "stop":
                    self.stop.set()
                else:
                    self._answers.put(value)
        self._gone = True
        self.stop.set()
        self.orders.put(None)
        self._answers.put(None)
        time.sleep(GRACE)
        os._exit(1)  # what is under way takes too long: the checkpoints of before count

    def tell(self, kind: str, value: Any = None) -> None:
        """Send a message; nowhere, when the parent is dead."""
        with contextlib.suppress(OSError):
            self.pipe.send((kind, value))

    def emit(self, kind: str, spec: RunSpec, row: Any) -> None:
        """Pass on an event of the loop."""
        self.tell("event", (kind, spec, row))

    def _ask(self, method: str, *arguments: Any) -> Any:
        """The answer of the parent's queue; None when the parent is dead."""
        self.tell("ask", (method, arguments))
        return None if self._gone else self._answers.get()

    def take_stack(self) -> list[RunSpec]:
        return self._ask("take_stack") or []

    def take(self, key: str, most: int) -> list[RunSpec]:
        return self._ask("take", key, most) or []

    def places(self, spec: RunSpec) -> int:
        return self._ask("places", spec) or 1

    def give_back(self, specs: Sequence[RunSpec]) -> None:
        self._ask("give_back", specs)

    def elsewhere(self, spec: RunSpec) -> bool:
        return bool(self._ask("elsewhere", spec))

    def leave(self) -> None:
        self._ask("leave")

    def over(self) -> bool:
        return self._ask("over") is not False

    def solved(self, iterations: int) -> None:
        self._ask("solved", iterations)

    def news(self) -> News:
        from tprnn.engine.queue import News

        return self._ask("news") or News(0, None)
