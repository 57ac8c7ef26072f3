"""The constants of this machine for the cost model, and how far the model is from points it was not fitted to."""

from __future__ import annotations

import itertools
import platform
import random
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
import yaml

from tprnn.bench.floors import trainers
from tprnn.compose import compose
from tprnn.config import RunSpec
from tprnn.core.work import Workspace
from tprnn.cost.modelled import CHUNK, MACHINES, ROWS, SECONDS, Machine, pass_terms, seconds, shape_of, terms
from tprnn.engine.ensemble import Ensemble
from tprnn.engine.queue import ensemble_size

LENGTHS, HIDDEN, BATCHES, STACKS = (20, 50, 100, 300), (50, 100, 256), (10, 20, 100), (1, 8, 64)
POINTS = 96  # half of them for the fit, half to check it
FLOPS = 8e9  # points above take too long
CACHES = tuple(2.0**k for k in range(19, 27))
CONSTANTS = ("iteration", "step", "dependent", "batched", "elements", "memory", "parameters", "validation")


@dataclass(frozen=True)
class Point:
    """A measured time: of a run-iteration, or of a validation pass (`trainer` is then "validation")."""

    trainer: str
    T: int
    H: int
    B: int
    R: int
    measured: float
    """Seconds for one run."""
    ensembles: tuple[int, ...]
    spec: RunSpec

    def terms(self, cache: float) -> dict[str, float]:
        """What multiplies the constants in `measured`."""
        total = dict.fromkeys(CONSTANTS, 0.0)
        count = pass_terms if self.trainer == "validation" else terms
        for R in self.ensembles:
            for name, value in count(shape_of(self.spec), R, cache).items():
                total[name] += value / self.R
        return total

    def modelled(self, machine: Machine) -> float:
        """The model's seconds for one run."""
        return seconds(self.terms(machine.cache), machine)


def least_seconds(call: Callable[[], None], least: float = 0.12, repeats: int = 5) -> float:
    """Processor seconds of a call: the least mean of `repeats` rounds, for what else a machine does only adds."""
    call()
    start = time.process_time()
    call()
    count = max(1, int(least / max(time.process_time() - start, 1e-6)))
    means = []
    for _ in range(repeats):
        start = time.process_time()
        for _ in range(count):
            call()
        means.append((time.process_time() - start) / count)
    return min(means)


def _spec(trainer: str, T: int, H: int, B: int) -> RunSpec:
    words = ["task=temporal_order", f"trainer={trainer}", f"task.T={T}", f"model.H={H}", f"train.batch_size={B}"]
    return compose(words)


@torch.inference_mode()
def _ensembles(spec: RunSpec, R: int) -> list[Ensemble]:
    """As the engine has them, which take turns with one scratch."""
    size, work = ensemble_size(spec), Workspace(torch.float32)
    specs = [spec.replace({"seed": r}) for r in range(R)]
    return [Ensemble(specs[i : i + size], work=work) for i in range(0, R, size)]


def iteration_points(count: int = POINTS) -> list[Point]:
    """A spread of trainers, lengths, sizes and stacks that is the same each time."""
    grid = list(itertools.product(trainers(), LENGTHS, HIDDEN, BATCHES, STACKS))
    random.Random(0).shuffle(grid)
    found: list[Point] = []
    for trainer, T, H, B, R in grid:
        if len(found) == count:
            break
        spec = _spec(trainer, T, H, B)
        costs = shape_of(spec).costs
        if 2.0 * R * T * B * H * H * (costs.dependent + costs.rows + costs.outer) > FLOPS:
            continue
        ensembles = _ensembles(spec, R)

        @torch.inference_mode()
        def iterate(ensembles: list[Ensemble] = ensembles) -> None:
            for ensemble in ensembles:
                ensemble.advance()

        sizes = tuple(len(ensemble.specs) for ensemble in ensembles)
        found.append(Point(trainer, T, H, B, R, least_seconds(iterate) / R, sizes, spec))
    return found


def validation_points() -> list[Point]:
    """Validation passes of some lengths, sizes and stacks."""
    found = []
    for T, H, R in itertools.product(LENGTHS, HIDDEN, STACKS[:2]):
        if 2.0 * R * T * CHUNK * H * H <= FLOPS:
            spec = _spec(trainers()[0], T, H, 20)
            (ensemble,) = _ensembles(spec, R)

            @torch.inference_mode()
            def validate(ensemble: Ensemble = ensemble) -> None:
                ensemble.judge(*ensemble.draw("validation", 0, CHUNK))

            each = least_seconds(validate) / (CHUNK / ROWS)
            found.append(Point("validation", T, H, ROWS, R, each / R, (R,), spec))
    return found


def fit(points: Sequence[Point], title: str, source: str, resident: float) -> Machine:
    """The constants with the least squared relative error; none is negative."""
    best: tuple[float, Machine] | None = None
    for cache in CACHES:
        x = numpy.array([[point.terms(cache)[name] for name in CONSTANTS] for point in points])
        x /= numpy.array([[point.measured] for point in points])
        found = non_negative(x, numpy.ones(len(points)))
        error = float(((x @ found - 1.0) ** 2).sum())
        values = {
            name: float(value) if name in SECONDS else (1.0 / float(value) if value > 0 else float("inf"))
            for name, value in zip(CONSTANTS, found, strict=True)
        }
        machine = Machine(title, True, source, cache=cache, resident=resident, **values)
        if best is None or error < best[0]:
            best = (error, machine)
    assert best is not None
    return best[1]


def non_negative(x: numpy.ndarray, y: numpy.ndarray, rounds: int = 20_000) -> numpy.ndarray:
    """argmin |x c - y|^2 over c >= 0, one coordinate after the other; columns of zeros get 0."""
    scale = numpy.linalg.norm(x, axis=0)
    scale[scale == 0.0] = numpy.inf
    gram, pull = (x / scale).T @ (x / scale), (x / scale).T @ y
    c = numpy.zeros(x.shape[1])
    for _ in range(rounds):
        before = c.copy()
        for j in numpy.flatnonzero(numpy.isfinite(scale)):
            c[j] = max(0.0, c[j] + pull[j] - gram[j] @ c)
        if numpy.abs(c - before).max() < 1e-12:
            break
    return c / scale


def ratios(points: Sequence[Point], machine: Machine) -> list[float]:
    """Model / measured of each point."""
    return [point.modelled(machine) / point.measured for point in points]


def error(found: Sequence[float]) -> tuple[float, float]:
    """Median and worst factor between model and measured, both at least 1."""
    factors = [max(ratio, 1.0 / ratio) for ratio in found]
    return statistics.median(factors), max(factors)


def measure() -> tuple[Machine, list[Point], list[Point]]:
    """(constants of this machine, points they were fitted to, points that were kept back)."""
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
    points, validations = iteration_points(), validation_points()
    fitted, kept = [*points[::2], *validations[::2]], [*points[1::2], *validations[1::2]]
    source = f"torch {torch.__version__}, {platform.machine()}, 1 thread"
    return fit(fitted, "one CPU core", source, resident), fitted, kept


def write_cpu(machine: Machine, path: Path = MACHINES) -> None:
    """Put the constants into machines.yaml in the place of its block `cpu`; all other lines stay."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    first, last = lines.index("cpu:\n"), lines.index("gpu:\n")
    block = yaml.safe_dump({"cpu": rounded(vars(machine))}, sort_keys=False, width=1000)
    path.write_text("".join([*lines[:first], block, *lines[last:]]), encoding="utf-8")


def rounded(record: Mapping[str, object]) -> dict[str, object]:
    """Numbers to three digits, as far as they can be trusted at most."""
    return {key: float(f"{value:.3g}") if isinstance(value, float) else value for key, value in record.items()}
