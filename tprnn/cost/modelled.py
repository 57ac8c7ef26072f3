"""What runs will cost before they are run: seconds, memory and disk, from their configs alone.

Nothing here takes memory of a run's size: what a task draws is asked of tensors without values (meta device).

For an ensemble of R runs with T steps, B sequences and H hidden units, E = R T B H numbers in one buffer, and a rule
with d dependent passes, r products of all rows and o gradients of square matrices (`Trainer.costs`), one iteration
takes

    t = iteration + step T d + 2 E H d / dependent + (2 E H (r + o) + 2 R H^3 w) / batched
        + E (d + r + o) (1 / elements + overflow(bytes) / memory) + 2.7 E n / elements + R P / parameters     seconds

with P numbers in a run's parameters, w products of weights with weights and n normal numbers for every unit and step;
a network of k products in a step (`Model.products`) takes k d, k r, k o and k times the buffers.
overflow = 1 - cache / bytes where the buffers of the ensemble (bytes) exceed the cache, else 0. One validation pass of
V = 100 sequences is a forward pass: d = 1 with B = V, r = o = 0, and `validation` in the place of `iteration`. The
constants of a machine stand in machines.yaml; docs/scaling.md holds the model to measured points.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from torch import Tensor

from tprnn.config import RunSpec, TrainSettings, member_class
from tprnn.core.streams import Seeds, Stream
from tprnn.engine.queue import ensemble_size

if TYPE_CHECKING:
    import torch

    from tprnn.tasks.base import Task
    from tprnn.trainers.base import Costs

MACHINES = Path(__file__).with_name("machines.yaml")
ROWS = 100  # sequences in one validation pass, as in engine/ensemble
CHUNK = 1000  # sequences of a check that finds mistakes among the first, as in engine/ensemble
DRAWN = 2**17  # words of the batches that are drawn at once, as in engine/ensemble
_CONFIG_BYTES, _RESULT_BYTES, _CHECK_BYTES = 1200, 700, 200  # of a run folder's texts; measured
_STEP_BYTES = 240  # of the view of one step, of which every buffer has T; measured
_NORMAL = 2.7  # of a normal number, in numbers through an activation; measured
_SOLVE = 7 / 6  # a Cholesky factor (H^3/3 multiplications and additions) and a solution (2 H^3), in products (2 H^3)


@dataclass(frozen=True)
class Machine:
    """Constants of the model; docs/scaling.md says what is measured and what is read from a data sheet."""

    title: str
    measured: bool
    source: str
    iteration: float
    """Seconds of an ensemble-iteration whatever its size."""
    step: float
    """Seconds of a dependent step whatever its size: its calls, or its kernel launches."""
    dependent: float
    """FLOP/s of the products inside dependent passes."""
    batched: float
    """FLOP/s of products of all rows."""
    elements: float
    """Numbers/s through the activations and elementwise steps of a pass."""
    memory: float
    """Numbers/s of a pass that the cache does not hold, on top."""
    cache: float
    """Bytes."""
    parameters: float
    """Numbers/s through the optimizer."""
    validation: float
    """Seconds of a validation pass whatever its size."""
    resident: float
    """Bytes of a process before its first run."""


@functools.cache
def machines() -> dict[str, Machine]:
    """Every machine of machines.yaml by name."""
    return {key: Machine(**record) for key, record in yaml.safe_load(MACHINES.read_text(encoding="utf-8")).items()}


def machine_of(spec: RunSpec) -> Machine:
    """The machine that stands for the spec's device."""
    return machines()["cpu" if spec.execution["device"] == "cpu" else "gpu"]


# ---- one iteration


@dataclass(frozen=True)
class Shape:
    """One run as the model sees it."""

    costs: Costs
    T: int
    B: int
    H: int
    parameters: int
    """P, numbers in all parameters."""
    slots: int = 1
    """Optimizer numbers for each of them."""
    bytes: int = 4
    """Of one number."""
    fixed: int = 0
    """Numbers in those that do not learn."""
    products: int = 1
    """Of the network in a step; `costs` are those of all of them."""
    outputs: tuple[int, int] = (1, 1)
    """S steps with an output of width O."""
    words: int = 1
    """Random words in one sequence."""
    drawn: int = 0
    """Bytes for each sequence while a batch is drawn, its words included."""
    kept: int = 0
    """Bytes of a sequence in a batch."""
    start: tuple[int, int] = (0, 0)
    """Bytes while the largest parameter gets its first value: for each run, and once."""


def terms(shape: Shape, R: int, cache: float) -> dict[str, float]:
    """What multiplies each constant's inverse (seconds: the constant itself) in one iteration of R runs at once."""
    p, E = shape.costs, R * shape.T * shape.B * shape.H
    touched = p.dependent + p.rows + p.outer
    held = p.buffers * E * shape.bytes
    return {
        "iteration": 1.0,
        "step": shape.T * p.dependent,
        "dependent": 2.0 * E * shape.H * p.dependent,
        "batched": 2.0 * shape.H * (E * (p.rows + p.outer) + R * shape.H**2 * (p.square + _SOLVE * p.solves)),
        "elements": E * (touched + _NORMAL * p.normals),
        "memory": E * touched * (1.0 - cache / held if held > cache else 0.0),
        "parameters": R * shape.parameters,
        "validation": 0.0,
    }


def pass_terms(shape: Shape, R: int, cache: float) -> dict[str, float]:
    """The same for one validation pass."""
    from tprnn.trainers.base import Costs

    forward = Costs(dependent=1, activated=1, rows=0, outer=0, buffers=2).times(shape.products)
    found = terms(Shape(forward, shape.T, ROWS, shape.H, 0, bytes=shape.bytes), R, cache)
    return found | {"iteration": 0.0, "validation": 1.0}


SECONDS = ("iteration", "step", "validation")  # constants in seconds; all others are rates


def seconds(found: dict[str, float], machine: Machine) -> float:
    """The time of `terms`."""
    return sum(
        value * getattr(machine, name) if name in SECONDS else value / getattr(machine, name)
        for name, value in found.items()
    )


def iteration_seconds(shape: Shape, machine: Machine, stack: int, ensemble: int) -> float:
    """Seconds of one run-iteration in a stack that is computed ensemble by ensemble; validation not included."""
    full, rest = divmod(stack, ensemble)
    total = full * seconds(terms(shape, ensemble, machine.cache), machine)
    if rest:
        total += seconds(terms(shape, rest, machine.cache), machine)
    return total / stack


def validation_seconds(shape: Shape, machine: Machine, stack: int, ensemble: int, judged: float) -> float:
    """The share of validation in one run-iteration, with `judged` sequences for each iteration."""
    R = min(stack, ensemble)
    return judged / ROWS * seconds(pass_terms(shape, R, machine.cache), machine) / R


def judged(train: TrainSettings) -> float:
    """Validation sequences for each iteration of a run that still makes mistakes: a full set at every n-th check."""
    first = min(CHUNK, train.validation_size)
    return (first + (train.validation_size - first) / train.full_check_every) / train.check_every


_shapes: dict[tuple[str, Costs], Shape] = {}


def shape_of(spec: RunSpec) -> Shape:
    """What the config says, and what one sequence of the task shows. Raises UserError where data are missing."""
    # passes follow per-run settings too, such as a noise of 0
    key = spec.stack_key, member_class("trainer", spec.config["trainer"]["rule"]).costs(spec.config)
    if key not in _shapes:
        _shapes[key] = _shape(spec, key[1])
    return _shapes[key]


def _shape(spec: RunSpec, costs: Costs) -> Shape:
    import torch

    def member(kind: str) -> Any:
        return member_class(kind, spec.config[kind]["rule"])

    dtype = getattr(torch, spec.config["dtype"])
    task = member("task").open(spec.settings("task"), spec.execution.get("data"))
    model = member("model")(spec.settings("model"), task, dtype, "cpu")
    optimizer = member("optimizer")([spec.settings("optimizer")], dtype, "cpu")
    trainer = member("trainer")([spec.settings("trainer")], Seeds([0], [0]), model, optimizer)
    sizes = {name: torch.Size(shape).numel() for name, shape in trainer.shapes().items()}
    (T, S), drawn, kept = _sequence(task, dtype)
    some = torch.zeros(1, 2, dtype=dtype)
    return Shape(
        costs=costs.times(model.products),
        T=T,
        B=type(trainer).batch_size(spec.config),
        H=model.H,
        parameters=sum(sizes.values()),
        slots=sum(slot.shape == some.shape for slot in optimizer.start(some).values()),
        bytes=dtype.itemsize,
        fixed=sum(sizes[name] for name in trainer.fixed),
        products=model.products,
        outputs=(S, model.reader.width),
        words=task.words,
        drawn=drawn,
        kept=kept,
        start=max(model.start_bytes(name, shape) for name, shape in model.shapes().items()),
    )


def _sequence(task: Task, dtype: torch.dtype) -> tuple[tuple[int, int], int, int]:
    """(T, S), and the bytes that a further sequence of a batch takes while it is drawn and afterwards."""

    from tprnn.core.allocations import Allocations

    counts = []
    for sequences in (2, 3):  # a batch of one is a special case of some copies
        with Allocations() as counted:
            batch = task.batch(_Unknown([0], "train", "meta"), [0], sequences).cast(dtype)
        counts.append((counted.peak, counted.now))
    drawn, kept = (more - fewer for fewer, more in zip(*counts, strict=True))
    return (batch.T, batch.outputs), drawn, kept


# ---- one run


class _Unknown(Stream):
    """Words without values, of which nothing but their room is known."""

    def words(self, positions: Sequence[int] | Tensor, count: int) -> Tensor:
        return self.k0.new_empty(len(positions), len(self.k0), count)


def run_seconds(spec: RunSpec, stack: int) -> float:
    """Seconds of one run-iteration of a run like `spec` in a stack, its share of validation included."""
    shape, machine, ensemble = shape_of(spec), machine_of(spec), ensemble_size(spec)
    checks = validation_seconds(shape, machine, stack, ensemble, judged(spec.train))
    return iteration_seconds(shape, machine, stack, ensemble) + checks


def stack_bytes(spec: RunSpec, stack: int) -> int:
    """Memory of a stack, from below: the most of what its start, an iteration and a check need.

    Counted are parameters and, of those that learn, slots and gradients side by side, of all runs; and of the runs
    computed at once, states and one signal, noise, batches drawn, outputs and fresh gradients. A rule may hold more
    (`Costs.buffers`: at most, with all that goes through the cache).
    """
    shape, size = shape_of(spec), spec.train.validation_size
    R, (S, O) = min(stack, ensemble_size(spec)), shape.outputs
    learning = shape.parameters - shape.fixed
    weights = stack * shape.bytes * (shape.parameters + learning * (1 + shape.slots))

    def states(rows: int) -> int:
        return shape.T * (R * rows * shape.H * shape.products * shape.bytes + _STEP_BYTES)

    def outputs(rows: int) -> int:  # y, dE/dy and dE/dh
        return R * S * rows * (2 * O + shape.H) * shape.bytes

    gradients = R * shape.H**2 * shape.bytes * (shape.products + shape.costs.square + shape.costs.solves)
    ahead = max(1, min(spec.train.check_every, DRAWN // (R * shape.B * shape.words))) * shape.B
    iteration = max(R * ahead * shape.drawn, R * ahead * shape.kept + outputs(shape.B) + gradients)
    chunk, rows = min(CHUNK, size), min(ROWS, size)
    pieces = chunk * shape.kept * (2 if chunk > rows else 1)  # the chunk whole, and cut into passes
    check = max(R * chunk * shape.drawn, R * pieces + outputs(rows)) + (states(rows) if rows != shape.B else 0)
    held = weights + states(shape.B) * (2 + shape.costs.normals)
    return max(shape.start[0] * R + shape.start[1], held + iteration, held + check)


def disk_bytes(spec: RunSpec) -> float:
    """A run folder at most: its texts, its model, and the checkpoint of a run of more than seconds."""
    shape, train = shape_of(spec), spec.train
    checks = -(-train.max_iterations // train.check_every)
    return _CONFIG_BYTES + _RESULT_BYTES + _CHECK_BYTES * checks + shape.parameters * (2 + shape.slots) * shape.bytes
