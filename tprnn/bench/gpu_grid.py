"""The grid of manchev2020 as users run it (`run_all`), watched from outside: on a GPU, and with processes on a CPU."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tprnn.bench.gpu_parts import Row, Setting
from tprnn.compose import points
from tprnn.config import RunSpec
from tprnn.engine.signals import Interrupted
from tprnn.overrides import as_override
from tprnn.store import METRICS, RESULT
from tprnn.sweep.run import run_all

_POLL = 0.2
_START_SECONDS = 90.0  # to begin: processes, compilation, initial weights


def grid_specs(setting: Setting, device: str, folder: Path, workers: int) -> list[RunSpec]:
    """TPTT on temporal order: 216 points, or the first few."""
    sizes = setting.sizes
    lines = ["task=temporal_order", "trainer=tptt", f"task.T={sizes.length}", "grid=manchev2020", "probe=none"]
    lines += [
        f"device={device}",
        f"workers={workers}",
        "quiet=true",
        f"outputs={as_override(str(folder))}",
        *sizes.words,
    ]
    return points(lines)[: sizes.points]


def reached(folder: Path) -> int:
    """Iterations of all runs of a folder, by the last line of each run's metrics."""
    return sum(_last_iteration(path) for path in (folder / "runs").glob(f"*/{METRICS}"))


def _last_iteration(path: Path) -> int:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().split(b"\n")
    return int(json.loads(lines[-2])["iteration"]) if len(lines) > 1 else 0


def statuses(folder: Path) -> Counter[str]:
    """How many runs have ended in which way."""
    results = (folder / "runs").glob(f"*/{RESULT}")
    return Counter(str(json.loads(path.read_text())["status"]) for path in results)


class Watch:
    """Notes how far runs have come, and ends this process's `run_all` by a signal some seconds after their start."""

    def __init__(self, folder: Path, seconds: float, seen: Callable[[], None] = lambda: None) -> None:
        self.folder, self.seconds, self.seen = folder, seconds, seen
        self.marks: list[tuple[float, int]] = [(time.monotonic(), reached(folder))]
        """(time, iterations of all runs) at the start and whenever more were done."""
        self._over = threading.Event()

    def train(self, specs: Sequence[RunSpec]) -> None:
        """Until all runs have ended, or the time is over."""
        thread = threading.Thread(target=self._look, daemon=True)
        thread.start()
        try:
            run_all(specs)
        except Interrupted:
            pass
        finally:
            self._over.set()
            thread.join()
            self.mark()

    def _look(self) -> None:
        while not self._over.wait(_POLL):
            self.mark()
            begun = len(self.marks) > 1
            if time.monotonic() - self.marks[begun][0] > (self.seconds if begun else _START_SECONDS):
                os.kill(os.getpid(), signal.SIGTERM)
                return
            self.seen()

    def mark(self) -> None:
        """Look once."""
        count = reached(self.folder)
        if count > self.marks[-1][1]:
            self.marks.append((time.monotonic(), count))

    @property
    def begun_after(self) -> float:
        """Seconds to the first check."""
        return self.marks[min(1, len(self.marks) - 1)][0] - self.marks[0][0]

    @property
    def trained(self) -> float:
        """Seconds from the first check to the last."""
        return self.marks[-1][0] - self.marks[0][0] - self.begun_after

    @property
    def per_second(self) -> float | None:
        """Run-iterations a second between them; None where there was one only."""
        if len(self.marks) < 3:
            return None
        return (self.marks[-1][1] - self.marks[1][1]) / self.trained


def grid(setting: Setting) -> None:
    """As far as the grid comes in some minutes; a call that goes on takes the rest of them."""
    before = setting.rows.get("grid", {"seconds": 0.0})["seconds"]
    folder = setting.folder / "grid"
    specs = grid_specs(setting, setting.device, folder, workers=1)
    told = time.monotonic()

    def tell() -> None:
        nonlocal told
        told = time.monotonic()
        setting.tell("grid", _grid_row(setting, watch, folder, len(specs)) | {"seconds": before + watch.trained})

    def seen() -> None:
        if time.monotonic() - told > 5.0:
            tell()

    watch = Watch(folder, setting.sizes.grid_seconds - before, seen)
    watch.train(specs)
    tell()


def _grid_row(setting: Setting, watch: Watch, folder: Path, count: int) -> Row:
    ended = statuses(folder)
    row: Row = {"T": setting.sizes.length, "points": count, "begun_after": round(watch.begun_after, 1)}
    row |= {"run_iterations": watch.marks[-1][1], "per_second": watch.per_second, "solved": ended["solved"]}
    return row | {"ended": {name: ended[name] for name in sorted(ended) if name != "interrupted"}}


def processes(setting: Setting) -> None:
    """Run-iterations a second of the same grid on the machine's CPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for workers in setting.sizes.processes:
        key = f"{workers} processes"
        if key in setting.rows:
            continue
        if workers > cores:
            setting.tell(key, {"processes": workers, "left_out": f"the machine has {cores} cores"})
            continue
        folder = setting.folder / f"processes-{workers}"
        shutil.rmtree(folder, ignore_errors=True)
        watch = Watch(folder, setting.sizes.process_seconds)
        watch.train(grid_specs(setting, "cpu", folder, workers))
        row = {"processes": workers, "begun_after": round(watch.begun_after, 1), "per_second": watch.per_second}
        setting.tell(key, row | {"T": setting.sizes.length, "seconds": round(watch.trained, 1)})
        shutil.rmtree(folder, ignore_errors=True)
