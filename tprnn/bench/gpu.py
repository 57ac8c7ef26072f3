"""python -m tprnn.bench.gpu [--device cuda] [--seconds 460]: all that is to be learnt of a GPU, most worth first.

Each part runs in a process of its own, with its own time limit; its rows go to outputs/bench/gpu.json as they come.
The next call goes on with what is missing, and tries again what failed; with --force all is done anew. `make gpu` calls
this with what a machine without a package registry has (tprnn/bench/gpu_start.py). --device cpu is a rehearsal: small
sizes, a file of its own, no page.

Never seen on a GPU yet, and looked at first where something breaks:

- cuSOLVER may refuse to be recorded (`tptt_inverse`): its iterations then run call by call, with a warning; PyTorch
  2.11 may refuse every later recording of that process too, so each part has its own.
- Orthogonal weights are singular vectors of one matrix after another, eigenvalues likewise: perhaps 10 ms each on a
  GPU, more than on a CPU (row `rates`). The grid is therefore run without the probe of spectral radii.
- A full validation of 216 runs is 100 passes of 100 sequences, launched call by call.
- 216 runs that do not fit are split into single runs, which do not fit either; R = 1024 at T = 300 wants about 30 GiB.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

from tprnn.bench import gpu_grid, gpu_parts
from tprnn.bench.gpu_parts import Row, Setting
from tprnn.bench.gpu_sizes import FULL, SMALL, Sizes
from tprnn.bench.gpu_tables import blocks
from tprnn.bench.pages import write_blocks
from tprnn.engine.ensemble import prepare_process
from tprnn.errors import UserError, nearest
from tprnn.files import write_atomically

_GRACE = 8.0  # seconds from the word to stop to the end of a part: runs write their checkpoints
_LEAST = 5.0  # seconds that are worth a new part


@dataclass(frozen=True)
class Part:
    """Something to find out."""

    name: str
    seconds: float
    """At most."""
    work: Callable[[Setting], None]


def parts_of(sizes: Sizes) -> list[Part]:
    """In the order of their worth."""
    parts = [
        Part("machine", 40.0, gpu_parts.machine),
        Part("tests", 100.0, gpu_parts.tests),
        Part("times", 110.0, functools.partial(gpu_parts.times, trainers=sizes.first)),
        Part("bits", 40.0, gpu_parts.bits),
        Part("grid", sizes.grid_seconds + 60.0, gpu_grid.grid),
        Part("core", 60.0, gpu_parts.core),
        Part("processes", 80.0, gpu_grid.processes),
        Part("more times", 110.0, functools.partial(gpu_parts.times, trainers=sizes.then)),
    ]
    return [replace(part, seconds=sizes.patience * part.seconds) for part in parts]


class Record:
    """gpu.json: every part's rows by key, and how the part ended (done | cut | failed).

    Raises UserError where the file is damaged, or of another device.
    """

    def __init__(self, path: Path, device: str, sizes: Sizes) -> None:
        self.path, self.device = path, device
        self.small = sizes is not FULL
        self.content: dict[str, Any] = self._new()
        if path.exists():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise UserError(f"{path}: damaged ({error}); remove it, or give --out FILE") from error
            if (found.get("device"), found.get("small")) != (device, self.small):
                raise UserError(f"{path}: not of device {device}; give --out FILE")
            self.content = found

    def _new(self) -> dict[str, Any]:
        note = "a rehearsal on a CPU: no graphs, no floors, no figures of a GPU" if self.device == "cpu" else "measured"
        return {"device": self.device, "small": self.small, "note": note, "parts": {}}

    def begin_anew(self) -> None:
        """Put the file aside, if there is one; its runs go."""
        if self.path.exists():
            os.replace(self.path, self.path.with_suffix(".old.json"))
        shutil.rmtree(self.runs, ignore_errors=True)
        self.content = self._new()

    @property
    def runs(self) -> Path:
        """The folder of runs that parts train."""
        return self.path.parent / (self.path.stem + "-runs")

    def part(self, name: str) -> dict[str, Any]:
        """Status, seconds and rows of a part."""
        found: dict[str, Any] = self.content["parts"].setdefault(name, {"status": "cut", "seconds": 0.0, "rows": {}})
        return found

    def write(self) -> None:
        """Replace the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, (json.dumps(self.content, indent=1) + "\n").encode())


class Supervisor:
    """Runs parts one after the other; nothing here touches the device, so that whatever happens there ends a part only.

    Args:
        seconds: for all parts.
        page: where tables go, if anywhere.
    """

    def __init__(self, record: Record, sizes: Sizes, parts: Sequence[Part], seconds: float, page: Path | None) -> None:
        self.record, self.sizes, self.parts, self.page = record, sizes, parts, page
        self.end = time.monotonic() + seconds
        self.signum: int | None = None

    def run(self) -> int:
        """The exit code: 0, 1 where a part failed, 128 + n after a signal."""
        before = {signum: signal.signal(signum, self._stop) for signum in (signal.SIGINT, signal.SIGTERM)}
        try:
            for part in self.parts:
                if self.record.part(part.name)["status"] == "done" and part is not self.parts[0]:
                    print(f"{part.name}: done before", flush=True)
                elif self.signum is None and self.end - time.monotonic() > _LEAST:
                    self._do(part)
                if self.record.part(self.parts[0].name)["status"] == "failed":
                    break  # no such device, or none that works
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
        parts = {part.name: self.record.part(part.name)["status"] for part in self.parts}
        self.record.write()
        if missing := [name for name, status in parts.items() if status == "cut"]:
            print(f"not done yet: {', '.join(missing)}; the same command goes on with what is missing")
        if failed := [name for name, status in parts.items() if status == "failed"]:
            print(f"failed: {', '.join(failed)} ({self.record.path} says why); the same command tries again")
        print(f"written: {self.record.path}", flush=True)
        return 128 + self.signum if self.signum is not None else int(bool(failed))

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum

    def _do(self, part: Part) -> None:
        began = time.monotonic()
        limit = min(part.seconds, self.end - began)
        print(f"{part.name} (at most {limit:.0f} s)", flush=True)
        status, error = self._supervise(part, began + limit)
        seconds, kept = time.monotonic() - began, self.record.part(part.name)
        kept |= {"status": status, "seconds": round(kept["seconds"] + seconds, 1), "error": error}
        self.record.write()
        if self.page is not None:
            write_blocks(self.page, blocks(self.record.content))
        print(f"{part.name}: {status} after {seconds:.0f} s, {len(kept['rows'])} rows", flush=True)

    def _supervise(self, part: Part, end: float) -> tuple[str, str | None]:
        """Start a part, take its rows, end it in time: (status, what went wrong)."""
        context = multiprocessing.get_context("fork")  # spares each part the import of PyTorch
        receiving, sending = context.Pipe(duplex=False)
        rows = dict(self.record.part(part.name)["rows"])
        args = (part, self.record.device, self.sizes, self.record.runs, rows, sending)
        process = context.Process(target=_child, args=args)
        process.start()
        sending.close()
        _make_group(process.pid)
        status = "failed"
        error: str | None = "the process broke off without a word"
        asked: float | None = None
        try:
            while process.is_alive() or receiving.poll():
                if asked is None and (self.signum is not None or time.monotonic() > end):
                    asked = time.monotonic()
                    _tell_group(process.pid, signal.SIGTERM)
                if asked is not None and time.monotonic() > asked + _GRACE:
                    break
                if not receiving.poll(0.1):
                    continue
                kind, key, row = receiving.recv()
                if kind == "row":
                    self._take(part, key, row)
                else:
                    status, error = ("done", None) if kind == "done" else ("failed", key)
        except EOFError:
            pass
        _tell_group(process.pid, signal.SIGKILL)  # and whatever it left behind
        process.join()
        return ("cut", None) if (asked is not None and status != "done") or self.signum is not None else (status, error)

    def _take(self, part: Part, key: str, row: Row) -> None:
        rows = self.record.part(part.name)["rows"]
        if key == gpu_parts.FACTS and key in rows and not gpu_parts.same_machine(rows[key], row):
            print("another machine or another PyTorch than before: all is done anew", flush=True)
            self.record.begin_anew()
        self.record.part(part.name)["rows"][key] = row
        self.record.write()
        print(f"  {key}: {told(row)}", flush=True)


def told(row: Row) -> str:
    """A row in one short line."""
    shown = [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()]
    return ", ".join(shown)[:200]


def _make_group(pid: int | None) -> None:
    """The child does so too, for either may be the first to need it."""
    assert pid is not None
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.setpgid(pid, pid)


def _tell_group(pid: int | None, signum: int) -> None:
    assert pid is not None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signum)


def _child(part: Part, device: str, sizes: Sizes, folder: Path, rows: dict[str, Row], sending: Connection) -> None:
    """A part's process: the leader of a group, which ends with its parent."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    prepare_process(threads=1)
    lock = threading.Lock()

    def tell(key: str, row: Row) -> None:
        with lock:
            sending.send(("row", key, row))

    try:
        part.work(Setting(device, sizes, folder, rows, tell))
    except Exception as error:
        traceback.print_exc()
        sending.send(("failed", f"{type(error).__name__}: {error}", None))
    else:
        sending.send(("done", "", None))
    sys.stdout.flush()
    os._exit(0)  # worker processes that wait for more would keep an orderly end waiting; the supervisor ends them


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os.killpg(0, signal.SIGKILL)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code. Raises UserError."""
    parser = argparse.ArgumentParser(
        prog="python -m tprnn.bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a rehearsal")
    parser.add_argument("--seconds", type=float, default=460.0, help="for all parts together")
    parser.add_argument("--out", type=Path, help="default: outputs/bench/gpu.json")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="write into a page's blocks: docs/performance.md")
    parser.add_argument("--page-only", action="store_true", help="measure nothing: tables from what is there")
    parser.add_argument("--parts", nargs="+", metavar="NAME", help="only these, after the first")
    parser.add_argument("--force", action="store_true", help="do all anew")
    args = parser.parse_args(argv)
    rehearsal = args.device == "cpu"
    if rehearsal and args.into is not None:
        raise UserError("--into: a rehearsal has no figures for a page; leave out --into or --device cpu")
    sizes = SMALL if rehearsal else FULL
    out = args.out or Path("outputs/bench") / ("gpu-rehearsal.json" if rehearsal else "gpu.json")
    parts = parts_of(sizes)
    for name in args.parts or ():
        if name not in (names := [part.name for part in parts]):
            raise UserError(f"--parts: no part '{name}'; {nearest(name, names)}")
    parts = [part for part in parts if not args.parts or part.name in args.parts or part is parts[0]]
    record = Record(out, args.device, sizes)
    if args.force:
        record.begin_anew()
    if args.into is not None:
        try:
            write_blocks(args.into, blocks(record.content))
        except ValueError as error:
            raise UserError(f"{args.into}: has no block for a table: {error}") from error
    if args.page_only:
        return 0
    return Supervisor(record, sizes, parts, args.seconds, args.into).run()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
