"""Stopping on SIGINT and SIGTERM without losing work."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol


class Interrupted(BaseException):
    """A signal ended the work after checkpoints were written; the exit code is 128 + signum."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)  # as the only argument, so that it survives the way back from a worker process
        self.signum = signum


class Stop(Protocol):
    """Whether the loop is asked to stop; polled once per iteration."""

    def is_set(self) -> bool: ...


class SignalFlag:
    """Set by the first SIGINT or SIGTERM. A SIGINT after it interrupts at once; schedulers send SIGTERM twice."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def is_set(self) -> bool:
        return self.signum is not None

    def handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None and signum == signal.SIGINT:
            raise Interrupted(signum)
        self.signum = self.signum or signum


def ignore_signals() -> None:
    """For processes whose parent decides for all: signals that reach the whole group are its business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextmanager
def catch_signals() -> Iterator[SignalFlag]:
    """Turn SIGINT and SIGTERM into a flag while the block runs (main thread only; elsewhere never set)."""
    flag = SignalFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    old = {signum: signal.signal(signum, flag.handle) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)
