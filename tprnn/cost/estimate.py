"""The cost of a list of runs at most, and as recorded runs lead to expect; and how it is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tprnn.config import RunSpec
from tprnn.cost.modelled import Machine, disk_bytes, machine_of, run_seconds, stack_bytes
from tprnn.engine.memory import size, two_digits
from tprnn.engine.queue import Queue, processes


@dataclass(frozen=True)
class Part:
    """Runs that differ in numbers only: `runs` of them like `spec`."""

    spec: RunSpec
    runs: int = 1
    expected: float | None = None
    """Iterations of all of them together, where recorded runs tell what to expect."""


@dataclass(frozen=True)
class Estimate:
    """What a list of runs costs at most, on the machine that stands for its device."""

    machine: Machine
    workers: int
    runs: int
    iterations: int
    """At most, of all runs."""
    seconds: float
    """At most, with all workers."""
    expected: float | None
    """Seconds, where recorded runs tell what to expect."""
    memory: float
    """Bytes of one worker with its largest stack, from below."""
    disk: float
    """Bytes, at most."""


def estimate(*rungs: Iterable[Part]) -> Estimate | None:
    """The cost of runs at most (each to its last iteration) and as recorded ones lead to expect; None for no runs.

    Each rung waits for the one before. Workers share its runs evenly, but one run is never shared: it takes no less
    than its longest run. Raises UserError where a task's data are missing.
    """
    held = [[part for part in rung if part.runs] for rung in rungs]
    parts = [part for rung in held for part in rung]
    if not parts:
        return None
    execution = parts[0].spec.execution
    workers = processes(execution)
    most = expected = 0.0
    for rung in held:
        waiting = sum(part.runs for part in rung)
        share = -(-waiting // workers)
        total = longest = total_expected = 0.0
        for part in rung:
            limit, stack = part.spec.train.max_iterations, min(part.runs, share, Queue([]).places(part.spec))
            each = run_seconds(part.spec, stack)
            total += part.runs * limit * each
            longest = max(longest, limit * each)
            total_expected += each * (part.runs * limit if part.expected is None else part.expected)
        most += max(total / workers, longest)
        expected += total_expected / min(workers, waiting or 1)
    machine = machine_of(parts[0].spec)
    stacks = [(part.spec, min(part.runs, Queue([]).places(part.spec))) for part in parts]
    return Estimate(
        machine=machine,
        workers=workers,
        runs=sum(part.runs for part in parts),
        iterations=sum(part.runs * part.spec.train.max_iterations for part in parts),
        seconds=most,
        expected=None if all(part.expected is None for part in parts) else expected,
        memory=machine.resident + max(stack_bytes(spec, stack) for spec, stack in stacks),
        disk=sum(part.runs * disk_bytes(part.spec) for part in parts),
    )


def describe(found: Estimate | None, basis: str = "recorded runs like these", bounded: str = "") -> str:
    """The lines of an estimate for people; empty for None.

    Args:
        basis: what `expected` follows from.
        bounded: what "at most" takes for granted.
    """
    if found is None:
        return ""
    processes = "1 process" if found.workers == 1 else f"{found.workers} processes"
    kind = "measured" if found.machine.measured else "from data sheets, not measured"
    told = f" ({bounded})" if bounded else ""
    lines = [f"at most {found.iterations:,} run-iterations: {duration(found.seconds)} with {processes}{told}"]
    if found.expected is None:
        lines.append("expected: not known, no runs like these are recorded")
    else:
        lines.append(f"expected: {duration(found.expected)}, from {basis}")
    lines.append(f"memory of a process from {size(found.memory)} on, disk at most {size(found.disk)}")
    lines.append(f"a model of: {found.machine.title} ({kind}); see docs/scaling.md")
    return "\n".join(lines)


def duration(value: float) -> str:
    """`45 s`, `12 min`, `3.4 h`, `12 days`, `2.5 years`."""
    for unit, length, most in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48), ("days", 86400, 700)):
        if value < most * length:
            return f"{two_digits(value / length)} {unit}"
    return f"{two_digits(value / 86400 / 365)} years"
