"""python -m tprnn.bench.scaling [--measure] [--into docs/scaling.md]: the cost model's check; what five papers cost.

With --measure the constants of this machine are measured anew (about two minutes on a quiet machine) and written to
tprnn/protocols/machines.yaml, and the check of the model is written beside what the papers cost.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from tabulate import tabulate

from tprnn.bench.calibrate import CONSTANTS, Point, error, measure, ratios, rounded, write_cpu
from tprnn.bench.packing import packing_block
from tprnn.bench.pages import write_blocks
from tprnn.bench.papers import TPTT_GRADIENT, Job, jobs
from tprnn.compose import compose
from tprnn.cost.estimate import duration
from tprnn.cost.modelled import MACHINES, Machine, Shape, iteration_seconds, machines, validation_seconds
from tprnn.engine.ensemble import prepare_process
from tprnn.engine.queue import ensemble_size

CORES, GPUS = (2, 8), 64


def job_seconds(job: Job, machine: Machine, stack: int, ensemble: int) -> float:
    """Seconds of all runs of a job, on one core or GPU, in stacks of `stack` runs."""
    total = 0.0
    for T in job.lengths:
        shape = Shape(job.costs, T, job.B, job.H, 3 * job.H * job.H)
        each = iteration_seconds(shape, machine, stack, ensemble)
        total += each + validation_seconds(shape, machine, stack, ensemble, job.judged)
    return total * job.runs * job.iterations


def run_iterations(job: Job) -> int:
    """At most."""
    return len(job.lengths) * job.runs * job.iterations


@dataclass(frozen=True)
class Cost:
    """Seconds at most of some jobs."""

    cores: dict[int, float]
    gpu: float
    gpus: float


def cost(some: Sequence[Job], cpu: Machine, gpu: Machine) -> Cost:
    """Cores share the stacks; one GPU takes the runs of a job at one length as one stack, and job after job."""
    ensemble = ensemble_size(compose(["task=temporal_order", "trainer=bptt"]))
    on_core = sum(job_seconds(job, cpu, min(job.runs, ensemble), ensemble) for job in some)
    on_gpu = sum(job_seconds(job, gpu, job.runs, job.runs) for job in some)
    return Cost({n: on_core / n for n in CORES}, on_gpu, shortest(some, gpu))


def shortest(some: Sequence[Job], gpu: Machine) -> float:
    """Seconds in which 64 GPUs suffice: jobs go on at once, each on as few GPUs as will do, its runs split among them.

    Only the lengths of a climb wait for each other.
    """
    chains = [
        part for job in some for part in ([job] if job.climb else [replace(job, lengths=(T,)) for T in job.lengths])
    ]
    needs = [_alone(chain, gpu) for chain in chains]
    low, high = 0.0, sum(need[1] for need in needs)
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        used = sum(_gpus(need, middle) for need in needs)
        low, high = (low, middle) if used <= GPUS else (middle, high)
    return high


def _alone(job: Job, gpu: Machine) -> dict[int, float]:
    """Seconds of a job alone on some numbers of GPUs."""
    found = {}
    for count in (1, 2, 4, 8, 16, 32, 64):
        stack = -(-job.runs // count)
        found[count] = job_seconds(job, gpu, stack, stack) / job.runs * stack
    return found


def _gpus(need: dict[int, float], seconds: float) -> float:
    """GPUs that a job needs to end in time: a part of one where others can share it; infinite where none suffice."""
    if need[1] <= seconds:
        return need[1] / seconds
    return next((count for count, alone in need.items() if alone <= seconds), float("inf"))


def papers_block() -> str:
    """What each table, and each paper, costs at most."""
    cpu, gpu = machines()["cpu"], machines()["gpu"]
    rows, notes = [], []
    for paper, of_paper in groupby(jobs(), key=lambda job: job.paper):
        mine = list(of_paper)
        for name in dict.fromkeys(job.table for job in mine):
            some = [job for job in mine if job.table == name]
            rows.append(_row(f"{paper}, table {name}", some, cost(some, cpu, gpu)))
            assumed = dict.fromkeys(job.assumed for job in some if job.assumed)
            notes += [_wrapped(f"- {paper}, table {name}: {told}.", "  ") for told in assumed]
        rows.append(_row(f"**{paper}**", mine, cost(mine, cpu, gpu)))
    everything = jobs()
    rows.append(_row("**all five**", everything, cost(everything, cpu, gpu)))
    table = tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
    return f"{table}\n\n{_example(cpu, gpu)}\n\nAssumed where the papers do not say:\n\n" + "\n".join(notes)


def _example(cpu: Machine, gpu: Machine) -> str:
    """Why everything has a runs axis, in numbers."""
    shape = Shape(TPTT_GRADIENT, T=100, B=20, H=100, parameters=3 * 100 * 100)
    core = iteration_seconds(shape, cpu, 8, 8)
    one, many = (iteration_seconds(shape, gpu, R, R) * R for R in (1, 216))
    return _wrapped(
        f"One TPTT iteration at T = 100 takes {core * 1e3:.1f} ms on a core; on the H200 (estimate) {one * 1e3:.1f} ms "
        f"for one run and {many * 1e3:.1f} ms for all 216 points of the grid at once."
    )


def _wrapped(text: str, indent: str = "") -> str:
    """As wide as the documents are."""
    return textwrap.fill(text, 120, subsequent_indent=indent, break_on_hyphens=False)


def _row(name: str, some: Sequence[Job], found: Cost) -> dict[str, str]:
    shortest, longest = min(min(job.lengths) for job in some), max(max(job.lengths) for job in some)
    return {
        "what": name,
        "runs": f"{sum(job.runs * len(job.lengths) for job in some):,}",
        "T": str(longest) if shortest == longest else f"{shortest} to {longest}",
        "run-iterations": f"{sum(map(run_iterations, some)):.1e}",
        **{f"{n} cores": duration(value) for n, value in found.cores.items()},
        "one H200 (estimate)": duration(found.gpu),
        "64 H200 (estimate)": duration(found.gpus),
    }


def check_block(fitted: Sequence[Point], kept: Sequence[Point], machine: Machine) -> str:
    """How far the model is from what was measured."""
    groups = [("fitted", fitted), ("kept back", kept)]
    groups += [(f"kept back, {name}", [p for p in kept if p.trainer == name]) for name in _names(kept)]
    groups += [(f"kept back, T = {T}", [p for p in kept if T == p.T]) for T in sorted({p.T for p in kept})]
    groups += [(f"kept back, R = {R}", [p for p in kept if R == p.R]) for R in sorted({p.R for p in kept})]
    rows = []
    for name, points in groups:
        found = ratios(points, machine)
        median, worst = error(found)
        spread = f"{min(found):.2f} to {max(found):.2f}"
        rows.append([name, len(points), f"{median:.2f}", f"{worst:.2f}", spread])
    headers = ["points", "count", "median factor", "worst factor", "model / measured"]
    constants = [[name, f"{rounded(vars(machine))[name]:.3g}"] for name in (*CONSTANTS, "cache")]
    return "\n\n".join(
        [
            f"Measured by `python -m tprnn.bench.scaling --measure`: {machine.source}.",
            tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True),
            tabulate(constants, headers=["constant", "value"], tablefmt="github", disable_numparse=True),
        ]
    )


def _names(points: Sequence[Point]) -> list[str]:
    return sorted({point.trainer for point in points})


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tprnn.bench.scaling", description=__doc__)
    parser.add_argument("--measure", action="store_true", help="measure this machine first; keep it quiet meanwhile")
    parser.add_argument(
        "--into", type=Path, metavar="FILE", help="write into the blocks of a page, e.g. docs/scaling.md"
    )
    args = parser.parse_args(argv)
    blocks = {}
    if args.measure:
        prepare_process(threads=1)
        machine, fitted, kept = measure()
        write_cpu(machine)
        machines.cache_clear()
        blocks["cost model: check"] = check_block(fitted, kept, machines()["cpu"])
        print(f"written: {MACHINES}\n\n{blocks['cost model: check']}\n")
    blocks["cost model: papers"] = papers_block()
    blocks["cost model: packing"] = packing_block()
    print(f"{blocks['cost model: papers']}\n\n{blocks['cost model: packing']}")
    if args.into is not None:
        write_blocks(args.into, blocks)
        print(f"\nwritten: {args.into}")


if __name__ == "__main__":
    main()
