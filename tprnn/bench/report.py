"""python -m tprnn.bench.report FOLDER [--repeats 3]: seconds and peak memory of `tprnn report FOLDER`.

`python -m tprnn.bench.tree FOLDER` makes a folder of 10,000 made-up runs for it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """Of one process from its start to its end."""

    seconds: float
    bytes: int
    """The most that was resident at a time."""


def measure(folder: Path) -> Cost:
    """One `tprnn report FOLDER` in a process of its own. Raises RuntimeError where it fails."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "tprnn", "report", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"tprnn report ended with {process.returncode}")
    # Linux counts in KiB, macOS in bytes
    return Cost(time.perf_counter() - start, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tprnn.bench.report", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(argv)
    costs = [measure(args.folder) for _ in range(args.repeats)]
    runs = sum(1 for _ in (args.folder / "runs").iterdir())
    seconds, peak = statistics.median(cost.seconds for cost in costs), max(cost.bytes for cost in costs)
    print(f"{runs:,} runs: {seconds:.1f} s (median of {len(costs)}), {peak / 2**20:.0f} MiB at most")


if __name__ == "__main__":
    main()
