"""Processes that are started without the program that starts them.

`multiprocessing` has every spawned process import the program (`__main__`) again, so that it finds what the program
defines. A worker needs nothing of it, and a script without ``if __name__ == "__main__"`` would train in each.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

_LOCK = threading.Lock()  # two threads that hide and show again in turns could leave it hidden


@contextlib.contextmanager
def program_left_out() -> Iterator[None]:
    """Hide from `multiprocessing.spawn` where the program came from, as of one that is typed in."""
    with _LOCK:
        program: dict[str, Any] = vars(sys.modules["__main__"])
        shown: dict[str, Any] = {name: program[name] for name in ("__file__", "__spec__") if name in program}
        program.pop("__file__", None)
        program["__spec__"] = None
        try:
            yield
        finally:
            program.update(shown)
