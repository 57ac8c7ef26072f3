"""How much each part of `python -m tprnn.bench.gpu` does: on a GPU, and in a rehearsal."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Of all parts."""

    first: tuple[str, ...] = ("tptt", "bptt")
    """Rules that are timed before the grid, for they are worth most."""
    then: tuple[str, ...] = ("lra", "tptt_hx")
    lengths: tuple[int, ...] = (100, 300)
    stacks: tuple[int, ...] = (1, 32, 216, 1024)
    words: tuple[str, ...] = ()
    """Override lines for all runs."""
    seconds: float = 1.0
    """For one cell of the table of times."""
    tests: str = ""
    """pytest's -k."""
    length: int = 100
    """T of the grid."""
    points: int | None = None
    """How many points of the grid; None: all."""
    grid_seconds: float = 180.0
    processes: tuple[int, ...] = (16, 4, 1)
    process_seconds: float = 9.0
    square: int = 8192
    """Rows of the matrices by which the card's rate is measured."""
    patience: float = 1.0
    """Factor of the parts' time limits."""


FULL = Sizes()
SMALL = Sizes(
    first=("tptt",),
    then=("bptt",),
    lengths=(10,),
    stacks=(1, 3),
    words=("model.H=8", "train.check_every=5", "train.validation_size=100", "train.success_error=null"),
    seconds=0.01,
    tests="data_are_those and adding",
    length=10,
    points=4,
    grid_seconds=0.5,
    processes=(2,),
    process_seconds=0.5,
    square=64,
    patience=10.0,
)
"""For a rehearsal: all that is done on a GPU, in seconds."""
