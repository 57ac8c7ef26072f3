"""Stopping on SIGINT, SIGTERM and SIGHUP (a closed terminal) without losing work."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

STOPPING = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that ask for an end."""


class Interrupted(BaseException):
    """A signal ended the work after checkpoints were written; the exit code is 128 + signum."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)  # as the only argument, so that it survives the way back from a worker process
        self.signum = signum


class Stop(Protocol):
    """Whether the loop is asked to stop; polled once per iteration."""

    def is_set(self) -> bool: ...


class SignalFlag:
    """Set by the first signal that asks for an end. A SIGINT after it interrupts at once; schedulers repeat SIGTERM."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def is_set(self) -> bool:
        return self.signum is not None

    def handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None and signum == signal.SIGINT:
            raise Interrupted(signum)
        self.signum = self.signum or signum


@contextmanager
def catch_signals() -> Iterator[SignalFlag]:
    """Turn signals that ask for an end into a flag while the block runs (main thread only; elsewhere never set).

    Those that are ignored stay so: nohup has SIGHUP ignored, and wants the work to go on.
    """
    flag = SignalFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    asked = [signum for signum in STOPPING if signal.getsignal(signum) != signal.SIG_IGN]
    old = {signum: signal.signal(signum, flag.handle) for signum in asked}
    try:
        yield flag
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)
