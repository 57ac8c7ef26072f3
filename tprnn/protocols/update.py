"""One update of a rule: what it changes in a given network on a given batch, so that rules can be laid side by side.

Manchev and Spratling (2020) measure how far two rules agree by the angle between their updates of W_hh
(their figure 5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tprnn.compose import Composer, composer_for
from tprnn.config import RunSpec, set_dotted
from tprnn.engine.ensemble import Ensemble, prepare_process
from tprnn.errors import UserError
from tprnn.listing import members
from tprnn.protocols.evaluate import Network, load
from tprnn.protocols.host import torch_as_it_was
from tprnn.tasks.base import Batch

if TYPE_CHECKING:
    from pandas import DataFrame

_KINDS = ("trainer", "optimizer")
_DTYPE = "float64"
"""Of float32 weights near 0.1 a change is known to 1e-8 only, which may be all that there is of it."""


@dataclass(frozen=True)
class Update:
    """What one iteration of a rule changes."""

    spec: RunSpec
    """The run whose first iteration this would be."""
    loss: float
    """E of the batch before the update."""
    changes: dict[str, Tensor]
    """Delta w = w_after - w_before of every parameter by name, the rule's own included; without the runs axis."""

    def angles(self, other: Update) -> dict[str, float]:
        """Degrees between the two changes of each parameter that both have; nan where one of them is zero.

        arccos(<A, B> / (||A|| ||B||)) (manchev2020, section 3.1.1), computed as 2 atan2(||a - b||, ||a + b||) of the
        normalised a, b, which is the same and keeps its digits near 0 and 180 degrees.
        """
        return {name: _angle(a, b) for name, a, b in self._pairs(other)}

    def ratios(self, other: Update) -> dict[str, float]:
        """||A|| / ||B|| of each parameter that both have, B of the other; nan where B is zero."""
        return {name: _ratio(_norm(a), _norm(b)) for name, a, b in self._pairs(other)}

    def beside(self, other: Update) -> DataFrame:
        """A row for each parameter that both have: `norm`, `other` (the norm of the other's), `ratio`, `angle`."""
        from pandas import DataFrame

        pairs = self._pairs(other)
        columns = {
            "norm": [_norm(a) for _, a, _ in pairs],
            "other": [_norm(b) for _, _, b in pairs],
            "ratio": list(self.ratios(other).values()),
            "angle": list(self.angles(other).values()),
        }
        return DataFrame(columns, index=[name for name, _, _ in pairs])

    def _pairs(self, other: Update) -> list[tuple[str, Tensor, Tensor]]:
        """Name and both changes, in float64. Raises UserError where the networks are not alike."""
        found = []
        for name, a in self.changes.items():
            if (b := other.changes.get(name)) is None:
                continue
            if a.shape != b.shape:
                raise UserError(f"{name}: updates of different networks, {list(a.shape)} and {list(b.shape)}")
            found.append((name, a.double(), b.double()))
        return found


def update(network: Network | str | Path, *lines: str, batch: Batch, iteration: int = 0) -> Update:
    """What one iteration of a rule changes in a network on a batch; the network itself stays as it is.

    The rule, its settings and the optimizer are those of the network's run, but for what the lines give, e.g.
    "trainer=tptt", "trainer.alpha_f=0.1", "optimizer=sgd". The optimizer starts afresh. Parameters of the rule that the
    network lacks (V_hh, c_h of target propagation) begin as they do in a run of its seed. All is computed in float64
    but with "dtype=float32".

    Args:
        network: a network, or the run whose network is loaded.
        lines: as on the command line, for trainer, optimizer and dtype.
        batch: of the network's task, R = 1.
        iteration: what the rule draws at random (noise, phases) is that of this iteration.

    Raises UserError.
    """
    known = network if isinstance(network, Network) else load(network)
    spec = _with_rule(known.spec, lines)
    ensemble = Ensemble([spec])
    params = ensemble.state.params
    begun = Ensemble([spec.replace({"dtype": known.spec.config["dtype"]})]).state.params
    for name, w in params.items():
        own = known.params.get(name)
        w.copy_(own if own is not None and own.shape == w.shape[1:] else begun[name])
    before = {name: w.clone() for name, w in params.items()}
    given = known.fitting(batch).cast(ensemble.dtype)
    with torch_as_it_was(), torch.inference_mode():
        prepare_process(spec.execution["threads"])
        loss = ensemble.trainer.step(ensemble.state, given, torch.tensor([iteration]))
    changes = {name: (w - before[name])[0] for name, w in ensemble.state.params.items()}
    return Update(spec, float(loss), changes)


def _with_rule(spec: RunSpec, lines: Sequence[str]) -> RunSpec:
    """The spec with the rule and the optimizer of the lines. Raises UserError."""
    for line in lines:
        if not isinstance(line, str) or line.partition("=")[0].partition(".")[0] not in (*_KINDS, "dtype"):
            raise UserError(
                f"tprnn.update: {line!r}: an update is of the network's own task and sizes; "
                "give trainer=NAME, trainer.KEY=VALUE, optimizer=NAME, optimizer.KEY=VALUE or dtype=NAME"
            )
    composer, point = _point(spec, lines)
    read = [composer.parse(line) for line in point]
    composed = composer.config([line for line, one in zip(point, read, strict=True) if composer.is_choice(one)])
    config: dict[str, Any] = spec.as_dict() | {"dtype": _DTYPE}
    for kind in _KINDS:
        if any(line.startswith(f"{kind}=") for line in lines):
            config[kind] = composed[kind]
    for one in read:
        if not composer.is_choice(one):
            set_dotted(config, one.key_or_group, one.value())
    return RunSpec.from_config(config)


def _point(spec: RunSpec, lines: Sequence[str]) -> tuple[Composer, list[str]]:
    """The lines as those of one run that has the members of `spec` where they choose none. Raises UserError."""
    composer, given = composer_for(lines)
    chosen = {line.partition("=")[0] for line in lines}
    added = [f"task={members('task')[0][0]}"]  # no run is without; which one does not matter here
    for kind in _KINDS:
        if kind not in chosen:
            name, rule = spec.config[kind]["name"], spec.config[kind]["rule"]
            added.append(f"{kind}={name if name in composer.members_of(kind) else rule}")
    return composer, composer.alone([*added, *given])


def _norm(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x))


def _ratio(a: float, b: float) -> float:
    return a / b if b else math.nan


def _angle(a: Tensor, b: Tensor) -> float:
    norms = _norm(a), _norm(b)
    if not all(norms):
        return math.nan
    u, v = a / norms[0], b / norms[1]
    return math.degrees(2 * math.atan2(_norm(u - v), _norm(u + v)))
