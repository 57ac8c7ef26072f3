"""The runs of one slab, from one check to the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from tprnn.config import RunSpec
from tprnn.core.products import norm
from tprnn.engine.runs import Check, Run, stop_reason
from tprnn.engine.signals import Stop
from tprnn.engine.slab import Slab

_CPU_SLAB = 8  # runs; measured, see docs/architecture.md


class Group:
    """Runs at the same iteration, with the slab that computes them."""

    def __init__(self, runs: list[Run], slab: Slab) -> None:
        self.runs, self.slab = runs, slab
        self.saved_at = time.monotonic()
        self.before: dict[str, Tensor] = {}
        slab.loss_sum += slab.loss_sum.new_tensor([run.progress.loss_sum for run in runs])

    @staticmethod
    def slab_size(spec: RunSpec) -> int:
        """How many runs are computed at once on the spec's device."""
        return _CPU_SLAB if spec.execution["device"] == "cpu" else spec.execution["stack_size"]

    def block(self, stop: Stop) -> bool:
        """Iterate up to the next check, or until `stop` is set; whether the check was reached."""
        train, slab = self.slab.train, self.slab
        first = self.runs[0].progress.iteration
        last = min((first // train.check_every + 1) * train.check_every, train.max_iterations)
        position = first
        while position < last and not stop.is_set():
            if position == last - 1 and self.runs[0].spec.probe.update_norms:
                self.before = {name: w.clone() for name, w in slab.state.params.items()}
            slab.advance(position)
            position += 1
        for run, loss_sum in zip(self.runs, slab.loss_sum.tolist(), strict=True):
            run.progress.iteration, run.progress.loss_sum = position, loss_sum
        return position == last

    def check(
        self, started: float, emit: Callable[[str, RunSpec, dict[str, Any]], None]
    ) -> list[tuple[Run, str, Check]]:
        """Validate, write the metrics, and say which runs end and why. `started`: when the block began."""
        train, slab = self.slab.train, self.slab
        iteration = self.runs[0].progress.iteration
        number = -(-iteration // train.check_every) - 1  # checks before this one
        since = iteration - number * train.check_every
        full = (number + 1) % train.full_check_every == 0 or iteration >= train.max_iterations
        mistakes, validated = (counts.tolist() for counts in slab.validate(number, full))
        finite = slab.finite().tolist()
        probed = self._probes()
        radii = {name: values.tolist() for name, values in self._radii().items()}
        seconds = (time.perf_counter() - started) / len(self.runs)
        ended = []
        for i, run in enumerate(self.runs):
            progress = run.progress
            loss, progress.loss_sum = progress.loss_sum / since, 0.0
            known = [values[i] for values in radii.values() if values[i] == values[i]]
            radius = max(known, default=float("nan"))
            check = Check(iteration, loss, mistakes[i], validated[i], finite[i] and abs(loss) < float("inf"), radius)
            progress.seconds += seconds
            progress.checks_since_best += 1
            reason = self._judge(run, check)
            if reason and check.validated < train.validation_size:  # what is reported is always of the full set
                wrong, seen = slab.select([i]).validate(number, True)
                check = replace(check, mistakes=int(wrong), validated=int(seen))
                reason = self._judge(run, check)
            row = {
                "iteration": iteration,
                "loss": check.loss,
                "accuracy": 1.0 - check.error,
                "validated": check.validated,
                "seconds": round(progress.seconds, 3),
            }
            if run.spec.probe.spectral_radius:
                row |= {f"rho_{name}": values[i] for name, values in radii.items()}
            row |= {f"norm_{name}": values[i] for name, values in probed.items()}
            run.folder.append_metrics([row])
            emit("check", run.spec, row)
            if reason:
                ended.append((run, reason, check))
        slab.loss_sum.zero_()
        return ended

    def _judge(self, run: Run, check: Check) -> str | None:
        """Take in the errors of full sets, and say why the run ends, if it does.

        A part of a set is noisier than the whole: the best of hundreds of parts would never be bettered.
        """
        progress, train = run.progress, self.slab.train
        if check.validated == train.validation_size:
            progress.best_accuracy = max(progress.best_accuracy, 1.0 - check.error)
            if check.error < progress.best_error:
                progress.best_error, progress.checks_since_best = check.error, 0
        return stop_reason(check, progress, train)

    def _radii(self) -> dict[str, Tensor]:
        probe = self.runs[0].spec.probe.spectral_radius
        return self.slab.radii(None if probe else self.slab.train.spectral_radius_limit or float("inf"))

    def _probes(self) -> dict[str, list[float]]:
        """Norm of the last update of each parameter, where asked for."""
        before, self.before = self.before, {}
        return {name: norm(self.slab.state.params[name] - w).tolist() for name, w in before.items()}

    def tensors_of(self, run: Run, parameters: bool = False) -> dict[str, Tensor]:
        """One run's tensors without the runs axis: all of its state, or the parameters alone by name."""
        i = self.runs.index(run)
        tensors = self.slab.state.params if parameters else self.slab.state.flat()
        return {name: value[i] for name, value in tensors.items()}

    def checkpoint(self) -> None:
        """Save where every run stands."""
        for run in self.runs:
            run.folder.save_checkpoint(self.tensors_of(run), run.progress.as_dict())
        self.saved_at = time.monotonic()

    def checkpoint_if_due(self) -> None:
        """Save when `checkpoint_seconds` have passed since the last time."""
        if self.runs and time.monotonic() - self.saved_at >= self.runs[0].spec.execution["checkpoint_seconds"]:
            self.checkpoint()

    def keep(self, indices: Sequence[int]) -> None:
        """Let all other runs go."""
        if len(indices) < len(self.runs):
            self.runs = [self.runs[i] for i in indices]
            if self.runs:
                self.slab = self.slab.select(indices)
