"""A trained network on other data: `tprnn evaluate RUN task.T=100,200,500`, and `tprnn.load(run)`."""

from __future__ import annotations

import itertools
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from tprnn.arguments import DEFAULT, Parser, existing_folder, take_outputs
from tprnn.config import MEMBER_KINDS, RunSpec
from tprnn.core.streams import Draws, Stream
from tprnn.engine.ensemble import Ensemble, prepare_process
from tprnn.engine.memory import ran_out
from tprnn.errors import DamagedFile, UserError, nearest
from tprnn.members import find, missing
from tprnn.readouts.base import Answers
from tprnn.store import CONFIG, MODEL, RunFolder, Store
from tprnn.tasks.base import Batch
from tprnn.trainers.base import State


@dataclass(frozen=True)
class Network:
    """A trained network: the spec of its run and its parameters by the paper's names.

    Batches and what it says of them have the runs axis of every tensor of tprnn, here of one run:
    S steps carry an output, O is its width, B counts sequences.
    """

    spec: RunSpec
    params: dict[str, Tensor]
    """By name, without the runs axis, e.g. W_hh [H, H]; the rule's own (V_hh of target propagation) too."""

    @cached_property
    def _ensemble(self) -> Ensemble:
        return Ensemble([self.spec], "cpu", State({name: w.unsqueeze(0).clone() for name, w in self.params.items()}))

    def sample(self, sequences: int, position: int = 0) -> Batch:
        """A batch (R = 1) of the run's task from its test stream; other positions give other sequences."""
        return self._ensemble.draw("test", position, sequences)[0]

    def predict(self, batch: Batch) -> Tensor:
        """What the network answers, of the shape and kind of `batch.targets`.

        Classes [1, S, B], the likeliest ones, or the mean of what is read [1, S, B, D]: values, or probabilities of
        bits. Raises UserError as `fitting` does.
        """
        answers = self._answers(batch)
        return answers.classes if answers.reader.targets == "classes" else answers.expected.clone()

    def answers(self, batch: Batch) -> Tensor:
        """Raw outputs of the read-out (logits of classes, or values) [1, S, B, O]. Raises UserError."""
        return self._answers(batch).y.clone()

    def _answers(self, batch: Batch) -> Answers:
        ensemble, draws = self._ensemble, self._draws
        return ensemble.model.answers(ensemble.state.params, self.fitting(batch), draws)[0]

    @property
    def _draws(self) -> Draws | None:
        """What states are drawn by, where they are: the same for every batch."""
        ensemble = self._ensemble
        return Draws(Stream(ensemble.seeds.data, "predict"), 0) if ensemble.model.drawn else None

    def states(self, batch: Batch) -> Tensor:
        """Hidden states h_0 .. h_T, [1, T + 1, B, H]. Raises UserError."""
        return self._ensemble.model.forward(self._ensemble.state.params, self.fitting(batch), self._draws).h.clone()

    def fitting(self, batch: Batch) -> Batch:
        """The batch in the network's precision. Raises UserError where it is none of the kind of the network's task."""
        own = self.sample(1)
        for name in ("inputs", "targets"):
            given, expected = getattr(batch, name), getattr(own, name)
            kinds = [(x.dim(), x.shape[0], x.shape[3:], x.is_floating_point()) for x in (given, expected)]
            if kinds[0] != kinds[1]:
                task = self.spec.config["task"]["name"]
                raise UserError(
                    f"batch: {name} are {_shape(given)}; task={task} has {_shape(expected)} "
                    "(runs, steps, sequences), with any number of steps and sequences"
                )
        return batch.cast(self._ensemble.dtype)

    def score(self, sequences: int = 10_000) -> float:
        """The mean of the task's score over that many test sequences, a share of right answers for most tasks.

        Of a test set that has fewer, over all of it.
        """
        ensemble, sequences, total = self._ensemble, self.there(sequences), 0.0
        for position in range(math.ceil(sequences / 1000)):
            drawn = ensemble.draw("test", position, min(1000, sequences - 1000 * position))
            total += float(ensemble.judge(*drawn)[0])
        return total / sequences

    def there(self, sequences: int) -> int:
        """How many of so many sequences the test set has: all of them, where they are drawn without end."""
        return min(sequences, self._ensemble.sizes.get("test", sequences))

    def on(self, changes: Mapping[str, Any]) -> Network:
        """The same weights on another setting of the task, e.g. ``{"task.T": 200}``. Raises UserError."""
        other = replace(self, spec=self.spec.replace(changes))
        expected = other._ensemble.trainer.shapes()
        for name, w in self.params.items():
            if tuple(w.shape) != expected.get(name):
                raise UserError(f"{name}: the run has {tuple(w.shape)}, the changed config needs {expected.get(name)}")
        return other


def load(run: str | Path, outputs: str | Path = DEFAULT) -> Network:
    """The trained network of a run folder: its path, or its name or signature in `outputs`. Raises UserError."""
    folder = run_folder(run, outputs)
    stored = folder.read_spec()
    _check_members(folder, stored)
    spec = RunSpec.from_config({**stored.as_dict(), "code": "any"})
    model = folder.load_model()
    if model is None:
        raise UserError(f"{folder.path}: no trained network yet (no {MODEL}); run it to its end first")
    params = model[0]
    expected = Ensemble([spec]).trainer.shapes()
    if {name: tuple(w.shape) for name, w in params.items()} != expected:
        raise DamagedFile(f"{folder.path / MODEL}: damaged (not the parameters of its config); it is left as it is")
    return Network(spec, {name: params[name] for name in expected})


def _check_members(folder: RunFolder, stored: RunSpec) -> None:
    """Raise UserError where a member of a run is not here; warn where its code is another one than when it was made."""
    for kind in MEMBER_KINDS:
        group = stored.config[kind]
        if "code" not in group:
            continue
        try:
            source = find(kind, group["rule"]).source
        except UserError as error:
            recorded = ((folder.result() or {}).get("code") or {}).get(kind) or {}
            told = missing(kind, group["rule"], recorded, folder.shared_config().get("plugins") or [])
            raise UserError(f"{folder.path}: {told}") from error
        if source is not None and source.hash != group["code"]:
            warnings.warn(f"{folder.path}: made by other code than {source.place} has now", stacklevel=3)


def run_folder(run: str | Path, outputs: str | Path = DEFAULT) -> RunFolder:
    """The folder of a run: its path, or its name or signature in `outputs`. Raises UserError."""
    path = Path(run)
    if os.path.exists(path / CONFIG):
        return RunFolder(path)
    known = {folder.name: folder for folder in Store(outputs).folders()}
    matches = [name for name in known if name == str(path) or name.endswith(f"-{path}")]
    if len(matches) == 1:
        return known[matches[0]]
    told = nearest(path.name, known) if known else f"'{outputs}' has none"
    raise UserError(f"run '{path}': no run folder there; {told}")


def _shape(x: Tensor) -> str:
    """A tensor in words, e.g. `real numbers [1, 10, 20, 2]`."""
    return f"{'real numbers' if x.is_floating_point() else 'integers'} {list(x.shape)}"


def main(argv: Sequence[str]) -> int:
    """`tprnn evaluate`: one line of a table for each combination of the changed values."""
    parser = Parser("tprnn evaluate", "Test a trained network, on other lengths or readings too.")
    parser.add_argument("run", help="run folder, or its name or signature in outputs=DIR (default: outputs)")
    parser.add_argument("changes", nargs="*", help="task settings, e.g. task.T=100,200 task.reading=paper")
    parser.add_argument("--sequences", metavar="N", default="10000", help="test sequences (default 10000)")
    named, words = take_outputs(argv)
    args = parser.parse_intermixed_args(words)
    if not args.sequences.isascii() or not args.sequences.isdigit() or int(args.sequences) < 1:
        raise UserError(f"--sequences: expected a whole number of at least 1, got '{args.sequences}'")
    network = load(args.run, existing_folder(named))
    axes = [_axis(change) for change in args.changes]
    others = [network.on(dict(point)) for point in itertools.product(*axes)]
    prepare_process(network.spec.execution["threads"])
    print(_table(others, [axis[0][0] for axis in axes], int(args.sequences)))
    return 0


def _axis(change: str) -> list[tuple[str, Any]]:
    """`task.T=100,200` as [("task.T", 100), ("task.T", 200)]. Raises UserError."""
    key, equals, values = change.partition("=")
    if not equals or not key.startswith("task."):
        raise UserError(f"'{change}': expected task.KEY=VALUE, e.g. task.T=200")
    try:
        return [(key, yaml.safe_load(value)) for value in values.split(",")]
    except (yaml.YAMLError, ValueError):
        raise UserError(f"'{change}': cannot read '{values}'; expected values with commas between them") from None


def _table(networks: Sequence[Network], keys: Sequence[str], sequences: int) -> str:
    from tabulate import tabulate

    rows, score = [], networks[0].spec.score
    for network in networks:
        task = network.spec.config["task"]
        changed = [task[key.removeprefix("task.")] for key in keys]
        try:
            value = network.score(sequences)
        except Exception as error:
            if (told := ran_out(error)) is None:
                raise
            point = " ".join(f"{key}={value}" for key, value in zip(keys, changed, strict=True))
            raise UserError(f"{point or task['name']}: {told}; give less of it") from error
        rows.append([task["name"], *changed, score.show(value), network.there(sequences)])
    return tabulate(rows, ["task", *keys, score.name, "sequences"], tablefmt="github", disable_numparse=True)
